/* The CUDA device's private header: its state, the checks that every op makes before it launches,
 * and the ops themselves, one file per room. The contracts stand in fairway/ops.h.
 *
 * Activations and compute weights are bfloat16 in memory and float32 in registers; statistics,
 * gradients of weights, masters and optimizer state are float32. Ops only launch kernels on the
 * device's stream: they never allocate, never wait, and take scalars that change from step to step
 * from a fw_step in device memory, so that a step can be captured as a graph. Sums over rows or
 * blocks have a fixed order: results repeat bit for bit. */
#ifndef FAIRWAY_CUDA_DEVICE_H
#define FAIRWAY_CUDA_DEVICE_H

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <fairway/error.h>
#include <fairway/host.h>
#include <fairway/ops.h>

#include "../check.h"

/* Scratch of the device, allocated once and used by one op at a time: the stream keeps order. */
#define CUDA_WORKSPACE_BYTES ((size_t)64 << 20)

/* Widest row of the norms and of smear. */
#define CUDA_MAX_WIDTH 8192

struct cuda_gemm_plans; /* gemm.cu: chosen cuBLASLt algorithms by shape */

typedef struct cuda_device {
    fw_device base;
    const fw_host *host;
    cudaStream_t stream;
    cudaStream_t copies; /* to the host, beside the work of `stream` */
    cudaEvent_t ready;   /* what such a copy waits for */
    cublasLtHandle_t cublas;
    struct cuda_gemm_plans *plans;
    char *workspace; /* device memory, CUDA_WORKSPACE_BYTES */
    int multiprocessors;
    int shared_bytes; /* of one block, opted in */
    bool hopper;      /* compute capability 9.0 and allowed: wgmma and TMA paths */
    bool capturing;
    bool synchronous; /* wait after every op, so that an error names it */
    bool time_gemms;  /* choose algorithms by timing; else the first heuristic */
    const char *op;   /* the last op launched, its kernel, and the ops since the last wait */
    const char *kernel;
    uint64_t position;
} cuda_device;

static inline cuda_device *cuda_self(const fw_device *device) {
    return static_cast<cuda_device *>(device->self);
}

/* ---- launching ----------------------------------------------------------------------------------
 * Every op ends with `return cuda_launched(cuda, "rmsnorm_forward", "rmsnorm_rows", error)` (or
 * FW_TRY of it between kernels): it takes note of where the stream is and reports what the launch
 * refused, or, in a synchronous device, what the kernel did. */
fw_status cuda_launched(cuda_device *cuda, const char *op, const char *kernel, fw_error *error);

/* What a failed CUDA call says, with the op and its place in the stream: E_DEVICE, E_MEMORY. */
fw_status cuda_fail(const cuda_device *cuda, cudaError_t code, const char *what, fw_error *error);

#define CUDA_TRY(cuda, call, what, error)                                                          \
    do {                                                                                           \
        const cudaError_t cuda_try_code_ = (call);                                                 \
        if (cuda_try_code_ != cudaSuccess) return cuda_fail(cuda, cuda_try_code_, what, error);    \
    } while (0)

static inline int64_t cuda_divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
static inline int64_t cuda_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t cuda_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* Blocks for a grid-stride loop over n items, `each` of them by one block. */
static inline unsigned cuda_blocks(const cuda_device *cuda, int64_t n, int64_t each) {
    const int64_t most = (int64_t)cuda->multiprocessors * 16;
    return (unsigned)cuda_max(1, cuda_min(cuda_divide_up(n, each), most));
}

/* ---- checks: ../check.h, with bfloat16 as the compute dtype ---- */

#define CUDA_ARGUMENTS KERNEL_ARGUMENTS
#define CUDA_ARGUMENTS_SINCE KERNEL_ARGUMENTS_SINCE

static inline fw_status cuda_check_matrix(const char *op, const char *name, const fw_tensor *tensor,
                                          uint32_t dtype, int64_t rows, int64_t columns,
                                          fw_error *error) {
    return kernel_check_matrix(op, name, tensor, dtype, rows, columns, error);
}
static inline fw_status cuda_check_sequences(const char *op, const char *name,
                                             const fw_tensor *tensor, const int64_t shape[3],
                                             fw_error *error) {
    return kernel_check_sequences(op, name, tensor, FW_BF16, shape, error);
}
static inline fw_status cuda_check_heads(const char *op, const char *name, const fw_tensor *tensor,
                                         const int64_t shape[4], fw_error *error) {
    return kernel_check_heads(op, name, tensor, FW_BF16, shape, error);
}
static inline fw_status cuda_check_packed(const char *op, const char *name, const fw_tensor *tensor,
                                          uint32_t dtype, int64_t count, fw_error *error) {
    return kernel_check_packed(op, name, tensor, dtype, count, error);
}

/* ---- ops ---- */

fw_status cuda_gemm_create(cuda_device *cuda, fw_error *error);
void cuda_gemm_destroy(cuda_device *cuda);

