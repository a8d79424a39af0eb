/* What every device refuses alike: arguments that are not there, and tensors of another dtype,
 * shape or layout than an op takes. A device compiles check.c into itself and puts its compute
 * dtype where one is asked for.
 *
 * E_ARGUMENT for what is absent, E_UNSUPPORTED for dtypes and layouts, E_SHAPE for shapes. `op` and
 * `name` go into the message. A dimension or count of -1 is not compared. */
#ifndef FAIRWAY_KERNELS_CHECK_H
#define FAIRWAY_KERNELS_CHECK_H

#include <stdbool.h>

#include <fairway/error.h>
#include <fairway/ops.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Refuses NULL and structs older than the first version of the interface, which for most ops is the
 * struct as it stands. Where fields were appended, `last` is the last member of that version, and
 * the op asks FW_COVERS before it reads what came later. */
#define KERNEL_ARGUMENTS(op, device, arguments, error)                                             \
    do {                                                                                           \
        if ((device) == NULL || (arguments) == NULL ||                                             \
            (arguments)->struct_size < sizeof *(arguments))                                        \
            return fw_fail(error, FW_E_ARGUMENT, "%s: struct_size is not set", op);                \
    } while (0)
#define KERNEL_ARGUMENTS_SINCE(op, device, arguments, last, error)                                 \
    do {                                                                                           \
        if ((device) == NULL || (arguments) == NULL || !FW_COVERS(arguments, last))                \
            return fw_fail(error, FW_E_ARGUMENT, "%s: struct_size is not set", op);                \
    } while (0)

/* Rank 2, last stride 1. */
fw_status kernel_check_matrix(const char *op, const char *name, const fw_tensor *tensor,
                              uint32_t dtype, int64_t rows, int64_t columns, fw_error *error);
/* Rank 3 [B,T,C], last stride 1. */
fw_status kernel_check_sequences(const char *op, const char *name, const fw_tensor *tensor,
                                 uint32_t dtype, const int64_t shape[3], fw_error *error);
/* Rank 4, last stride 1. */
fw_status kernel_check_heads(const char *op, const char *name, const fw_tensor *tensor,
                             uint32_t dtype, const int64_t shape[4], fw_error *error);
/* Any rank, contiguous, `count` elements. */
fw_status kernel_check_packed(const char *op, const char *name, const fw_tensor *tensor,
                              uint32_t dtype, int64_t count, fw_error *error);

/* ---- whole ops: check_ops.c; where devices differ in what they take, the limit is an argument ---
 */

typedef struct kernel_gemm_sizes {
    int64_t batch, m, n, k;
    bool adds; /* beta times an addend */
} kernel_gemm_sizes;
fw_status kernel_check_gemm(const fw_gemm *gemm, uint32_t dtype, uint32_t c_dtype,
                            kernel_gemm_sizes *sizes, fw_error *error);
/* What both passes of attention read and write; `op` names the pass. */
fw_status kernel_check_attention(const char *op, const fw_flash_attention *attention,
                                 uint32_t dtype, int widest_head, fw_error *error);
fw_status kernel_check_residual_forward(const fw_residual_norm *p, uint32_t dtype, int widest,
                                        fw_error *error);
/* `rows` and `width`: those of whichever of its matrices is there. */
fw_status kernel_check_residual_backward(const fw_residual_norm *p, uint32_t dtype, int widest,
                                         int64_t *rows, int64_t *width, fw_error *error);

#ifdef __cplusplus
}
#endif

#endif
