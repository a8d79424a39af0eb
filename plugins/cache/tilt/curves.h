/* Exponentials and logarithms of many numbers at once, and a search. They are made of correctly
 * rounded additions, products and divisions alone, so every machine gives the same bits
 * whatever its vectors are; libm's do not promise that. */
#ifndef TILT_CURVES_H
#define TILT_CURVES_H

#include <stdint.h>

/* Arrays are read and written up to the next multiple of this; what lies there does not matter. */
enum { CURVES_AT_ONCE = 8 };

/* What is done with n numbers, as one kind of processor does it. Arrays must not overlap. */
typedef struct curves {
    /* ratio[i] = log(1 + mass[i] / (share * p[i])), p[i] counted as 2^-100 at least; mass >= 0. */
    void (*log_ratios)(uint32_t n, const double *mass, const double *p, double share,
                       double *ratio);
    /* gain[i] = e^x[i] for |x[i]| <= 600, to a relative 1e-12. */
    void (*gains)(uint32_t n, const double *x, double *gain);
    /* Which of n numbers are above `least`: their indices, in order; returns how many. Reads no
     * further than n. */
    uint32_t (*above)(uint32_t n, const double *p, double least, uint32_t *indices);
} curves;

/* The fastest that this processor can. */
const curves *curves_here(void);

/* All n that it can, the fastest last. They agree in every bit; only tests need them apart. */
const curves *const *curves_all(uint32_t *n);

#endif
