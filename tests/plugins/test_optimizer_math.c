/* adamw and muon on the CPU device against float64 formulas over several steps, and muon against a
 * golden Newton-Schulz result (computed in bfloat16 by the record this project starts from). */
#include <math.h>
#include <stdbool.h>

#include "golden.h"
#include "newton_schulz.h"
#include "support.h"

enum { MAX_TENSORS = 20, MAX_COUNT = 96 * 48, STEPS = 3 };

static fw_device *device;

static int open_device(void **state) {
    (void)state;
    device = test_device("cpu");
    return 0;
}

/* One group on the CPU device, whose memory the host may read directly. */
typedef struct group {
    const fw_optimizer *vtable;
    void *self;
    uint32_t n;
    fw_weight weights[MAX_TENSORS];
    fw_optimizer_tensor tensors[MAX_TENSORS];
    fw_step step;
    void *scratch;
} group;

static float *floats(size_t n) {
    float *values = aligned_alloc(64, (n * sizeof *values + 63) / 64 * 64);
    assert_non_null(values);
    memset(values, 0, n * sizeof *values);
    return values;
}

static fw_tensor take(const fw_weight *w) {
    return fw_tensor_view(floats((size_t)(w->shape[0] * w->shape[1])), FW_F32, w->rank, w->shape[0],
                          w->shape[1], 1, 1);
}

static void open_group(group *g, const char *id, const char *const *settings, uint32_t n,
                       const int64_t (*shapes)[2]) {
    const fw_plugin *plugin = test_plugin(FW_OPTIMIZER, id);
    fw_value *values = test_values(plugin, settings);
    const fw_weight *pointers[MAX_TENSORS];
    fw_error error = {.struct_size = sizeof error};
    size_t scratch = 0;
    *g = (group){.vtable = plugin->vtable, .n = n};
    if (g->vtable->create(test_host(device), values, &g->self, &error) != FW_OK)
        fail_msg("%s", error.message);
    for (uint32_t i = 0; i < n; i++) {
        fw_weight *w = &g->weights[i];
        *w = (fw_weight){.struct_size = sizeof *w,
                         .rank = shapes[i][1] > 1 ? 2 : 1,
                         .shape = {shapes[i][0], shapes[i][1], 1, 1}};
        pointers[i] = w;
        g->tensors[i] = (fw_optimizer_tensor){.struct_size = sizeof g->tensors[i],
                                              .weight = w,
                                              .parameter = take(w),
                                              .gradient = take(w),
                                              .compute = fw_absent(),
                                              .slot = {take(w), take(w)}};
    }
    if (g->vtable->plan(g->self, pointers, n, &scratch, &error) != FW_OK)
        fail_msg("%s", error.message);
    g->scratch = floats(scratch / sizeof(float) + 1);
    free(values);
}

static void close_group(group *g) {
    for (uint32_t i = 0; i < g->n; i++) {
        free(g->tensors[i].parameter.data), free(g->tensors[i].gradient.data);
        free(g->tensors[i].slot[0].data), free(g->tensors[i].slot[1].data);
    }
    free(g->scratch);
    g->vtable->destroy(g->self);
}

static void run_step(group *g, int64_t step, float schedule, float clip) {
    fw_error error = {.struct_size = sizeof error};
    g->step = (fw_step){.step = step, .schedule = schedule, .clip = clip, .finite = 1};
    g->vtable->prepare(g->self, &g->step);
    const fw_optimizer_call call = {.struct_size = sizeof call,
                                    .n_tensors = g->n,
                                    .tensors = g->tensors,
                                    .step = &g->step,
                                    .scratch = g->scratch};
    if (g->vtable->step(g->self, &call, &error) != FW_OK) fail_msg("%s", error.message);
}

