/* The protocol between host and cache: what a cache is handed and when, what its statements score,
 * and that neither const nor a broken statement is a way to a better score. */
#include <math.h>
#include <stdio.h>

#include "cache_stream.h"
#include "elementary.h"
#include "script_cache.h"
#include "workspace.h"

enum { V = 8, ROWS = 2 };

/* Two rows in one block, as a host forms them; the cache is asked about the first. */
static const double first_row[V] = {0.30, 0.25, 0.20, 0.10, 0.08, 0.04, 0.02, 0.01};
static double block[ROWS * V];
static fw_row row;
static fw_token_info tokens[V];
static const struct token_table table = {.vocabulary = V, .begin_token = -1, .tokens = tokens};
static struct cache_stream *stream;
static fw_error error = {.struct_size = sizeof error};

static int setup(void **state) {
    (void)state;
    script_reset();
    for (size_t i = 0; i < ROWS * V; i++) block[i] = i < V ? first_row[i] : 0.125;
    row =
        (fw_row){.struct_size = sizeof row, .vocabulary = V, .probabilities = block, .entropy = -1};
    stream = NULL;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    cache_stream_close(stream);
    return 0;
}

static void open_stream(bool allow_unverified) {
    assert_ok(cache_stream_open(&script.choice, test_host(NULL), &table, 4096, allow_unverified,
                                &stream, &error),
              &error);
}

static double score(uint64_t position, uint32_t target) {
    double nats = -1;
    row.position = position;
    assert_ok(cache_stream_score(stream, &row, target, &nats, &error), &error);
    return nats;
}

static struct cache_summary summary(void) {
    struct cache_summary made;
    cache_stream_summary(stream, &made);
    return made;
}

/* ---- scores by hand ---- */

static void state_mix(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_MIX, 0.5, 2, (uint32_t[]){3, 0}, (double[]){0.4, 0.1});
}

static void test_mix_scores(void **state) {
    (void)state;
    script.predict = state_mix;
    open_stream(false);
    assert_true(fabs(score(0, 3) + log(0.5 * 0.10 + 0.4)) < 1e-15);
    assert_true(fabs(score(1, 0) + log(0.5 * 0.30 + 0.1)) < 1e-15);
    assert_true(fabs(score(2, 5) + log(0.5 * 0.04)) < 1e-15);
    assert_int_equal(summary().changed, 3);
    assert_false(summary().invalid);
}

static void state_tilt(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_TILT, 0, 2, (uint32_t[]){2, 7}, (double[]){4, 0.5});
}

static void test_tilt_scores(void **state) {
    (void)state;
    script.predict = state_tilt;
    open_stream(false);
    const double normaliser = 1 + 3 * 0.20 - 0.5 * 0.01;
    assert_true(fabs(score(0, 2) + log(0.80 / normaliser)) < 1e-15);
    assert_true(fabs(score(1, 7) + log(0.005 / normaliser)) < 1e-14);
    assert_true(fabs(score(2, 0) + log(0.30 / normaliser)) < 1e-15);
}

static void state_dense(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    prediction->form = FW_PREDICT_DENSE;
    for (uint32_t v = 0; v < V; v++) prediction->dense[v] = v == 6 ? 0.65 : 0.05;
}

static void test_dense_scores(void **state) {
    (void)state;
    script.predict = state_dense;
    open_stream(false);
    assert_true(fabs(score(0, 6) + log(0.65)) < 1e-15);
    assert_true(fabs(score(1, 1) + log(0.05)) < 1e-14);
}

static void test_the_row_itself_changes_nothing(void **state) {
    (void)state;
    open_stream(false);
    for (uint32_t v = 0; v < V; v++) assert_true(score(v, v) == -elementary_log(first_row[v]));
    assert_int_equal(summary().changed, 0);
    assert_int_equal(summary().memory_bytes, 0);
}

/* ---- who is told what, and when ---- */

static void test_told_after_predicting(void **state) {
    (void)state;
    open_stream(false);
    for (uint32_t t = 0; t < 3; t++) (void)score(t, 7 - t);
    assert_int_equal(script.n_calls, 6);
    for (uint32_t t = 0; t < 3; t++) {
        const struct script_call *asked = &script.calls[2 * t], *told = asked + 1;
        assert_true(asked->what == 'p' && asked->position == t);
        assert_true(told->what == 'u' && told->n == 1 && told->token == 7 - t);
    }
}

/* A cache that keeps update()'s pointer reads there what it was told, not what is yet to come. */
static const uint32_t *kept;

