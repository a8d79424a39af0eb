/* The whole model on the CPU device, with its switches alone and together: gradients against finite
 * differences of the loss, causality, independence of sequences in a batch, inference against
 * training, gradient accumulation, initial values, refusals. */
#include "support.h"

#include <math.h>
#include <stdio.h>

#include "model.h"
#include "session.h"
#include "tiny_model.h"
#include "workspace.h"
#include "wrapped_device.h"

enum { VOCABULARY = 37, BATCH = 3, TOKENS = 19, ROWS = BATCH * TOKENS };

#define ATTENTION                                                                                  \
    "[attention]\nplugin = xsa\nheads = 4\nkv_heads = 2\nrope_dims = 4\n"                          \
    "[attention.0]\nplugin = gqa\n[model]\nwidth = 32\nmlp_width = 48\n"

#define EVERYTHING                                                                                 \
    ATTENTION                                                                                      \
    "layers = 5\nbigram_slots = 17\nbigram_width = 8\nsmear = yes\nx0_mix = yes\nskips = yes\n"    \
    "layer_scales = yes\ndepth_norm = yes\nvalue_layers = 1,3-4\nvalue_width = 6\n"

static const struct variant {
    const char *name, *ini;
    bool host_adds; /* attention knows of no residual: the host adds its output to the stream */
} variants[] = {
    {"plain", ATTENTION "layers = 2\n", false},
    {"everything", EVERYTHING, false},
    {"tables without projections",
     ATTENTION
     "layers = 2\nbigram_slots = 2\nbigram_width = 32\nvalue_layers = 0\nvalue_width = 16\n",
     false},
    {"skips alone", ATTENTION "layers = 4\nskips = yes\n", false},
    {"mixes alone", ATTENTION "layers = 3\nx0_mix = yes\nsmear = yes\n", false},
    {"scales alone", ATTENTION "layers = 3\nlayer_scales = yes\ndepth_norm = yes\n", false},
    {"skips and scales", ATTENTION "layers = 3\nskips = yes\nlayer_scales = yes\n", false},
    {"plain, added by the host", ATTENTION "layers = 2\n", true},
    {"everything, added by the host", EVERYTHING, true},
};

struct fixture {
    struct session session;
    struct wrapped_device wrapped; /* what the model computes on */
    struct model *model;
    int32_t inputs[ROWS], targets[ROWS];
};

static void check(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("%s", error->message);
}

/* ---- attention that plans another output_weight ---- */

/* gqa and xsa, each in a module of its own, behind vtables whose plan says `planned_output`. */
static struct other_plan {
    const fw_attention *original;
    fw_attention vtable;
    fw_plugin plugin;
    struct registry_entry entry;
} other_plans[2];
static uint32_t planned_output;

static fw_status plan_as(int which, void *self, uint32_t phase, int64_t batch, int64_t tokens,
                         fw_attention_plan *plan, fw_error *error) {
    FW_TRY(other_plans[which].original->plan(self, phase, batch, tokens, plan, error));
    plan->output_weight = planned_output;
    return FW_OK;
}

static fw_status plan_first(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                            fw_attention_plan *plan, fw_error *error) {
    return plan_as(0, self, phase, batch, tokens, plan, error);
}

static fw_status plan_second(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                             fw_attention_plan *plan, fw_error *error) {
    return plan_as(1, self, phase, batch, tokens, plan, error);
}

static void plan_output(const struct experiment *experiment, uint32_t output) {
    planned_output = output;
    for (int64_t i = 0; i < experiment->model.layers; i++) {
        struct plugin_choice *choice = &experiment->attention[i];
        const int which = strcmp(choice->entry->plugin->id, "gqa") == 0;
        struct other_plan *other = &other_plans[which];
        if (choice->entry != &other->entry) {
            other->original = choice->entry->plugin->vtable;
            other->vtable = *other->original;
            other->vtable.plan = which ? plan_second : plan_first;
            other->plugin = *choice->entry->plugin;
            other->plugin.vtable = &other->vtable;
            other->entry = *choice->entry;
            other->entry.plugin = &other->plugin;
        }
        choice->entry = &other->entry;
    }
}

/* ---- fixtures ---- */

