/* Evaluation of a tiny model on a small corpus: the score is that of a float64 recomputation from
 * the model's own log-probabilities, each target in the context its mode promises; bytes are the
 * table's; and a cache sees the stream in order and nothing ahead of it. */
#include "evaluate.h"

#include <math.h>
#include <stdio.h>

#include "script_cache.h"
#include "session.h"
#include "shard.h"
#include "tiny_model.h"
#include "windows.h"
#include "workspace.h"

enum { V = 37, WINDOW = 8, N = 61, MOST_BATCH = 3 };

/* Matrix products of other shapes add in another order: the same log-probabilities but for some
 * units in the last place of float32 (6e-8 relative), which 60 targets average out. A target in a
 * wrong context moves the sum by 1e-3 and more. */
static const double ROUNDING = 2e-7;

static const char ini[] = "[model]\nlayers = 2\nwidth = 32\nmlp_width = 48\n"
                          "[attention]\nplugin = gqa\nheads = 4\nkv_heads = 2\nrope_dims = 4\n";

static struct session session;
static struct experiment experiment;
static fw_token_info tokens[V];
static const struct token_table table = {.vocabulary = V, .begin_token = 0, .tokens = tokens};
static uint16_t stream[N];
static struct corpus *corpus;
static struct progress progress = {.interval = 1e9};
static fw_error error = {.struct_size = sizeof error};

/* ---- a model, a corpus ---- */

static int open_session(void **state) {
    (void)state;
    const struct arguments arguments = {0};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    assert_ok(session_open(&arguments, "evaluate test", ini, kinds, &session, &error), &error);
    for (uint16_t v = 0; v < V; v++) { /* token 0 begins a document */
        tokens[v].struct_size = sizeof tokens[v];
        tokens[v].base_bytes = v == 0 ? 0 : (uint16_t)(1 + v % 3);
        tokens[v].leading_space = v != 0 && v % 2 == 0;
        tokens[v].boundary = v == 0;
    }
    return 0;
}

static int close_session(void **state) {
    (void)state;
    session_close(&session);
    return 0;
}

static void open_corpus(const char *source) {
    const struct corpus_options options = {.source = source};
    assert_ok(corpus_open(&options, &corpus, &error), &error);
}

static int setup(void **state) {
    if (workspace_setup(state) != 0) return -1;
    script_reset();
    experiment = *session.experiment;
    experiment.eval.window = WINDOW;
    experiment.eval.stride = 3;
    experiment.eval.batch = 1;
    experiment.eval.ranks = 1;
    experiment.cache = script.choice;
    test_random random = {23};
    for (size_t i = 0; i < N; i++)
        stream[i] = i % 20 == 0 ? 0 : (uint16_t)(1 + test_below(&random, V - 1));
    write_shard("stream.bin", SHARD_MAGIC, SHARD_VERSION, N, stream, N);
    open_corpus("stream.bin");
    return 0;
}

static int teardown(void **state) {
    corpus_close(corpus);
    return workspace_teardown(state);
}

static struct model *open_model(int64_t batch, int64_t window) {
    const struct model_options options = {.experiment = &experiment,
                                          .host = session.services,
                                          .vocabulary = V,
                                          .batch = batch,
                                          .tokens = window};
    return tiny_model(&options);
}

static struct evaluate_options options_for(struct model *model, int64_t mode, bool with_cache) {
    return (struct evaluate_options){.experiment = &experiment,
                                     .host = session.services,
                                     .model = language_model_of(model),
                                     .corpus = corpus,
                                     .table = &table,
                                     .mode = mode,
                                     .with_cache = with_cache,
                                     .label = "test",
                                     .progress = &progress};
}

static struct evaluate_result evaluate_with(int64_t batch, int64_t mode, bool with_cache) {
    experiment.eval.batch = batch;
    struct model *model = open_model(batch, experiment.eval.window);
    const struct evaluate_options options = options_for(model, mode, with_cache);
    struct evaluate_result result;
    assert_ok(evaluate(&options, &result, &error), &error);
    model_destroy(model);
    return result;
}

/* ---- the score, recomputed ---- */

/* Where the context of the target behind position t begins. Sliding: the earliest window that
 * covers t, windows being `stride` apart. */
