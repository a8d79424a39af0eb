/* Probes of caches that ride along with the scoring: each fails on a cache that breaks what it
 * probes, in one sentence with the position, and passes on an honest one; what that means for the
 * score. */
#include <math.h>
#include <stdio.h>

#include "audit.h"
#include "evaluate_fixture.h"

static fw_error error = {.struct_size = sizeof error};

static int setup(void **state) {
    const int failed = evaluate_setup(state);
    experiment.eval.audit = EVAL_AUDIT_FULL;
    experiment.eval.audit_seed = 7;
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    return failed;
}

static const struct probe *find(const struct evaluate_result *result, const char *name) {
    const struct probe *probe = verdicts_find(&result->verdicts, name);
    if (probe == NULL) fail_msg("no probe %s", name);
    return probe;
}

/* Of all probes, `name` alone fails, with these words. */
static void expect_failure(const char *name, const char *words) {
    const struct evaluate_result result = evaluate_with(2, EVAL_SLIDING, true);
    for (size_t i = 0; i < result.verdicts.n; i++) {
        const struct probe *probe = &result.verdicts.probes[i];
        const bool expected = strcmp(probe->name, name) == 0;
        if ((probe->verdict == VERDICT_FAIL) != expected)
            fail_msg("%s: %s %s", probe->name, verdict_name(probe->verdict), probe->words);
        if (expected && strstr(probe->words, words) == NULL) fail_msg("says: %s", probe->words);
    }
    assert_int_equal(find(&result, name)->verdict, VERDICT_FAIL);
}

/* And without on_violation = report there is no score. */
static void expect_refused(const char *name) {
    experiment.eval.on_violation = EVAL_VIOLATION_ERROR;
    struct model *model = open_model(2, WINDOW);
    experiment.eval.batch = 2;
    const struct evaluate_options options = options_for(model, EVAL_SLIDING, true);
    struct evaluate_result result = {.targets = 77};
    assert_fails(evaluate(&options, &result, &error), FW_E_PROTOCOL, &error, "the probe", name,
                 "there is no score", "INVALID");
    assert_int_equal(result.targets, 77);
    model_destroy(model);
}

/* ---- honest ---- */

static void state_mix(const fw_row *given, fw_prediction *prediction) {
    const uint32_t token = (uint32_t)(given->position % V);
    script_state_list(prediction, FW_PREDICT_MIX, 0.75, 1, &token, (double[]){0.25});
}

static void check_honest(int64_t audit) {
    experiment.eval.audit = audit;
    const struct evaluate_result result = evaluate_with(2, EVAL_SLIDING, true);
    static const char *const names[] = {"cache.sum", "cache.target-independence",
                                        "cache.score-before-update", "cache.zero-weight",
                                        "cache.replay"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct probe *probe = find(&result, names[i]);
        if (probe->verdict != VERDICT_PASS) fail_msg("%s: %s", names[i], probe->words);
        assert_int_equal(probe->positions, N - 1);
    }
    assert_true(find(&result, "model.future-flip")->positions > 0);
    assert_true(find(&result, "model.row-sums")->positions > 0);
    assert_true(find(&result, "model.batch-independence")->positions > 0);
    const bool full = audit == EVAL_AUDIT_FULL;
    assert_true((verdicts_find(&result.verdicts, "model.batch-position") != NULL) == full);
    assert_true((verdicts_find(&result.verdicts, "model.document-edges") != NULL) == full);
    const struct probe *failed = verdicts_failed(&result.verdicts, NULL);
    if (failed != NULL) fail_msg("%s: %s", failed->name, failed->words);
    assert_false(result.invalid);
}

static void test_honest(void **state) {
    (void)state;
    script.predict = state_mix;
    check_honest(EVAL_AUDIT_SAMPLE);
    check_honest(EVAL_AUDIT_FULL);
}

