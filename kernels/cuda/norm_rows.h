/* The kernels that rmsnorm and residual_norm share, behind the checks of either op. */
#ifndef FAIRWAY_CUDA_NORM_ROWS_H
#define FAIRWAY_CUDA_NORM_ROWS_H

#include "cuda_device.h"

/* residual_norm_forward and _backward on checked arguments, for `op` in messages. More than the
 * op's contract: `sum` may be absent in forward, where it is not stored. */
fw_status cuda_norm_rows_forward(cuda_device *cuda, const char *op, const fw_residual_norm *p,
                                 fw_error *error);
fw_status cuda_norm_rows_backward(cuda_device *cuda, const char *op, const fw_residual_norm *p,
                                  int64_t rows, int64_t width, fw_error *error);

#endif
