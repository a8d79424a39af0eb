/* Times the ops of a device (FAIRWAY_TEST_DEVICE, default cpu) at the shapes of two small models,
 * or on a GPU of the reference model, and prints, for each, the median and the best time, the rate
 * at the best (on a shared machine the median tells more about the neighbours), and its ratio to
 * what a large square product, or for ops that move bytes a large copy, reaches on the same machine
 * in the same run. Bytes count each operand once. With OMP_NUM_THREADS=1 it counts the thread's
 * processor time, which neighbours disturb least. On a GPU an op is launched several times between
 * two waits, so that the time is its own and not that of launching it. */
#include "bench.h"

#include <math.h>
#include <stdio.h>

typedef struct model_shape {
    const char *name;
    int64_t batch, tokens, width, heads, groups, head, vocabulary, hidden;
} model_shape;

static const model_shape for_cpu[] = {{"small", 16, 512, 192, 6, 3, 32, 256, 576},
                                      {"large", 1, 2048, 512, 8, 4, 64, 1024, 1536}};
static const model_shape for_gpu[] = {{"reference", 48, 2048, 512, 8, 4, 64, 1024, 1536}};

static fw_device *device;
static int launches = 1;  /* between two waits */
static double ceiling;    /* FLOP/s of the large product */
static double copy_speed; /* bytes read and written a second by a large copy */
static test_random random_state = {1};

enum { MAX_BUFFERS = 256 };
static void *buffers[MAX_BUFFERS];
static size_t n_buffers;

/* n values of the dtype, normally distributed; beyond BLOCK they repeat. */
static void *filled(int64_t n, uint32_t dtype) {
    enum { BLOCK = 1000003 };
    const int64_t block = n < BLOCK ? n : BLOCK;
    const size_t size = fw_dtype_size(dtype);
    float *host = must(malloc((size_t)block * sizeof *host));
    fw_error error = {.struct_size = sizeof error};
    if (n_buffers == MAX_BUFFERS) exit(1);
    for (int64_t i = 0; i < block; i++) host[i] = (float)test_normal(&random_state);
    void *memory = NULL, *from = NULL;
    stop_on(device->allocate(device, (size_t)n * size, &memory, &error), &error);
    stop_on(device->allocate(device, (size_t)block * sizeof *host, &from, &error), &error);
    stop_on(device->copy_from_host(device, from, host, (size_t)block * sizeof *host, &error),
            &error);
    const fw_cast cast = {.struct_size = sizeof cast,
                          .from = fw_vector(from, FW_F32, block),
                          .to = fw_vector(memory, dtype, block)};
    if (dtype == FW_BF16)
        stop_on(device->ops->cast(device, &cast, &error), &error);
    else
        stop_on(device->copy(device, memory, from, (size_t)block * size, &error), &error);
    for (int64_t done = block; done < n; done += block) {
        const int64_t more = n - done < block ? n - done : block;
        stop_on(device->copy(device, (char *)memory + (size_t)done * size, memory,
                             (size_t)more * size, &error),
                &error);
    }
    stop_on(device->synchronize(device, &error), &error);
    device->release(device, from);
    free(host);
    return buffers[n_buffers++] = memory;
}

static void release_all(void) {
    while (n_buffers > 0) device->release(device, buffers[--n_buffers]);
}

static fw_tensor matrix(int64_t rows, int64_t columns) {
    const uint32_t dtype = device->compute_dtype;
    return fw_matrix(filled(rows * columns, dtype), dtype, rows, columns);
}

static fw_tensor float_matrix(int64_t rows, int64_t columns) {
    return fw_matrix(filled(rows * columns, FW_F32), FW_F32, rows, columns);
}

static fw_tensor vector(int64_t n) { return fw_vector(filled(n, FW_F32), FW_F32, n); }

static fw_tensor tokens(int64_t n, int64_t below) {
    int32_t *host = must(malloc((size_t)n * sizeof *host));
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)test_below(&random_state, (uint64_t)below);
    const fw_tensor t = fw_vector(filled(n, FW_F32), FW_I32, n);
    (void)device->copy_from_host(device, t.data, host, (size_t)n * sizeof *host, NULL);
    (void)device->synchronize(device, NULL);
    free(host);
    return t;
}

/* Bytes of n values of the compute dtype. */
static double compute_bytes(int64_t n) {
    return (double)n * (double)fw_dtype_size(device->compute_dtype);
}