static void test_the_audit_changes_no_score(void **state) {
    (void)state;
    script.predict = state_mix;
    const struct evaluate_result full = evaluate_with(2, EVAL_SLIDING, true);
    experiment.eval.audit = EVAL_AUDIT_OFF;
    const struct evaluate_result off = evaluate_with(2, EVAL_SLIDING, true);
    assert_memory_equal(&full.model, &off.model, sizeof off.model);
    assert_memory_equal(&full.cached, &off.cached, sizeof off.cached);
    assert_int_equal(off.verdicts.n, 0);
}

static void test_seeds(void **state) {
    (void)state;
    assert_int_equal(evaluate_with(2, EVAL_SLIDING, true).audit_seed, 7);
    experiment.eval.audit_seed = -1;
    script.n_calls = 0;
    const uint64_t fresh = evaluate_with(2, EVAL_SLIDING, true).audit_seed;
    script.n_calls = 0;
    assert_int_not_equal(fresh, evaluate_with(2, EVAL_SLIDING, true).audit_seed);
    experiment.eval.audit = EVAL_AUDIT_OFF;
    assert_int_equal(evaluate_with(2, EVAL_SLIDING, true).audit_seed, 0);
}

static void test_only_the_final_score_is_audited(void **state) {
    (void)state;
    struct model *model = open_model(2, WINDOW);
    experiment.eval.batch = 2;
    struct evaluate_options options = options_for(model, EVAL_SLIDING, true);
    options.audited = 0;
    struct evaluate_result result;
    assert_ok(evaluate(&options, &result, &error), &error);
    assert_int_equal(result.verdicts.n, 0);
    model_destroy(model);
}

/* ---- zero weight ---- */

static void state_gains_of_one(const fw_row *given, fw_prediction *prediction) {
    uint32_t tokens[V];
    double gains[V];
    (void)given;
    for (uint32_t v = 0; v < V; v++) {
        tokens[v] = v;
        gains[v] = 1;
    }
    script_state_list(prediction, FW_PREDICT_TILT, 0, V, tokens, gains);
}

static void state_no_gain(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_TILT, 0, 0, NULL, NULL);
}

static void state_no_mass(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    script_state_list(prediction, FW_PREDICT_MIX, 1, 2, (uint32_t[]){3, 7}, (double[]){0, 0});
}

/* Bit for bit the model's score, whichever way a cache says nothing. */
static void test_zero_weight_is_the_models_score(void **state) {
    (void)state;
    void (*const ways[])(const fw_row *, fw_prediction *) = {NULL, state_gains_of_one,
                                                             state_no_gain, state_no_mass};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        script.predict = ways[i];
        script.n_calls = 0;
        const struct evaluate_result result = evaluate_with(2, EVAL_SLIDING, true);
        assert_memory_equal(&result.cached, &result.model, sizeof result.model);
        assert_int_equal(result.cache_changed, 0);
        assert_null(verdicts_failed(&result.verdicts, NULL));
    }
}

/* ---- one stream by hand ---- */

static struct verdicts verdicts;

static void state_uniform(const fw_row *given, fw_prediction *prediction) {
    (void)given;
    prediction->form = FW_PREDICT_DENSE;
    for (uint32_t v = 0; v < V; v++) prediction->dense[v] = 1.0 / V;
}

static void state_more(const fw_row *given, fw_prediction *prediction) {
    state_uniform(given, prediction);
    prediction->dense[0] += 5e-7; /* the protocol allows 1e-6, and divides it away */
}

