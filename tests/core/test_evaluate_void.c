/* Scores that are not fair, or not scores: counting as record 993 does, caches whose predictions
 * cannot be verified, what is scored honestly beside them, and the cold caches of ranks. */
#include <math.h>

#include "evaluate_fixture.h"
#include "windows.h"

static fw_error error = {.struct_size = sizeof error};

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

/* A cache that declares itself unverified may be shown what comes later, so the form that it states
 * in the end saves nothing: the mark stays, and what is stated is measured. */
static void test_declared_unverified(void **state) {
    (void)state;
    script.vtable.unverified = 1; /* its script states a mix */
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    for (int faithful = 0; faithful < 2; faithful++) {
        experiment.eval.faithful = faithful != 0;
        const struct evaluate_result result = evaluate_with(1, EVAL_SLIDING, true);
        assert_true(result.invalid);
        assert_close(result.mean_sum, 1, 1e-12);
        assert_close(result.largest_sum, 1, 1e-12);
    }
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
    const struct evaluate_result plain = evaluate_with(1, EVAL_PLAIN, false);
    experiment.eval.faithful = true;
    const struct evaluate_result faithful = evaluate_with(1, EVAL_PLAIN, false);
    assert_memory_equal(&faithful.model, &plain.model, sizeof plain.model);
    assert_true(faithful.model.fair);
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

static uint64_t script_asked, script_knows; /* a position; how many targets it was told */
static size_t n_asked_late;                 /* times that the counterpart was asked about those */

static void state_and_remember(const fw_row *row, fw_prediction *prediction) {
    script_asked = row->position;
    state_unverified(row, prediction);
}

static fw_status learn_target(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)told, (void)n, (void)why;
    if (script_knows <= script_asked) script_knows = script_asked + 1;
    return FW_OK;
}

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
    (void)self, (void)why;
    n_asked_late += row->position < script_knows;
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

/* Whoever is told something could tell it to others, even from a jail: so the one that counts is
 * asked first. */
static void test_counterpart_comes_first(void **state) {
    (void)state;
    experiment.counterpart = (struct plugin_choice){
        .kind = FW_CACHE, .section = "counterpart", .name = "honest", .entry = &honest_entry};
    script.vtable.unverified = 1;
    script.predict = state_and_remember;
    script.update = learn_target;
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    for (int64_t mode = EVAL_PLAIN; mode <= EVAL_SLIDING; mode++) {
        script_knows = n_asked_late = script.n_calls = 0;
        (void)evaluate_with(1, mode, true);
        assert_int_equal(script_knows, N - 1);
        assert_int_equal(n_asked_late, 0);
    }
    script_knows = 0;
}

static void test_checked_before_any_work(void **state) {
    (void)state;
    const fw_host *host = &device.services;
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

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, evaluate_setup, evaluate_teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_unverified),
        CHECKED(test_declared_unverified),
        CHECKED(test_faithful_score),
        CHECKED(test_faithful_leaves_plain_alone),
        CHECKED(test_windows_told),
        CHECKED(test_ranks_begin_cold),
        CHECKED(test_counterpart),
        CHECKED(test_counterpart_comes_first),
        CHECKED(test_checked_before_any_work),
    };
    return cmocka_run_group_tests_name("in step", tests, evaluate_open_session,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead", tests, evaluate_open_ahead,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead by five", tests, evaluate_open_ahead_by_five,
                                       evaluate_close_session);
}
