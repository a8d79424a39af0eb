/* Scores do not depend on how many threads work on them, nor does a warm start change what it must
 * not: with real caches on a text that they gain on, every number is the same bit for bit. */
#include <stdio.h>

#include "cache_child.h"
#include "cache_process.h"
#include "evaluate_fixture.h"
#include "registry.h"
#include "shard.h"
#include "tiny_model.h"

enum { TEXT = 1500 };

static fw_error error = {.struct_size = sizeof error};
static struct registry_entry entry;
static uint32_t threads;

static uint32_t threads_of_test(const fw_host *host) {
    (void)host;
    return threads;
}

/* A text with repeats, in which each cache changes nearly every probability. */
static int setup(void **state) {
    static uint16_t text[TEXT];
    if (evaluate_setup(state) != 0) return -1;
    test_random random = {5};
    for (size_t t = 0; t < TEXT; t++)
        text[t] = t > 50 && test_below(&random, 8) > 0 ? text[t - 37]
                                                       : (uint16_t)(1 + test_below(&random, V - 1));
    write_shard("text.bin", SHARD_MAGIC, SHARD_VERSION, TEXT, text, TEXT);
    corpus_close(corpus);
    open_corpus("text.bin");
    threads = 1;
    return 0;
}

static int teardown(void **state) {
    free(experiment.cache.values);
    return evaluate_teardown(state);
}

static void use_cache(const char *id) {
    if (experiment.cache.values != script.choice.values) free(experiment.cache.values);
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    entry = (struct registry_entry){.plugin = plugin, .path = test_plugin_path(plugin)};
    experiment.cache = (struct plugin_choice){.kind = FW_CACHE,
                                              .section = "cache",
                                              .name = id,
                                              .entry = &entry,
                                              .values = test_values(entry.plugin, NULL)};
}

static fw_status try_on(uint32_t n, int64_t mode, struct evaluate_result *result) {
    struct model *model = open_model(1, WINDOW);
    struct evaluate_options options = options_for(model, mode, true);
    fw_host services = *options.host;
    services.threads = threads_of_test;
    options.host = &services;
    threads = n;
    const fw_status status = evaluate(&options, result, &error);
    model_destroy(model);
    return status;
}

static struct evaluate_result score_on(uint32_t n, int64_t mode) {
    struct evaluate_result result;
    assert_ok(try_on(n, mode, &result), &error);
    assert_int_equal(result.cached.targets, TEXT - 1);
    return result;
}

static void assert_equal(const struct evaluate_result *a, const struct evaluate_result *b) {
    assert_true(a->model.nats == b->model.nats);
    assert_true(a->cached.nats == b->cached.nats);
    assert_int_equal(a->cached.bytes, b->cached.bytes);
    assert_int_equal(a->cache_changed, b->cache_changed);
}

static void test_threads_change_nothing(void **state) {
    (void)state;
    static const char *const ids[] = {"ngram", "ngram_counts", "none"};
    static const int64_t modes[] = {EVAL_PLAIN, EVAL_SLIDING};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        for (size_t mode = 0; mode < 2; mode++)
            for (int64_t ranks = 1; ranks <= 3; ranks += 2) {
                use_cache(ids[i]);
                experiment.eval.ranks = ranks;
                const struct evaluate_result one = score_on(1, modes[mode]);
                const struct evaluate_result two = score_on(2, modes[mode]);
                const struct evaluate_result four = score_on(4, modes[mode]);
                assert_equal(&one, &two);
                assert_equal(&one, &four);
                assert_true((one.cache_changed > TEXT / 2) == (i < 2));
            }
}

/* Two instances in processes of their own could still signal each other what one of them was told
 * and the other is about to be asked: there is one, however many threads there are. */
static void test_one_process_alone(void **state) {
    (void)state;
    static const struct apart apart = {.seconds = 60};
    use_cache("ngram_counts");
    const struct evaluate_result two = score_on(2, EVAL_PLAIN), four = score_on(4, EVAL_PLAIN);
    assert_int_equal(four.cache_memory, 2 * two.cache_memory);
    experiment.cache.apart = &apart;
    const struct evaluate_result jailed = score_on(4, EVAL_PLAIN);
    assert_true(jailed.isolated);
    assert_equal(&two, &jailed);
    assert_int_equal(jailed.cache_memory, two.cache_memory);
}