static void open_wrapped(struct fixture *f, const struct variant *variant, bool training,
                         unsigned features) {
    fw_error error = {.struct_size = sizeof error};
    const struct arguments arguments = {.overrides = {"run.device=cpu"}, .n_overrides = 1};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    check(session_open(&arguments, "model test", variant->ini, kinds, &f->session, &error), &error);
    wrapped_device_open(&f->wrapped, f->session.services, features);
    if (variant->host_adds) plan_output(f->session.experiment, 0);
    const struct model_options options = {.experiment = f->session.experiment,
                                          .host = &f->wrapped.services,
                                          .vocabulary = VOCABULARY,
                                          .batch = BATCH,
                                          .tokens = TOKENS,
                                          .training = training};
    check(model_create(&options, &f->model, &error), &error);
    test_random random = {7};
    for (int i = 0; i < ROWS; i++) {
        f->inputs[i] = (int32_t)test_below(&random, VOCABULARY);
        f->targets[i] = (int32_t)test_below(&random, VOCABULARY);
    }
}

static void open_fixture(struct fixture *f, const struct variant *variant, bool training) {
    open_wrapped(f, variant, training, 0);
}

static void close_fixture(struct fixture *f) {
    model_destroy(f->model);
    wrapped_device_close(&f->wrapped);
    session_close(&f->session);
}

static double loss_at(struct fixture *f, const float *weights, int64_t first, int64_t n,
                      bool accumulate) {
    fw_error error = {.struct_size = sizeof error};
    if (weights != NULL) check(model_set_weights(f->model, weights, &error), &error);
    const struct model_batch batch = {f->inputs + first * TOKENS, f->targets + first * TOKENS, n,
                                      TOKENS};
    check(model_train_pass(f->model, &batch, 1.0f / ROWS, accumulate, &error), &error);
    double nats = 0;
    check(model_read_loss(f->model, &nats, &error), &error);
    return nats / ROWS;
}

static float *gradients(struct fixture *f) {
    fw_error error = {.struct_size = sizeof error};
    float *host = malloc((size_t)model_arena_count(f->model) * sizeof *host);
    assert_non_null(host);
    check(model_download(f->model, model_gradients(f->model), host, &error), &error);
    return host;
}

/* d loss / d (direction) for one tensor, by central differences; the direction has length 1. */
static double slope(struct fixture *f, const float *weights, uint32_t tensor,
                    const float *direction, double step) {
    const int64_t n = model_arena_count(f->model), offset = model_offset(f->model, tensor);
    const fw_weight *weight = model_weight(f->model, tensor);
    const int64_t count = weight->shape[0] * weight->shape[1];
    float *moved = malloc((size_t)n * sizeof *moved);
    assert_non_null(moved);
    double loss[2];
    for (int side = 0; side < 2; side++) {
        memcpy(moved, weights, (size_t)n * sizeof *moved);
        for (int64_t i = 0; i < count; i++)
            moved[offset + i] += (float)((side == 0 ? step : -step) * (double)direction[i]);
        loss[side] = loss_at(f, moved, 0, BATCH, false);
    }
    free(moved);
    return (loss[0] - loss[1]) / (2 * step);
}

/* Along the gradient itself the slope is the gradient's length, far above float32's noise; along
 * that direction mixed with a random one, it checks the direction too. */
static void check_tensor(struct fixture *f, const float *weights, const float *gradient,
                         uint32_t tensor) {
    const fw_weight *weight = model_weight(f->model, tensor);
    const int64_t count = weight->shape[0] * weight->shape[1];
    const float *g = gradient + model_offset(f->model, tensor);
    float *direction = malloc((size_t)count * sizeof *direction);
    assert_non_null(direction);
    double norm = 0;
    for (int64_t i = 0; i < count; i++) norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    assert_true(norm > 1e-6);
    test_random random = {tensor + 1};
    for (int mixed = 0; mixed < 2; mixed++) {
        double length = 0, predicted = 0;
        for (int64_t i = 0; i < count; i++) {
            const double noise = mixed ? test_normal(&random) * norm / sqrt((double)count) : 0;
            direction[i] = (float)((double)g[i] + noise);
            length += (double)direction[i] * (double)direction[i];
        }
        for (int64_t i = 0; i < count; i++) {
            direction[i] = (float)((double)direction[i] / sqrt(length));
            predicted += (double)direction[i] * (double)g[i];
        }
        /* Richardson: the error of second order cancels. */
        const double measured = (4 * slope(f, weights, tensor, direction, 0.005) -
                                 slope(f, weights, tensor, direction, 0.01)) /
                                3;
        if (fabs(measured - predicted) > 5e-3 * norm)
            fail_msg("%s: slope %.6g, gradient says %.6g", weight->name, measured, predicted);
    }
    free(direction);
}

