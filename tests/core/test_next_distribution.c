/* next_distribution against the bulk scorer: the same windows, the same protocol, and rows that
 * differ by rounding alone. */
#include "next_distribution.h"

#include <math.h>

#include "decoder.h"
#include "evaluate_fixture.h"
#include "tiny_model.h"

static fw_error error = {.struct_size = sizeof error};
static fw_attention undecodable; /* gqa without its decoding */
static fw_plugin undecodable_plugin;
static struct registry_entry undecodable_entry;

static struct model *open_feeding_model(void) {
    const struct model_options options = {.experiment = &experiment,
                                          .host = &device.services,
                                          .vocabulary = V,
                                          .batch = 1,
                                          .tokens = experiment.eval.window,
                                          .feed = 64};
    return tiny_model(&options);
}

static struct distribution_state *open_state(struct model *model, uint64_t tokens) {
    const struct distribution_options options = {.experiment = &experiment,
                                                 .host = &device.services,
                                                 .model = model,
                                                 .table = &table,
                                                 .tokens = tokens};
    struct distribution_state *state = NULL;
    assert_ok(distribution_open(&options, &state, &error), &error);
    return state;
}

/* The stream's code length without its first token, which costs log V. */
static double read_stream(struct distribution_state *state) {
    double nats = 0;
    assert_ok(distribution_begin(state, &error), &error);
    for (size_t i = 0; i < N; i++) {
        const double *p = NULL;
        assert_ok(next_distribution(state, &p, &error), &error);
        double sum = 0;
        for (uint32_t v = 0; v < V; v++) sum += p[v];
        assert_close(sum, 1, 1e-12);
        if (i == 0) {
            assert_null(distribution_row(state));
            assert_true(p[0] == 1.0 / V && p[V - 1] == 1.0 / V);
        } else {
            assert_non_null(distribution_row(state));
            nats -= log(p[stream[i]]);
        }
        assert_ok(distribution_tell(state, stream[i], &error), &error);
    }
    const double *p = NULL;
    assert_int_equal(next_distribution(state, &p, &error), FW_E_RANGE);
    return nats;
}

static double score_path(void) {
    struct model *model = open_feeding_model();
    struct distribution_state *state = open_state(model, N);
    const double nats = read_stream(state);
    distribution_close(state);
    model_destroy(model);
    return nats;
}

/* Makes more of the tokens that a little key of position and context names. */
static void favour(const fw_row *row, fw_prediction *prediction) {
    const uint32_t last = row->n_context > 0 ? row->context[row->n_context - 1] : 1;
    const uint32_t tokens[] = {(uint32_t)((row->position + last) % V)};
    const double gains[] = {row->entropy > 2 ? 3.0 : 2.0};
    script_state_list(prediction, FW_PREDICT_TILT, 0, 1, tokens, gains);
}

static void test_costs_what_the_scorer_says(void **state) {
    (void)state;
    static const struct {
        int64_t mode, window, stride;
    } cases[] = {{EVAL_PLAIN, WINDOW, 1},   {EVAL_SLIDING, WINDOW, 3},
                 {EVAL_SLIDING, WINDOW, 1}, {EVAL_SLIDING, WINDOW, WINDOW},
                 {EVAL_SLIDING, 64, 16}, /* longer than the stream */
                 {EVAL_SLIDING, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        experiment.eval.mode = cases[i].mode;
        experiment.eval.window = cases[i].window;
        experiment.eval.stride = cases[i].stride;
        script.predict = favour;
        script.vtable.context_tokens = 2;
        script.vtable.needs_entropy = 1;
        const struct evaluate_result bulk = evaluate_with(2, cases[i].mode, true);
        assert_close(score_path(), bulk.cached.nats, ROUNDING * 10);
    }
}

/* The same of a stream, which keeps what it read. */
static void test_stream_costs_what_the_scorer_says(void **state) {
    (void)state;
    experiment.eval.mode = EVAL_STREAM;
    experiment.eval.chunk = 20;
    experiment.eval.ranks = 4;
    script.predict = favour;
    script.vtable.context_tokens = 2;
    script.vtable.needs_entropy = 1;
    script.vtable.update_every = FW_UPDATE_EVERY_WINDOW;
    struct model *model = open_feeding_model();
    const struct decoder_options reading = {
        .model = model, .most = N, .window = experiment.eval.window};
    struct decoder *decoder = NULL;
    assert_ok(decoder_create(&reading, &decoder, &error), &error);
    struct evaluate_options options = options_for(model, EVAL_STREAM, true);
    options.model = language_model_with(model, decoder);
    struct evaluate_result bulk;
    assert_ok(evaluate(&options, &bulk, &error), &error);
    const size_t n = script.n_calls;
    script.n_calls = 0;
    assert_close(score_path(), bulk.cached.nats, ROUNDING * 10);
    assert_int_equal(script.n_calls, n);
    decoder_destroy(decoder);
    model_destroy(model);
}

/* predict, update, predict, update ...; blocks and cold caches where the scorer has them. */
static void test_the_protocol(void **state) {
    (void)state;
    struct script_call calls[SCRIPT_CALLS];
    for (uint32_t every = 1; every < 4; every++) {
        experiment.eval.ranks = every;
        script_reset();
        script.vtable.update_every = every < 3 ? every : FW_UPDATE_EVERY_WINDOW;
        (void)evaluate_with(1, EVAL_SLIDING, true);
        const size_t n = script.n_calls, begun = script.n_begun;
        memcpy(calls, script.calls, sizeof calls);
        script.n_calls = script.n_begun = 0;
        (void)score_path();
        assert_int_equal(script.n_calls, n);
        assert_int_equal(script.n_begun, begun + 1); /* once when opened, and for the stream */
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(script.calls[i].what, calls[i].what);
            assert_int_equal(script.calls[i].position, calls[i].position);
            assert_int_equal(script.calls[i].token, calls[i].token);
            assert_int_equal(script.calls[i].n, calls[i].n);
        }
    }
}

