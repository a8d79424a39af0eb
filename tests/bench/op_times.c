#include "op_times.h"

#include <stdbool.h>

#include "bench.h"

static double not_counted(const void *arguments) {
    (void)arguments;
    return 0;
}

static double attention_backward_flops(const fw_flash_attention *attention) {
    return 2.5 * attention_flops(attention);
}

static double linear_forward_flops(const fw_linear_activation *layer) {
    return 2.0 * (double)fw_tensor_count(&layer->out) * (double)layer->x.shape[1];
}

static double linear_backward_flops(const fw_linear_activation *layer) {
    return 2.0 * (double)fw_tensor_count(&layer->d_hidden) * (double)layer->d_y.shape[1];
}

/* Op, its arguments, its floating-point operations. */
#define OP_MAP(X)                                                                                  \
    X(gemm, fw_gemm, gemm_flops)                                                                   \
    X(embedding_forward, fw_embedding, not_counted)                                                \
    X(embedding_backward, fw_embedding, not_counted)                                               \
    X(rmsnorm_forward, fw_rmsnorm, not_counted)                                                    \
    X(rmsnorm_backward, fw_rmsnorm, not_counted)                                                   \
    X(residual_norm_forward, fw_residual_norm, not_counted)                                        \
    X(residual_norm_backward, fw_residual_norm, not_counted)                                       \
    X(rope_table, fw_rope_table, not_counted)                                                      \
    X(qk_norm_rope_forward, fw_qk_norm_rope, not_counted)                                          \
    X(qk_norm_rope_backward, fw_qk_norm_rope, not_counted)                                         \
    X(attention_forward, fw_flash_attention, attention_flops)                                      \
    X(attention_backward, fw_flash_attention, attention_backward_flops)                            \
    X(activation_forward, fw_activation, not_counted)                                              \
    X(activation_backward, fw_activation, not_counted)                                             \
    X(cross_entropy_forward, fw_cross_entropy, not_counted)                                        \
    X(cross_entropy_backward, fw_cross_entropy, not_counted)                                       \
    X(log_softmax, fw_log_softmax, not_counted)                                                    \
    X(reduce, fw_reduce, not_counted)                                                              \
    X(axpby, fw_axpby, not_counted)                                                                \
    X(lerp, fw_lerp, not_counted)                                                                  \
    X(cast, fw_cast, not_counted)                                                                  \
    X(clip, fw_clip, not_counted)                                                                  \
    X(adamw, fw_adamw_step, not_counted)                                                           \
    X(momentum, fw_momentum_step, not_counted)                                                     \
    X(newton_schulz, fw_newton_schulz, newton_schulz_flops)                                        \
    X(apply_update, fw_apply_update, not_counted)                                                  \
    X(row_absmax, fw_row_absmax, not_counted)                                                      \
    X(fake_quantize, fw_fake_quantize, not_counted)                                                \
    X(smear_forward, fw_smear, not_counted)                                                        \
    X(smear_backward, fw_smear, not_counted)                                                       \
    X(linear_activation_forward, fw_linear_activation, linear_forward_flops)                       \
    X(linear_activation_backward, fw_linear_activation, linear_backward_flops)                     \
    X(scale_rows_forward, fw_scale_rows, not_counted)                                              \
    X(scale_rows_backward, fw_scale_rows, not_counted)

#define OP_INDEX(op, arguments, flops) OP_##op,
enum { OP_MAP(OP_INDEX) N_OPS };

static fw_device *timed_device;
static const fw_ops *plain;
static fw_ops timed;
static bool timing_is_on;
static op_time times[N_OPS], sorted[N_OPS];

static void account(int op, double begin, double flops) {
    times[op].calls++;
    times[op].seconds += bench_seconds() - begin;
    times[op].flops += flops;
}

#define TIMED_OP(op, arguments, flops)                                                             \
    static fw_status timed_##op(fw_device *device, const arguments *call, fw_error *error) {       \
        if (!timing_is_on) return plain->op(device, call, error);                                  \
        FW_TRY(device->synchronize(device, error));                                                \
        const double begin = bench_seconds();                                                      \
        FW_TRY(plain->op(device, call, error));                                                    \
        FW_TRY(device->synchronize(device, error));                                                \
        account(OP_##op, begin, flops(call));                                                      \
        return FW_OK;                                                                              \
    }
OP_MAP(TIMED_OP)

void op_times_install(fw_device *device) {
    timed_device = device;
    plain = device->ops;
    memcpy(&timed, plain, plain->struct_size < sizeof timed ? plain->struct_size : sizeof timed);
#define INSTALL(op, arguments, flops)                                                              \
    if (FW_HAS(plain, op)) timed.op = timed_##op;
    OP_MAP(INSTALL)
    device->ops = &timed;
}

void op_times_remove(void) { timed_device->ops = plain; }

void op_times_start(void) {
#define CLEAR(op, arguments, flops) times[OP_##op] = (op_time){.name = #op};
    OP_MAP(CLEAR)
    timing_is_on = true;
}

static int longest_first(const void *a, const void *b) {
    const double x = ((const op_time *)a)->seconds, y = ((const op_time *)b)->seconds;
    return (x < y) - (x > y);
}

const op_time *op_times_stop(size_t *n) {
    timing_is_on = false;
    *n = 0;
    for (int i = 0; i < N_OPS; i++)
        if (times[i].calls > 0) sorted[(*n)++] = times[i];
    qsort(sorted, *n, sizeof sorted[0], longest_first);
    return sorted;
}