static void test_gradients_match_finite_differences(void **state) {
    struct fixture f;
    open_fixture(&f, *state, true);
    float *weights = random_weights(f.model, 11, 0.2);
    (void)loss_at(&f, weights, 0, BATCH, false);
    float *gradient = gradients(&f);
    for (uint32_t i = 0; i < model_n_weights(f.model); i++) check_tensor(&f, weights, gradient, i);
    free(gradient);
    free(weights);
    close_fixture(&f);
}

static void test_accumulation_equals_one_batch(void **state) {
    struct fixture f;
    open_fixture(&f, *state, true);
    float *weights = random_weights(f.model, 11, 0.2);
    const double whole = loss_at(&f, weights, 0, BATCH, false);
    float *expected = gradients(&f);
    (void)loss_at(&f, NULL, 0, 1, false);
    const double parts = loss_at(&f, NULL, 1, BATCH - 1, true);
    float *accumulated = gradients(&f);
    assert_true(fabs(whole - parts) < 1e-6 * whole);
    const int64_t n = model_arena_count(f.model);
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += pow((double)accumulated[i] - (double)expected[i], 2);
        norm += pow((double)expected[i], 2);
    }
    assert_true(sqrt(difference / norm) < 1e-5);
    free(accumulated);
    free(expected);
    free(weights);
    close_fixture(&f);
}

/* Log-probabilities of all rows. */
static float *infer(struct fixture *f, const int32_t *inputs) {
    fw_error error = {.struct_size = sizeof error};
    float *rows = malloc(sizeof *rows * ROWS * VOCABULARY);
    assert_non_null(rows);
    check(model_infer(f->model, inputs, BATCH, TOKENS, &error), &error);
    for (int b = 0; b < BATCH; b++)
        check(model_log_probabilities(f->model, b * TOKENS, TOKENS, rows + b * TOKENS * VOCABULARY,
                                      &error),
              &error);
    return rows;
}

static void test_future_tokens_change_nothing(void **state) {
    struct fixture f;
    open_fixture(&f, *state, false);
    float *weights = random_weights(f.model, 11, 0.2);
    fw_error error = {.struct_size = sizeof error};
    check(model_set_weights(f.model, weights, &error), &error);
    float *before = infer(&f, f.inputs);
    const int flipped = 11;
    f.inputs[TOKENS + flipped] = (f.inputs[TOKENS + flipped] + 1) % VOCABULARY;
    float *after = infer(&f, f.inputs);
    const size_t sequence = TOKENS * VOCABULARY;
    assert_memory_equal(before, after, sequence * sizeof *before); /* another sequence */
    assert_memory_equal(before + sequence, after + sequence,
                        (size_t)flipped * VOCABULARY * sizeof *before);
    assert_memory_not_equal(before + sequence + flipped * VOCABULARY,
                            after + sequence + flipped * VOCABULARY, VOCABULARY * sizeof *before);
    free(before);
    free(after);
    free(weights);
    close_fixture(&f);
}

/* In inference layers share their buffers; the rows must be those of the training pass. */
static void test_inference_equals_training(void **state) {
    struct fixture f;
    open_fixture(&f, *state, true);
    float *weights = random_weights(f.model, 11, 0.2);
    const double trained = loss_at(&f, weights, 0, BATCH, false);
    close_fixture(&f);
    open_fixture(&f, *state, false);
    fw_error error = {.struct_size = sizeof error};
    check(model_set_weights(f.model, weights, &error), &error);
    float *rows = infer(&f, f.inputs);
    double loss = 0;
    for (int r = 0; r < ROWS; r++) loss -= (double)rows[r * VOCABULARY + f.targets[r]] / ROWS;
    assert_true(fabs(loss - trained) < 1e-5 * trained);
    free(rows);
    free(weights);
    close_fixture(&f);
}