/* Heads [begin, begin + heads) of rows that hold `total` heads. */
static fw_tensor heads(void *rows, const model_shape *s, int64_t begin, int64_t n, int64_t total) {
    const uint32_t dtype = device->compute_dtype;
    char *data = (char *)rows + begin * s->head * (int64_t)fw_dtype_size(dtype);
    fw_tensor t = fw_tensor_view(data, dtype, 4, s->batch, s->tokens, n, s->head);
    t.stride[1] = total * s->head;
    t.stride[0] = s->tokens * t.stride[1];
    return t;
}

/* ---- timing ---- */

static void report(const char *op, const char *shape, timed_call *f, const void *arguments,
                   double flops, double bytes) {
    const timing taken = bench_measure(f, arguments, 5, 0.2);
    const double time = taken.best / launches;
    (void)printf("%-26s %-26s %9.3f %9.3f", op, shape, 1e3 * taken.median / launches, 1e3 * time);
    if (flops > 0.0)
        (void)printf(" %9.1f %9s %7.2f\n", 1e-9 * flops / time, "", flops / time / ceiling);
    else
        (void)printf(" %9s %9.1f %7.2f\n", "", 1e-9 * bytes / time, bytes / time / copy_speed);
}

/* One trampoline for each op: what report() times. */
#define CALL(member, type)                                                                         \
    static fw_status call_##member(const void *arguments, fw_error *error) {                       \
        for (int i = 0; i < launches; i++)                                                         \
            FW_TRY(device->ops->member(device, (const type *)arguments, error));                   \
        return device->synchronize(device, error);                                                 \
    }
CALL(gemm, fw_gemm)
CALL(embedding_forward, fw_embedding)
CALL(embedding_backward, fw_embedding)
CALL(rmsnorm_forward, fw_rmsnorm)
CALL(rmsnorm_backward, fw_rmsnorm)
CALL(residual_norm_forward, fw_residual_norm)
CALL(residual_norm_backward, fw_residual_norm)
CALL(qk_norm_rope_forward, fw_qk_norm_rope)
CALL(qk_norm_rope_backward, fw_qk_norm_rope)
CALL(attention_forward, fw_flash_attention)
CALL(attention_backward, fw_flash_attention)
CALL(activation_forward, fw_activation)
CALL(activation_backward, fw_activation)
CALL(cross_entropy_forward, fw_cross_entropy)
CALL(cross_entropy_backward, fw_cross_entropy)
CALL(log_softmax, fw_log_softmax)
CALL(reduce, fw_reduce)
CALL(axpby, fw_axpby)
CALL(cast, fw_cast)
CALL(adamw, fw_adamw_step)
CALL(momentum, fw_momentum_step)
CALL(newton_schulz, fw_newton_schulz)
CALL(fake_quantize, fw_fake_quantize)
CALL(smear_forward, fw_smear)
CALL(smear_backward, fw_smear)
CALL(linear_activation_forward, fw_linear_activation)
CALL(linear_activation_backward, fw_linear_activation)

static fw_status call_copy(const void *arguments, fw_error *error) {
    const fw_tensor *pair = arguments;
    for (int i = 0; i < launches; i++)
        FW_TRY(device->copy(device, pair[0].data, pair[1].data,
                            (size_t)fw_tensor_count(&pair[0]) * sizeof(float), error));
    return device->synchronize(device, error);
}

/* ---- the ops ---- */

static void bench_product(const char *op, int64_t m, int64_t n, int64_t k, uint32_t ta, uint32_t tb,
                          uint32_t c_dtype) {
    char shape[64];
    (void)snprintf(shape, sizeof shape, "M=%lld N=%lld K=%lld", (long long)m, (long long)n,
                   (long long)k);
    const fw_gemm g = {.struct_size = sizeof g,
                       .transpose_a = ta,
                       .transpose_b = tb,
                       .alpha = 1.0f,
                       .a = ta ? matrix(k, m) : matrix(m, k),
                       .b = tb ? matrix(n, k) : matrix(k, n),
                       .c = c_dtype == FW_F32 ? float_matrix(m, n) : matrix(m, n)};
    const double flops = gemm_flops(&g);
    if (ceiling <= 0.0) ceiling = launches * flops / bench_measure(call_gemm, &g, 5, 0.2).best;
    report(op, shape, call_gemm, &g, flops, 0.0);
    release_all();
}

