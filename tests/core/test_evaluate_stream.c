/* Evaluation of a stream: the score is that of the same tokens fed to a decoder one by one, however
 * the stream is cut into chunks and rows come from the device; caches see it in order, in runs and
 * parts that no chunk moves; and the comparison with sliding windows is what these score. */
#include <math.h>
#include <stdio.h>

#include "decoder.h"
#include "evaluate_fixture.h"

static fw_error error = {.struct_size = sizeof error};

/* As ROUNDING, but for sums of one target and more, over which nothing averages out. */
#define ROUNDING_OF_ONE 2e-6

enum { KEYS = 7 }; /* that attention sees: other than the window, so that neither stands in */

static struct decoder *open_decoder(struct model *model, int64_t most) {
    const struct decoder_options options = {.model = model, .most = most, .window = KEYS};
    struct decoder *decoder = NULL;
    assert_ok(decoder_create(&options, &decoder, &error), &error);
    return decoder;
}

/* The first n tokens in chunks. */
static struct evaluate_result evaluate_stream(int64_t chunk, size_t n, bool with_cache,
                                              uint64_t check_tokens) {
    experiment.eval.chunk = chunk;
    struct model *model = open_model(1, WINDOW);
    struct decoder *decoder = open_decoder(model, N);
    struct evaluate_options options = options_for(model, EVAL_STREAM, with_cache);
    const struct language_model reads_on = language_model_with(model, decoder);
    options.model.stream = reads_on.stream;
    options.model.most_read = reads_on.most_read;
    options.model.restart = reads_on.restart;
    options.model.read_on = reads_on.read_on;
    options.max_tokens = n;
    options.check_tokens = check_tokens;
    struct evaluate_result result;
    assert_ok(evaluate(&options, &result, &error), &error);
    decoder_destroy(decoder);
    model_destroy(model);
    return result;
}

/* Nats of the first n tokens, each fed alone. */
static double recompute(size_t n) {
    struct model *model = open_model(1, WINDOW);
    struct decoder *decoder = open_decoder(model, 1);
    double nats = 0;
    for (size_t t = 0; t + 1 < n; t++) {
        const int32_t token = stream[t];
        float l[V];
        assert_ok(decoder_feed(decoder, &token, 1, l, &error), &error);
        double sum = 0;
        for (size_t v = 0; v < V; v++) sum += exp((double)l[v]);
        nats += log(sum) - (double)l[stream[t + 1]];
    }
    decoder_destroy(decoder);
    model_destroy(model);
    return nats;
}

static const int64_t chunks[] = {1, 3, 8, 20, N};
enum { N_CHUNKS = sizeof chunks / sizeof chunks[0] };

static void test_the_score_is_that_of_a_decoder(void **state) {
    (void)state;
    static const size_t lengths[] = {2, 22, N};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const double expected = recompute(lengths[i]);
        for (int c = 0; c < N_CHUNKS; c++) {
            const struct evaluate_result result = evaluate_stream(chunks[c], lengths[i], false, 0);
            assert_close(result.model.nats, expected, ROUNDING_OF_ONE);
            assert_int_equal(result.targets, lengths[i] - 1);
            assert_true(result.model.fair && !result.check.made);
        }
    }
}

/* It is not the score of windows, and the corpus is long enough to tell. */
static void test_a_stream_is_no_window(void **state) {
    (void)state;
    const double stream_nats = evaluate_stream(8, N, false, 0).model.nats;
    const double plain = evaluate_with(1, EVAL_PLAIN, false).model.nats;
    const double sliding = evaluate_with(1, EVAL_SLIDING, false).model.nats;
    assert_true(fabs(stream_nats - plain) > 1e-3 * plain);
    assert_true(fabs(stream_nats - sliding) > 1e-3 * sliding);
}

/* The chunk that is given, or that of a batch of windows. */
static void test_chunk(void **state) {
    (void)state;
    experiment.eval.batch = 3;
    experiment.eval.chunk = 0;
    assert_int_equal(evaluate_chunk(&experiment), 3 * WINDOW);
    experiment.eval.chunk = 5;
    assert_int_equal(evaluate_chunk(&experiment), 5);
}

/* ---- caches ---- */

static void check_order(int64_t chunk) {
    script.n_calls = 0;
    const struct evaluate_result result = evaluate_stream(chunk, N, true, 0);
    assert_int_equal(script.n_calls, 2 * (N - 1));
    for (size_t t = 0; t + 1 < N; t++) {
        const struct script_call *asked = &script.calls[2 * t], *told = asked + 1;
        assert_true(asked->what == 'p' && asked->position == t);
        assert_true(told->what == 'u' && told->n == 1 && told->token == stream[t + 1]);
    }
    assert_close(result.cached.nats, result.model.nats, 1e-12);
}

static void test_a_cache_sees_the_stream_in_order(void **state) {
    (void)state;
    for (int c = 0; c < N_CHUNKS; c++) check_order(chunks[c]);
}

/* A cache that is told of windows is told of runs of eval.stride positions, whatever the chunk. */
static void test_runs(void **state) {
    (void)state;
    const uint64_t run = 7;
    experiment.eval.stride = (int64_t)run;
    script.vtable.update_every = FW_UPDATE_EVERY_WINDOW;
    for (int c = 0; c < N_CHUNKS; c++) {
        script.n_calls = 0;
        (void)evaluate_stream(chunks[c], N, true, 0);
        uint64_t position = 0, call = 0;
        while (position + 1 < N) {
            const uint64_t left = N - 1 - position, n = left < run ? left : run;
            for (uint64_t i = 0; i < n; i++, call++)
                assert_true(script.calls[call].what == 'p' &&
                            script.calls[call].position == position + i);
            assert_true(script.calls[call].what == 'u' && script.calls[call].n == n);
            position += n;
            call++;
        }
        assert_int_equal(script.n_calls, call);
    }
}