/* With the op that joins the first linear layer and its activation: the same bits. */
static void test_joined_op_changes_nothing(void **state) {
    struct fixture f;
    float *gradient[2], *rows[2];
    double loss[2];
    for (unsigned joined = 0; joined < 2; joined++) {
        open_wrapped(&f, *state, true, joined ? WRAP_LINEAR_ACTIVATION : 0);
        float *weights = random_weights(f.model, 11, 0.2);
        loss[joined] = loss_at(&f, weights, 0, BATCH, false);
        gradient[joined] = gradients(&f);
        const size_t bytes = model_activation_bytes(f.model);
        close_fixture(&f);
        open_wrapped(&f, *state, false, joined ? WRAP_LINEAR_ACTIVATION : 0);
        fw_error error = {.struct_size = sizeof error};
        check(model_set_weights(f.model, weights, &error), &error);
        rows[joined] = infer(&f, f.inputs);
        assert_true(model_activation_bytes(f.model) < bytes);
        if (!joined) close_fixture(&f);
        free(weights);
    }
    assert_true(loss[0] == loss[1]);
    assert_memory_equal(gradient[0], gradient[1],
                        (size_t)model_arena_count(f.model) * sizeof(float));
    assert_memory_equal(rows[0], rows[1], sizeof(float) * ROWS * VOCABULARY);
    for (int i = 0; i < 2; i++) free(gradient[i]), free(rows[i]);
    close_fixture(&f);
}

/* Three positions of each sequence alone: those of the whole but for the rounding of products of
 * another shape. */
static void test_some_positions(void **state) {
    enum { N = 3 };
    const int64_t firsts[BATCH] = {5, 0, TOKENS - N}, beyond[BATCH] = {0, 0, TOKENS - N + 1};
    struct fixture f;
    open_wrapped(&f, *state, false, WRAP_PINNED);
    float *weights = random_weights(f.model, 11, 0.2);
    fw_error error = {.struct_size = sizeof error};
    check(model_set_weights(f.model, weights, &error), &error);
    float *whole = infer(&f, f.inputs), some[BATCH * N * VOCABULARY];
    check(model_infer_some(f.model, f.inputs, BATCH, TOKENS, firsts, N, &error), &error);
    check(model_log_probabilities(f.model, 0, BATCH * N, some, &error), &error);
    for (int b = 0; b < BATCH; b++)
        for (int i = 0; i < N * VOCABULARY; i++) {
            const double expected = (double)whole[(b * TOKENS + firsts[b]) * VOCABULARY + i];
            assert_true(fabs((double)some[b * N * VOCABULARY + i] - expected) < 2e-5);
        }
    assert_int_equal(model_infer_some(f.model, f.inputs, BATCH, TOKENS, beyond, N, &error),
                     FW_E_RANGE);
    assert_int_equal(model_log_probabilities(f.model, ROWS - 1, 2, some, &error), FW_E_RANGE);
    free(whole);
    free(weights);
    close_fixture(&f);
}

static void test_rows_are_log_probabilities(void **state) {
    struct fixture f;
    open_fixture(&f, *state, false);
    float *weights = random_weights(f.model, 11, 0.2);
    fw_error error = {.struct_size = sizeof error};
    check(model_set_weights(f.model, weights, &error), &error);
    float *rows = infer(&f, f.inputs);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int v = 0; v < VOCABULARY; v++) sum += exp((double)rows[r * VOCABULARY + v]);
        assert_true(fabs(sum - 1) < 1e-5);
    }
    free(rows);
    free(weights);
    close_fixture(&f);
}

static void test_initial_values(void **state) {
    struct fixture f;
    open_fixture(&f, *state, true);
    fw_error error = {.struct_size = sizeof error};
    check(model_initialise(f.model, &error), &error);
    float *weights = malloc((size_t)model_arena_count(f.model) * sizeof *weights);
    assert_non_null(weights);
    check(model_download(f.model, model_masters(f.model), weights, &error), &error);
    int64_t parameters = 0;
    for (uint32_t i = 0; i < model_n_weights(f.model); i++) {
        const fw_weight *weight = model_weight(f.model, i);
        const float *w = weights + model_offset(f.model, i);
        const int64_t rows = weight->shape[0], columns = weight->shape[1];
        parameters += rows * columns;
        if (weight->init == FW_INIT_ZERO) assert_true(w[0] == 0 && w[rows * columns - 1] == 0);
        if (weight->init != FW_INIT_ORTHOGONAL || rows > columns) continue;
        for (int64_t a = 0; a < rows; a++)
            for (int64_t b = 0; b <= a; b++) {
                double dot = 0;
                for (int64_t c = 0; c < columns; c++)
                    dot += (double)w[a * columns + c] * (double)w[b * columns + c];
                assert_true(fabs(dot - (a == b ? 1 : 0)) < 1e-5);
            }
    }
    assert_int_equal(parameters, model_parameters(f.model));
    free(weights);
    close_fixture(&f);
}

