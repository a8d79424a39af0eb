/* A float64 twin of Muon's Newton-Schulz iterations, with or without the rounding to bfloat16 of
 * the reference implementation. Source of the iteration: Jordan et al., "Muon", 2024. */
#ifndef GOLDEN_NEWTON_SCHULZ_H
#define GOLDEN_NEWTON_SCHULZ_H

#include <stddef.h>
#include <stdint.h>

double round_to_bf16(double value); /* nearest even */
double round_to_nothing(double value);

/* Five iterations of X <- a X + (b A + c A A) X, A = X X^T, from X = g / (|g| + 1e-7), on the wide
 * orientation of g [rows, columns]; `keep` rounds every matrix that is stored. */
void newton_schulz(const double *g, size_t rows, size_t columns, double (*keep)(double),
                   double *out);

/* The same, rounded to bfloat16, with matrix products off by as much as sums in float32 are, as
 * `seed` has it (0: not at all). What falls near a halfway case may then go to the other side. */
void newton_schulz_bf16(const double *g, size_t rows, size_t columns, uint64_t seed, double *out);

#endif