static size_t context_begin(size_t t, size_t window, bool sliding, size_t stride) {
    if (!sliding) return t / window * window;
    size_t begin = 0;
    while (begin + window <= t) begin += stride;
    return begin;
}

static double target_nats(struct model *model, size_t begin, size_t t) {
    int32_t inputs[WINDOW] = {0};
    float l[V];
    for (size_t i = begin; i <= t; i++) inputs[i - begin] = stream[i];
    assert_ok(model_infer(model, inputs, 1, WINDOW, &error), &error);
    assert_ok(model_log_probabilities(model, (int64_t)(t - begin), 1, l, &error), &error);
    double sum = 0;
    for (size_t v = 0; v < V; v++) sum += exp((double)l[v]);
    return log(sum) - (double)l[stream[t + 1]];
}

static double recompute(size_t n, bool sliding) {
    struct model *model = open_model(1, WINDOW);
    double nats = 0;
    for (size_t t = 0; t + 1 < n; t++)
        nats += target_nats(model,
                            context_begin(t, WINDOW, sliding, (size_t)experiment.eval.stride), t);
    model_destroy(model);
    return nats;
}

static uint64_t count_bytes(size_t n) {
    uint64_t bytes = 0;
    for (size_t i = 1; i < n; i++) {
        const uint16_t v = stream[i];
        if (v == 0) continue;
        bytes += 1u + v % 3;
        if (v % 2 == 0 && stream[i - 1] != 0) bytes++;
    }
    return bytes;
}

static void assert_close(double a, double b, double relative) {
    if (!(fabs(a - b) <= relative * fabs(b))) fail_msg("%.17g is not %.17g", a, b);
}

static void check_score(int64_t mode, size_t n, uint64_t max_tokens) {
    struct model *model = open_model(1, WINDOW);
    struct evaluate_options options = options_for(model, mode, false);
    options.max_tokens = max_tokens;
    experiment.eval.batch = 1;
    struct evaluate_result result;
    assert_ok(evaluate(&options, &result, &error), &error);
    model_destroy(model);
    const double expected = recompute(n, mode == EVAL_SLIDING);
    assert_close(result.model.nats, expected, ROUNDING);
    assert_int_equal(result.targets, n - 1);
    assert_int_equal(result.bytes, count_bytes(n));
    assert_close(result.model.bpb, result.model.nats / log(2) / (double)count_bytes(n), 1e-15);
    assert_true(result.raw_bytes == 0 && result.model.raw_bpb == 0); /* a bare shard */
}

static void test_plain_score(void **state) {
    (void)state;
    check_score(EVAL_PLAIN, N, 0);
}

static void test_sliding_score(void **state) {
    (void)state;
    check_score(EVAL_SLIDING, N, 0);
    experiment.eval.stride = 1;
    check_score(EVAL_SLIDING, N, 0);
    experiment.eval.stride = WINDOW;
    check_score(EVAL_SLIDING, N, 0);
}

static void test_max_tokens(void **state) {
    (void)state;
    check_score(EVAL_PLAIN, 2, 2);
    check_score(EVAL_PLAIN, 17, 17);
    check_score(EVAL_SLIDING, 18, 18);
    check_score(EVAL_PLAIN, N, N + 5);
}

static void test_batch_changes_rounding_alone(void **state) {
    (void)state;
    for (int64_t mode = EVAL_PLAIN; mode <= EVAL_SLIDING; mode++) {
        const struct evaluate_result one = evaluate_with(1, mode, true);
        const struct evaluate_result many = evaluate_with(MOST_BATCH, mode, true);
        assert_close(many.model.nats, one.model.nats, ROUNDING);
        assert_close(many.cached.nats, one.cached.nats, ROUNDING);
        assert_int_equal(one.bytes, many.bytes);
        const struct evaluate_result again = evaluate_with(MOST_BATCH, mode, true);
        assert_memory_equal(&again.model.nats, &many.model.nats, sizeof(double));
        assert_memory_equal(&again.cached.nats, &many.cached.nats, sizeof(double));
    }
}

static double seen[2][N][V];
static size_t pass;

static void record_row(const fw_row *row, fw_prediction *prediction) {
    memcpy(seen[pass][row->position], row->probabilities, V * sizeof(double));
    script_state_row(prediction);
}

