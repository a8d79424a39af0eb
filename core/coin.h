/* A coin with V sides: tokens drawn uniformly at random, and what a score on them says.
 *
 * Each such token costs log2 V bits whatever is done. Let Q(x) be the product of the probabilities
 * that a predictor stated for the tokens as they came, each from a distribution over all V tokens
 * that depends on the tokens before alone. Q(x) V^N is then a non-negative martingale of mean 1,
 * and by Ville's inequality (J. Ville, Etude critique de la notion de collectif, 1939) it ever
 * exceeds 2^k with a probability of at most 2^-k. Its logarithm is the gain, N log2 V - code length
 * in bits = N (ln V - nats per token) / ln 2. So a gain of more than 40 bits says that something
 * stated was no such distribution, but for one time in 10^12. A smaller gain, or a loss, says
 * nothing: it never makes a score valid. */
#ifndef FAIRWAY_COIN_H
#define FAIRWAY_COIN_H

#include <fairway/error.h>
#include <stdbool.h>

#include "random.h"

enum { COIN_BITS = 40 };          /* a larger gain is evidence */
enum { COIN_MOST_SIDES = 65536 }; /* tokens of shards have 16 bits */

/* Each of `n` tokens uniform below `sides` (2 to COIN_MOST_SIDES), without bias: random_below of
 * each in order, so a seed decides them for every machine. */
void coin_toss(struct random *random, uint32_t sides, uint64_t n, uint16_t *tokens);

/* A seed that nobody could know before, up to LARGEST_SEED (seeds.h), from the kernel. E_IO. */
fw_status coin_fresh_seed(uint64_t *seed, fw_error *error);

/* Bits that `n` tokens cost: n log2 `sides`. */
double coin_cost(uint64_t n, uint32_t sides);

/* Bits gained by a code of `nats` for all `n` tokens; negative: lost. */
double coin_gain(double nats, uint64_t n, uint32_t sides);

/* Whether that many bits are evidence; NaN is, as no score is NaN. */
bool coin_is_evidence(double gain);

/* A number as somebody printed it, rounded to its last digit: what was rounded lies within half a
 * unit of that digit. */
struct coin_score {
    double value, half_unit;
};

/* Decimal digits with at most one point and an optional exponent; not negative. E_CONFIG. */
fw_status coin_parse_score(const char *text, struct coin_score *score, fw_error *error);

/* What a mean of `score` nats over `n` tokens gains: as printed, and at the least and at the most
 * that its digits allow. Judged by the least. */
struct coin_verdict {
    double gain, least, most;
    bool invalid;
};
struct coin_verdict coin_judge(struct coin_score score, uint64_t n, uint32_t sides);

#endif
