/* Relative errors, in float64, and the largest of several. */
#ifndef GOLDEN_DISTANCE_H
#define GOLDEN_DISTANCE_H

#include <stdint.h>

/* A difference against its expectation's length; not a number counts as infinite. */
struct error_sum {
    double difference, expected; /* sums of squares */
};
void error_add(struct error_sum *sum, double actual, double expected);
double error_of(const struct error_sum *sum); /* with nothing expected: the difference's length */

/* |a - b| / |b| in the Euclidean norm; max |a - b| / max |b|. */
double norm_error(const float *actual, const float *expected, int64_t n);
double largest_error(const float *actual, const float *expected, int64_t n);

struct worst {
    double error;
    char where[96];
};
void worst_add(struct worst *worst, double error, const char *where);

#endif
