/* What a coin test found, as lines of a table and as an object of the receipt. */
#ifndef FAIRWAY_COIN_REPORT_H
#define FAIRWAY_COIN_REPORT_H

#include <cjson/cJSON.h>

#include "coin_test.h"

/* The lines, to standard output. */
void coin_print(const struct coin_result *result, const struct experiment *experiment);

/* {"seed", "seconds", PASS: {"tokens", "cost_bits", "model"|"cached"|"counterpart":
 * {"bits", "gain_bits", "valid"}}} */
cJSON *coin_json(const struct coin_result *result);

#endif