/* `n` positions with the row `probabilities`, under an audit of all of them. */
static void score_by_hand(const double *probabilities, uint64_t n, bool full) {
    const fw_host *host = test_host(NULL);
    struct cache_stream *by_hand = NULL;
    struct cache_audit *audit = NULL;
    verdicts = (struct verdicts){0};
    const struct cache_audit_options options = {.subject = "cache",
                                                .choice = &script.choice,
                                                .host = host,
                                                .table = &table,
                                                .targets = n,
                                                .seed = 5,
                                                .full = full,
                                                .verdicts = &verdicts};
    assert_ok(cache_stream_open(&script.choice, host, &table, n, false, &by_hand, &error), &error);
    assert_ok(cache_audit_open(&options, &audit, &error), &error);
    for (uint64_t t = 0; t < n; t++) {
        script.n_calls = 0;
        const fw_row row = {.struct_size = sizeof row,
                            .vocabulary = V,
                            .position = t,
                            .probabilities = probabilities,
                            .entropy = -1};
        double nats = 0;
        assert_ok(cache_audit_score(audit, by_hand, &row, (uint32_t)(t % V), &nats, &error),
                  &error);
    }
    cache_audit_close(audit);
    cache_stream_close(by_hand);
}

static const struct probe *verdict(const char *name) {
    const struct probe *probe = verdicts_find(&verdicts, name);
    assert_non_null(probe);
    return probe;
}

static void test_zero_weight_fails_on_a_broken_row(void **state) {
    (void)state;
    double row[V];
    for (uint32_t v = 0; v < V; v++) row[v] = v == 9 ? NAN : 1.0 / V;
    script.predict = state_uniform;
    score_by_hand(row, 1, true);
    assert_int_equal(verdict("cache.zero-weight")->verdict, VERDICT_FAIL);
    assert_non_null(strstr(verdict("cache.zero-weight")->words, "token 9"));
    assert_int_equal(verdict("cache.sum")->verdict, VERDICT_PASS);
}

static void test_sums_are_measured_after_normalising(void **state) {
    (void)state;
    double row[V];
    for (uint32_t v = 0; v < V; v++) row[v] = 1.0 / V;
    script.predict = state_more;
    score_by_hand(row, 4, true);
    assert_int_equal(verdict("cache.sum")->verdict, VERDICT_PASS);
    row[0] += 1e-6; /* a row of the host's own that does not sum to one */
    script.predict = NULL;
    score_by_hand(row, 4, true);
    assert_int_equal(verdict("cache.sum")->verdict, VERDICT_FAIL);
    assert_non_null(
        strstr(verdict("cache.sum")->words, "position 0: the probabilities sum to 1.0"));
}

static void test_samples(void **state) {
    (void)state;
    assert_int_equal(audit_sample_every(10), 1);
    assert_int_equal(audit_sample_every(12800), 100);
    assert_int_equal(audit_sample_every(UINT64_C(1) << 40), 4096);
    uint64_t same = 0;
    for (uint64_t step = 0; step < 200; step++) {
        const uint64_t at = audit_sample(1, 100, step);
        assert_true(at / 100 == step && at == audit_sample(1, 100, step));
        same += at == audit_sample(99999, 100, step);
    }
    assert_true(same < 20);
    double row[V];
    for (uint32_t v = 0; v < V; v++) row[v] = 1.0 / V;
    score_by_hand(row, 12800, false);
    assert_int_equal(verdict("cache.sum")->positions, 128);
    assert_int_equal(verdict("cache.replay")->positions, 256);
    assert_null(verdicts_failed(&verdicts, NULL));
}

/* ---- caches that cheat ---- */

static double always_half(void *self, const fw_row *row, uint32_t token) {
    (void)self, (void)row, (void)token;
    return 0.5;
}

static void state_half(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = always_half;
}

static void test_sum(void **state) {
    (void)state;
    script.predict = state_half;
    expect_failure("cache.sum", "position 0: the probabilities sum to 18.5");
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    assert_true(evaluate_with(1, EVAL_SLIDING, true).invalid);
}

/* Whoever is asked about first must be the target. */
static uint32_t n_asked;

static double sure_of_the_first(void *self, const fw_row *row, uint32_t token) {
    (void)self, (void)token;
    return n_asked++ == 0 ? 0.9 : row->probabilities[token];
}

static void state_gated(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    n_asked = 0;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = sure_of_the_first;
}

static void test_target_independence(void **state) {
    (void)state;
    script.predict = state_gated;
    expect_failure("cache.target-independence", "0.9 when it is scored and");
}

