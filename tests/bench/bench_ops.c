/* Times the ops of a device (FAIRWAY_TEST_DEVICE, default cpu) at the shapes of two small models
 * and prints, for each, the median and the best time, the rate at the best (on a shared machine the
 * median tells more about the neighbours), and its ratio to what a large square product reaches on
 * the same machine in the same run. Bytes count each operand once. With OMP_NUM_THREADS=1 it counts
 * the thread's processor time, which neighbours disturb least. */
#include "bench.h"

#include <math.h>
#include <stdio.h>

typedef struct model_shape {
    const char *name;
    int64_t batch, tokens, width, heads, groups, head, vocabulary, hidden;
} model_shape;

static const model_shape shapes[] = {{"small", 16, 512, 192, 6, 3, 32, 256, 576},
                                     {"large", 1, 2048, 512, 8, 4, 64, 1024, 1536}};

static fw_device *device;
static double ceiling; /* FLOP/s of the large product */
static test_random random_state = {1};

enum { MAX_BUFFERS = 256 };
static void *buffers[MAX_BUFFERS];
static size_t n_buffers;

static void *filled(int64_t n) {
    float *host = must(malloc((size_t)n * sizeof *host));
    fw_error error = {.struct_size = sizeof error};
    if (n_buffers == MAX_BUFFERS) exit(1);
    for (int64_t i = 0; i < n; i++) host[i] = (float)test_normal(&random_state);
    const size_t bytes = (size_t)n * sizeof *host;
    void *memory = NULL;
    stop_on(device->allocate(device, bytes, &memory, &error), &error);
    stop_on(device->copy_from_host(device, memory, host, bytes, &error), &error);
    free(host);
    return buffers[n_buffers++] = memory;
}

static void release_all(void) {
    while (n_buffers > 0) device->release(device, buffers[--n_buffers]);
}

static fw_tensor matrix(int64_t rows, int64_t columns) {
    return fw_matrix(filled(rows * columns), FW_F32, rows, columns);
}

static fw_tensor vector(int64_t n) { return fw_vector(filled(n), FW_F32, n); }

static fw_tensor tokens(int64_t n, int64_t below) {
    int32_t *host = must(malloc((size_t)n * sizeof *host));
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)test_below(&random_state, (uint64_t)below);
    const fw_tensor t = fw_vector(filled(n), FW_I32, n);
    (void)device->copy_from_host(device, t.data, host, (size_t)n * sizeof *host, NULL);
    free(host);
    return t;
}

/* Heads [begin, begin + heads) of rows that hold `total` heads. */
static fw_tensor heads(void *rows, const model_shape *s, int64_t begin, int64_t n, int64_t total) {
    float *data = (float *)rows + begin * s->head;
    fw_tensor t = fw_tensor_view(data, FW_F32, 4, s->batch, s->tokens, n, s->head);
    t.stride[1] = total * s->head;
    t.stride[0] = s->tokens * t.stride[1];
    return t;
}

/* ---- timing ---- */

static void report(const char *op, const char *shape, timed_call *f, const void *arguments,
                   double flops, double bytes) {
    const timing taken = bench_measure(f, arguments, 5, 0.2);
    const double time = taken.best;
    (void)printf("%-24s %-26s %9.3f %9.3f", op, shape, 1e3 * taken.median, 1e3 * time);
    if (flops > 0.0)
        (void)printf(" %9.1f %9s %7.2f\n", 1e-9 * flops / time, "", flops / time / ceiling);
    else
        (void)printf(" %9s %9.1f\n", "", 1e-9 * bytes / time);
}

/* One trampoline for each op: what report() times. */
#define CALL(member, type)                                                                         \
    static fw_status call_##member(const void *arguments, fw_error *error) {                       \
        FW_TRY(device->ops->member(device, (const type *)arguments, error));                       \
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

/* ---- the ops ---- */

static void bench_product(const char *op, int64_t m, int64_t n, int64_t k, uint32_t ta,
                          uint32_t tb) {
    char shape[64];
    (void)snprintf(shape, sizeof shape, "M=%lld N=%lld K=%lld", (long long)m, (long long)n,
                   (long long)k);
    const fw_gemm g = {.struct_size = sizeof g,
                       .transpose_a = ta,
                       .transpose_b = tb,
                       .alpha = 1.0f,
                       .a = ta ? matrix(k, m) : matrix(m, k),
                       .b = tb ? matrix(n, k) : matrix(k, n),
                       .c = matrix(m, n)};
    const double flops = gemm_flops(&g);
    if (ceiling <= 0.0) ceiling = flops / bench_measure(call_gemm, &g, 5, 0.2).best;
    report(op, shape, call_gemm, &g, flops, 0.0);
    release_all();
}

static void bench_products(const model_shape *s) {
    const int64_t n = s->batch * s->tokens, qkv = (s->heads + 2 * s->groups) * s->head;
    bench_product("gemm qkv forward", n, qkv, s->width, 0, 1);
    bench_product("gemm mlp forward", n, s->hidden, s->width, 0, 1);
    bench_product("gemm mlp down", n, s->width, s->hidden, 0, 1);
    bench_product("gemm mlp dX", n, s->width, s->hidden, 0, 0);
    bench_product("gemm mlp dW", s->hidden, s->width, n, 1, 0);
    bench_product("gemm out dW", s->width, s->width, n, 1, 0);
    bench_product("gemm logits", n, s->vocabulary, s->width, 0, 1);
}

