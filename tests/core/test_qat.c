/* core/qat: the forward pass with fake-quantized copies is that of the packed and unpacked weights,
 * for every tensor that packing quantizes; masters and gradients are as they should be; what cannot
 * work is refused. */
#include <math.h>
#include <pack.h>
#include <qat.h>
#include <session.h>
#include <stdio.h>

#include "tiny_model.h"
#include "workspace.h"

enum { VOCABULARY = 37, BATCH = 2, TOKENS = 16, ROWS = BATCH * TOKENS };

static fw_error error = {.struct_size = sizeof error};
static const struct schedule falling = {.steps = 10, .warmdown_steps = 8};

struct fixture {
    struct session session;
    struct model *model;
    int32_t inputs[ROWS], targets[ROWS];
};

static struct model *make_model(const struct fixture *f, bool compute_copies) {
    const struct model_options options = {.experiment = f->session.experiment,
                                          .host = f->session.services,
                                          .vocabulary = VOCABULARY,
                                          .batch = BATCH,
                                          .tokens = TOKENS,
                                          .training = true,
                                          .compute_copies = compute_copies};
    return tiny_model(&options);
}

static void open_fixture(struct fixture *f, const char *quantize) {
    char ini[1024];
    (void)snprintf(ini, sizeof ini,
                   "[run]\nsteps = 10\nqat_below = 0.5\n"
                   "[model]\nlayers = 4\nwidth = 32\nmlp_width = 48\n"
                   "bigram_slots = 64\nbigram_width = 16\nsmear = yes\nx0_mix = yes\n"
                   "skips = yes\nlayer_scales = yes\ndepth_norm = yes\n"
                   "value_layers = 2,3\nvalue_width = 8\n"
                   "[attention]\nplugin = gqa\nheads = 4\nkv_heads = 2\nrope_dims = 4\n"
                   "[compress]\nplugin = store\n[quantize]\n%s\n",
                   quantize);
    const struct arguments arguments = {0};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION) |
                           CONFIG_BIND(FW_QUANTIZER) | CONFIG_BIND(FW_COMPRESSOR);
    assert_ok(session_open(&arguments, "qat test", ini, kinds, &f->session, &error), &error);
    f->model = make_model(f, true);
    test_random random = {7};
    for (int i = 0; i < ROWS; i++) {
        f->inputs[i] = (int32_t)test_below(&random, VOCABULARY);
        f->targets[i] = (int32_t)test_below(&random, VOCABULARY);
    }
}

static void close_fixture(struct fixture *f) {
    model_destroy(f->model);
    session_close(&f->session);
}

static double loss_of(const struct fixture *f, struct model *model) {
    const struct model_batch batch = {f->inputs, f->targets, BATCH, TOKENS};
    double nats = 0;
    assert_ok(model_train_pass(model, &batch, 1.0f / ROWS, false, &error), &error);
    assert_ok(model_read_loss(model, &nats, &error), &error);
    return nats / ROWS;
}

static float *download(const struct model *model, const float *arena) {
    float *host = calloc((size_t)model_arena_count(model), sizeof *host);
    assert_non_null(host);
    assert_ok(model_download(model, arena, host, &error), &error);
    return host;
}

/* The list that is right passes; one entry more or less is named. */
static void check_packed(const struct fixture *f, const struct artifact *artifact,
                         bool *quantized) {
    const fw_stream *streams = artifact->streams;
    const uint32_t n = artifact->n_streams;
    assert_ok(qat_check_packed(quantized, f->model, streams, n, &error), &error);
    quantized[0] = false;
    assert_fails(qat_check_packed(quantized, f->model, streams, n, &error), FW_E_LIMIT, &error,
                 model_weight(f->model, 0)->name, "was packed quantized, but run.qat_below");
    quantized[0] = true;
    for (uint32_t i = 0; i < model_n_weights(f->model); i++) {
        if (quantized[i]) continue;
        quantized[i] = true;
        assert_fails(qat_check_packed(quantized, f->model, streams, n, &error), FW_E_LIMIT, &error,
                     model_weight(f->model, i)->name, "trained as if quantized, but packed as it");
        quantized[i] = false;
    }
}

