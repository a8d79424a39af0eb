/* Quantiles of a row without sorting it. */
#ifndef FAIRWAY_QUANTIZER_QUANTILE_H
#define FAIRWAY_QUANTIZER_QUANTILE_H

#include <stdint.h>

/* The p-quantile of n >= 1 finite values, linearly interpolated between the two order statistics
 * around rank p * (n - 1), everything in float32. Reorders `values`. [deterministic] */
float quantile(float *values, int64_t n, float p);

/* The same for each of p[0] <= p[1] <= ..., at little more than the price of the first. */
void quantiles(float *values, int64_t n, const float *p, int n_p, float *out);

#endif
