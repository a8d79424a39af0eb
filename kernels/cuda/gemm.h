/* Products of matrices as the files of this device ask for them: the op `gemm` and what is built on
 * it. */
#ifndef FAIRWAY_CUDA_GEMM_H
#define FAIRWAY_CUDA_GEMM_H

#include "cuda_device.h"

/* c = alpha * op(a) op(b) + beta * add, for each of `batch` products `step_*` elements apart. op(a)
 * is m x k, op(b) is k x n, c and add are m x n, row-major with rows ld* elements apart. a and b
 * are bfloat16; c and add are both F32 or both BF16 (c_dtype), and add may be c; beta = 0 never
 * reads it. */
typedef struct cuda_product {
    int64_t m, n, k, batch;
    bool transpose_a, transpose_b;
    float alpha, beta;
    const void *a, *b, *add;
    void *c;
    int64_t lda, ldb, ldc;
    int64_t step_a, step_b, step_c;
    uint32_t c_dtype;
} cuda_product;

/* `op` goes into messages. Uses the workspace. */
fw_status cuda_multiply(cuda_device *cuda, const char *op, const cuda_product *product,
                        fw_error *error);

#endif