static void bench_copy(void) {
    const int64_t n = device->type == FW_CPU ? 1 << 24 : 1 << 28;
    const fw_tensor pair[] = {vector(n), vector(n)};
    const double bytes = 8.0 * (double)n;
    copy_speed = launches * bytes / bench_measure(call_copy, pair, 5, 0.2).best;
    report("copy (the bytes' ceiling)", "", call_copy, pair, 0.0, bytes);
    release_all();
}

static void bench_products(const model_shape *s) {
    const int64_t n = s->batch * s->tokens, qkv = (s->heads + 2 * s->groups) * s->head;
    const uint32_t dtype = device->compute_dtype;
    bench_product("gemm qkv forward", n, qkv, s->width, 0, 1, dtype);
    bench_product("gemm mlp forward", n, s->hidden, s->width, 0, 1, dtype);
    bench_product("gemm mlp down", n, s->width, s->hidden, 0, 1, dtype);
    bench_product("gemm mlp dX", n, s->width, s->hidden, 0, 0, dtype);
    bench_product("gemm mlp dW", s->hidden, s->width, n, 1, 0, FW_F32);
    bench_product("gemm out dW", s->width, s->width, n, 1, 0, FW_F32);
    bench_product("gemm qkv dX", n, s->width, qkv, 0, 0, dtype);
    bench_product("gemm qkv dW", qkv, s->width, n, 1, 0, FW_F32);
    bench_product("gemm out", n, s->width, s->width, 0, 1, dtype);
    bench_product("gemm logits", n, s->vocabulary, s->width, 0, 1, dtype);
}

static void bench_attention(const model_shape *s, uint32_t exclude_self, int64_t window) {
    const int64_t n = s->batch * s->tokens, total = s->heads + 2 * s->groups;
    const int64_t g = s->heads + s->groups, statistics = s->batch * s->heads * s->tokens;
    const uint32_t dtype = device->compute_dtype;
    void *rows = filled(n * total * s->head, dtype), *d_rows = filled(n * total * s->head, dtype);
    void *out = filled(n * s->heads * s->head, dtype);
    void *d_out = filled(n * s->heads * s->head, dtype);
    fw_flash_attention a = {.struct_size = sizeof a,
                            .exclude_self = exclude_self,
                            .window = window,
                            .scale = (float)(1.0 / sqrt((double)s->head)),
                            .q = heads(rows, s, 0, s->heads, total),
                            .k = heads(rows, s, s->heads, s->groups, total),
                            .v = heads(rows, s, g, s->groups, total),
                            .out = heads(out, s, 0, s->heads, s->heads),
                            .log_sum_exp = vector(statistics),
                            .self_dot = vector(statistics),
                            .cu_seqlens = fw_absent(),
                            .d_out = heads(d_out, s, 0, s->heads, s->heads),
                            .d_q = heads(d_rows, s, 0, s->heads, total),
                            .d_k = heads(d_rows, s, s->heads, s->groups, total),
                            .d_v = heads(d_rows, s, g, s->groups, total)};
    a.scratch_bytes = device->ops->attention_scratch(device, &a);
    a.scratch = a.scratch_bytes > 0 ? filled((int64_t)(a.scratch_bytes + 3) / 4, FW_F32) : NULL;
    const double flops = attention_flops(&a);
    char shape[64];
    (void)snprintf(shape, sizeof shape, "T=%lld D=%lld%s%s", (long long)s->tokens,
                   (long long)s->head, exclude_self ? " xsa" : "", window > 0 ? " window" : "");
    report("attention_forward", shape, call_attention_forward, &a, flops, 0.0);
    report("attention_backward", shape, call_attention_backward, &a, 2.5 * flops, 0.0);
    release_all();
}