/* What is planned and what the device lacks is refused with what would be right. */
static void test_refusals(void **state) {
    (void)state;
    static const uint32_t outputs[] = {1, 2, 1000}; /* two of a pack group; none */
    fw_error error = {.struct_size = sizeof error};
    struct fixture f;
    open_wrapped(&f, &variants[0], false, 0);
    model_destroy(f.model);
    const struct model_options options = {.experiment = f.session.experiment,
                                          .host = &f.wrapped.services,
                                          .vocabulary = VOCABULARY,
                                          .batch = BATCH,
                                          .tokens = TOKENS};
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        plan_output(f.session.experiment, outputs[i]);
        assert_fails(model_create(&options, &f.model, &error), FW_E_PROTOCOL, &error, "layer 0",
                     "gqa", "output_weight", "a matrix of 32 rows");
    }
    f.wrapped.ops.struct_size = offsetof(fw_ops, scale_rows_forward);
    assert_fails(model_create(&options, &f.model, &error), FW_E_UNSUPPORTED, &error, "before 0.3",
                 "addend");
    f.model = NULL;
    close_fixture(&f);
}

/* Rows of log-probabilities come in pieces of 16 MiB at most, so that what lies ready for them
 * stays small, however large the vocabulary and however long a sequence is. */
static void test_most_rows(void **state) {
    (void)state;
    static const struct {
        unsigned features;
        uint32_t vocabulary;
        int64_t tokens, most;
    } cases[] = {{0, 1024, 64, 64},
                 {WRAP_PINNED, 1024, 64, 4096},
                 {WRAP_PINNED, 1 << 16, 16, 64},
                 {WRAP_PINNED, 1 << 16, 1024, 64},
                 {WRAP_PINNED | WRAP_BESIDE, 50257, 2048, 83},
                 {0, 1 << 16, 1024, 64},
                 {WRAP_PINNED, 37, 64, 256 * 64}};
    fw_error error = {.struct_size = sizeof error};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        open_wrapped(&f, &variants[0], false, cases[i].features | WRAP_COUNTING);
        model_destroy(f.model);
        const struct model_options options = {.experiment = f.session.experiment,
                                              .host = &f.wrapped.services,
                                              .vocabulary = cases[i].vocabulary,
                                              .batch = 256,
                                              .tokens = cases[i].tokens};
        check(model_create(&options, &f.model, &error), &error);
        assert_int_equal(model_most_rows(f.model), cases[i].most);
        assert_true(model_activation_bytes(f.model) < 1000000000);
        close_fixture(&f);
    }
}

#define TEST(function)                                                                             \
    { #function, function }

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction function;
    } kinds[] = {
        TEST(test_gradients_match_finite_differences),
        TEST(test_accumulation_equals_one_batch),
        TEST(test_future_tokens_change_nothing),
        TEST(test_inference_equals_training),
        TEST(test_joined_op_changes_nothing),
        TEST(test_rows_are_log_probabilities),
        TEST(test_some_positions),
        TEST(test_initial_values),
    };
    enum {
        KINDS = sizeof kinds / sizeof kinds[0],
        VARIANTS = sizeof variants / sizeof variants[0]
    };
    static struct CMUnitTest tests[KINDS * VARIANTS + 2];
    static char names[KINDS * VARIANTS][80];
    for (int i = 0; i < KINDS * VARIANTS; i++) {
        const struct variant *variant = &variants[i / KINDS];
        (void)snprintf(names[i], sizeof names[i], "%s: %s", variant->name, kinds[i % KINDS].name);
        tests[i] = (struct CMUnitTest){names[i], kinds[i % KINDS].function, NULL, NULL,
                                       (void *)(uintptr_t)variant};
    }
    tests[KINDS * VARIANTS] = (struct CMUnitTest)cmocka_unit_test(test_refusals);
    tests[KINDS * VARIANTS + 1] = (struct CMUnitTest)cmocka_unit_test(test_most_rows);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