/* The masters, with what packing and unpacking make of the tensors that get symbols. */
static float *packed_weights(const struct fixture *f, bool *quantized) {
    const struct experiment *experiment = f->session.experiment;
    float *weights = download(f->model, model_masters(f->model));
    float *decoded = calloc((size_t)model_arena_count(f->model), sizeof *decoded);
    assert_non_null(decoded);
    struct artifact artifact = {0};
    const struct pack_options options = {.experiment = experiment,
                                         .host = f->session.services,
                                         .model = f->model,
                                         .weights = weights};
    struct pack_result result;
    assert_ok(pack_weights(&options, &artifact, &result, &error), &error);
    assert_ok(unpack_weights(experiment, f->session.services, f->model, &artifact, decoded, &error),
              &error);
    for (uint32_t i = 0; i < artifact.n_streams; i++) {
        const uint32_t tensor = artifact.streams[i].tensor;
        if (artifact.streams[i].kind != FW_STREAM_SYMBOLS) continue;
        quantized[tensor] = true;
        const fw_tensor from = model_view(f->model, decoded, tensor);
        const fw_tensor to = model_view(f->model, weights, tensor);
        memcpy(to.data, from.data, (size_t)fw_tensor_count(&to) * sizeof(float));
    }
    check_packed(f, &artifact, quantized);
    artifact_free(&artifact);
    free(decoded);
    return weights;
}

/* Packing stores scales in float16: a relative difference of 2^-11 at most. */
static void check_copies(const struct fixture *f, const struct qat *qat, float *packed,
                         const bool *quantized) {
    int covered = 0;
    for (uint32_t i = 0; i < model_n_weights(f->model); i++) {
        const fw_tensor copy = model_compute_copy(f->model, i);
        const fw_tensor expected = model_view(f->model, packed, i);
        assert_int_equal(qat_covers(qat, i), quantized[i]);
        covered += quantized[i];
        for (int64_t j = 0; copy.data != NULL && j < fw_tensor_count(&copy); j++) {
            const float a = ((float *)copy.data)[j], b = ((float *)expected.data)[j];
            if (fabsf(a - b) > 0x1p-11f * fabsf(b) * 1.01f)
                fail_msg("%s[%lld]: computed with %.8g, packed as %.8g",
                         model_weight(f->model, i)->name, (long long)j, (double)a, (double)b);
        }
    }
    assert_int_equal(covered, 29); /* 3 tables, 2 projections, 6 matrices a layer */
}

/* What the model computes with. */
static float *copies_of(const struct fixture *f) {
    float *weights = download(f->model, model_masters(f->model));
    for (uint32_t i = 0; i < model_n_weights(f->model); i++) {
        const fw_tensor copy = model_compute_copy(f->model, i);
        const fw_tensor to = model_view(f->model, weights, i);
        if (copy.data != NULL)
            memcpy(to.data, copy.data, (size_t)fw_tensor_count(&to) * sizeof(float));
    }
    return weights;
}

static void test_forward_is_that_of_the_packed_weights(void **state) {
    (void)state;
    struct fixture f;
    struct qat *qat = NULL;
    bool quantized[128] = {false};
    const fw_step step = {.finite = 1, .clip = 1, .quantize = 1};
    open_fixture(&f, "plugin = int8\npercentile = 1\nsmall_values = 100");
    assert_ok(qat_create(f.session.experiment, f.session.services, f.model, &falling, &qat, &error),
              &error);
    const double exact = loss_of(&f, f.model);
    float *packed = packed_weights(&f, quantized);
    float *before = download(f.model, model_masters(f.model));
    assert_ok(qat_apply(qat, &step, &error), &error);
    check_copies(&f, qat, packed, quantized);
    const double trained_with = loss_of(&f, f.model);

    /* Another model, whose weights are just these copies: the same to the last bit, so that no pass
     * reads a master in their place, and gradients go straight through. */
    const int64_t n = model_arena_count(f.model);
    float *gradient = download(f.model, model_gradients(f.model));
    float *after = download(f.model, model_masters(f.model));
    struct model *reference = make_model(&f, false);
    float *copies = copies_of(&f);
    assert_ok(model_set_weights(reference, copies, &error), &error);
    assert_true(loss_of(&f, reference) == trained_with);
    float *through = download(reference, model_gradients(reference));
    assert_memory_equal(gradient, through, (size_t)n * sizeof *gradient);
    assert_memory_equal(before, after, (size_t)n * sizeof *before);

    assert_ok(model_set_weights(reference, packed, &error), &error);
    const double expected = loss_of(&f, reference);
    assert_true(fabs(trained_with - exact) > 1e-4);
    if (fabs(trained_with - expected) > 2e-3)
        fail_msg("loss %.6f with the copies, %.6f packed, %.6f exact", trained_with, expected,
                 exact);
    free(copies);
    free(gradient), free(through), free(after), free(before), free(packed);
    model_destroy(reference);
    qat_destroy(qat);
    close_fixture(&f);
}

struct seen_effects {
    double changed, distance;
};

