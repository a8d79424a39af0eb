/* gqa and xsa on the CPU device against the float64 twin: outputs element by element, gradients
 * against central differences of the twin for every element of every input. */
#include <math.h>
#include <stdio.h>

#include "attention_reference.h"
#include "support.h"

enum { WQ, WK, WV, WO, Q_GAIN, N_WEIGHTS, INPUT = N_WEIGHTS, VALUE_ADD, N_INPUTS };

typedef struct test_case {
    const char *plugin;
    const char *const *settings;
    int64_t batch, tokens, width, heads, kv_heads, rope_dims, offset, window;
    int64_t rope_reference;
    double rope_base; /* that is expected */
    bool value_add, packed, excludes;
    int32_t documents[8]; /* starts for each sequence, three documents; all zero: none */
} test_case;

/* All that one case owns: the inputs twice, as float for the plugin and as double for the twin. */
typedef struct bench {
    const test_case *tc;
    fw_device *device;
    const fw_attention *vtable;
    void *self;
    size_t count[N_INPUTS];
    double *exact[N_INPUTS];
    float *values[N_INPUTS], *grads[N_INPUTS], *packed_values, *packed_grads;
    float *output;
    double *d_output;
} bench;

static fw_device *device;

static int open_device(void **state) {
    (void)state;
    device = test_device("cpu");
    return 0;
}

static float *floats(size_t n) {
    float *values = aligned_alloc(64, (n * sizeof *values + 63) / 64 * 64);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++) values[i] = NAN;
    return values;
}

/* Room for n tensors: Wq, Wk and Wv share one block when the case packs them, and get gaps
 * otherwise. */
static void take(bench *b, float *tensors[], float **packed) {
    const size_t gap = b->tc->packed ? 0 : 5;
    *packed = floats(b->count[WQ] + b->count[WK] + b->count[WV] + 2 * gap);
    tensors[WQ] = *packed;
    tensors[WK] = tensors[WQ] + b->count[WQ] + gap;
    tensors[WV] = tensors[WK] + b->count[WK] + gap;
    for (size_t i = WO; i < N_INPUTS; i++) tensors[i] = floats(b->count[i]);
}

static void fill(bench *b) {
    test_random random = {7};
    for (size_t i = 0; i < N_INPUTS; i++) {
        b->exact[i] = calloc(b->count[i], sizeof(double));
        const double deviation = i >= INPUT    ? 1
                                 : i == Q_GAIN ? 0.3
                                               : sqrt(2.0 / (double)b->tc->width);
        for (size_t j = 0; j < b->count[i]; j++) {
            b->values[i][j] = (float)(deviation * test_normal(&random) + (i == Q_GAIN ? 1.5 : 0));
            b->exact[i][j] = (double)b->values[i][j];
        }
    }
    const size_t n = b->count[INPUT];
    b->output = floats(n);
    b->d_output = calloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) b->d_output[i] = (double)(float)test_normal(&random);
}

static bench open_bench(const test_case *tc) {
    const fw_plugin *plugin = test_plugin(FW_ATTENTION, tc->plugin);
    const int64_t d = tc->width / tc->heads, n = tc->batch * tc->tokens;
    const fw_attention_shape shape = {.struct_size = sizeof shape,
                                      .layers = 1,
                                      .width = tc->width,
                                      .max_batch = tc->batch,
                                      .max_tokens = tc->tokens + tc->offset,
                                      .rope_reference = tc->rope_reference};
    fw_error error = {.struct_size = sizeof error};
    fw_value *values = test_values(plugin, tc->settings);
    bench b = {.tc = tc, .device = device, .vtable = plugin->vtable};
    if (b.vtable->create(test_host(device), values, &shape, &b.self, &error) != FW_OK)
        fail_msg("%s", error.message);
    free(values);
    b.count[WQ] = b.count[WO] = (size_t)(tc->width * tc->heads * d);
    b.count[WK] = b.count[WV] = (size_t)(tc->width * tc->kv_heads * d);
    b.count[Q_GAIN] = (size_t)tc->heads;
    b.count[INPUT] = (size_t)(n * tc->width);
    b.count[VALUE_ADD] = (size_t)(n * tc->kv_heads * d);
    take(&b, b.values, &b.packed_values);
    take(&b, b.grads, &b.packed_grads);
    fill(&b);
    return b;
}

static void close_bench(bench *b) {
    for (size_t i = 0; i < N_INPUTS; i++) {
        free(b->exact[i]);
        if (i >= WO) free(b->values[i]), free(b->grads[i]);
    }
    free(b->packed_values), free(b->packed_grads), free(b->output), free(b->d_output);
    b->vtable->destroy(b->self);
}

