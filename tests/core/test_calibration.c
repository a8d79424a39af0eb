/* What a quantizer is shown: that rows are what a layer reads is tried by changing the layer's
 * weights where those rows do not look, which no output notices, and where they do, which all
 * notice. Then which text is read, how much of it, and what happens when something fails. */
#include "support.h"

#include <math.h>

#include "calibration.h"
#include "session.h"
#include "tiny_model.h"
#include "workspace.h"

enum { VOCABULARY = 29, BATCH = 2, TOKENS = 3, ROWS = BATCH * TOKENS, CORPUS = 1000 };

#define INI                                                                                        \
    "[attention]\nplugin = xsa\nheads = 4\nkv_heads = 2\nrope_dims = 4\nrope_train_length = 32\n"  \
    "[attention.0]\nplugin = gqa\n[model]\nwidth = 32\nmlp_width = 48\nlayers = 5\n"               \
    "bigram_slots = 17\nbigram_width = 12\nsmear = yes\nx0_mix = yes\nskips = yes\n"               \
    "layer_scales = yes\ndepth_norm = yes\nvalue_layers = 1,3-4\nvalue_width = 10\n"

static fw_error error = {.struct_size = sizeof error};

struct seen {
    const struct model *model;
    float *rows[256];
    int64_t n_columns[256];
    int calls[256];
};

struct fixture {
    struct session session;
    struct model *model;
    float *weights;
    int32_t inputs[ROWS];
    float base[ROWS * VOCABULARY], now[ROWS * VOCABULARY];
    struct seen seen;
};

static void make_model(struct fixture *f) {
    const struct model_options options = {.experiment = f->session.experiment,
                                          .host = f->session.services,
                                          .vocabulary = VOCABULARY,
                                          .batch = BATCH,
                                          .tokens = TOKENS};
    assert_ok(model_create(&options, &f->model, &error), &error);
}

static void open_fixture(struct fixture *f) {
    const struct arguments arguments = {.overrides = {"run.device=cpu"}, .n_overrides = 1};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    *f = (struct fixture){.model = NULL};
    assert_ok(session_open(&arguments, "calibration test", INI, kinds, &f->session, &error),
              &error);
    make_model(f);
    f->weights = random_weights(f->model, 11, 0.25);
    test_random random = {12};
    for (int i = 0; i < ROWS; i++) f->inputs[i] = (int32_t)test_below(&random, VOCABULARY);
    f->seen.model = f->model;
}

static void close_fixture(struct fixture *f) {
    for (size_t i = 0; i < sizeof f->seen.rows / sizeof f->seen.rows[0]; i++) free(f->seen.rows[i]);
    free(f->weights);
    model_destroy(f->model);
    session_close(&f->session);
}

static void read_log_probabilities(struct fixture *f, float *out) {
    for (int64_t row = 0; row < ROWS; row += TOKENS)
        assert_ok(model_log_probabilities(f->model, row, TOKENS, out + row * VOCABULARY, &error),
                  &error);
}

static void infer(struct fixture *f, float *out) {
    assert_ok(model_set_weights(f->model, f->weights, &error), &error);
    assert_ok(model_infer(f->model, f->inputs, BATCH, TOKENS, &error), &error);
    read_log_probabilities(f, out);
}

static fw_status keep(void *self, uint32_t weight, const float *rows, int64_t n_rows,
                      int64_t n_columns, fw_error *why) {
    struct seen *seen = self;
    (void)why;
    assert_true(weight < model_n_weights(seen->model) && weight < 256);
    assert_int_equal(n_rows, ROWS);
    assert_int_equal(n_columns, model_weight(seen->model, weight)->shape[1]);
    const size_t bytes = (size_t)(n_rows * n_columns) * sizeof *rows;
    free(seen->rows[weight]);
    seen->rows[weight] = malloc(bytes);
    assert_non_null(seen->rows[weight]);
    memcpy(seen->rows[weight], rows, bytes);
    seen->n_columns[weight] = n_columns;
    seen->calls[weight]++;
    return FW_OK;
}

static void observe(struct fixture *f) {
    const struct model_observer observer = {&f->seen, keep};
    assert_ok(model_set_weights(f->model, f->weights, &error), &error);
    assert_ok(model_observe(f->model, f->inputs, BATCH, TOKENS, &observer, &error), &error);
}

/* ---- rows are what layers read ---- */

