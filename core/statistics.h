/* The statistics of repeated runs: mean, sample deviation, and Welch's test, which asks whether one
 * set of scores lies below another by more than a margin without assuming equal variances. */
#ifndef FAIRWAY_STATISTICS_H
#define FAIRWAY_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

/* Equal values give exactly that value. NAN for n = 0. */
double statistics_mean(const double *values, size_t n);

/* Sample standard deviation (divisor n - 1); NAN for n < 2. Equal values give exactly 0. */
double statistics_deviation(const double *values, size_t n);

/* I_x(a, b), the regularised incomplete beta function, for a, b > 0 and 0 <= x <= 1. */
double incomplete_beta(double a, double b, double x);

/* P(T >= t) for Student's t with `df` > 0 degrees of freedom (any real number). */
double student_upper(double t, double df);

struct welch {
    double difference; /* mean(a) - mean(b) */
    double t, df;      /* of the margin test; df NAN when both variances are zero */
    double p;          /* one-sided */
};

/* H0: mean(a) >= mean(b) - margin; a small p says that a is lower than b by more than `margin`.
 * Without any variance the difference itself decides: p is 0 when it is more than the margin, else
 * 1. False when a side has fewer than 2 values; then only `difference` is set. */
bool welch_test(const double *a, size_t n_a, const double *b, size_t n_b, double margin,
                struct welch *result);

#endif