fw_status cuda_gemm(fw_device *, const fw_gemm *, fw_error *);
fw_status cuda_embedding_forward(fw_device *, const fw_embedding *, fw_error *);
fw_status cuda_embedding_backward(fw_device *, const fw_embedding *, fw_error *);
fw_status cuda_rmsnorm_forward(fw_device *, const fw_rmsnorm *, fw_error *);
fw_status cuda_rmsnorm_backward(fw_device *, const fw_rmsnorm *, fw_error *);
fw_status cuda_residual_norm_forward(fw_device *, const fw_residual_norm *, fw_error *);
fw_status cuda_residual_norm_backward(fw_device *, const fw_residual_norm *, fw_error *);
fw_status cuda_rope_table(fw_device *, const fw_rope_table *, fw_error *);
fw_status cuda_qk_norm_rope_forward(fw_device *, const fw_qk_norm_rope *, fw_error *);
fw_status cuda_qk_norm_rope_backward(fw_device *, const fw_qk_norm_rope *, fw_error *);
size_t cuda_attention_scratch(fw_device *, const fw_flash_attention *);
fw_status cuda_attention_forward(fw_device *, const fw_flash_attention *, fw_error *);
fw_status cuda_attention_backward(fw_device *, const fw_flash_attention *, fw_error *);
fw_status cuda_activation_forward(fw_device *, const fw_activation *, fw_error *);
fw_status cuda_activation_backward(fw_device *, const fw_activation *, fw_error *);
fw_status cuda_cross_entropy_forward(fw_device *, const fw_cross_entropy *, fw_error *);
fw_status cuda_cross_entropy_backward(fw_device *, const fw_cross_entropy *, fw_error *);
fw_status cuda_log_softmax(fw_device *, const fw_log_softmax *, fw_error *);
fw_status cuda_reduce(fw_device *, const fw_reduce *, fw_error *);
fw_status cuda_axpby(fw_device *, const fw_axpby *, fw_error *);
fw_status cuda_lerp(fw_device *, const fw_lerp *, fw_error *);
fw_status cuda_cast(fw_device *, const fw_cast *, fw_error *);
fw_status cuda_clip(fw_device *, const fw_clip *, fw_error *);
fw_status cuda_adamw(fw_device *, const fw_adamw_step *, fw_error *);
fw_status cuda_momentum(fw_device *, const fw_momentum_step *, fw_error *);
size_t cuda_newton_schulz_scratch(fw_device *, const fw_newton_schulz *);
fw_status cuda_newton_schulz(fw_device *, const fw_newton_schulz *, fw_error *);
fw_status cuda_apply_update(fw_device *, const fw_apply_update *, fw_error *);
fw_status cuda_row_absmax(fw_device *, const fw_row_absmax *, fw_error *);
fw_status cuda_fake_quantize(fw_device *, const fw_fake_quantize *, fw_error *);
fw_status cuda_scale_rows_forward(fw_device *, const fw_scale_rows *, fw_error *);
fw_status cuda_scale_rows_backward(fw_device *, const fw_scale_rows *, fw_error *);
fw_status cuda_smear_forward(fw_device *, const fw_smear *, fw_error *);
fw_status cuda_smear_backward(fw_device *, const fw_smear *, fw_error *);
size_t cuda_linear_activation_saved(fw_device *, const fw_linear_activation *);
fw_status cuda_linear_activation_forward(fw_device *, const fw_linear_activation *, fw_error *);
fw_status cuda_linear_activation_backward(fw_device *, const fw_linear_activation *, fw_error *);

/* ---- memory, fences, graphs: memory.cu, stream.cu ---- */

fw_status cuda_allocate(fw_device *, size_t bytes, void **memory, fw_error *);
void cuda_release(fw_device *, void *memory);
fw_status cuda_copy_from_host(fw_device *, void *to, const void *from, size_t bytes, fw_error *);
fw_status cuda_copy_to_host(fw_device *, void *to, const void *from, size_t bytes, fw_error *);
fw_status cuda_copy(fw_device *, void *to, const void *from, size_t bytes, fw_error *);
fw_status cuda_zero(fw_device *, void *memory, size_t bytes, fw_error *);
fw_status cuda_synchronize(fw_device *, fw_error *);
fw_status cuda_allocate_host(fw_device *, size_t bytes, void **memory, fw_error *);
void cuda_release_host(fw_device *, void *memory);
fw_status cuda_copy_to_host_async(fw_device *, void *to, const void *from, size_t bytes,
                                  fw_error *);
fw_status cuda_copy_to_host_beside(fw_device *, void *to, const void *from, size_t bytes,
                                   fw_error *);
fw_status cuda_fence_create(fw_device *, void **fence, fw_error *);
void cuda_fence_destroy(fw_device *, void *fence);
fw_status cuda_fence_record(fw_device *, void *fence, fw_error *);
fw_status cuda_fence_wait(fw_device *, void *fence, fw_error *);
fw_status cuda_capture_begin(fw_device *, fw_error *);
fw_status cuda_capture_end(fw_device *, void **graph, fw_error *);
fw_status cuda_graph_launch(fw_device *, void *graph, fw_error *);
void cuda_graph_destroy(fw_device *, void *graph);

#endif
