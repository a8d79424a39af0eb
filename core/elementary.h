/* The arithmetic that scores rest on: exponential and sums of a row, and the logarithm. All of it
 * is made of correctly rounded operations alone (additions, products, fused multiply-add) in an
 * order of its own, so every machine and every library gives the same bits; those of libm differ
 * between versions.
 *
 * Methods: reduction by powers of two and a polynomial, as in Muller, "Elementary Functions"
 * (2016), chapters 3 and 11. Both functions are off by less than one unit in the last place (0.98
 * and 0.80 at most, where looked). Sums run in sixteen lanes, element i in lane i % 16, which are
 * added in order at the end. */
#ifndef FAIRWAY_ELEMENTARY_H
#define FAIRWAY_ELEMENTARY_H

#include <stdint.h>

/* Natural logarithm. 0 gives -infinity, what is negative or not a number gives not a number. */
double elementary_log(double x);

/* What is done with rows of n numbers, as one kind of processor does it. */
struct elementary_rows {
    /* y[i] = e^x[i]. Below -708, where doubles lose precision, 0; above 709 infinity; not a number
     * stays so. */
    void (*exp)(const float *x, uint32_t n, double *y);
    double (*sum)(const double *y, uint32_t n);
    double (*dot)(const double *y, const float *x, uint32_t n); /* sum of y[i] x[i] */
    void (*scale)(double *y, uint32_t n, double factor);
};

/* The fastest that this processor can. */
const struct elementary_rows *elementary_rows(void);

/* All that this processor can, the fastest last. They agree in every bit; only tests and benchmarks
 * need them apart. */
const struct elementary_rows *elementary_all(uint32_t *n);

#endif