static void bench_attention(const model_shape *s, uint32_t exclude_self, int64_t window) {
    const int64_t n = s->batch * s->tokens, total = s->heads + 2 * s->groups;
    const int64_t g = s->heads + s->groups, statistics = s->batch * s->heads * s->tokens;
    void *rows = filled(n * total * s->head), *d_rows = filled(n * total * s->head);
    void *out = filled(n * s->heads * s->head), *d_out = filled(n * s->heads * s->head);
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
    a.scratch = a.scratch_bytes > 0 ? filled((int64_t)(a.scratch_bytes + 3) / 4) : NULL;
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
    const double bytes = 4.0 * (double)(n * s->width);
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
    void *rows = filled(n * total * s->head), *d_rows = filled(n * total * s->head);
    void *out = filled(n * s->heads * s->head), *d_out = filled(n * s->heads * s->head);
    const fw_qk_norm_rope p = {.struct_size = sizeof p,
                               .epsilon = 1e-6f,
                               .x = heads(rows, s, 0, s->heads, total),
                               .out = heads(out, s, 0, s->heads, s->heads),
                               .inverse_rms = vector(n * s->heads),
                               .cosine = matrix(s->tokens, s->head / 2),
                               .sine = matrix(s->tokens, s->head / 2),
                               .gain = vector(s->heads),
                               .d_out = heads(d_out, s, 0, s->heads, s->heads),
                               .d_x = heads(d_rows, s, 0, s->heads, total),
                               .d_gain = vector(s->heads)};
    const double bytes = 4.0 * (double)(n * s->heads * s->head);
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
                       .x = vector(n),
                       .out = vector(n),
                       .d_out = vector(n),
                       .d_x = vector(n)};
    const double bytes = 4.0 * (double)n;
    for (p.kind = FW_LEAKY_RELU_SQUARED; p.kind <= FW_SILU; p.kind += 2) {
        report("activation_forward", names[p.kind], call_activation_forward, &p, 0.0, 2.0 * bytes);
        report("activation_backward", names[p.kind], call_activation_backward, &p, 0.0,
               3.0 * bytes);
    }
    release_all();
}

static void bench_loss(const model_shape *s) {
    const int64_t n = s->batch * s->tokens;
    const double bytes = 4.0 * (double)(n * s->vocabulary);
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
                              .log_probabilities = p.d_logits,
                              .entropy = p.loss};
    report("log_softmax", shape, call_log_softmax, &l, 0.0, 2.0 * bytes);
    release_all();
}

static void bench_embedding(const model_shape *s) {
    const int64_t n = s->batch * s->tokens;
    const fw_embedding p = {.struct_size = sizeof p,
                            .tokens = tokens(n, s->vocabulary),
                            .table = matrix(s->vocabulary, s->width),
                            .out = matrix(n, s->width),
                            .d_out = matrix(n, s->width),
                            .d_table = matrix(s->vocabulary, s->width)};
    const double bytes = 8.0 * (double)(n * s->width);
    report("embedding_forward", s->name, call_embedding_forward, &p, 0.0, bytes);
    report("embedding_backward", s->name, call_embedding_backward, &p, 0.0, bytes);
    release_all();
}

static void bench_optimizer(const model_shape *s) {
    const int64_t n = 4 * s->hidden * s->width;
    const fw_step step = {.learning_rate = 1e-3f, .momentum = 0.9f, .clip = 1.0f, .finite = 1};
    void *memory = filled(sizeof step / sizeof(float));
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
                                .out = fw_matrix(m.data, FW_F32, n / s->width, s->width)};
    report("fake_quantize", "4 mlp matrices", call_fake_quantize, &q, 0.0, 2.0 * bytes);
    fw_newton_schulz o = {.struct_size = sizeof o,
                          .iterations = 5,
                          .a = 3.4445f,
                          .b = -4.775f,
                          .c = 2.0315f,
                          .epsilon = 1e-7f,
                          .x = fw_tensor_view(g.data, FW_F32, 3, 4, s->hidden, s->width, 1),
                          .out = fw_tensor_view(m.data, FW_F32, 3, 4, s->hidden, s->width, 1)};
    o.scratch_bytes = device->ops->newton_schulz_scratch(device, &o);
    o.scratch = filled((int64_t)o.scratch_bytes / 4 + 1);
    report("newton_schulz", "4 mlp matrices", call_newton_schulz, &o, newton_schulz_flops(&o), 0.0);
    release_all();
}

int main(void) {
    const char *id = getenv("FAIRWAY_TEST_DEVICE");
    if (id == NULL) id = "cpu";
    device = test_device(id);
    if (device->compute_dtype != FW_F32) {
        (void)fprintf(stderr, "bench_ops times float32 devices; %s computes in another dtype\n",
                      id);
        return 2;
    }
    const fw_device_driver *driver = test_plugin(FW_DEVICE, id)->vtable;
    fw_device_info info = {.struct_size = sizeof info};
    (void)driver->describe(0, &info, NULL);
    if (info.threads == 1) bench_use_thread_clock();
    (void)printf("%s; %s\n", info.name, info.libraries);
    (void)printf("%-24s %-26s %9s %9s %9s %9s %7s\n", "op", "shape", "ms", "best ms", "GFLOP/s",
                 "GB/s", "ratio");
    bench_product("gemm (the ceiling)", 2048, 2048, 2048, 0, 0);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const model_shape *s = &shapes[i];
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
        bench_loss(s);
        bench_embedding(s);
        bench_optimizer(s);
    }
    driver->destroy(device);
    return 0;
}