/* A random direction; with `away`, without its parts along the rows. */
static void draw(const struct seen *seen, uint32_t weight, bool away, test_random *random,
                 double *direction) {
    const int64_t n = seen->n_columns[weight];
    double basis[ROWS][64];
    int rank = 0;
    for (int64_t k = 0; k < n; k++) direction[k] = test_normal(random);
    for (int r = 0; away && r < ROWS; r++) {
        double norm = 0, before = 0;
        for (int64_t k = 0; k < n; k++) basis[rank][k] = (double)seen->rows[weight][r * n + k];
        for (int64_t k = 0; k < n; k++) before += basis[rank][k] * basis[rank][k];
        for (int pass = 0; pass < 2; pass++)
            for (int q = 0; q < rank; q++) {
                double along = 0;
                for (int64_t k = 0; k < n; k++) along += basis[q][k] * basis[rank][k];
                for (int64_t k = 0; k < n; k++) basis[rank][k] -= along * basis[q][k];
            }
        for (int64_t k = 0; k < n; k++) norm += basis[rank][k] * basis[rank][k];
        if (norm <= 1e-8 * before || norm == 0) continue; /* a row that was there already */
        for (int64_t k = 0; k < n; k++) basis[rank][k] /= sqrt(norm);
        rank++;
    }
    for (int q = 0; q < rank; q++) {
        double along = 0;
        for (int64_t k = 0; k < n; k++) along += basis[q][k] * direction[k];
        for (int64_t k = 0; k < n; k++) direction[k] -= along * basis[q][k];
    }
}

/* How far log-probabilities move when every output of the layer takes up the direction. */
static double effect(struct fixture *f, uint32_t weight, const double *direction) {
    const fw_tensor view = model_view(f->model, f->weights, weight);
    const size_t bytes = (size_t)fw_tensor_count(&view) * sizeof(float);
    float *data = view.data, *kept = malloc(bytes);
    double most = 0;
    assert_non_null(kept);
    memcpy(kept, data, bytes);
    for (int64_t i = 0; i < fw_tensor_count(&view); i++)
        data[i] = (float)((double)data[i] + 0.25 * direction[i % view.shape[1]]);
    infer(f, f->now);
    memcpy(data, kept, bytes);
    free(kept);
    for (int i = 0; i < ROWS * VOCABULARY; i++)
        most = fmax(most, fabs((double)f->now[i] - (double)f->base[i]));
    return most;
}

/* Not what is looked up in or scales rows; the embedding serves as the output layer as well. */
static bool is_linear(const fw_weight *weight) {
    const bool table = strstr(weight->name, ".table") != NULL;
    const bool scales = strstr(weight->name, "mix") != NULL || strstr(weight->name, "skip") != NULL;
    return weight->rank == 2 && !table && !scales;
}

static void rows_are_what_layers_read(void **state) {
    (void)state;
    struct fixture f;
    int tried = 0;
    open_fixture(&f);
    infer(&f, f.base);
    observe(&f);
    for (uint32_t i = 1; i < model_n_weights(f.model); i++) {
        const fw_weight *weight = model_weight(f.model, i);
        double direction[64];
        test_random random = {i};
        if (f.seen.calls[i] == 0) continue;
        assert_int_equal(f.seen.calls[i], 1);
        draw(&f.seen, i, true, &random, direction);
        const double away = effect(&f, i, direction);
        draw(&f.seen, i, false, &random, direction);
        const double along = effect(&f, i, direction);
        if (!(away <= 1e-3 * along) || !(along > 1e-3))
            fail_msg("%s: %g where its rows do not look, %g where they do", weight->name, away,
                     along);
        tried++;
    }
    assert_int_equal(tried, 5 * 6 + 2); /* q, k, v, o, up, down; two tables' projections */
    close_fixture(&f);
}

static void every_matrix_but_the_tables_is_observed(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    observe(&f);
    for (uint32_t i = 0; i < model_n_weights(f.model); i++) {
        const fw_weight *weight = model_weight(f.model, i);
        if (is_linear(weight) != (f.seen.calls[i] > 0))
            fail_msg("%s: observed %d times", weight->name, f.seen.calls[i]);
    }
    close_fixture(&f);
}