/* Keeps the host's buffer and rewrites it once it knows better. */
static double *kept_values;

static void state_and_keep(const fw_row *row, fw_prediction *prediction) {
    state_mix(row, prediction);
    kept_values = prediction->values;
}

static fw_status rewrite(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)why;
    kept_values[0] = told[n - 1] % 2 == 1 ? 0.99 : 0.25;
    return FW_OK;
}

static void test_score_before_update(void **state) {
    (void)state;
    script.predict = state_and_keep;
    script.update = rewrite;
    expect_failure("cache.score-before-update", "the cache rewrote what it had stated: 0.25 for");
    expect_refused("cache.score-before-update");
}

/* Remembers across instances and begin(): how often it was ever asked. */
static uint32_t n_ever;

static void state_by_age(const fw_row *row, fw_prediction *prediction) {
    const uint32_t token = n_ever++ % V;
    (void)row;
    script_state_list(prediction, FW_PREDICT_MIX, 0.75, 1, &token, (double[]){0.25});
}

static void test_replay(void **state) {
    (void)state;
    script.predict = state_by_age;
    expect_failure("cache.replay", "position 0: a second instance");
    expect_refused("cache.replay");
}

/* Reads behind the tokens that it is told. */
static uint32_t behind;

static fw_status read_behind(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)why;
    behind = told[n];
    return FW_OK;
}

static void state_behind(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    script_state_list(prediction, FW_PREDICT_MIX, 0.75, 1, &behind, (double[]){0.25});
}

static void test_replay_sees_what_is_read_behind_the_end(void **state) {
    (void)state;
    behind = 0;
    script.predict = state_behind;
    script.update = read_behind;
    expect_failure("cache.replay", "a second instance");
}

static fw_status refuse_often(const uint32_t *told, uint64_t n, fw_error *why) {
    (void)told, (void)n;
    return ++n_ever > 3 ? fw_fail(why, FW_E_LIMIT, "enough") : FW_OK;
}

static void test_a_twin_that_fails(void **state) {
    (void)state;
    n_ever = 0;
    script.update = refuse_often; /* the twin's prelude spends them all */
    verdicts = (struct verdicts){0};
    struct cache_audit *audit = NULL;
    const struct cache_audit_options options = {.subject = "counterpart",
                                                .choice = &script.choice,
                                                .host = test_host(NULL),
                                                .table = &table,
                                                .targets = 9,
                                                .verdicts = &verdicts};
    assert_ok(cache_audit_open(&options, &audit, &error), &error);
    assert_int_equal(verdict("counterpart.replay")->verdict, VERDICT_FAIL);
    assert_non_null(strstr(verdict("counterpart.replay")->words,
                           "a second instance fails: [cache] plugin script: position 3: update"));
    cache_audit_close(audit);
}

/* ---- a model that reads on, and one token further ---- */

static int32_t read_on_tokens[N];
static int64_t n_read, ahead, n_held; /* held: read before the last piece */
static bool only_behind;

static fw_status restart(void *self, fw_error *why) {
    n_read = n_held = 0;
    return (void)self, (void)why, FW_OK;
}

static fw_status read_on(void *self, const int32_t *inputs, int64_t n, fw_error *why) {
    (void)self, (void)why;
    assert_true(n <= N);
    memcpy(read_on_tokens, inputs, (size_t)n * sizeof *inputs);
    n_held += n_read;
    n_read = n;
    return FW_OK;
}

static fw_status rows_of_the_last(void *self, int64_t first, int64_t n, float *host,
                                  fw_error *why) {
    (void)self, (void)why;
    for (int64_t i = first; i < first + n; i++, host += V) {
        const bool lies = !only_behind || n_held > 0;
        const int64_t seen = lies && i + ahead < n_read ? i + ahead : i;
        for (int32_t v = 0; v < V; v++)
            host[v] = (float)log(v == read_on_tokens[seen] ? 0.5 : 0.5 / (V - 1));
    }
    return FW_OK;
}

