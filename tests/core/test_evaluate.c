/* Evaluation of a tiny model on a small corpus: the score is that of a float64 recomputation from
 * the model's own log-probabilities, each target in the context its mode promises; bytes are the
 * table's; and a cache sees the stream in order and nothing ahead of it. */
#include <math.h>
#include <stdio.h>

#include "evaluate_fixture.h"
#include "shard.h"
#include "tiny_model.h"

static fw_error error = {.struct_size = sizeof error};

/* ---- the score, recomputed ---- */

/* Where the context of the target behind position t begins. Sliding: the earliest window that
 * covers t, windows being `stride` apart. */
static size_t context_begin(size_t t, size_t window, bool sliding, size_t stride) {
    if (!sliding) return t / window * window;
    size_t begin = 0;
    while (begin + window <= t) begin += stride;
    return begin;
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

/* ---- any shape ---- */

static struct evaluate_result evaluate_on(const fw_host *host, int64_t mode, uint64_t most) {
    const struct model_options options = {.experiment = &experiment,
                                          .host = host,
                                          .vocabulary = V,
                                          .batch = experiment.eval.batch,
                                          .tokens = experiment.eval.window};
    struct model *model = tiny_model(&options);
    script_reset();
    struct evaluate_options with = options_for(model, mode, true);
    struct evaluate_result result;
    if (host != &device.services) with.model = language_model_of(model);
    with.host = host;
    with.max_tokens = most;
    assert_ok(evaluate(&with, &result, &error), &error);
    model_destroy(model);
    return result;
}

/* The cache was asked and told the same as before. */
static void assert_same_calls(const struct script_cache *before) {
    assert_int_equal(script.n_calls, before->n_calls);
    assert_int_equal(script.n_begun, before->n_begun);
    for (size_t i = 0; i < script.n_calls; i++) {
        const struct script_call *a = &script.calls[i], *b = &before->calls[i];
        assert_true(a->what == b->what && a->position == b->position && a->n == b->n &&
                    a->token == b->token);
    }
}

/* However windows, strides, batches, parts and the stream's end meet, the device of these fixtures
 * scores what one in step does; also with more windows in a pass than there are. */
static void test_any_shape(void **state) {
    (void)state;
    static struct script_cache before;
    test_random random = {41};
    for (int i = 0; i < 60; i++) {
        const int64_t mode = test_below(&random, 3) == 0 ? EVAL_PLAIN : EVAL_SLIDING;
        const uint64_t most = 2 + test_below(&random, N - 1);
        experiment.eval.window = 1 + (int64_t)test_below(&random, WINDOW);
        experiment.eval.stride = 1 + (int64_t)test_below(&random, (uint64_t)experiment.eval.window);
        experiment.eval.batch = 1 + (int64_t)test_below(&random, i % 4 == 0 ? 70 : 4);
        experiment.eval.faithful = test_below(&random, 2) == 0;
        experiment.eval.ranks = 1 + (int64_t)test_below(&random, 4);
        const struct evaluate_result expected = evaluate_on(session.services, mode, most);
        before = script;
        const struct evaluate_result result = evaluate_on(&device.services, mode, most);
        assert_same_calls(&before);
        assert_close(result.model.nats, expected.model.nats, ROUNDING);
        assert_close(result.fair_model.nats, expected.fair_model.nats, ROUNDING);
        assert_close(result.cached.nats, expected.cached.nats, ROUNDING);
        assert_int_equal(result.targets, expected.targets);
        assert_int_equal(result.model.bytes, expected.model.bytes);
        assert_int_equal(result.fair_model.targets, most - 1);
    }
}

/* Wherever the device fails, its words end the evaluation, and nothing is left behind. */
static void test_a_device_that_fails(void **state) {
    (void)state;
    experiment.eval.batch = MOST_BATCH;
    struct model *model = open_model(MOST_BATCH, WINDOW);
    const struct evaluate_options options = options_for(model, EVAL_SLIDING, false);
    struct evaluate_result result;
    device.calls = 0;
    assert_ok(evaluate(&options, &result, &error), &error);
    const int64_t calls = device.calls;
    const int live = device.live;
    assert_true(calls > 50);
    for (int64_t at = 1; at <= calls; at += 1 + at / 12) {
        device.calls = 0;
        device.fail_at = at;
        assert_fails(evaluate(&options, &result, &error), FW_E_DEVICE, &error, "failed at call");
        assert_int_equal(device.live, live);
    }
    device.fail_at = 0;
    model_destroy(model);
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, evaluate_setup, evaluate_teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_plain_score),
        CHECKED(test_sliding_score),
        CHECKED(test_max_tokens),
        CHECKED(test_batch_changes_rounding_alone),
        CHECKED(test_unfilled_batch),
        CHECKED(test_any_shape),
        CHECKED(test_a_device_that_fails),
        CHECKED(test_raw_bytes_are_those_scored),
        CHECKED(test_cache_sees_the_stream_in_order),
        CHECKED(test_rewritten_rows_gain_nothing),
        CHECKED(test_refusals),
    };
    return cmocka_run_group_tests_name("in step", tests, evaluate_open_session,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead", tests, evaluate_open_ahead,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead by five", tests, evaluate_open_ahead_by_five,
                                       evaluate_close_session);
}