/* Parts of the stream begin with a run, with a cold cache. */
static void test_parts(void **state) {
    (void)state;
    experiment.eval.stride = 10; /* 60 targets: 6 runs */
    experiment.eval.ranks = 3;
    for (int c = 0; c < N_CHUNKS; c++) {
        script.n_begun = 0;
        (void)evaluate_stream(chunks[c], N, true, 0);
        assert_int_equal(script.n_begun, 3);
    }
}

static double seen[2][N][V];
static size_t pass;

static void record_row(const fw_row *row, fw_prediction *prediction) {
    memcpy(seen[pass][row->position], row->probabilities, V * sizeof(double));
    script_state_row(prediction);
}

/* Scored alone or beside a cache: the same bits, though no row is kept when it is alone. */
static void test_alone_or_with_a_cache(void **state) {
    (void)state;
    const struct evaluate_result alone = evaluate_stream(8, N, false, 0);
    script.predict = record_row;
    const struct evaluate_result with = evaluate_stream(8, N, true, 0);
    assert_memory_equal(&alone.model.nats, &with.model.nats, sizeof(double));
    double nats = 0;
    for (size_t t = 0; t + 1 < N; t++) nats -= log(seen[0][t][stream[t + 1]]);
    assert_close(with.model.nats, nats, 1e-12);
}

/* ---- beside sliding windows ---- */

static void test_the_comparison(void **state) {
    (void)state;
    static const uint64_t most[] = {2, 30, N, N + 9};
    for (size_t i = 0; i < sizeof most / sizeof most[0]; i++) {
        const size_t n = most[i] < N ? (size_t)most[i] : N;
        const struct evaluate_result result = evaluate_stream(20, N, true, most[i]);
        assert_true(result.check.made);
        assert_close(result.check.stream.nats, recompute(n), ROUNDING_OF_ONE);
        assert_int_equal(result.check.stream.targets, n - 1);
        assert_int_equal(result.targets, N - 1);
        struct model *model = open_model(1, WINDOW);
        struct evaluate_options options = options_for(model, EVAL_SLIDING, false);
        options.max_tokens = n;
        struct evaluate_result sliding;
        assert_ok(evaluate(&options, &sliding, &error), &error);
        assert_memory_equal(&result.check.sliding.nats, &sliding.model.nats, sizeof(double));
        assert_int_equal(result.check.sliding.bytes, result.check.stream.bytes);
        assert_true(result.check.seconds > 0);
        model_destroy(model);
    }
    assert_false(evaluate_stream(20, N, false, 1).check.made);
}

/* ---- refusals ---- */

static void test_a_model_that_cannot(void **state) {
    (void)state;
    struct model *model = open_model(1, WINDOW);
    struct decoder *decoder = open_decoder(model, 5);
    struct evaluate_options options = options_for(model, EVAL_STREAM, false);
    struct evaluate_result result;
    experiment.eval.chunk = 5;
    assert_int_equal(evaluate(&options, &result, &error), FW_E_UNSUPPORTED);
    options.model = language_model_with(model, decoder);
    assert_ok(evaluate(&options, &result, &error), &error);
    experiment.eval.chunk = 6;
    assert_int_equal(evaluate(&options, &result, &error), FW_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "6 tokens at a time"));
    decoder_destroy(decoder);
    model_destroy(model);
}

/* Whichever call of the device fails, the evaluation says so and leaves nothing. */
static void test_a_failing_device(void **state) {
    (void)state;
    struct model *model = open_model(1, WINDOW);
    struct decoder *decoder = open_decoder(model, N);
    struct evaluate_options options = options_for(model, EVAL_STREAM, false);
    options.model = language_model_with(model, decoder);
    experiment.eval.chunk = 25;
    struct evaluate_result result;
    const int64_t before = device.calls;
    assert_ok(evaluate(&options, &result, &error), &error);
    const int64_t calls = device.calls - before;
    /* the last calls wait for what is under way, when all is scored and nothing can be lost */
    for (int64_t i = 1; i <= calls - LANGUAGE_MODEL_SENDS; i += 1 + i / 8) {
        device.fail_at = device.calls + i;
        assert_int_equal(evaluate(&options, &result, &error), FW_E_DEVICE);
        assert_ok(evaluate(&options, &result, &error), &error);
    }
    decoder_destroy(decoder);
    model_destroy(model);
}

#define EVALUATE_TEST(f) cmocka_unit_test_setup_teardown(f, evaluate_setup, evaluate_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        EVALUATE_TEST(test_the_score_is_that_of_a_decoder),
        EVALUATE_TEST(test_a_stream_is_no_window),
        EVALUATE_TEST(test_chunk),
        EVALUATE_TEST(test_a_cache_sees_the_stream_in_order),
        EVALUATE_TEST(test_runs),
        EVALUATE_TEST(test_parts),
        EVALUATE_TEST(test_alone_or_with_a_cache),
        EVALUATE_TEST(test_the_comparison),
        EVALUATE_TEST(test_a_model_that_cannot),
        EVALUATE_TEST(test_a_failing_device),
    };
    return cmocka_run_group_tests_name("in step", tests, evaluate_open_session,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead", tests, evaluate_open_ahead,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead by five", tests, evaluate_open_ahead_by_five,
                                       evaluate_close_session);
}
