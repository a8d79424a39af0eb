/* What a coin test (coin_test.h) found: as numbers, verdicts, lines of a table, an object of the
 * receipt. */
#ifndef FAIRWAY_COIN_RESULT_H
#define FAIRWAY_COIN_RESULT_H

#include "coin.h"
#include "config.h"
#include "verdicts.h"

enum coin_rows { COIN_UNIFORM, COIN_MODEL, COIN_DRAWN, COIN_PASSES };

struct coin_line {
    bool made;
    double bits; /* of the code of all tokens */
    double gain; /* bits that it is shorter than the cost of the tokens: evidence above COIN_BITS */
};

struct coin_pass {
    uint64_t tokens; /* scored; 0: this pass was not made */
    double cost;     /* bits that they cost whoever is honest */
    struct coin_line model, cache, counterpart;
};

struct coin_result {
    uint64_t seed;
    struct coin_pass passes[COIN_PASSES];
    double seconds;
};

/* "uniform", "model", "drawn". */
const char *coin_rows_name(enum coin_rows rows);

/* Add model.coin, cache.coin-uniform, counterpart.coin-drawn and so on, which fail with what they
 * gained. Of a pass that costs no more than COIN_BITS they are skipped: nobody could fail it. */
void coin_add_verdicts(const struct coin_result *result, struct verdicts *verdicts);

/* The lines, to standard output; nothing where there was no test. */
void coin_print(const struct coin_result *result, const struct experiment *experiment);

/* {"seed", "seconds", PASS: {"tokens", "cost_bits", "model"|"cached"|"counterpart":
 * {"bits", "gain_bits", "valid"}}}; NULL where there was no test. */
cJSON *coin_json(const struct coin_result *result);

#endif
