/* Products of small tiles whose operands are already in cache, for attention: a general BLAS spends
 * much of such a call on packing. */
#ifndef FAIRWAY_CPU_TILE_H
#define FAIRWAY_CPU_TILE_H

#include <stdint.h>

/* c[m x n] (+)= a b with b [k x n]. Element (i, l) of a stands at a[i * a_row + l * a_step], so a
 * may be a transposed view; one of the two steps is 1. */
typedef struct cpu_tile {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_step;
    const float *b;
    int64_t b_stride;
    float *c;
    int64_t c_stride;
    int accumulate;
} cpu_tile;

void cpu_tile_multiply(const cpu_tile *tile);

#endif