static fw_status keep_tokens(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)why;
    assert_int_equal(n, 3);
    kept = told;
    return FW_OK;
}

static void peek(const fw_row *given, fw_prediction *prediction) {
    const uint32_t block_begin = (uint32_t)(given->position / 3 * 3);
    for (uint32_t i = 0; i < 3 && kept != NULL; i++)
        assert_int_equal(kept[i], (block_begin - 3 + i) % V);
    script_state_row(prediction);
}

static void test_told_in_whole_blocks(void **state) {
    (void)state;
    kept = NULL;
    script.vtable.update_every = 3;
    script.predict = peek;
    script.update = keep_tokens;
    open_stream(false);
    for (uint32_t t = 0; t < 8; t++) (void)score(t, t % V);
    const char expected[] = "pppupppupp";
    assert_int_equal(script.n_calls, sizeof expected - 1);
    for (size_t i = 0; i < script.n_calls; i++) assert_int_equal(script.calls[i].what, expected[i]);
    assert_int_equal(script.calls[7].token, 5);
}

/* Blocks as long as the windows, also beyond what there was room for at first. */
static void test_told_after_windows(void **state) {
    (void)state;
    script.vtable.update_every = FW_UPDATE_EVERY_WINDOW;
    open_stream(false);
    uint32_t t = 0;
    for (uint32_t n = 1; n <= 300; n += 149) {
        script.n_calls = 0;
        for (uint32_t i = 0; i < n; i++, t++) (void)score(t, (t + n) % V);
        assert_int_equal(script.n_calls, n);
        assert_ok(cache_stream_end_window(stream, &error), &error);
        assert_int_equal(script.n_calls, n + 1);
        const struct script_call *told = &script.calls[n];
        assert_true(told->what == 'u' && told->n == n && told->token == (t - 1 + n) % V);
        assert_ok(cache_stream_end_window(stream, &error), &error); /* nothing to tell */
        assert_int_equal(script.n_calls, n + 1);
    }
}

static fw_status fail_window(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)told, (void)n;
    return fw_fail(why, FW_E_LIMIT, "full");
}

static void test_a_window_that_fails_names_its_last_position(void **state) {
    (void)state;
    script.vtable.update_every = FW_UPDATE_EVERY_WINDOW;
    open_stream(false);
    script.update = fail_window;
    (void)score(40, 1);
    (void)score(41, 1);
    assert_fails(cache_stream_end_window(stream, &error), FW_E_LIMIT, &error,
                 "[cache] plugin script: position 41: update: full");
}

static void test_a_cold_cache_is_told_nothing_from_before(void **state) {
    (void)state;
    script.vtable.update_every = 3;
    open_stream(false);
    (void)score(0, 1);
    (void)score(1, 2);
    script.n_calls = 0;
    assert_ok(cache_stream_begin(stream, &error), &error);
    assert_int_equal(script.n_begun, 2);
    for (uint32_t t = 2; t < 5; t++) (void)score(t, t);
    assert_int_equal(script.n_calls, 4);
    assert_true(script.calls[3].what == 'u' && script.calls[3].n == 3);
    assert_int_equal(script.calls[3].token, 4);
}

/* ---- context ---- */

static uint32_t expected_context;
static const uint32_t past[5] = {5, 4, 3, 2, 1};

static void check_context(const fw_row *given, fw_prediction *prediction) {
    assert_int_equal(given->n_context, expected_context);
    assert_ptr_not_equal(given->context, past);
    if (expected_context > 0)
        assert_memory_equal(given->context, past + (row.n_context - expected_context),
                            expected_context * sizeof *past);
    script_state_row(prediction);
}

/* The last tokens, as many as it wants, in a copy of its own. */
static void test_context_is_shown(void **state) {
    (void)state;
    script.predict = check_context;
    row.context = past;
    for (uint32_t wanted = 0; wanted < 8; wanted++)
        for (row.n_context = 0; row.n_context <= 5; row.n_context++) {
            script.vtable.context_tokens = wanted;
            open_stream(false);
            assert_int_equal(cache_stream_context(stream), wanted);
            expected_context = wanted < row.n_context ? wanted : row.n_context;
            (void)score(0, 1);
            cache_stream_close(stream);
            stream = NULL;
        }
}

static void test_context_is_bounded(void **state) {
    (void)state;
    script.vtable.context_tokens = 257;
    assert_fails(
        cache_stream_open(&script.choice, test_host(NULL), &table, 9, false, &stream, &error),
        FW_E_PROTOCOL, &error, "[cache] plugin script", "context of 257 tokens", "256");
    assert_null(stream);
}

