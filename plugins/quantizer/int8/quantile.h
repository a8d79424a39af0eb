/* Quantiles of a row without sorting it. */
#ifndef FAIRWAY_QUANTIZER_QUANTILE_H
#define FAIRWAY_QUANTIZER_QUANTILE_H

#include <stdint.h>

/* The p-quantile of n >= 1 finite values, linearly interpolated between the two order statistics
 * around rank p * (n - 1), everything in float32. Reorders `values`. [deterministic] */
float quantile(float *values, int64_t n, float p);

#endif
