/* The residual stream in one pass: the op's arguments; the kernels stand in norm_rows.cu. */
#include "cuda_device.h"
#include "norm_rows.h"

fw_status cuda_residual_norm_forward(fw_device *device, const fw_residual_norm *p,
                                     fw_error *error) {
    const char *op = "residual_norm_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(kernel_check_residual_forward(p, FW_BF16, CUDA_MAX_WIDTH, error));
    return cuda_norm_rows_forward(cuda_self(device), op, p, error);
}

fw_status cuda_residual_norm_backward(fw_device *device, const fw_residual_norm *p,
                                      fw_error *error) {
    const char *op = "residual_norm_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    int64_t rows = 0, width = 0;
    FW_TRY(kernel_check_residual_backward(p, FW_BF16, CUDA_MAX_WIDTH, &rows, &width, error));
    return cuda_norm_rows_backward(cuda_self(device), op, p, rows, width, error);
}
