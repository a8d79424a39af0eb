/* RMS normalisation over the last dimension, forward and backward (Zhang and Sennrich, 2019): a
 * residual sum of one term that is not stored, and the way back along its norm alone. */
#include "cuda_device.h"
#include "norm_rows.h"

static fw_status check(const char *op, const fw_rmsnorm *p, fw_error *error) {
    FW_TRY(cuda_check_matrix(op, "x", &p->x, FW_BF16, -1, -1, error));
    if (p->x.shape[1] > CUDA_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: x has %lld columns, at most %d are supported",
                       op, (long long)p->x.shape[1], CUDA_MAX_WIDTH);
    return cuda_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, p->x.shape[0], error);
}

fw_status cuda_rmsnorm_forward(fw_device *device, const fw_rmsnorm *p, fw_error *error) {
    const char *op = "rmsnorm_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cuda_check_matrix(op, "out", &p->out, FW_BF16, p->x.shape[0], p->x.shape[1], error));
    const fw_residual_norm norm = {.struct_size = sizeof norm,
                                   .epsilon = p->epsilon,
                                   .scale = p->scale,
                                   .a = p->x,
                                   .out = p->out,
                                   .inverse_rms = p->inverse_rms};
    return cuda_norm_rows_forward(cuda_self(device), op, &norm, error);
}

fw_status cuda_rmsnorm_backward(fw_device *device, const fw_rmsnorm *p, fw_error *error) {
    const char *op = "rmsnorm_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    const int64_t rows = p->x.shape[0], width = p->x.shape[1];
    FW_TRY(cuda_check_matrix(op, "d_out", &p->d_out, FW_BF16, rows, width, error));
    FW_TRY(cuda_check_matrix(op, "d_x", &p->d_x, FW_BF16, rows, width, error));
    const fw_residual_norm norm = {.struct_size = sizeof norm,
                                   .epsilon = p->epsilon,
                                   .scale = p->scale,
                                   .sum = p->x,
                                   .inverse_rms = p->inverse_rms,
                                   .d_sum = p->accumulate ? p->d_x : fw_absent(),
                                   .d_out = p->d_out,
                                   .d_a = p->d_x};
    return cuda_norm_rows_backward(cuda_self(device), op, &norm, rows, width, error);
}