static void bench_norms(const model_shape *s) {
    const int64_t n = s->batch * s->tokens;
    const double bytes = compute_bytes(n * s->width);
    char shape[64];
    (void)snprintf(shape, sizeof shape, "N=%lld C=%lld", (long long)n, (long long)s->width);
    const fw_rmsnorm r = {.struct_size = sizeof r,
                          .epsilon = 1e-6f,
                          .scale = 1.0f,
                          .x = matrix(n, s->width),
                          .out = matrix(n, s->width),
                          .inverse_rms = vector(n),
                          .d_out = matrix(n, s->width),
                          .d_x = matrix(n, s->width)};
    report("rmsnorm_forward", shape, call_rmsnorm_forward, &r, 0.0, 2.0 * bytes);
    report("rmsnorm_backward", shape, call_rmsnorm_backward, &r, 0.0, 3.0 * bytes);
    const fw_residual_norm p = {.struct_size = sizeof p,
                                .epsilon = 1e-6f,
                                .scale = 1.0f,
                                .a = matrix(n, s->width),
                                .weight_a = vector(s->width),
                                .b = matrix(n, s->width),
                                .weight_b = vector(s->width),
                                .sum = matrix(n, s->width),
                                .out = r.out,
                                .inverse_rms = r.inverse_rms,
                                .d_sum = matrix(n, s->width),
                                .d_out = r.d_out,
                                .d_a = matrix(n, s->width),
                                .d_b = r.d_x,
                                .d_weight_a = vector(s->width),
                                .d_weight_b = vector(s->width)};
    report("residual_norm_forward", shape, call_residual_norm_forward, &p, 0.0, 4.0 * bytes);
    report("residual_norm_backward", shape, call_residual_norm_backward, &p, 0.0, 7.0 * bytes);
    release_all();
}

static void bench_rope(const model_shape *s) {
    const int64_t n = s->batch * s->tokens, total = s->heads + 2 * s->groups;
    const uint32_t dtype = device->compute_dtype;
    void *rows = filled(n * total * s->head, dtype), *d_rows = filled(n * total * s->head, dtype);
    void *out = filled(n * s->heads * s->head, dtype);
    void *d_out = filled(n * s->heads * s->head, dtype);
    const fw_qk_norm_rope p = {.struct_size = sizeof p,
                               .epsilon = 1e-6f,
                               .x = heads(rows, s, 0, s->heads, total),
                               .out = heads(out, s, 0, s->heads, s->heads),
                               .inverse_rms = vector(n * s->heads),
                               .cosine = float_matrix(s->tokens, s->head / 2),
                               .sine = float_matrix(s->tokens, s->head / 2),
                               .gain = vector(s->heads),
                               .d_out = heads(d_out, s, 0, s->heads, s->heads),
                               .d_x = heads(d_rows, s, 0, s->heads, total),
                               .d_gain = vector(s->heads)};
    const double bytes = compute_bytes(n * s->heads * s->head);
    char shape[64];
    (void)snprintf(shape, sizeof shape, "N=%lld H=%lld D=%lld", (long long)n, (long long)s->heads,
                   (long long)s->head);
    report("qk_norm_rope_forward", shape, call_qk_norm_rope_forward, &p, 0.0, 2.0 * bytes);
    report("qk_norm_rope_backward", shape, call_qk_norm_rope_backward, &p, 0.0, 3.0 * bytes);
    release_all();
}

static void bench_activation(const model_shape *s) {
    static const char *const names[] = {"", "leaky^2", "relu^2", "gelu", "silu"};
    const int64_t n = s->batch * s->tokens * s->hidden;
    fw_activation p = {.struct_size = sizeof p,
                       .slope = 0.5f,
                       .x = matrix(1, n),
                       .out = matrix(1, n),
                       .d_out = matrix(1, n),
                       .d_x = matrix(1, n)};
    const double bytes = compute_bytes(n);
    for (p.kind = FW_LEAKY_RELU_SQUARED; p.kind <= FW_SILU; p.kind += 2) {
        report("activation_forward", names[p.kind], call_activation_forward, &p, 0.0, 2.0 * bytes);
        report("activation_backward", names[p.kind], call_activation_backward, &p, 0.0,
               3.0 * bytes);
    }
    release_all();
}