static struct evaluate_result evaluate_stream(void) {
    struct model *unused = open_model(1, WINDOW);
    struct evaluate_options options = options_for(unused, EVAL_STREAM, true);
    options.model = (struct language_model){.log_probabilities = rows_of_the_last,
                                            .most_read = N,
                                            .restart = restart,
                                            .read_on = read_on};
    experiment.eval.chunk = 10;
    experiment.eval.batch = 2;
    struct evaluate_result result;
    assert_ok(evaluate(&options, &result, &error), &error);
    model_destroy(unused);
    return result;
}

static void test_a_stream_is_probed_as_it_is_read(void **state) {
    (void)state;
    ahead = 0;
    const struct evaluate_result honest = evaluate_stream();
    assert_null(verdicts_failed(&honest.verdicts, NULL));
    assert_true(find(&honest, "model.future-flip")->positions > 0);
    ahead = 1;
    const struct evaluate_result lying = evaluate_stream();
    assert_int_equal(find(&lying, "model.future-flip")->verdict, VERDICT_FAIL);
    assert_int_equal(find(&lying, "model.batch-independence")->verdict, VERDICT_PASS);
    only_behind = true; /* honest at the beginning of a stream */
    const struct evaluate_result later = evaluate_stream();
    only_behind = false;
    assert_int_equal(find(&later, "model.future-flip")->verdict, VERDICT_FAIL);
}

/* ---- verdicts ---- */

static void test_verdicts(void **state) {
    (void)state;
    struct verdicts all = {0};
    struct probe *probe = verdicts_probe(&all, "cache", "sum");
    assert_ptr_equal(verdicts_probe(&all, "cache", "sum"), probe);
    probe->positions = 5;
    assert_null(verdicts_failed(&all, NULL));
    probe_skip(verdicts_probe(&all, "model", "decode"), "no %s", "decoder");
    probe_fail(probe, "first %d", 1);
    probe_fail(probe, "second %d", 2);
    probe_skip(probe, "too late");
    assert_string_equal(verdicts_failed(&all, "cache")->words, "first 1");
    assert_null(verdicts_failed(&all, "model"));
    assert_null(verdicts_failed(&all, "cach"));
    cJSON *json = verdicts_json(&all);
    char *text = cJSON_PrintUnformatted(json);
    assert_string_equal(text, "[{\"probe\":\"cache.sum\",\"verdict\":\"fail\",\"positions\":5,"
                              "\"why\":\"first 1\"},{\"probe\":\"model.decode\",\"verdict\":"
                              "\"skipped\",\"positions\":0,\"why\":\"no decoder\"}]");
    cJSON_free(text);
    cJSON_Delete(json);
    for (int i = 0; i < 2 * MOST_PROBES; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%d", i);
        (void)verdicts_probe(&all, "many", name);
    }
    assert_int_equal(all.n, MOST_PROBES);
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, setup, evaluate_teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_honest),
        CHECKED(test_the_audit_changes_no_score),
        CHECKED(test_seeds),
        CHECKED(test_only_the_final_score_is_audited),
        CHECKED(test_zero_weight_is_the_models_score),
        CHECKED(test_zero_weight_fails_on_a_broken_row),
        CHECKED(test_sums_are_measured_after_normalising),
        CHECKED(test_samples),
        CHECKED(test_sum),
        CHECKED(test_target_independence),
        CHECKED(test_score_before_update),
        CHECKED(test_replay),
        CHECKED(test_replay_sees_what_is_read_behind_the_end),
        CHECKED(test_a_twin_that_fails),
        CHECKED(test_a_stream_is_probed_as_it_is_read),
        CHECKED(test_verdicts),
    };
    return cmocka_run_group_tests_name("in step", tests, evaluate_open_session,
                                       evaluate_close_session) +
           cmocka_run_group_tests_name("ahead", tests, evaluate_open_ahead, evaluate_close_session);
}