/* Two windows score the same bits whether or not a third one fills the batch. */
static void test_unfilled_batch(void **state) {
    (void)state;
    script.predict = record_row;
    experiment.eval.batch = MOST_BATCH;
    struct model *model = open_model(MOST_BATCH, WINDOW);
    struct evaluate_options options = options_for(model, EVAL_PLAIN, true);
    struct evaluate_result result;
    for (pass = 0; pass < 2; pass++) {
        options.max_tokens = pass == 0 ? 0 : 2 * WINDOW + 1;
        assert_ok(evaluate(&options, &result, &error), &error);
    }
    assert_memory_equal(seen[0], seen[1], 2 * WINDOW * sizeof seen[0][0]);
    assert_true(seen[1][2 * WINDOW - 1][0] > 0 && seen[1][2 * WINDOW][0] == 0);
    model_destroy(model);
}

/* ---- raw bytes ---- */

/* `fairway data` would write this of one document with these tokens and bytes. */
static void write_documented(const char *name, const uint16_t *document, uint64_t n,
                             uint64_t raw_bytes) {
    const uint8_t zero[32] = {0};
    struct shard_writer *writer;
    assert_ok(shard_create(name, zero, &writer, &error), &error);
    assert_ok(shard_append(writer, document, n, raw_bytes, zero, &error), &error);
    assert_ok(shard_commit(writer, &error), &error);
}

static struct evaluate_result score_document(const char *name, const uint16_t *document, uint64_t n,
                                             uint64_t raw_bytes) {
    write_documented(name, document, n, raw_bytes);
    corpus_close(corpus);
    open_corpus(name);
    return evaluate_with(1, EVAL_PLAIN, false);
}

/* Tokens 3, 7, 5 count 1, 2 and 3 bytes; nothing of the first is scored unless it only begins. */
static void test_raw_bytes_are_those_scored(void **state) {
    (void)state;
    struct evaluate_result result = score_document("a.bin", (uint16_t[]){3, 7, 5}, 3, 6);
    assert_int_equal(result.bytes, 5);
    assert_int_equal(result.raw_bytes, 5);
    assert_true(result.model.raw_bpb == result.model.bpb);
    result = score_document("b.bin", (uint16_t[]){0, 3, 7, 5}, 4, 6);
    assert_int_equal(result.bytes, 6);
    assert_int_equal(result.raw_bytes, 6);
    assert_true(result.model.raw_bpb == result.model.bpb);
}

/* ---- with a cache ---- */

static size_t rows_seen;

static void check_row(const fw_row *row, fw_prediction *prediction) {
    double sum = 0, entropy = 0;
    for (size_t v = 0; v < V; v++) {
        sum += row->probabilities[v];
        entropy -= row->probabilities[v] * log(row->probabilities[v]);
    }
    assert_int_equal(row->vocabulary, V);
    assert_int_equal(row->position, rows_seen++);
    assert_true(fabs(sum - 1) < 1e-12);
    if (script.vtable.needs_entropy)
        assert_true(fabs(row->entropy - entropy) < 1e-6); /* the device's logs are float32 */
    else
        assert_true(row->entropy == -1);
    script_state_row(prediction);
}

static void check_protocol(int64_t batch, int64_t mode) {
    script.n_calls = rows_seen = 0;
    const struct evaluate_result result = evaluate_with(batch, mode, true);
    assert_int_equal(script.n_calls, 2 * (N - 1));
    for (size_t t = 0; t + 1 < N; t++) {
        const struct script_call *asked = &script.calls[2 * t], *told = asked + 1;
        assert_true(asked->what == 'p' && asked->position == t);
        assert_true(told->what == 'u' && told->n == 1 && told->token == stream[t + 1]);
    }
    assert_close(result.cached.nats, result.model.nats, 1e-12);
    assert_int_equal(result.cache_changed, 0);
    assert_false(result.invalid);
}

static void test_cache_sees_the_stream_in_order(void **state) {
    (void)state;
    script.predict = check_row;
    for (uint32_t needed = 0; needed < 2; needed++) {
        script.vtable.needs_entropy = needed;
        check_protocol(1, EVAL_PLAIN);
        check_protocol(MOST_BATCH, EVAL_PLAIN);
        check_protocol(MOST_BATCH, EVAL_SLIDING);
    }
}