static void bench_loss(const model_shape *s) {
    const int64_t n = s->batch * s->tokens;
    const double bytes = compute_bytes(n * s->vocabulary);
    char shape[64];
    (void)snprintf(shape, sizeof shape, "N=%lld V=%lld cap", (long long)n,
                   (long long)s->vocabulary);
    const fw_cross_entropy p = {.struct_size = sizeof p,
                                .softcap = 15.0f,
                                .d_loss = 1.0f,
                                .logits = matrix(n, s->vocabulary),
                                .targets = tokens(n, s->vocabulary),
                                .loss = vector(n),
                                .log_sum_exp = vector(n),
                                .d_logits = matrix(n, s->vocabulary)};
    report("cross_entropy_forward", shape, call_cross_entropy_forward, &p, 0.0, bytes);
    report("cross_entropy_backward", shape, call_cross_entropy_backward, &p, 0.0, 2.0 * bytes);
    const fw_log_softmax l = {.struct_size = sizeof l,
                              .softcap = 15.0f,
                              .logits = p.logits,
                              .log_probabilities = float_matrix(n, s->vocabulary),
                              .entropy = p.loss};
    report("log_softmax", shape, call_log_softmax, &l, 0.0,
           bytes + 4.0 * (double)(n * s->vocabulary));
    release_all();
}

static void bench_embedding(const model_shape *s) {
    const int64_t n = s->batch * s->tokens;
    const fw_embedding p = {.struct_size = sizeof p,
                            .tokens = tokens(n, s->vocabulary),
                            .table = matrix(s->vocabulary, s->width),
                            .out = matrix(n, s->width),
                            .d_out = matrix(n, s->width),
                            .d_table = float_matrix(s->vocabulary, s->width)};
    const double bytes = compute_bytes(n * s->width);
    report("embedding_forward", s->name, call_embedding_forward, &p, 0.0, bytes);
    report("embedding_backward", s->name, call_embedding_backward, &p, 0.0, bytes);
    release_all();
}

static void bench_smear(const model_shape *s) {
    const int64_t n = s->batch * s->tokens;
    const uint32_t dtype = device->compute_dtype;
    fw_smear p = {.struct_size = sizeof p, .gate = vector(s->width), .d_gate = vector(s->width)};
    fw_tensor *each[] = {&p.x, &p.out, &p.d_out, &p.d_x};
    for (int i = 0; i < 4; i++)
        *each[i] =
            fw_tensor_view(filled(n * s->width, dtype), dtype, 3, s->batch, s->tokens, s->width, 1);
    const double bytes = compute_bytes(n * s->width);
    report("smear_forward", s->name, call_smear_forward, &p, 0.0, 2.0 * bytes);
    report("smear_backward", s->name, call_smear_backward, &p, 0.0, 3.0 * bytes);
    release_all();
}

/* The first layer of the MLP, and back to its input's gradient through the second. */
static void bench_linear_activation(const model_shape *s) {
    if (!FW_HAS(device->ops, linear_activation_forward)) return;
    const int64_t n = s->batch * s->tokens;
    fw_linear_activation p = {.struct_size = sizeof p,
                              .kind = FW_LEAKY_RELU_SQUARED,
                              .slope = 0.5f,
                              .x = matrix(n, s->width),
                              .weight = matrix(s->hidden, s->width),
                              .out = matrix(n, s->hidden),
                              .d_y = matrix(n, s->width),
                              .next_weight = matrix(s->width, s->hidden),
                              .d_hidden = matrix(n, s->hidden)};
    p.saved_bytes = device->ops->linear_activation_saved(device, &p);
    p.saved = p.saved_bytes > 0 ? filled((int64_t)(p.saved_bytes + 3) / 4, FW_F32) : NULL;
    const double flops = 2.0 * (double)(n * s->hidden) * (double)s->width;
    report("linear_activation_forward", s->name, call_linear_activation_forward, &p, flops, 0.0);
    report("linear_activation_backward", s->name, call_linear_activation_backward, &p, flops, 0.0);
    release_all();
}

