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

/* Standard normal (Box and Muller). */
double random_normal(struct random *random);

#endif
