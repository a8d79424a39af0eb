/* The residual stream in one pass: checks of the op; the kernels stand in norm_rows.cu. */
#include "cuda_device.h"
#include "norm_rows.h"

static fw_status check_optional(const char *op, const char *name, const fw_tensor *tensor,
                                int64_t rows, int64_t width, fw_error *error) {
    if (tensor->data == NULL) return FW_OK;
    return cuda_check_matrix(op, name, tensor, FW_BF16, rows, width, error);
}

/* One value per channel or one for all; absent is allowed too. */
static fw_status check_weight(const char *op, const char *name, const fw_tensor *weight,
                              int64_t width, fw_error *error) {
    if (weight->data == NULL) return FW_OK;
    FW_TRY(cuda_check_packed(op, name, weight, FW_F32, -1, error));
    const int64_t count = fw_tensor_count(weight);
    if (count == width || count == 1) return FW_OK;
    return fw_fail(error, FW_E_SHAPE, "%s: %s has %lld values, expected %lld or one for all", op,
                   name, (long long)count, (long long)width);
}

/* A gradient has its weight's shape; where the weight is absent (ones), either. */
static fw_status check_weight_gradient(const char *op, const char *name, const fw_tensor *gradient,
                                       const fw_tensor *weight, int64_t width, fw_error *error) {
    FW_TRY(check_weight(op, name, gradient, width, error));
    if (gradient->data == NULL || weight->data == NULL) return FW_OK;
    return cuda_check_packed(op, name, gradient, FW_F32, fw_tensor_count(weight), error);
}

static fw_status check_width(const char *op, int64_t width, fw_error *error) {
    if (width <= CUDA_MAX_WIDTH) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "%s: rows of %lld, at most %d are supported", op,
                   (long long)width, CUDA_MAX_WIDTH);
}

static fw_status check_forward(const char *op, const fw_residual_norm *p, fw_error *error) {
    FW_TRY(cuda_check_matrix(op, "a", &p->a, FW_BF16, -1, -1, error));
    const int64_t rows = p->a.shape[0], width = p->a.shape[1];
    FW_TRY(check_width(op, width, error));
    FW_TRY(cuda_check_matrix(op, "sum", &p->sum, FW_BF16, rows, width, error));
    FW_TRY(check_weight(op, "weight_a", &p->weight_a, width, error));
    FW_TRY(check_weight(op, "weight_b", &p->weight_b, width, error));
    FW_TRY(check_optional(op, "b", &p->b, rows, width, error));
    if (p->out.data == NULL) return FW_OK;
    FW_TRY(cuda_check_matrix(op, "out", &p->out, FW_BF16, rows, width, error));
    return cuda_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, rows, error);
}

fw_status cuda_residual_norm_forward(fw_device *device, const fw_residual_norm *p,
                                     fw_error *error) {
    const char *op = "residual_norm_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check_forward(op, p, error));
    return cuda_norm_rows_forward(cuda_self(device), op, p, error);
}

/* The matrix that gives a backward call its rows and columns: whichever is there. */
static fw_status check_any(const char *op, const fw_residual_norm *p, const fw_tensor **any,
                           fw_error *error) {
    const fw_tensor *matrices[] = {&p->d_a, &p->d_b, &p->a, &p->b};
    const char *names[] = {"d_a", "d_b", "a", "b"};
    int first = 0;
    for (int i = 3; i >= 0; i--)
        if (matrices[i]->data != NULL) first = i;
    *any = matrices[first];
    return cuda_check_matrix(op, names[first], *any, FW_BF16, -1, -1, error);
}

static fw_status check_backward(const char *op, const fw_residual_norm *p, int64_t rows,
                                int64_t width, fw_error *error) {
    FW_TRY(check_width(op, width, error));
    FW_TRY(check_optional(op, "d_b", &p->d_b, rows, width, error));
    FW_TRY(check_optional(op, "d_sum", &p->d_sum, rows, width, error));
    FW_TRY(check_optional(op, "d_out", &p->d_out, rows, width, error));
    FW_TRY(check_weight(op, "weight_a", &p->weight_a, width, error));
    FW_TRY(check_weight(op, "weight_b", &p->weight_b, width, error));
    FW_TRY(check_weight_gradient(op, "d_weight_a", &p->d_weight_a, &p->weight_a, width, error));
    FW_TRY(check_weight_gradient(op, "d_weight_b", &p->d_weight_b, &p->weight_b, width, error));
    if (p->d_weight_a.data != NULL)
        FW_TRY(cuda_check_matrix(op, "a", &p->a, FW_BF16, rows, width, error));
    if (p->d_weight_b.data != NULL)
        FW_TRY(cuda_check_matrix(op, "b", &p->b, FW_BF16, rows, width, error));
    if (p->d_out.data == NULL) return FW_OK;
    FW_TRY(cuda_check_matrix(op, "sum", &p->sum, FW_BF16, rows, width, error));
    return cuda_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, rows, error);
}

fw_status cuda_residual_norm_backward(fw_device *device, const fw_residual_norm *p,
                                      fw_error *error) {
    const char *op = "residual_norm_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    const fw_tensor *any = NULL;
    FW_TRY(check_any(op, p, &any, error));
    const int64_t rows = any->shape[0], width = any->shape[1];
    FW_TRY(check_backward(op, p, rows, width, error));
    return cuda_norm_rows_backward(cuda_self(device), op, p, rows, width, error);
}