static void adamw_follows_its_formulas(void **state) {
    (void)state;
    enum { N = 37 };
    static const int64_t shapes[][2] = {{N, 1}};
    static const char *const settings[] = {"learning_rate=0.02", "beta1=0.8",        "beta2=0.9",
                                           "epsilon=1e-3",       "weight_decay=0.3", NULL};
    double p[N], m[N] = {0}, v[N] = {0};
    test_random random = {3};
    group g;
    open_group(&g, "adamw", settings, 1, shapes);
    float *parameter = g.tensors[0].parameter.data, *gradient = g.tensors[0].gradient.data;
    for (size_t i = 0; i < N; i++) p[i] = (double)(parameter[i] = (float)test_normal(&random));
    for (int t = 1; t <= STEPS; t++) {
        const double schedule = 1.0 / t, clip = 0.25, lr = 0.02 * schedule;
        for (size_t i = 0; i < N; i++) {
            gradient[i] = (float)test_normal(&random);
            const double grad = clip * (double)gradient[i];
            m[i] = 0.8 * m[i] + 0.2 * grad;
            v[i] = 0.9 * v[i] + 0.1 * grad * grad;
            const double corrected_m = m[i] / (1 - pow(0.8, t));
            const double corrected_v = v[i] / (1 - pow(0.9, t));
            p[i] -= lr * 0.3 * p[i];
            p[i] -= lr * corrected_m / (sqrt(corrected_v) + 1e-3);
        }
        run_step(&g, t - 1, (float)schedule, (float)clip);
        assert_true(test_relative_error(parameter, p, N) < 3e-7);
        assert_true(test_relative_error(g.tensors[0].slot[0].data, m, N) < 3e-7);
        assert_true(test_relative_error(g.tensors[0].slot[1].data, v, N) < 3e-7);
    }
    close_group(&g);
}

/* The float64 twin of one tensor under muon. */
typedef struct twin {
    double p[MAX_COUNT], m[MAX_COUNT];
} twin;

static void twin_step(twin *w, const float *gradient, size_t rows, size_t columns, double lr,
                      double momentum, double clip, bool nesterov) {
    static double update[MAX_COUNT], orthogonal[MAX_COUNT];
    const double scale = rows > columns ? sqrt((double)rows / (double)columns) : 1;
    for (size_t i = 0; i < rows * columns; i++) {
        const double grad = clip * (double)gradient[i];
        w->m[i] = momentum * w->m[i] + grad;
        update[i] = nesterov ? grad + momentum * w->m[i] : w->m[i];
    }
    newton_schulz(update, rows, columns, round_to_nothing, orthogonal);
    for (size_t i = 0; i < rows * columns; i++)
        w->p[i] = w->p[i] * (1 - lr * 0.1) - lr * scale * orthogonal[i];
}

/* `tensors` matrices of mixed shapes; more than one batch's worth of one shape when there are many.
 * Momentum runs 0.8, 0.85, 0.9 by the warm-up. */
static void check_muon(uint32_t n, const int64_t (*shapes)[2], bool nesterov) {
    const char *const settings[] = {"learning_rate=0.1",
                                    "momentum=0.9",
                                    "momentum_start=0.8",
                                    "momentum_warmup_steps=2",
                                    nesterov ? "nesterov=yes" : "nesterov=no",
                                    "weight_decay=0.1",
                                    NULL};
    test_random random = {5};
    twin *twins = calloc(n, sizeof *twins);
    group g;
    open_group(&g, "muon", settings, n, shapes);
    for (uint32_t i = 0; i < n; i++)
        for (int64_t j = 0; j < shapes[i][0] * shapes[i][1]; j++)
            twins[i].p[j] = (double)(((float *)g.tensors[i].parameter.data)[j] =
                                         (float)(0.3 * test_normal(&random)));
    for (int64_t t = 0; t < STEPS; t++) {
        for (uint32_t i = 0; i < n; i++) {
            float *gradient = g.tensors[i].gradient.data;
            for (int64_t j = 0; j < shapes[i][0] * shapes[i][1]; j++)
                gradient[j] = (float)test_normal(&random);
            twin_step(&twins[i], gradient, (size_t)shapes[i][0], (size_t)shapes[i][1], 0.05,
                      0.8 + 0.05 * (double)t, 0.5, nesterov);
        }
        run_step(&g, t, 0.5f, 0.5f);
        for (uint32_t i = 0; i < n; i++) {
            const size_t count = (size_t)(shapes[i][0] * shapes[i][1]);
            const double error =
                test_relative_error(g.tensors[i].parameter.data, twins[i].p, count);
            if (!(error < 2e-6)) fail_msg("tensor %u, step %d: error %.3g", i, (int)t, error);
            assert_true(test_relative_error(g.tensors[i].slot[0].data, twins[i].m, count) < 1e-6);
        }
    }
    free(twins);
    close_group(&g);
}

static void muon_follows_its_formulas(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{13, 29}, {31, 12}, {13, 29}, {16, 16}, {31, 12}};
    check_muon(5, shapes, true);
    check_muon(5, shapes, false);
}

