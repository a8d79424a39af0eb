/* Refuses tensors that an op cannot take, in sentences that name the op, the tensor and both
 * shapes. Every op checks all of its arguments before it writes any output. */
#include "check.h"

#include <limits.h>

static const char *dtype_name(uint32_t dtype) {
    switch (dtype) {
#define DTYPE_CASE(name, value, bytes)                                                             \
    case value: return #name;
        FW_DTYPE_MAP(DTYPE_CASE)
#undef DTYPE_CASE
    default: return "an unknown dtype";
    }
}

typedef struct shape_text {
    char text[96];
} shape_text;

/* "[8192,192]", with "?" for a dimension that is free. */
static shape_text describe(uint32_t rank, const int64_t *shape) {
    shape_text out = {"["};
    size_t used = 1;
    for (uint32_t i = 0; i < rank && i < FW_MAX_RANK; i++) {
        const char *comma = i > 0 ? "," : "";
        char *end = out.text + used;
        const size_t room = sizeof out.text - used;
        const int n = shape[i] < 0 ? snprintf(end, room, "%s?", comma)
                                   : snprintf(end, room, "%s%lld", comma, (long long)shape[i]);
        used += (size_t)n;
    }
    (void)snprintf(out.text + used, sizeof out.text - used, "]");
    return out;
}

static fw_status check_present(const char *op, const char *name, const fw_tensor *tensor,
                               uint32_t dtype, fw_error *error) {
    if (tensor->data == NULL) return fw_fail(error, FW_E_ARGUMENT, "%s: %s is absent", op, name);
    if (tensor->dtype != dtype)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: %s is %s; this device takes %s here", op, name,
                       dtype_name(tensor->dtype), dtype_name(dtype));
    return FW_OK;
}

static fw_status check_shape(const char *op, const char *name, const fw_tensor *tensor,
                             uint32_t rank, const int64_t *shape, fw_error *error) {
    int good = tensor->rank == rank;
    for (uint32_t i = 0; good && i < rank; i++)
        good = tensor->shape[i] >= 0 && (shape[i] < 0 || tensor->shape[i] == shape[i]);
    if (!good)
        return fw_fail(error, FW_E_SHAPE, "%s: %s has shape %s, expected %s", op, name,
                       describe(tensor->rank, tensor->shape).text, describe(rank, shape).text);
    if (tensor->stride[rank - 1] != 1 && tensor->shape[rank - 1] > 1)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: %s has a last stride of %lld, expected 1", op,
                       name, (long long)tensor->stride[rank - 1]);
    return FW_OK;
}

fw_status kernel_check_matrix(const char *op, const char *name, const fw_tensor *tensor,
                              uint32_t dtype, int64_t rows, int64_t columns, fw_error *error) {
    const int64_t shape[2] = {rows, columns};
    FW_TRY(check_present(op, name, tensor, dtype, error));
    FW_TRY(check_shape(op, name, tensor, 2, shape, error));
    if (tensor->shape[0] > 1 && tensor->stride[0] < tensor->shape[1])
        return fw_fail(error, FW_E_SHAPE, "%s: rows of %s overlap: row stride %lld, %lld columns",
                       op, name, (long long)tensor->stride[0], (long long)tensor->shape[1]);
    return FW_OK;
}

fw_status kernel_check_sequences(const char *op, const char *name, const fw_tensor *tensor,
                                 uint32_t dtype, const int64_t shape[3], fw_error *error) {
    FW_TRY(check_present(op, name, tensor, dtype, error));
    FW_TRY(check_shape(op, name, tensor, 3, shape, error));
    for (uint32_t i = 0; i < 2; i++)
        if (tensor->shape[i] > 1 && tensor->stride[i] < tensor->shape[2])
            return fw_fail(error, FW_E_SHAPE, "%s: rows of %s overlap: stride %lld, %lld channels",
                           op, name, (long long)tensor->stride[i], (long long)tensor->shape[2]);
    return FW_OK;
}

fw_status kernel_check_heads(const char *op, const char *name, const fw_tensor *tensor,
                             uint32_t dtype, const int64_t shape[4], fw_error *error) {
    FW_TRY(check_present(op, name, tensor, dtype, error));
    FW_TRY(check_shape(op, name, tensor, 4, shape, error));
    if (tensor->shape[1] > 1 &&
        (tensor->stride[1] < tensor->shape[3] || tensor->stride[1] > INT_MAX))
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: positions of %s lie %lld elements apart", op,
                       name, (long long)tensor->stride[1]);
    return FW_OK;
}

fw_status kernel_check_packed(const char *op, const char *name, const fw_tensor *tensor,
                              uint32_t dtype, int64_t count, fw_error *error) {
    FW_TRY(check_present(op, name, tensor, dtype, error));
    int64_t step = 1;
    for (uint32_t i = tensor->rank; i-- > 0;) {
        if (tensor->shape[i] != 1 && tensor->stride[i] != step)
            return fw_fail(error, FW_E_UNSUPPORTED, "%s: %s of shape %s is not contiguous", op,
                           name, describe(tensor->rank, tensor->shape).text);
        step *= tensor->shape[i];
    }
    if (count >= 0 && step != count)
        return fw_fail(error, FW_E_SHAPE, "%s: %s has shape %s, expected %lld elements", op, name,
                       describe(tensor->rank, tensor->shape).text, (long long)count);
    return FW_OK;
}