/* Two states give the same bits, whatever either of them read before. */
static void test_repeats_bit_for_bit(void **state) {
    (void)state;
    struct model *model = open_feeding_model(), *other = open_feeding_model();
    struct distribution_state *a = open_state(model, N), *b = open_state(other, N);
    (void)read_stream(b);
    assert_ok(distribution_begin(a, &error), &error);
    assert_ok(distribution_begin(b, &error), &error);
    for (size_t i = 0; i < N; i++) {
        const double *p = NULL, *q = NULL;
        assert_ok(next_distribution(a, &p, &error), &error);
        assert_ok(next_distribution(b, &q, &error), &error);
        assert_memory_equal(p, q, V * sizeof *p);
        assert_ok(distribution_tell(a, stream[i], &error), &error);
        assert_ok(distribution_tell(b, stream[i], &error), &error);
    }
    distribution_close(a);
    distribution_close(b);
    model_destroy(model);
    model_destroy(other);
}

/* Without an incremental path windows are read anew, and the score is the same but for rounding. */
static void test_attention_that_cannot_decode(void **state) {
    (void)state;
    const double nats = score_path();
    struct plugin_choice choices[2] = {experiment.attention[0], experiment.attention[1]};
    undecodable = *(const fw_attention *)choices[0].entry->plugin->vtable;
    undecodable.struct_size = offsetof(fw_attention, state_bytes);
    undecodable_plugin = *choices[0].entry->plugin;
    undecodable_plugin.vtable = &undecodable;
    undecodable_entry = *choices[0].entry;
    undecodable_entry.plugin = &undecodable_plugin;
    choices[0].entry = choices[1].entry = &undecodable_entry;
    experiment.attention = choices;
    experiment.eval.mode = EVAL_SLIDING;
    const double anew = score_path();
    assert_close(anew, nats, ROUNDING * 10);
    assert_close(anew, evaluate_with(1, EVAL_SLIDING, true).cached.nats, ROUNDING);
}

static void state_half(const fw_row *row, fw_prediction *prediction) {
    script_state_row(prediction);
    if (row->position == 5) prediction->lm_weight = 0.5;
}

static void test_refusals(void **state) {
    (void)state;
    struct model *model = open_feeding_model();
    script.vtable.unverified = 1;
    struct distribution_options options = {.experiment = &experiment,
                                           .host = &device.services,
                                           .model = model,
                                           .table = &table,
                                           .tokens = N};
    struct distribution_state *made = NULL;
    assert_fails(distribution_open(&options, &made, &error), FW_E_PROTOCOL, &error, "script",
                 "nothing to decode with");
    script.vtable.unverified = 0;
    script.predict = state_half;
    made = open_state(model, N);
    assert_ok(distribution_begin(made, &error), &error);
    const double *p = NULL;
    for (size_t i = 0; i < 6; i++) {
        assert_ok(next_distribution(made, &p, &error), &error);
        assert_ok(distribution_tell(made, stream[i], &error), &error);
    }
    assert_fails(next_distribution(made, &p, &error), FW_E_PROTOCOL, &error, "script",
                 "position 5");
    assert_int_equal(distribution_tell(made, V, &error), FW_E_RANGE);
    distribution_close(made);
    model_destroy(model);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, evaluate_setup, evaluate_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_costs_what_the_scorer_says),
        TEST(test_stream_costs_what_the_scorer_says),
        TEST(test_the_protocol),
        TEST(test_repeats_bit_for_bit),
        TEST(test_attention_that_cannot_decode),
        TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, evaluate_open_session, evaluate_close_session);
}