static void test_entropy_passes_through(void **state) {
    (void)state;
    open_stream(false);
    assert_false(cache_stream_needs_entropy(stream));
    script.vtable.needs_entropy = 1;
    assert_true(cache_stream_needs_entropy(stream));
}

/* ---- const is no protection, a copy is ---- */

static void assert_own_copy(const fw_row *given) {
    const uintptr_t begin = (uintptr_t)block, end = begin + sizeof block;
    const uintptr_t values = (uintptr_t)given->probabilities;
    assert_true(values + V * sizeof(double) <= begin || values >= end);
    assert_ptr_not_equal(given, &row);
    assert_int_equal(given->vocabulary, V);
    assert_true(given->entropy == row.entropy && given->position == row.position);
}

/* Certain of everything, at a position of its choice. */
static void rewrite(const fw_row *given) {
    fw_row *writable = (fw_row *)(uintptr_t)given;
    double *p = (double *)(uintptr_t)given->probabilities;
    for (uint32_t v = 0; v < V; v++) p[v] = 1;
    writable->position = 0;
    writable->entropy = 0;
    writable->vocabulary = 1;
}

static void rewrite_and_mix(const fw_row *given, fw_prediction *prediction) {
    assert_own_copy(given);
    assert_memory_equal(given->probabilities, first_row, sizeof first_row);
    rewrite(given);
    script_state_row(prediction);
}

static void test_rewritten_row_gains_nothing(void **state) {
    (void)state;
    script.predict = rewrite_and_mix;
    open_stream(false);
    row.entropy = 1.5;
    for (uint32_t v = 0; v < V; v++) assert_true(score(v + 9, v) == -elementary_log(first_row[v]));
    assert_int_equal(summary().changed, 0);
    assert_memory_equal(block, first_row, sizeof first_row);
    assert_true(block[V] == 0.125 && row.vocabulary == V && row.entropy == 1.5);
}

static fw_prediction *kept_prediction;

static double rewrite_and_change_form(void *self, const fw_row *given, uint32_t token) {
    (void)self, (void)token;
    assert_own_copy(given);
    rewrite(given);
    ((fw_row *)(uintptr_t)given)->position = row.position;
    ((fw_row *)(uintptr_t)given)->entropy = row.entropy;
    ((fw_row *)(uintptr_t)given)->vocabulary = V;
    kept_prediction->form = FW_PREDICT_MIX;
    kept_prediction->lm_weight = 1;
    return 1;
}

static void state_unverified_to_change(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    kept_prediction = prediction;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = rewrite_and_change_form;
}

static void test_unverified_cannot_be_taken_back(void **state) {
    (void)state;
    script.predict = state_unverified_to_change;
    open_stream(true);
    assert_true(score(0, 5) == 0);
    assert_true(summary().invalid);
    assert_memory_equal(block, first_row, sizeof first_row);
}

/* Masses that cancel a large weight would hide in rounding what they add up to. */
static double large_weight;

static void state_large_weight(const fw_row *given, fw_prediction *prediction) {
    prediction->form = FW_PREDICT_MIX;
    prediction->lm_weight = large_weight;
    prediction->n = V;
    for (uint32_t v = 0; v < V; v++) {
        prediction->tokens[v] = v;
        prediction->values[v] = (1 - large_weight) * given->probabilities[v];
    }
}

static void test_weight_is_bounded(void **state) {
    (void)state;
    double nats = -1;
    script.predict = state_large_weight;
    open_stream(false);
    large_weight = 1000;
    assert_true(fabs(score(0, 7) + log(0.01)) < 1e-9);
    large_weight = 1001;
    assert_fails(cache_stream_score(stream, &row, 7, &nats, &error), FW_E_PROTOCOL, &error,
                 "lm_weight is 1001");
}

/* ---- unverified ---- */

static uint64_t unverified_from;

/* Sums to 2 over the vocabulary, to 4 from position 1000 on. */
static double quarter_or_half(void *self, const fw_row *given, uint32_t token) {
    assert_ptr_equal(self, &script);
    assert_true(token < V);
    return given->position < 1000 ? 0.25 : 0.5;
}

static void state_unverified(const fw_row *given, fw_prediction *prediction) {
    if (given->position < unverified_from) {
        script_state_row(prediction);
        return;
    }
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = quarter_or_half;
}