static void describe(const bench *b, float *const *from, fw_tensor *tensors) {
    const int64_t c = b->tc->width;
    for (uint32_t i = 0; i < N_WEIGHTS; i++) {
        const int64_t count = (int64_t)b->count[i];
        tensors[i] = i == Q_GAIN ? fw_vector(from[i], FW_F32, count)
                                 : fw_matrix(from[i], FW_F32, count / c, c);
    }
}

static void run(const bench *b) {
    const test_case *tc = b->tc;
    const int64_t n = tc->batch * tc->tokens, c = tc->width;
    const int64_t kv = (int64_t)b->count[VALUE_ADD] / n;
    fw_tensor weights[N_WEIGHTS], grads[N_WEIGHTS];
    fw_attention_plan plan = {.struct_size = sizeof plan};
    fw_error error = {.struct_size = sizeof error};
    describe(b, b->values, weights);
    describe(b, b->grads, grads);
    assert_int_equal(b->vtable->plan(b->self, FW_TRAIN, tc->batch, tc->tokens, &plan, &error), 0);
    assert_int_equal(plan.value_width, kv);
    float *saved = floats(plan.saved_bytes / 4), *scratch = floats(plan.scratch_bytes / 4);
    float *d_output = floats(b->count[INPUT]);
    for (size_t i = 0; i < b->count[INPUT]; i++) d_output[i] = (float)b->d_output[i];
    const bool documents = tc->documents[1] > 0;
    const fw_attention_call call = {
        .struct_size = sizeof call,
        .phase = FW_TRAIN,
        .batch = tc->batch,
        .tokens = tc->tokens,
        .position_offset = tc->offset,
        .window = tc->window,
        .n_weights = N_WEIGHTS,
        .weights = weights,
        .grads = grads,
        .input = fw_matrix(b->values[INPUT], FW_F32, n, c),
        .output = fw_matrix(b->output, FW_F32, n, c),
        .value_add = tc->value_add ? fw_matrix(b->values[VALUE_ADD], FW_F32, n, kv) : fw_absent(),
        .d_output = fw_matrix(d_output, FW_F32, n, c),
        .d_input = fw_matrix(b->grads[INPUT], FW_F32, n, c),
        .d_value_add = tc->value_add ? fw_matrix(b->grads[VALUE_ADD], FW_F32, n, kv) : fw_absent(),
        .cu_seqlens = documents ? fw_matrix((void *)(uintptr_t)tc->documents, FW_I32, tc->batch, 4)
                                : fw_absent(),
        .saved = saved,
        .scratch = scratch};
    if (b->vtable->forward(b->self, &call, &error) != FW_OK) fail_msg("%s", error.message);
    if (b->vtable->backward(b->self, &call, &error) != FW_OK) fail_msg("%s", error.message);
    free(saved), free(scratch), free(d_output);
}

static void twin(const bench *b, double *output) {
    const test_case *tc = b->tc;
    const attention_reference a = {.batch = tc->batch,
                                   .tokens = tc->tokens,
                                   .width = tc->width,
                                   .heads = tc->heads,
                                   .kv_heads = tc->kv_heads,
                                   .rope_dims = tc->rope_dims,
                                   .offset = tc->offset,
                                   .window = tc->window,
                                   .rope_base = tc->rope_base,
                                   .exclude_self = tc->excludes,
                                   .documents = tc->documents[1] > 0 ? tc->documents : NULL,
                                   .n_documents = 3,
                                   .input = b->exact[INPUT],
                                   .wq = b->exact[WQ],
                                   .wk = b->exact[WK],
                                   .wv = b->exact[WV],
                                   .wo = b->exact[WO],
                                   .q_gain = b->exact[Q_GAIN],
                                   .value_add = tc->value_add ? b->exact[VALUE_ADD] : NULL};
    attention_reference_forward(&a, output);
}

static double twin_loss(const bench *b) {
    const size_t n = b->count[INPUT];
    double *output = calloc(n, sizeof *output), loss = 0;
    twin(b, output);
    for (size_t i = 0; i < n; i++) loss += output[i] * b->d_output[i];
    free(output);
    return loss;
}