static void see_effect(void *argument, const char *name, double size) {
    struct seen_effects *seen = argument;
    if (strcmp(name, "qat_changed_weights") == 0) seen->changed = size;
    if (strcmp(name, "qat_relative_distance") == 0) seen->distance = size;
}

/* Also: creating and measuring leave the copies as they were. */
static void test_effects(void **state) {
    (void)state;
    struct fixture f;
    struct qat *qat = NULL;
    open_fixture(&f, "plugin = int8\npercentile = 1\nsmall_values = 100");
    assert_ok(qat_create(f.session.experiment, f.session.services, f.model, &falling, &qat, &error),
              &error);
    assert_fails(qat_state_effects(qat, &error), FW_E_LIMIT, &error,
                 "run.qat_below = 0.5 was never reached", "fell to 1 at the lowest",
                 "run.warmdown_steps");
    assert_true(qat_begins(qat, 9, 0.1));
    assert_ok(qat_state_effects(qat, &error), &error);
    struct seen_effects seen = {0, 0};
    host_each_effect(f.session.host, see_effect, &seen);
    assert_true(seen.changed > 0.9 * (double)model_parameters(f.model) * 0.9);
    assert_true(seen.changed <= (double)model_parameters(f.model));
    assert_true(seen.distance > 1e-4 && seen.distance < 0.02);
    for (uint32_t i = 0; i < model_n_weights(f.model); i++) {
        const fw_tensor copy = model_compute_copy(f.model, i);
        const fw_tensor master = model_view(f.model, model_masters(f.model), i);
        if (copy.data != NULL)
            assert_memory_equal(copy.data, master.data, (size_t)fw_tensor_count(&copy) * 4);
    }
    qat_destroy(qat);
    close_fixture(&f);
}

/* A warm-up begins low, and does not count; once on, it stays on. */
static void test_when_it_begins(void **state) {
    (void)state;
    struct fixture f;
    struct qat *qat = NULL;
    open_fixture(&f, "plugin = int8\nsmall_values = 100");
    const struct schedule schedule = {.seconds = 10, .warmup_steps = 2, .warmdown_steps = 8};
    assert_ok(
        qat_create(f.session.experiment, f.session.services, f.model, &schedule, &qat, &error),
        &error);
    assert_false(qat_begins(qat, 0, 0.1));
    assert_false(qat_begins(qat, 1, 0.4));
    assert_false(qat_begins(qat, 2, 0.5));
    assert_true(qat_begins(qat, 3, 0.49));
    assert_true(qat_begins(qat, 4, 0.51));
    const struct qat_state saved = qat_save(qat);
    qat_destroy(qat);
    assert_ok(
        qat_create(f.session.experiment, f.session.services, f.model, &schedule, &qat, &error),
        &error);
    qat_load(qat, &saved);
    assert_true(qat_begins(qat, 5, 0.9));
    assert_false(qat_begins(NULL, 5, 0.1));
    qat_destroy(qat);
    qat_destroy(NULL);
    close_fixture(&f);
}

static void refuse(const char *quantize, const struct schedule *schedule, fw_status expected,
                   const char *a, const char *b) {
    struct fixture f;
    struct qat *qat = NULL;
    open_fixture(&f, quantize);
    assert_fails(
        qat_create(f.session.experiment, f.session.services, f.model, schedule, &qat, &error),
        expected, &error, a, b);
    assert_null(qat);
    close_fixture(&f);
}

static void test_what_cannot_work(void **state) {
    (void)state;
    static const char int8[] = "plugin = int8\nsmall_values = 100";
    refuse("plugin = none", &falling, FW_E_UNSUPPORTED, "[quantize] plugin none",
           "no quantization-aware form");
    refuse("plugin = int8\nsmall_values = 100000", &falling, FW_E_UNSUPPORTED,
           "[quantize] plugin int8", "quantizes no tensor of this model");
    const struct schedule flat = {.steps = 10}, short_one = {.steps = 10, .warmdown_steps = 2},
                          rising = {.steps = 10, .warmup_steps = 10, .warmdown_steps = 8};
    refuse(int8, &flat, FW_E_CONFIG, "run.qat_below = 0.5 would never be reached",
           "falls to 1 at the lowest");
    refuse(int8, &short_one, FW_E_CONFIG, "falls to 0.5 at the lowest", "run.warmdown_steps = 3");
    refuse(int8, &rising, FW_E_CONFIG, "would never be reached", "1 at the lowest");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_is_that_of_the_packed_weights),
        cmocka_unit_test(test_effects),
        cmocka_unit_test(test_when_it_begins),
        cmocka_unit_test(test_what_cannot_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