/* The embedding's rows give the log-probabilities. */
static void the_output_layer_is_observed_too(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    infer(&f, f.base);
    observe(&f);
    assert_int_equal(f.seen.calls[0], 1);
    const float *embedding = model_view(f.model, f.weights, 0).data;
    const int64_t C = f.seen.n_columns[0];
    const double cap = f.session.experiment->model.softcap;
    for (int r = 0; r < ROWS; r++) {
        double logits[VOCABULARY], sum = 0;
        for (int v = 0; v < VOCABULARY; v++) {
            double dot = 0;
            for (int64_t k = 0; k < C; k++)
                dot += (double)f.seen.rows[0][r * C + k] * (double)embedding[v * C + k];
            sum += exp(logits[v] = cap * tanh(dot / cap));
        }
        for (int v = 0; v < VOCABULARY; v++)
            assert_true(fabs(logits[v] - log(sum) - (double)f.base[r * VOCABULARY + v]) < 1e-4);
    }
    close_fixture(&f);
}

static void observing_changes_nothing(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    infer(&f, f.base);
    observe(&f);
    read_log_probabilities(&f, f.now);
    assert_memory_equal(f.base, f.now, sizeof f.base);
    infer(&f, f.now);
    assert_memory_equal(f.base, f.now, sizeof f.base);
    close_fixture(&f);
}

/* An attention plugin that does not take part. */
static const fw_attention *original;

static fw_status plan_all_else(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                               fw_attention_plan *plan, fw_error *why) {
    if (phase == FW_CALIBRATE) return fw_fail(why, FW_E_UNSUPPORTED, "no rows of mine are shown");
    return original->plan(self, phase, batch, tokens, plan, why);
}

static fw_status show_nothing(void *self, const fw_attention_call *call, fw_error *why) {
    fw_attention_call silent = *call;
    silent.observe = NULL;
    return original->forward(self, &silent, why);
}

static fw_status show_too_much(void *self, const fw_attention_call *call, fw_error *why) {
    FW_TRY(show_nothing(self, call, why));
    if (call->observe != NULL) call->observe(call->observe_context, call->n_weights, &call->input);
    return FW_OK;
}

/* Layer 3 has `plan` and `forward`; observing then fails with these words. */
static void refuse_attention(fw_status (*plan)(void *, uint32_t, int64_t, int64_t,
                                               fw_attention_plan *, fw_error *),
                             fw_status (*forward)(void *, const fw_attention_call *, fw_error *),
                             fw_status expected, const char *words, const char *more) {
    struct fixture f;
    open_fixture(&f);
    struct plugin_choice *choice = &f.session.experiment->attention[3];
    const struct registry_entry *kept = choice->entry;
    original = choice->entry->plugin->vtable;
    fw_attention vtable = *original;
    fw_plugin plugin = *choice->entry->plugin;
    struct registry_entry entry = *choice->entry;
    if (plan != NULL) vtable.plan = plan;
    if (forward != NULL) vtable.forward = forward;
    plugin.vtable = &vtable;
    entry.plugin = &plugin;
    choice->entry = &entry;
    model_destroy(f.model);
    make_model(&f);
    infer(&f, f.base); /* all else works */
    f.seen.model = f.model;
    const struct model_observer observer = {&f.seen, keep};
    assert_fails(model_observe(f.model, f.inputs, BATCH, TOKENS, &observer, &error), expected,
                 &error, words, more);
    model_destroy(f.model);
    f.model = NULL;
    choice->entry = kept;
    close_fixture(&f);
}

static void attention_may_not_calibrate(void **state) {
    (void)state;
    refuse_attention(plan_all_else, NULL, FW_E_UNSUPPORTED,
                     "layer 3: attention plugin xsa cannot calibrate", "no rows of mine are shown");
    refuse_attention(NULL, show_nothing, FW_E_PROTOCOL, "layer 3: attention plugin xsa",
                     "shows nothing");
    refuse_attention(NULL, show_too_much, FW_E_PROTOCOL, "layer 3: attention plugin xsa",
                     "of 5 that it has");
}

/* ---- what a quantizer is shown ---- */

/* A quantizer that wants rows of one matrix, or fails at it. */
static struct pupil {
    uint32_t wanted, fails_at;
    int asked;
    bool unasked; /* fails when asked */
    int64_t rows;
    double sum;
} pupil;

static fw_status look(void *self, uint32_t index, const float *rows, int64_t n_rows,
                      int64_t n_columns, fw_error *why) {
    struct pupil *p = self;
    if (n_rows == 0 && p->unasked) return fw_fail(why, FW_E_MEMORY, "no room for an answer");
    if (n_rows == 0) p->asked++;
    if (index != p->wanted) return fw_fail(why, FW_E_UNSUPPORTED, "not this one");
    if (n_rows > 0 && index == p->fails_at) return fw_fail(why, FW_E_NUMERIC, "too large to count");
    for (int64_t i = 0; i < n_rows * n_columns; i++) p->sum += fabs((double)rows[i]);
    p->rows += n_rows;
    return FW_OK;
}