/* Central differences in float64 are good to about 1e-9 here, so the tolerance is float32's. */
static void check_gradients(const bench *b) {
    static const char *const names[] = {"wq", "wk", "wv", "wo", "q_gain", "input", "value_add"};
    const double h = 1e-5;
    for (size_t i = 0; i < N_INPUTS; i++) {
        if (i == VALUE_ADD && !b->tc->value_add) continue;
        double *slope = calloc(b->count[i], sizeof *slope);
        for (size_t j = 0; j < b->count[i]; j++) {
            const double kept = b->exact[i][j];
            b->exact[i][j] = kept + h;
            const double above = twin_loss(b);
            b->exact[i][j] = kept - h;
            slope[j] = (above - twin_loss(b)) / (2 * h);
            b->exact[i][j] = kept;
        }
        const double difference = test_relative_error(b->grads[i], slope, b->count[i]);
        if (!(difference < 1e-5)) fail_msg("d_%s: relative error %.3g", names[i], difference);
        free(slope);
    }
}

static void check(const test_case *tc) {
    bench b = open_bench(tc);
    double *expected = calloc(b.count[INPUT], sizeof *expected);
    run(&b);
    twin(&b, expected);
    const double difference = test_relative_error(b.output, expected, b.count[INPUT]);
    if (!(difference < 2e-6)) fail_msg("output: relative error %.3g", difference);
    check_gradients(&b);
    free(expected);
    close_bench(&b);
}

static const char *const grouped[] = {"heads=6", "kv_heads=2", "rope_dims=4", NULL};
static const char *const single[] = {"heads=3", "kv_heads=1", "rope_dims=0", "rope_base=50", NULL};
static const char *const adaptive[] = {"heads=2", "kv_heads=2", "rope_dims=6",
                                       "rope_train_length=8", NULL};

static void grouped_queries(void **state) {
    const test_case tc = {.plugin = *state,
                          .settings = grouped,
                          .batch = 2,
                          .tokens = 7,
                          .width = 36,
                          .heads = 6,
                          .kv_heads = 2,
                          .rope_dims = 4,
                          .rope_base = 10000,
                          .packed = true,
                          .excludes = strcmp(*state, "xsa") == 0};
    check(&tc);
}

static void one_key_head_and_value_add(void **state) {
    const test_case tc = {.plugin = *state,
                          .settings = single,
                          .batch = 1,
                          .tokens = 9,
                          .width = 30,
                          .heads = 3,
                          .kv_heads = 1,
                          .rope_dims = 10,
                          .rope_base = 50,
                          .offset = 5,
                          .window = 4,
                          .value_add = true,
                          .excludes = strcmp(*state, "xsa") == 0};
    check(&tc);
}

static void documents_and_adaptive_base(void **state) {
    const test_case tc = {.plugin = *state,
                          .settings = adaptive,
                          .batch = 2,
                          .tokens = 8,
                          .width = 14,
                          .heads = 2,
                          .kv_heads = 2,
                          .rope_dims = 6,
                          .rope_reference = 16,
                          .rope_base = 10000 * 2.8284271247461903, /* (16/8)^(6/4) */
                          .value_add = true,
                          .packed = true,
                          .excludes = strcmp(*state, "xsa") == 0,
                          .documents = {0, 3, 8, 8, 0, 2, 5, 8}};
    check(&tc);
}

static void xsa_can_serve_the_last_layers_only(void **state) {
    (void)state;
    static const char *const settings[] = {"heads=6", "kv_heads=2", "rope_dims=4", "last_layers=1",
                                           NULL};
    test_case tc = {.plugin = "xsa",
                    .settings = settings,
                    .batch = 1,
                    .tokens = 4,
                    .width = 36,
                    .heads = 6,
                    .kv_heads = 2,
                    .rope_dims = 4,
                    .rope_base = 10000,
                    .packed = true,
                    .excludes = true};
    check(&tc); /* layer 0 of 1 is the last */
}

/* Each setting that cannot be is refused with a sentence that holds the nearest right value. */
static void wrong_settings_are_refused(void **state) {
    static const struct {
        const char *settings[4];
        int64_t width;
        const char *hint;
    } wrong[] = {{{"heads=5"}, 36, "nearest divisor is 4"},
                 {{"heads=6", "kv_heads=4"}, 36, "nearest divisor is 3"},
                 {{"heads=6", "kv_heads=2", "rope_dims=8"}, 36, "nearest is 6"},
                 {{"heads=6", "kv_heads=2", "rope_dims=5"}, 36, "nearest is 4"},
                 {{"heads=4", "kv_heads=2", "rope_dims=0"}, 36, "rope_dims = 8"}};
    const fw_plugin *plugin = test_plugin(FW_ATTENTION, *state);
    const fw_attention *vtable = plugin->vtable;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const fw_attention_shape shape = {.struct_size = sizeof shape,
                                          .layers = 1,
                                          .width = wrong[i].width,
                                          .max_batch = 1,
                                          .max_tokens = 4};
        fw_error error = {.struct_size = sizeof error};
        fw_value *values = test_values(plugin, wrong[i].settings);
        void *self = NULL;
        assert_int_equal(vtable->create(test_host(device), values, &shape, &self, &error),
                         FW_E_CONFIG);
        if (strstr(error.message, wrong[i].hint) == NULL)
            fail_msg("\"%s\" lacks \"%s\"", error.message, wrong[i].hint);
        assert_null(self);
        free(values);
    }
}