static void test_unverified_needs_permission(void **state) {
    (void)state;
    double nats = -1;
    script.predict = state_unverified;
    unverified_from = 0;
    open_stream(false);
    row.position = 4;
    assert_fails(cache_stream_score(stream, &row, 1, &nats, &error), FW_E_PROTOCOL, &error,
                 "[cache] plugin script", "position 4", "on_violation = report");
    assert_true(nats == -1);
}

static void test_unverified_is_measured_and_invalid(void **state) {
    (void)state;
    script.predict = state_unverified;
    unverified_from = 3; /* then at 3 and, 1024 statements on, at 1027 */
    open_stream(true);
    for (uint64_t t = 0; t < 3; t++) (void)score(t, 0);
    assert_false(summary().invalid);
    for (uint64_t t = 3; t < 1027; t++) {
        const double nats = score(t, 0);
        assert_true(fabs(nats + log(t < 1000 ? 0.25 : 0.5)) < 1e-15);
    }
    assert_true(summary().invalid && summary().mean_sum == 2 && summary().largest_sum == 2);
    (void)score(1027, 0);
    assert_true(summary().invalid && summary().mean_sum == 3 && summary().largest_sum == 4);
}

/* One that declares it is refused before it is created. */
static void test_declared_unverified_is_refused_at_once(void **state) {
    (void)state;
    script.vtable.unverified = 1;
    assert_fails(
        cache_stream_open(&script.choice, test_host(NULL), &table, 9, false, &stream, &error),
        FW_E_PROTOCOL, &error, "[cache] plugin script", "sums to one over the vocabulary",
        "on_violation = report", "INVALID");
    assert_null(stream);
    assert_int_equal(script.n_begun, 0);
    script.predict = state_unverified;
    unverified_from = 0;
    open_stream(true);
    assert_true(fabs(score(0, 0) + log(0.25)) < 1e-15);
}

/* ---- violations ---- */

static void state_nan(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_MIX, 0.5, 1, (uint32_t[]){6}, (double[]){NAN});
}

static void state_twice(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_MIX, 0.5, 2, (uint32_t[]){6, 6},
                      (double[]){0.25, 0.25});
}

static void state_outside(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_TILT, 0, 1, (uint32_t[]){V}, (double[]){2});
}

static void state_too_much(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_MIX, 1, 1, (uint32_t[]){6}, (double[]){0.25});
}

static void state_nothing(const fw_row *given, fw_prediction *prediction) {
    (void)given, (void)prediction;
}

/* Plugin, position (once) and words; the output untouched; nothing told. */
static void expect_refused(void (*predict)(const fw_row *, fw_prediction *), const char *words) {
    script_reset();
    script.predict = predict;
    open_stream(false);
    double nats = -1;
    row.position = 12;
    assert_fails(cache_stream_score(stream, &row, 6, &nats, &error), FW_E_PROTOCOL, &error,
                 "[cache] plugin script: position 12: ", words);
    assert_null(strstr(strstr(error.message, "position") + 1, "position"));
    assert_true(nats == -1);
    assert_int_equal(script.n_calls, 1);
    cache_stream_close(stream);
    stream = NULL;
}

static void test_violations(void **state) {
    (void)state;
    expect_refused(state_nan, "mass of token 6");
    expect_refused(state_twice, "token 6 twice");
    expect_refused(state_outside, "token 8");
    expect_refused(state_too_much, "1.25");
    expect_refused(state_nothing, "form 0");
}

static fw_status fail_update(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)told, (void)n;
    return fw_fail(why, FW_E_MEMORY, "no room for %d", 5);
}

static fw_status fail_silently(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)told, (void)n, (void)why;
    return FW_E_LIMIT;
}

static void test_failures_of_the_cache_name_the_position(void **state) {
    (void)state;
    double nats = -1;
    open_stream(false);
    row.position = 31;
    script.update = fail_update;
    assert_fails(cache_stream_score(stream, &row, 0, &nats, &error), FW_E_MEMORY, &error,
                 "[cache] plugin script: position 31: update: no room for 5");
    script.update = fail_silently;
    assert_fails(cache_stream_score(stream, &row, 0, &nats, &error), FW_E_LIMIT, &error,
                 "position 31: update: failed with status 16, without a reason");
}

/* ---- watched, and under other conditions ---- */

static char seen[64];

static fw_status watch(const char *what, const struct cache_statement *statement) {
    const size_t n = strlen(seen);
    (void)snprintf(seen + n, sizeof seen - n, "%s%zu/%u ", what, script.n_calls, statement->target);
    return FW_OK;
}