static const fw_quantizer calibrating = {.struct_size = sizeof calibrating, .observe = look};
static const fw_quantizer plain = {.struct_size = sizeof plain};

/* Random tokens, others from `changed` to `changed` + CORPUS / 10. */
static struct corpus *make_corpus(uint64_t changed) {
    static uint16_t tokens[CORPUS];
    struct corpus *corpus = NULL;
    test_random random = {5};
    for (uint64_t i = 0; i < CORPUS; i++) {
        const uint16_t token = (uint16_t)test_below(&random, VOCABULARY);
        const bool other = i >= changed && i < changed + CORPUS / 10;
        tokens[i] = other ? (uint16_t)((token + 1) % VOCABULARY) : token;
    }
    assert_ok(corpus_of_tokens(tokens, CORPUS, &corpus, &error), &error);
    return corpus;
}

static bool refused; /* by the quantizer */

static fw_status run(struct fixture *f, const struct corpus *corpus, uint64_t total) {
    const struct calibration calibration = {f->model, BATCH, TOKENS, corpus, total};
    return calibration_run(&calibration, f->session.services, &calibrating, &pupil, &refused,
                           &error);
}

static bool is_wanted(const struct fixture *f, const fw_quantizer *quantizer) {
    bool wanted = true;
    assert_ok(calibration_is_wanted(quantizer, &pupil, f->model, &wanted, &error), &error);
    return wanted;
}

static void only_who_wants_is_asked_for_more(void **state) {
    (void)state;
    struct fixture f;
    bool wanted = false;
    open_fixture(&f);
    pupil = (struct pupil){.wanted = UINT32_MAX};
    assert_false(is_wanted(&f, &plain));
    assert_int_equal(pupil.asked, 0);
    assert_false(is_wanted(&f, &calibrating));
    assert_true(pupil.asked > 5 * 6);
    pupil.wanted = 0;
    assert_true(is_wanted(&f, &calibrating));
    assert_true(pupil.rows == 0);
    pupil.unasked = true; /* an error is no answer */
    assert_fails(calibration_is_wanted(&calibrating, &pupil, f.model, &wanted, &error), FW_E_MEMORY,
                 &error, model_weight(f.model, 0)->name, "no room for an answer");
    close_fixture(&f);
}

static double sum_of_calibration(struct fixture *f, uint64_t changed) {
    struct corpus *corpus = make_corpus(changed);
    pupil = (struct pupil){.wanted = 0, .fails_at = UINT32_MAX};
    assert_ok(run(f, corpus, 5 * ROWS + 1), &error);
    assert_int_equal(pupil.rows, 6 * ROWS);
    corpus_close(corpus);
    return pupil.sum;
}

/* Whole passes of at least so many tokens, over the whole corpus, the same each time: what changes
 * in any tenth of the corpus is seen. */
static void the_corpus_is_read_evenly(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    assert_ok(model_set_weights(f.model, f.weights, &error), &error);
    const double sum = sum_of_calibration(&f, CORPUS);
    assert_true(sum == sum_of_calibration(&f, CORPUS));
    for (uint64_t tenth = 0; tenth < 10; tenth++)
        assert_true(sum != sum_of_calibration(&f, tenth * CORPUS / 10));
    close_fixture(&f);
}

static void a_quantizer_that_fails_is_named(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    assert_ok(model_set_weights(f.model, f.weights, &error), &error);
    struct corpus *corpus = make_corpus(CORPUS);
    pupil = (struct pupil){.wanted = 0, .fails_at = 0};
    assert_fails(run(&f, corpus, ROWS), FW_E_NUMERIC, &error, model_weight(f.model, 0)->name,
                 "too large to count");
    assert_true(refused);
    corpus_close(corpus);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_what_layers_read),
        cmocka_unit_test(every_matrix_but_the_tables_is_observed),
        cmocka_unit_test(the_output_layer_is_observed_too),
        cmocka_unit_test(observing_changes_nothing),
        cmocka_unit_test(attention_may_not_calibrate),
        cmocka_unit_test(only_who_wants_is_asked_for_more),
        cmocka_unit_test(the_corpus_is_read_evenly),
        cmocka_unit_test(a_quantizer_that_fails_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