/* Certain of every token. */
static void rewrite_row(const fw_row *row, fw_prediction *prediction) {
    double *p = (double *)(uintptr_t)row->probabilities;
    for (size_t v = 0; v < V; v++) p[v] = 1;
    script_state_row(prediction);
}

static void test_rewritten_rows_gain_nothing(void **state) {
    (void)state;
    script.predict = rewrite_row;
    const struct evaluate_result result = evaluate_with(1, EVAL_PLAIN, true);
    assert_close(result.cached.nats, result.model.nats, 1e-12);
    assert_int_equal(result.cache_changed, 0);
}

static double always_one(void *self, const fw_row *row, uint32_t token) {
    (void)self, (void)row, (void)token;
    return 1;
}

static void state_unverified(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = always_one;
}

static void test_unverified(void **state) {
    (void)state;
    script.predict = state_unverified;
    struct model *model = open_model(1, WINDOW);
    const struct evaluate_options options = options_for(model, EVAL_PLAIN, true);
    struct evaluate_result result;
    assert_fails(evaluate(&options, &result, &error), FW_E_PROTOCOL, &error, "script", "position 0",
                 "on_violation = report");
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    assert_ok(evaluate(&options, &result, &error), &error);
    assert_true(result.invalid && result.mean_sum == V && result.largest_sum == V);
    assert_true(result.cached.nats == 0 && result.model.nats > 0);
    model_destroy(model);
}

/* ---- faithful to record 993 ---- */

/* How often windows of a faithful pass score each target, and where its context begins then. */
static double recompute_faithful(size_t *n_scored, uint64_t *bytes) {
    struct model *model = open_model(1, WINDOW);
    const size_t stride = (size_t)experiment.eval.stride, targets = N - 1;
    double nats = 0;
    *n_scored = *bytes = 0;
    for (size_t start = 0; start < targets; start += stride) {
        const size_t end = start + WINDOW < targets ? start + WINDOW : targets;
        size_t from = start == 0 || end - start < stride ? start : end - stride;
        for (; from < end; from++) {
            nats += target_nats(model, start, from);
            *bytes += token_table_bytes(&table, stream[from], stream[from + 1]);
            ++*n_scored;
        }
    }
    model_destroy(model);
    return nats;
}

static void check_faithful_score(int64_t batch, int64_t stride) {
    size_t n_scored = 0;
    uint64_t bytes = 0;
    experiment.eval.stride = stride;
    experiment.eval.faithful = false;
    const struct evaluate_result fair = evaluate_with(batch, EVAL_SLIDING, true);
    assert_true(fair.model.fair && fair.cached.fair);
    assert_memory_equal(&fair.fair_model, &fair.model, sizeof fair.model);
    experiment.eval.faithful = true;
    const struct evaluate_result result = evaluate_with(batch, EVAL_SLIDING, true);
    assert_close(result.model.nats, recompute_faithful(&n_scored, &bytes), ROUNDING);
    assert_int_equal(result.model.targets, n_scored);
    assert_int_equal(result.model.bytes, bytes);
    assert_true(n_scored > N - 1 && !result.model.fair);
    assert_close(result.model.bpb, result.model.nats / log(2) / (double)bytes, 1e-15);
    assert_int_equal(result.targets, n_scored);
    /* Beside it, and for a cache that did not declare itself unverified, all is as ever. */
    assert_memory_equal(&result.fair_model, &fair.model, sizeof fair.model);
    assert_memory_equal(&result.cached, &fair.cached, sizeof fair.cached);
}

static void test_faithful_score(void **state) {
    (void)state;
    check_faithful_score(1, 3);
    check_faithful_score(MOST_BATCH, 2);
    check_faithful_score(1, 1);
}

/* Plain passes, such as those before packing, have no other way to count. */
static void test_faithful_leaves_plain_alone(void **state) {
    (void)state;
    experiment.eval.faithful = true;
    check_score(EVAL_PLAIN, N, 0);
}

static void check_shown(const fw_row *given, fw_prediction *prediction) {
    const uint64_t at = given->position + 1; /* of the target in the stream */
    const bool wraps = experiment.eval.faithful;
    assert_int_equal(given->n_context, wraps || at > 4 ? 4 : at);
    for (uint64_t i = 1; i <= given->n_context; i++)
        assert_int_equal(given->context[given->n_context - i], stream[(at + N - i) % N]);
    state_unverified(given, prediction);
}