static fw_status watch_stated(void *self, const struct cache_statement *statement, fw_error *why) {
    (void)self, (void)why;
    assert_true(statement->row == &row && statement->prediction->n == 2);
    assert_true(fabs(statement->probability - (0.5 * 0.10 + 0.4)) < 1e-15);
    return watch("stated", statement);
}

static fw_status watch_told(void *self, const struct cache_statement *statement, fw_error *why) {
    (void)self;
    (void)watch("told", statement);
    if (row.position < 1) return FW_OK;
    return fw_fail(why, FW_E_PROTOCOL, "seen enough");
}

static void test_watched_before_and_after_it_is_told(void **state) {
    (void)state;
    const struct cache_watcher watcher = {NULL, watch_stated, watch_told};
    seen[0] = '\0';
    script.predict = state_mix;
    open_stream(false);
    cache_stream_watch(stream, &watcher);
    (void)score(0, 3);
    assert_string_equal(seen, "stated1/3 told2/3 ");
    double nats = -1;
    row.position = 1;
    assert_fails(cache_stream_score(stream, &row, 3, &nats, &error), FW_E_PROTOCOL, &error,
                 "[cache] plugin script: seen enough");
    assert_true(nats == -1);
    cache_stream_watch(stream, NULL);
    (void)score(2, 3);
}

static void test_asked_twice(void **state) {
    (void)state;
    script.predict = state_mix;
    open_stream(false);
    const struct cache_conditions conditions = {.asked_twice = true};
    cache_stream_set_conditions(stream, &conditions);
    assert_true(fabs(score(0, 3) + log(0.5 * 0.10 + 0.4)) < 1e-15);
    assert_int_equal(script.n_calls, 3);
    assert_true(script.calls[0].what == 'p' && script.calls[1].what == 'p');
    assert_true(script.calls[2].what == 'u');
}

/* What lies behind the handed memory: the script reads it as a cheat would. */
static uint32_t behind_told, behind_context;
static double behind_row;

static void read_behind_row(const fw_row *given, fw_prediction *prediction) {
    behind_context = given->context[given->n_context];
    behind_row = given->probabilities[V];
    script_state_row(prediction);
}

static fw_status read_behind_told(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)why;
    behind_told = told[n];
    return FW_OK;
}

static void test_decoys_lie_behind_what_is_handed(void **state) {
    (void)state;
    const uint32_t tokens_before[3] = {5, 6, 7};
    script.predict = read_behind_row;
    script.update = read_behind_told;
    script.vtable.context_tokens = 3;
    row.context = tokens_before;
    row.n_context = 3;
    open_stream(false);
    (void)score(0, 1);
    assert_true(behind_told == 0 && behind_context == 0 && behind_row == 0);
    uint32_t told[8], context[8];
    for (uint64_t seed = 1; seed <= 8; seed++) {
        const struct cache_conditions conditions = {.decoys = seed};
        cache_stream_set_conditions(stream, &conditions);
        (void)score(seed, 1);
        assert_true(behind_told < V && behind_context < V && behind_row > 0);
        told[seed - 1] = behind_told;
        context[seed - 1] = behind_context;
    }
    uint32_t told_differ = 0, context_differ = 0;
    for (int i = 1; i < 8; i++) {
        told_differ += told[i] != told[0];
        context_differ += context[i] != context[0];
    }
    assert_true(told_differ > 0 && context_differ > 0);
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_mix_scores),
        CHECKED(test_tilt_scores),
        CHECKED(test_dense_scores),
        CHECKED(test_the_row_itself_changes_nothing),
        CHECKED(test_told_after_predicting),
        CHECKED(test_told_in_whole_blocks),
        CHECKED(test_told_after_windows),
        CHECKED(test_a_window_that_fails_names_its_last_position),
        CHECKED(test_a_cold_cache_is_told_nothing_from_before),
        CHECKED(test_context_is_shown),
        CHECKED(test_context_is_bounded),
        CHECKED(test_declared_unverified_is_refused_at_once),
        CHECKED(test_entropy_passes_through),
        CHECKED(test_rewritten_row_gains_nothing),
        CHECKED(test_unverified_cannot_be_taken_back),
        CHECKED(test_weight_is_bounded),
        CHECKED(test_unverified_needs_permission),
        CHECKED(test_unverified_is_measured_and_invalid),
        CHECKED(test_violations),
        CHECKED(test_failures_of_the_cache_name_the_position),
        CHECKED(test_watched_before_and_after_it_is_told),
        CHECKED(test_asked_twice),
        CHECKED(test_decoys_lie_behind_what_is_handed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