static void muon_splits_large_batches(void **state) {
    (void)state;
    int64_t shapes[MAX_TENSORS][2];
    for (size_t i = 0; i < MAX_TENSORS; i++) shapes[i][0] = 6, shapes[i][1] = i == 3 ? 5 : 9;
    check_muon(MAX_TENSORS, (const int64_t(*)[2])shapes, true);
}

static void muon_refuses_vectors(void **state) {
    (void)state;
    const fw_plugin *plugin = test_plugin(FW_OPTIMIZER, "muon");
    const fw_optimizer *vtable = plugin->vtable;
    fw_value *values = test_values(plugin, NULL);
    fw_error error = {.struct_size = sizeof error};
    const fw_weight vector = {
        .struct_size = sizeof vector, .rank = 1, .shape = {8, 1, 1, 1}, .name = "layer.3.scale"};
    const fw_weight *weights[] = {&vector};
    size_t scratch = 77;
    void *self = NULL;
    assert_int_equal(vtable->create(test_host(device), values, &self, &error), FW_OK);
    assert_int_equal(vtable->plan(self, weights, 1, &scratch, &error), FW_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "layer.3.scale"));
    assert_int_equal(scratch, 77);
    vtable->destroy(self);
    free(values);
}

static void muon_momentum_ramps(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{4, 4}};
    static const struct {
        int64_t step;
        double momentum;
    } expected[] = {{0, 0.92}, {750, 0.955}, {1500, 0.99}, {9000, 0.99}};
    group g;
    open_group(&g, "muon", NULL, 1, shapes);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        run_step(&g, expected[i].step, 1, 1);
        assert_true(fabs((double)g.step.momentum - expected[i].momentum) < 1e-7);
    }
    close_group(&g);
    static const char *const constant[] = {"momentum_warmup_steps=0", NULL};
    open_group(&g, "muon", constant, 1, shapes);
    run_step(&g, 0, 1, 1);
    assert_true(g.step.momentum == 0.99f);
    close_group(&g);
}

/* From zero weights and momentum, at rate one and without decay, a step is minus the orthogonal
 * factor. The golden one rounds every matrix to bfloat16, which moves it by 3%. So the twin that
 * rounds likewise must be where the golden one is, which proves the formula, and muon, which does
 * not round, where the unrounded twin is. */
static void muon_agrees_with_the_golden_iterations(void **state) {
    (void)state;
    enum { R = 48, K = 96, N = R * K };
    static const int64_t shapes[][2] = {{R, K}};
    static const char *const settings[] = {"learning_rate=1", "weight_decay=0", "momentum=0",
                                           "momentum_warmup_steps=0", NULL};
    static double input[N], exact[N], rounded[N];
    golden start = golden_read(GOLDEN_DIRECTORY "/newton_schulz", "ns/input");
    golden end = golden_read(GOLDEN_DIRECTORY "/newton_schulz", "ns/output_bf16");
    group g;
    assert_true(start.data != NULL && start.rows == R && start.columns == K);
    assert_true(end.data != NULL && end.bytes == start.bytes);
    open_group(&g, "muon", settings, 1, shapes);
    memcpy(g.tensors[0].gradient.data, start.data, start.bytes);
    for (size_t i = 0; i < N; i++) input[i] = (double)((const float *)start.data)[i];
    newton_schulz(input, R, K, round_to_nothing, exact);
    newton_schulz(input, R, K, round_to_bf16, rounded);
    for (size_t i = 0; i < N; i++) exact[i] = -exact[i];
    run_step(&g, 0, 1, 1);
    const double twin_error = test_relative_error(end.data, rounded, N);
    const double muon_error = test_relative_error(g.tensors[0].parameter.data, exact, N);
    if (!(twin_error < 1e-3)) fail_msg("golden and rounded twin: %.3g", twin_error);
    if (!(muon_error < 4e-6)) fail_msg("muon and float64 twin: %.3g", muon_error);
    for (size_t i = 0; i < N; i++) exact[i] = -(double)((const float *)end.data)[i];
    assert_true(test_relative_error(g.tensors[0].parameter.data, exact, N) < 5e-2);
    free(start.data), free(end.data);
    close_group(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(adamw_follows_its_formulas),
                                       cmocka_unit_test(muon_follows_its_formulas),
                                       cmocka_unit_test(muon_splits_large_batches),
                                       cmocka_unit_test(muon_refuses_vectors),
                                       cmocka_unit_test(muon_momentum_ramps),
                                       cmocka_unit_test(muon_agrees_with_the_golden_iterations)};
    return cmocka_run_group_tests(tests, open_device, NULL);
}