/* A cache that declares itself unverified is asked and told in windows, as often as they score;
 * indices before the beginning wrap around. Fair, it sees each position once and the past alone. */
static void check_windows_told(bool faithful) {
    experiment.eval.faithful = faithful;
    script.n_calls = 0;
    const struct evaluate_result result = evaluate_with(MOST_BATCH, EVAL_SLIDING, true);
    const struct windows windows = {N - 1, WINDOW, 3, faithful};
    const struct script_call *call = script.calls;
    uint64_t scored = 0;
    for (uint64_t i = 0; i < windows_count(&windows); i++) {
        const struct window window = windows_get(&windows, i);
        for (uint64_t k = window.first; k < window.n; k++, call++, scored++)
            assert_true(call->what == 'p' && call->position == window.start + k);
        assert_true(call->what == 'u' && call->n == window.n - window.first);
        assert_int_equal(call->token, stream[window.start + window.n]);
        call++;
    }
    assert_int_equal(script.n_calls, call - script.calls);
    assert_int_equal(result.cached.targets, scored);
    assert_true(result.cached.fair == !faithful && result.invalid);
}

static void test_windows_told(void **state) {
    (void)state;
    script.predict = check_shown;
    script.vtable.unverified = 1;
    script.vtable.update_every = FW_UPDATE_EVERY_WINDOW;
    script.vtable.context_tokens = 4;
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    check_windows_told(false);
    check_windows_told(true);
}

/* ---- ranks ---- */

static void test_ranks_begin_cold(void **state) {
    (void)state;
    const struct evaluate_result whole = evaluate_with(MOST_BATCH, EVAL_SLIDING, true);
    assert_int_equal(script.n_begun, 1);
    experiment.eval.ranks = 4;
    script.n_begun = script.n_calls = 0;
    const struct evaluate_result parts = evaluate_with(MOST_BATCH, EVAL_SLIDING, true);
    assert_int_equal(script.n_begun, 4);
    assert_int_equal(script.n_calls, 2 * (N - 1)); /* each target once, in order */
    assert_true(parts.cached.fair && parts.model.fair);
    assert_memory_equal(&parts.model, &whole.model, sizeof whole.model);
    experiment.eval.ranks = 4096; /* more than there are windows: each has a cache of its own */
    script.n_begun = script.n_calls = 0;
    (void)evaluate_with(MOST_BATCH, EVAL_PLAIN, true);
    assert_int_equal(script.n_begun, (N - 1 + WINDOW - 1) / WINDOW);
}

/* ---- the counterpart ---- */

/* A cache that halves the model's weight and says 1 of token 1. */
static fw_status honest_create(const fw_host *host, const fw_value *values,
                               const fw_cache_shape *shape, void **self, fw_error *why) {
    static const char nothing = 0;
    (void)host, (void)values, (void)shape, (void)why;
    *self = (void *)(uintptr_t)&nothing;
    return FW_OK;
}
static void honest_destroy(void *self) { (void)self; }
static fw_status honest_begin(void *self, fw_error *why) { return (void)self, (void)why, FW_OK; }
static fw_status honest_predict(void *self, const fw_row *row, fw_prediction *prediction,
                                fw_error *why) {
    (void)self, (void)row, (void)why;
    script_state_list(prediction, FW_PREDICT_MIX, 0.5, 1, (uint32_t[]){1}, (double[]){0.5});
    return FW_OK;
}
static fw_status honest_update(void *self, const uint32_t *told, uint64_t n, fw_error *why) {
    return (void)self, (void)told, (void)n, (void)why, FW_OK;
}
static const fw_cache honest = {.struct_size = sizeof honest,
                                .create = honest_create,
                                .destroy = honest_destroy,
                                .begin = honest_begin,
                                .predict = honest_predict,
                                .update = honest_update};
static const fw_plugin honest_plugin = {
    .struct_size = sizeof honest_plugin, .kind = FW_CACHE, .id = "honest", .vtable = &honest};
static const struct registry_entry honest_entry = {.plugin = &honest_plugin};