static void flops_count_the_causal_half(void **state) {
    const test_case tc = {.plugin = *state,
                          .settings = grouped,
                          .batch = 2,
                          .tokens = 7,
                          .width = 36,
                          .heads = 6,
                          .kv_heads = 2};
    bench b = open_bench(&tc);
    /* 14 rows through 36 x (36 + 24 + 36); 28 pairs in each of 2 sequences, 36 wide, twice. */
    const double expected = 2.0 * 14 * 36 * 96 + 2 * 2.0 * 2 * 28 * 36;
    assert_true(b.vtable->forward_flops(b.self, 2, 7) == expected);
    close_bench(&b);
}

/* Each position by a call of its own, from `gap` on one further than those before. */
static void decode_with_gap(const bench *b, fw_attention_state *kept, int64_t gap, float *output) {
    const int64_t c = b->tc->width;
    fw_tensor weights[N_WEIGHTS];
    fw_attention_plan plan = {.struct_size = sizeof plan};
    fw_error error = {.struct_size = sizeof error};
    describe(b, b->values, weights);
    assert_int_equal(b->vtable->plan(b->self, FW_DECODE, 1, 1, &plan, &error), FW_OK);
    assert_int_equal(b->vtable->state_reset(b->self, kept, &error), FW_OK);
    float *scratch = floats(plan.scratch_bytes / sizeof *scratch);
    for (int64_t t = 0; t < b->tc->tokens; t++) {
        const fw_attention_call call = {.struct_size = sizeof call,
                                        .phase = FW_DECODE,
                                        .batch = 1,
                                        .tokens = 1,
                                        .position_offset = t < gap ? t : t + 1,
                                        .n_weights = N_WEIGHTS,
                                        .weights = weights,
                                        .input = fw_matrix(b->values[INPUT] + t * c, FW_F32, 1, c),
                                        .output = fw_matrix(output + t * c, FW_F32, 1, c),
                                        .scratch = scratch};
        if (b->vtable->decode(b->self, kept, &call, &error) != FW_OK) fail_msg("%s", error.message);
    }
    free(scratch);
}

/* What is decoded at a wrong position is another result. */
static void decoding_knows_its_positions(void **state) {
    const test_case tc = {.plugin = *state,
                          .settings = grouped,
                          .batch = 1,
                          .tokens = 8,
                          .width = 36,
                          .heads = 6,
                          .kv_heads = 2};
    enum { T = 8, GAP = 4 };
    bench b = open_bench(&tc);
    float *moved = floats(T * 36);
    fw_attention_state kept = {.struct_size = sizeof kept, .batch = 1, .capacity = T};
    kept.memory = floats(b.vtable->state_bytes(b.self, 1, T) / sizeof(float));
    decode_with_gap(&b, &kept, T, b.output);
    decode_with_gap(&b, &kept, GAP, moved);
    assert_memory_equal(moved, b.output, GAP * 36 * sizeof *moved);
    for (int64_t t = GAP; t < T; t++) {
        double expected[36];
        for (int i = 0; i < 36; i++) expected[i] = (double)b.output[t * 36 + i];
        assert_true(test_relative_error(moved + t * 36, expected, 36) > 1e-3);
    }
    free(kept.memory), free(moved);
    close_bench(&b);
}

#define FOR(test, plugin)                                                                          \
    { plugin ": " #test, test, NULL, NULL, (void *)(uintptr_t)plugin }

int main(void) {
    const struct CMUnitTest tests[] = {FOR(grouped_queries, "gqa"),
                                       FOR(grouped_queries, "xsa"),
                                       FOR(one_key_head_and_value_add, "gqa"),
                                       FOR(one_key_head_and_value_add, "xsa"),
                                       FOR(documents_and_adaptive_base, "gqa"),
                                       FOR(documents_and_adaptive_base, "xsa"),
                                       FOR(wrong_settings_are_refused, "gqa"),
                                       FOR(flops_count_the_causal_half, "gqa"),
                                       FOR(decoding_knows_its_positions, "gqa"),
                                       FOR(decoding_knows_its_positions, "xsa"),
                                       cmocka_unit_test(xsa_can_serve_the_last_layers_only)};
    return cmocka_run_group_tests(tests, open_device, NULL);
}