/* Parts that begin warm give the score of one part; cold ones do not. */
static void test_warm_start(void **state) {
    (void)state;
    use_cache("ngram_counts");
    for (uint32_t n = 1; n <= 4; n *= 2) {
        experiment.eval.ranks = 1;
        experiment.eval.warm_start = false;
        const struct evaluate_result serial = score_on(n, EVAL_PLAIN);
        experiment.eval.ranks = 5;
        const struct evaluate_result cold = score_on(n, EVAL_PLAIN);
        experiment.eval.warm_start = true;
        const struct evaluate_result warm = score_on(n, EVAL_PLAIN);
        assert_equal(&serial, &warm);
        assert_true(cold.cached.nats > serial.cached.nats + 1);
    }
}

static void test_what_learns_cannot_begin_warm(void **state) {
    (void)state;
    struct evaluate_result result;
    use_cache("ngram");
    experiment.eval.warm_start = true;
    experiment.eval.ranks = 2;
    assert_int_equal(evaluate_check(&experiment, &device.services, &table, &error), FW_E_CONFIG);
    assert_non_null(strstr(error.message, "eval.warm_start = no"));
    assert_int_equal(try_on(2, EVAL_PLAIN, &result), FW_E_CONFIG);
    experiment.eval.ranks = 1;
    assert_ok(evaluate_check(&experiment, &device.services, &table, &error), &error);
    (void)score_on(2, EVAL_PLAIN);
}

static uint64_t bad_position;

static void predict_badly(const fw_row *row, fw_prediction *prediction) {
    script_state_row(prediction);
    if (row->position >= bad_position) prediction->lm_weight = 2;
}

/* Whoever is faster, the first thing that was wrong is what is said. */
static void test_first_error_is_told(void **state) {
    (void)state;
    struct evaluate_result result;
    script.predict = predict_badly;
    for (uint32_t n = 1; n <= 4; n *= 2)
        for (bad_position = 0; bad_position < TEXT - 1; bad_position += 371) {
            char expected[40];
            script.n_calls = 0;
            (void)snprintf(expected, sizeof expected, "position %u: ", (unsigned)bad_position);
            assert_int_equal(try_on(n, EVAL_PLAIN, &result), FW_E_PROTOCOL);
            if (strstr(error.message, expected) == NULL)
                fail_msg("%s instead of %s", error.message, expected);
        }
}

static double sure(void *self, const fw_row *row, uint32_t token) {
    return (void)self, (void)row, (void)token, 1;
}

/* Each instance works on a thread of its own; the second one begins by learning. */
static _Thread_local bool asked, second;

static fw_status learn_first(void *self, const uint32_t *tokens, uint64_t n, fw_error *why) {
    second = second || !asked;
    return (void)self, (void)tokens, (void)n, (void)why, FW_OK;
}

static void predict_without_a_distribution(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    asked = true;
    script_state_row(prediction);
    if (!second) return;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = sure;
}

/* The score is INVALID when the second instance alone was not verifiable. */
static void test_the_second_instance_marks_the_score(void **state) {
    (void)state;
    script.vtable.counts_only = 1;
    script.vtable.prefill = learn_first;
    script.predict = predict_without_a_distribution;
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    const struct evaluate_result result = score_on(4, EVAL_PLAIN);
    assert_int_equal(script.n_begun, 2);
    assert_true(result.cached.nats < result.model.nats);
    assert_true(result.invalid);
    assert_true(result.largest_sum > 2);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], CACHE_CHILD_VERB) == 0)
        return cache_child_main(argc - 1, argv + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_process_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_warm_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_learns_cannot_begin_warm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_error_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_second_instance_marks_the_score, setup, teardown),
    };
    return cmocka_run_group_tests(tests, evaluate_open_session, evaluate_close_session);
}