static void test_counterpart(void **state) {
    (void)state;
    const struct plugin_choice choice = {
        .kind = FW_CACHE, .section = "counterpart", .name = "honest", .entry = &honest_entry};
    experiment.cache = choice;
    const struct evaluate_result alone = evaluate_with(1, EVAL_SLIDING, true);
    assert_false(alone.has_counterpart);
    experiment.cache = script.choice;
    experiment.counterpart = choice;
    script.predict = state_unverified;
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    assert_false(evaluate_with(1, EVAL_SLIDING, true).has_counterpart); /* not declared */
    script.vtable.unverified = 1;
    for (int faithful = 0; faithful < 2; faithful++) {
        experiment.eval.faithful = faithful != 0;
        const struct evaluate_result result = evaluate_with(1, EVAL_SLIDING, true);
        assert_true(result.has_counterpart && result.invalid);
        assert_memory_equal(&result.counterpart, &alone.cached, sizeof alone.cached);
        assert_true(result.cached.fair == !faithful && result.cached.nats == 0);
    }
    assert_false(evaluate_with(1, EVAL_SLIDING, false).has_counterpart);
}

static void test_checked_before_any_work(void **state) {
    (void)state;
    const fw_host *host = session.services;
    script.vtable.unverified = 1;
    assert_fails(evaluate_check(&experiment, host, &table, &error), FW_E_PROTOCOL, &error,
                 "[cache] plugin script", "on_violation = report");
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    experiment.counterpart = script.choice;
    experiment.counterpart.section = "counterpart";
    assert_fails(evaluate_check(&experiment, host, &table, &error), FW_E_CONFIG, &error,
                 "[counterpart] plugin script", "unverified itself");
    struct model *model = open_model(1, WINDOW);
    const struct evaluate_options options = options_for(model, EVAL_PLAIN, true);
    struct evaluate_result result = {.targets = 77};
    assert_fails(evaluate(&options, &result, &error), FW_E_CONFIG, &error, "unverified itself");
    assert_int_equal(result.targets, 77);
    model_destroy(model);
    experiment.counterpart.entry = &honest_entry;
    assert_ok(evaluate_check(&experiment, host, &table, &error), &error);
    assert_int_equal(script.n_calls, 0);
}

/* ---- refusals ---- */

static void refuse(const uint16_t *bad, int32_t n, uint64_t max_tokens, fw_status status,
                   const char *words) {
    write_shard("bad.bin", SHARD_MAGIC, SHARD_VERSION, n, bad, (size_t)n);
    corpus_close(corpus);
    open_corpus("bad.bin");
    struct model *model = open_model(1, WINDOW);
    struct evaluate_options options = options_for(model, EVAL_PLAIN, false);
    options.max_tokens = max_tokens;
    struct evaluate_result result = {.targets = 77};
    assert_fails(evaluate(&options, &result, &error), status, &error, words);
    assert_int_equal(result.targets, 77);
    model_destroy(model);
}

static void test_refusals(void **state) {
    (void)state;
    refuse((uint16_t[]){1}, 1, 0, FW_E_SHAPE, "1 tokens cannot be scored");
    refuse((uint16_t[]){1, 2, 3}, 3, 1, FW_E_SHAPE, "2 are the least");
    refuse((uint16_t[]){1, 2, V, 3}, 4, 0, FW_E_RANGE, "token 37 at position 2");
    refuse((uint16_t[]){1, 2, 3, V}, 4, 0, FW_E_RANGE, "token 37 at position 3");
    refuse((uint16_t[]){1, 2, 3, UINT16_MAX}, 4, 0, FW_E_RANGE, "token 65535");
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_plain_score),
        CHECKED(test_sliding_score),
        CHECKED(test_max_tokens),
        CHECKED(test_batch_changes_rounding_alone),
        CHECKED(test_unfilled_batch),
        CHECKED(test_raw_bytes_are_those_scored),
        CHECKED(test_cache_sees_the_stream_in_order),
        CHECKED(test_rewritten_rows_gain_nothing),
        CHECKED(test_unverified),
        CHECKED(test_faithful_score),
        CHECKED(test_faithful_leaves_plain_alone),
        CHECKED(test_windows_told),
        CHECKED(test_ranks_begin_cold),
        CHECKED(test_counterpart),
        CHECKED(test_checked_before_any_work),
        CHECKED(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_session, close_session);
}
