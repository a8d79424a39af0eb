/* The CPU device's private header: its state, the checks that every op makes before it writes, and
 * the ops themselves, one file per room. The contracts stand in fairway/ops.h. */
#ifndef FAIRWAY_CPU_H
#define FAIRWAY_CPU_H

#include <fairway/error.h>
#include <fairway/host.h>
#include <fairway/ops.h>

#include "../check.h"

/* Widest head that attention and q/k norm take: bounds the tiles in the workspace. */
#define CPU_MAX_HEAD 512

/* Widest row of residual_norm and smear: up to six vectors of it stand in the workspace. */
#define CPU_MAX_WIDTH 65536

/* Scratch of each thread, allocated once with the device. */
#define CPU_WORKSPACE_BYTES ((size_t)2 << 20)

/* Below this many elements a loop is not worth waking the other threads. */
#define CPU_PARALLEL_ELEMENTS 16384

typedef struct cpu_device {
    fw_device base;
    int threads;
    char *workspace; /* threads * CPU_WORKSPACE_BYTES */
} cpu_device;

static inline const cpu_device *cpu_self(const fw_device *device) {
    return (const cpu_device *)device->self;
}

/* The calling thread's own scratch inside a parallel region; `thread` is omp_get_thread_num(). */
static inline void *cpu_workspace(const cpu_device *cpu, int thread) {
    return cpu->workspace + (size_t)thread * CPU_WORKSPACE_BYTES;
}

static inline int64_t cpu_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t cpu_max(int64_t a, int64_t b) { return a > b ? a : b; }

static inline float *cpu_row(const fw_tensor *matrix, int64_t row) {
    return (float *)matrix->data + row * matrix->stride[0];
}

/* ---- checks: ../check.h, with float32 as the compute dtype ---- */

#define CPU_ARGUMENTS KERNEL_ARGUMENTS
#define CPU_ARGUMENTS_SINCE KERNEL_ARGUMENTS_SINCE

static inline fw_status cpu_check_matrix(const char *op, const char *name, const fw_tensor *tensor,
                                         uint32_t dtype, int64_t rows, int64_t columns,
                                         fw_error *error) {
    return kernel_check_matrix(op, name, tensor, dtype, rows, columns, error);
}
static inline fw_status cpu_check_sequences(const char *op, const char *name,
                                            const fw_tensor *tensor, const int64_t shape[3],
                                            fw_error *error) {
    return kernel_check_sequences(op, name, tensor, FW_F32, shape, error);
}
static inline fw_status cpu_check_heads(const char *op, const char *name, const fw_tensor *tensor,
                                        const int64_t shape[4], fw_error *error) {
    return kernel_check_heads(op, name, tensor, FW_F32, shape, error);
}
static inline fw_status cpu_check_packed(const char *op, const char *name, const fw_tensor *tensor,
                                         uint32_t dtype, int64_t count, fw_error *error) {
    return kernel_check_packed(op, name, tensor, dtype, count, error);
}

/* ---- ops ---- */

/* One product on the calling thread: c = alpha * op(a) op(b) + beta * c, row-major. */
typedef struct cpu_product {
    int transpose_a, transpose_b;
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
} cpu_product;
void cpu_multiply(const cpu_product *product);
/* The same, with c split over `threads`. */
void cpu_multiply_parallel(const cpu_product *product, int threads);
void cpu_gemm_configure(void);
void cpu_gemm_describe(char *text, size_t size);

fw_status cpu_gemm(fw_device *, const fw_gemm *, fw_error *);
fw_status cpu_embedding_forward(fw_device *, const fw_embedding *, fw_error *);
fw_status cpu_embedding_backward(fw_device *, const fw_embedding *, fw_error *);
fw_status cpu_rmsnorm_forward(fw_device *, const fw_rmsnorm *, fw_error *);
fw_status cpu_rmsnorm_backward(fw_device *, const fw_rmsnorm *, fw_error *);
fw_status cpu_residual_norm_forward(fw_device *, const fw_residual_norm *, fw_error *);
fw_status cpu_residual_norm_backward(fw_device *, const fw_residual_norm *, fw_error *);
fw_status cpu_rope_table(fw_device *, const fw_rope_table *, fw_error *);
fw_status cpu_qk_norm_rope_forward(fw_device *, const fw_qk_norm_rope *, fw_error *);
fw_status cpu_qk_norm_rope_backward(fw_device *, const fw_qk_norm_rope *, fw_error *);
size_t cpu_attention_scratch(fw_device *, const fw_flash_attention *);
fw_status cpu_attention_forward(fw_device *, const fw_flash_attention *, fw_error *);
fw_status cpu_attention_backward(fw_device *, const fw_flash_attention *, fw_error *);
fw_status cpu_activation_forward(fw_device *, const fw_activation *, fw_error *);
fw_status cpu_activation_backward(fw_device *, const fw_activation *, fw_error *);
fw_status cpu_cross_entropy_forward(fw_device *, const fw_cross_entropy *, fw_error *);
fw_status cpu_cross_entropy_backward(fw_device *, const fw_cross_entropy *, fw_error *);
fw_status cpu_log_softmax(fw_device *, const fw_log_softmax *, fw_error *);
fw_status cpu_reduce(fw_device *, const fw_reduce *, fw_error *);
fw_status cpu_axpby(fw_device *, const fw_axpby *, fw_error *);
fw_status cpu_lerp(fw_device *, const fw_lerp *, fw_error *);
fw_status cpu_cast(fw_device *, const fw_cast *, fw_error *);
fw_status cpu_clip(fw_device *, const fw_clip *, fw_error *);
fw_status cpu_adamw(fw_device *, const fw_adamw_step *, fw_error *);
fw_status cpu_momentum(fw_device *, const fw_momentum_step *, fw_error *);
size_t cpu_newton_schulz_scratch(fw_device *, const fw_newton_schulz *);
fw_status cpu_newton_schulz(fw_device *, const fw_newton_schulz *, fw_error *);
fw_status cpu_apply_update(fw_device *, const fw_apply_update *, fw_error *);
fw_status cpu_row_absmax(fw_device *, const fw_row_absmax *, fw_error *);
fw_status cpu_fake_quantize(fw_device *, const fw_fake_quantize *, fw_error *);
fw_status cpu_scale_rows_forward(fw_device *, const fw_scale_rows *, fw_error *);
fw_status cpu_scale_rows_backward(fw_device *, const fw_scale_rows *, fw_error *);
fw_status cpu_smear_forward(fw_device *, const fw_smear *, fw_error *);
fw_status cpu_smear_backward(fw_device *, const fw_smear *, fw_error *);

/* ---- memory ---- */

fw_status cpu_allocate(fw_device *, size_t bytes, void **memory, fw_error *);
void cpu_release(fw_device *, void *memory);
fw_status cpu_copy(fw_device *, void *to, const void *from, size_t bytes, fw_error *);
fw_status cpu_zero(fw_device *, void *memory, size_t bytes, fw_error *);
fw_status cpu_synchronize(fw_device *, fw_error *);

#endif
