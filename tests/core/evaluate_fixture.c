#include "evaluate_fixture.h"

#include <math.h>

#include "shard.h"
#include "tiny_model.h"

static const char ini[] = "[run]\ndevice = cpu\n[model]\nlayers = 2\nwidth = 32\nmlp_width = 48\n"
                          "[attention]\nplugin = gqa\nheads = 4\nkv_heads = 2\nrope_dims = 4\n";

struct session session;
struct wrapped_device device;
static int64_t rows_at_once; /* 0: as many as the model says */
struct experiment experiment;
static fw_token_info tokens[V];
const struct token_table table = {.vocabulary = V, .begin_token = 0, .tokens = tokens};
uint16_t stream[N];
struct corpus *corpus;
static struct progress progress = {.interval = 1e9};
static fw_error error = {.struct_size = sizeof error};

/* ---- a model, a corpus ---- */

static void open_session(unsigned features) {
    const struct arguments arguments = {0};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    assert_ok(session_open(&arguments, "evaluate test", ini, kinds, &session, &error), &error);
    for (uint16_t v = 0; v < V; v++) { /* token 0 begins a document */
        tokens[v].struct_size = sizeof tokens[v];
        tokens[v].base_bytes = v == 0 ? 0 : (uint16_t)(1 + v % 3);
        tokens[v].leading_space = v != 0 && v % 2 == 0;
        tokens[v].boundary = v == 0;
    }
    wrapped_device_open(&device, session.services, features);
    rows_at_once = 0;
}

int evaluate_open_session(void **state) {
    (void)state;
    open_session(0);
    return 0;
}

int evaluate_open_ahead(void **state) {
    (void)state;
    open_session(WRAP_PINNED);
    return 0;
}

int evaluate_open_ahead_by_five(void **state) {
    (void)state;
    open_session(WRAP_PINNED | WRAP_BESIDE);
    rows_at_once = 5;
    return 0;
}

int evaluate_close_session(void **state) {
    (void)state;
    wrapped_device_close(&device);
    session_close(&session);
    return 0;
}

void open_corpus(const char *source) {
    const struct corpus_options options = {.source = source};
    assert_ok(corpus_open(&options, &corpus, &error), &error);
}

int evaluate_setup(void **state) {
    if (workspace_setup(state) != 0) return -1;
    script_reset();
    experiment = *session.experiment;
    experiment.eval.window = WINDOW;
    experiment.eval.stride = 3;
    experiment.eval.batch = 1;
    experiment.eval.ranks = 1;
    experiment.eval.audit = EVAL_AUDIT_OFF; /* tests of the audit switch it on */
    experiment.cache = script.choice;
    test_random random = {23};
    for (size_t i = 0; i < N; i++)
        stream[i] = i % 20 == 0 ? 0 : (uint16_t)(1 + test_below(&random, V - 1));
    write_shard("stream.bin", SHARD_MAGIC, SHARD_VERSION, N, stream, N);
    open_corpus("stream.bin");
    return 0;
}

int evaluate_teardown(void **state) {
    corpus_close(corpus);
    return workspace_teardown(state);
}

struct model *open_model(int64_t batch, int64_t window) {
    const struct model_options options = {.experiment = &experiment,
                                          .host = &device.services,
                                          .vocabulary = V,
                                          .batch = batch,
                                          .tokens = window,
                                          .feed = N};
    return tiny_model(&options);
}

struct evaluate_options options_for(struct model *model, int64_t mode, bool with_cache) {
    struct language_model language = language_model_of(model);
    if (rows_at_once > 0) language.most_rows = rows_at_once;
    return (struct evaluate_options){.experiment = &experiment,
                                     .host = &device.services,
                                     .model = language,
                                     .corpus = corpus,
                                     .table = &table,
                                     .mode = mode,
                                     .with_cache = with_cache,
                                     .audited = EVALUATE_AUDIT_ALL,
                                     .label = "test",
                                     .progress = &progress};
}

struct evaluate_result evaluate_with(int64_t batch, int64_t mode, bool with_cache) {
    experiment.eval.batch = batch;
    struct model *model = open_model(batch, experiment.eval.window);
    const struct evaluate_options options = options_for(model, mode, with_cache);
    struct evaluate_result result;
    assert_ok(evaluate(&options, &result, &error), &error);
    model_destroy(model);
    return result;
}

double target_nats(struct model *model, size_t begin, size_t t) {
    int32_t inputs[WINDOW] = {0};
    float l[V];
    for (size_t i = begin; i <= t; i++) inputs[i - begin] = stream[i];
    assert_ok(model_infer(model, inputs, 1, WINDOW, &error), &error);
    assert_ok(model_log_probabilities(model, (int64_t)(t - begin), 1, l, &error), &error);
    double sum = 0;
    for (size_t v = 0; v < V; v++) sum += exp((double)l[v]);
    return log(sum) - (double)l[stream[t + 1]];
}

void assert_close(double a, double b, double relative) {
    if (!(fabs(a - b) <= relative * fabs(b))) fail_msg("%.17g is not %.17g", a, b);
}