static void bench_optimizer(const model_shape *s) {
    const int64_t n = 4 * s->hidden * s->width;
    const fw_step step = {.learning_rate = 1e-3f, .momentum = 0.9f, .clip = 1.0f, .finite = 1};
    void *memory = filled(sizeof step / sizeof(float), FW_F32);
    (void)device->copy_from_host(device, memory, &step, sizeof step, NULL);
    const fw_tensor x = vector(n), g = vector(n), m = vector(n), v = vector(n);
    (void)device->zero(device, v.data, (size_t)n * sizeof(float), NULL);
    const fw_adamw_step a = {.struct_size = sizeof a,
                             .beta1 = 0.9f,
                             .beta2 = 0.95f,
                             .epsilon = 1e-8f,
                             .step = memory,
                             .parameter = x,
                             .gradient = g,
                             .first_moment = m,
                             .second_moment = v,
                             .compute = fw_absent()};
    const double bytes = 4.0 * (double)n;
    report("adamw", "4 mlp matrices", call_adamw, &a, 0.0, 7.0 * bytes);
    const fw_momentum_step p = {.struct_size = sizeof p,
                                .nesterov = 1,
                                .step = memory,
                                .gradient = g,
                                .momentum = m,
                                .update = x};
    report("momentum", "4 mlp matrices", call_momentum, &p, 0.0, 4.0 * bytes);
    const fw_reduce r = {
        .struct_size = sizeof r, .reduction = FW_SUM_SQUARES, .x = g, .result = vector(1)};
    report("reduce sum_squares", "4 mlp matrices", call_reduce, &r, 0.0, bytes);
    const fw_axpby y = {.struct_size = sizeof y, .alpha = 1.0f, .beta = 1.0f, .x = g, .y = m};
    report("axpby", "4 mlp matrices", call_axpby, &y, 0.0, 3.0 * bytes);
    const fw_cast c = {.struct_size = sizeof c, .from = g, .to = fw_vector(m.data, FW_BF16, n)};
    report("cast to bf16", "4 mlp matrices", call_cast, &c, 0.0, 1.5 * bytes);
    const fw_fake_quantize q = {.struct_size = sizeof q,
                                .levels = 31,
                                .x = fw_matrix(g.data, FW_F32, n / s->width, s->width),
                                .scale = vector(n / s->width),
                                .out = matrix(n / s->width, s->width)};
    report("fake_quantize", "4 mlp matrices", call_fake_quantize, &q, 0.0,
           bytes + compute_bytes(n));
    fw_newton_schulz o = {.struct_size = sizeof o,
                          .iterations = 5,
                          .a = 3.4445f,
                          .b = -4.775f,
                          .c = 2.0315f,
                          .epsilon = 1e-7f,
                          .x = fw_tensor_view(g.data, FW_F32, 3, 4, s->hidden, s->width, 1),
                          .out = fw_tensor_view(m.data, FW_F32, 3, 4, s->hidden, s->width, 1)};
    o.scratch_bytes = device->ops->newton_schulz_scratch(device, &o);
    o.scratch = filled((int64_t)o.scratch_bytes / 4 + 1, FW_F32);
    report("newton_schulz", "4 mlp matrices", call_newton_schulz, &o, newton_schulz_flops(&o), 0.0);
    release_all();
}

int main(void) {
    const char *id = getenv("FAIRWAY_TEST_DEVICE");
    if (id == NULL) id = "cpu";
    device = test_device(id);
    const bool gpu = device->type != FW_CPU;
    if (gpu) launches = 10;
    const fw_device_driver *driver = test_plugin(FW_DEVICE, id)->vtable;
    fw_device_info info = {.struct_size = sizeof info};
    (void)driver->describe(0, &info, NULL);
    if (info.threads == 1) bench_use_thread_clock();
    (void)printf("%s; %s\n", info.name, info.libraries);
    (void)printf("%-26s %-26s %9s %9s %9s %9s %7s\n", "op", "shape", "ms", "best ms", "GFLOP/s",
                 "GB/s", "ratio");
    const int64_t side = gpu ? 8192 : 2048;
    bench_product("gemm (the ceiling)", side, side, side, 0, 0, device->compute_dtype);
    bench_copy();
    const model_shape *shapes = gpu ? for_gpu : for_cpu;
    const size_t n = gpu ? sizeof for_gpu / sizeof *for_gpu : sizeof for_cpu / sizeof *for_cpu;
    for (const model_shape *s = shapes; s < shapes + n; s++) {
        (void)printf("-- %s: B=%lld T=%lld C=%lld H=%lld G=%lld D=%lld V=%lld MLP=%lld\n", s->name,
                     (long long)s->batch, (long long)s->tokens, (long long)s->width,
                     (long long)s->heads, (long long)s->groups, (long long)s->head,
                     (long long)s->vocabulary, (long long)s->hidden);
        bench_products(s);
        bench_attention(s, 0, 0);
        bench_attention(s, 1, 0);
        bench_attention(s, 1, s->tokens / 4);
        bench_norms(s);
        bench_rope(s);
        bench_activation(s);
        bench_linear_activation(s);
        bench_smear(s);
        bench_loss(s);
        bench_embedding(s);
        bench_optimizer(s);
    }
    driver->destroy(device);
    return 0;
}
