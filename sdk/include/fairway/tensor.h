/* A view of a dense tensor in the memory of one device.
 *
 * A view owns nothing. Shapes and strides count elements, outermost dimension first; the unused
 * dimensions of a view hold 1 (shape) and 0 (stride). fw_tensor is a value type and is frozen. */
#ifndef FAIRWAY_TENSOR_H
#define FAIRWAY_TENSOR_H

#include "abi.h"

/* Element types: name, code, bytes per element. Codes are stable. */
#define FW_DTYPE_MAP(X)                                                                            \
    X(F32, 1, 4)                                                                                   \
    X(BF16, 2, 2)                                                                                  \
    X(F16, 3, 2)                                                                                   \
    X(F64, 4, 8)                                                                                   \
    X(I8, 5, 1)                                                                                    \
    X(U8, 6, 1)                                                                                    \
    X(U16, 7, 2)                                                                                   \
    X(I32, 8, 4)                                                                                   \
    X(U32, 9, 4)                                                                                   \
    X(I64, 10, 8)

typedef enum fw_dtype {
#define FW_DTYPE_ENUM(name, value, bytes) FW_##name = value,
    FW_DTYPE_MAP(FW_DTYPE_ENUM)
#undef FW_DTYPE_ENUM
} fw_dtype;

#define FW_MAX_RANK 4

typedef struct fw_tensor {
    void *data; /* NULL means "absent" wherever a tensor is optional */
    uint32_t dtype;
    uint32_t rank; /* 0 (a scalar) to FW_MAX_RANK */
    int64_t shape[FW_MAX_RANK];
    int64_t stride[FW_MAX_RANK];
} fw_tensor;

/* Bytes of one element; 0 for an unknown code. */
static inline size_t fw_dtype_size(uint32_t dtype) {
    switch (dtype) {
#define FW_DTYPE_CASE(name, value, bytes)                                                          \
    case value: return bytes;
        FW_DTYPE_MAP(FW_DTYPE_CASE)
#undef FW_DTYPE_CASE
    default: return 0;
    }
}

static inline int64_t fw_tensor_count(const fw_tensor *tensor) {
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

/* A contiguous view of `rank` dimensions; pass 1 for the dimensions beyond the rank. */
static inline fw_tensor fw_tensor_view(void *data, uint32_t dtype, uint32_t rank, int64_t d0,
                                       int64_t d1, int64_t d2, int64_t d3) {
    const int64_t shape[FW_MAX_RANK] = {d0, d1, d2, d3};
    fw_tensor view = {data, dtype, rank, {1, 1, 1, 1}, {0, 0, 0, 0}};
    int64_t step = 1;
    for (uint32_t i = rank; i-- > 0;) {
        view.shape[i] = shape[i];
        view.stride[i] = step;
        step *= shape[i];
    }
    return view;
}

static inline fw_tensor fw_vector(void *data, uint32_t dtype, int64_t n) {
    return fw_tensor_view(data, dtype, 1, n, 1, 1, 1);
}

static inline fw_tensor fw_matrix(void *data, uint32_t dtype, int64_t rows, int64_t columns) {
    return fw_tensor_view(data, dtype, 2, rows, columns, 1, 1);
}

static inline fw_tensor fw_absent(void) { return fw_tensor_view(NULL, FW_F32, 0, 1, 1, 1, 1); }

#endif
