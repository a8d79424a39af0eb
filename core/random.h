/* Seeded random numbers that are the same on every machine: SplitMix64 (Steele, Lea and Flood,
 * 2014). */
#ifndef FAIRWAY_RANDOM_H
#define FAIRWAY_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state;
};

struct random random_seeded(uint64_t seed);
uint64_t random_bits(struct random *random);

/* Uniform in [0, n), without bias; n > 0. */
uint64_t random_below(struct random *random, uint64_t n);

/* An index below n, each by its probability; these are not negative and sum to 1 nearly enough. One
 * draw of 53 bits decides, so that what is less likely than 2^-53 has no exact chance. */
uint32_t random_pick(struct random *random, const double *probabilities, uint32_t n);

/* Standard normal (Box and Muller). */
double random_normal(struct random *random);

#endif
