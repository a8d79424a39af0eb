/* Receipts, result files and references: what is read, what counts, what is refused; and what a
 * comparison says. */
#include <math.h>
#include <unistd.h>

#include "compare.h"
#include "support.h"
#include "workspace.h"

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* A receipt of 1000 targets and 2500 bytes; `more` goes into its scores. */
static void write_receipt(const char *name, int seed, const char *hash, double bpb,
                          const char *more) {
    char text[2048];
    (void)snprintf(
        text, sizeof text,
        "{\"name\": \"tiny\", \"seed\": %d, \"steps\": 7, \"config_sha256\": \"c\","
        " \"experiment_sha256\": \"%s\", \"bytes\": {\"model\": 10, \"model_sha256\": \"m\","
        " \"code_sources_sha256\": \"s\", \"total\": 30}, \"seconds\": {\"train\": 1.5},"
        " \"scores\": {\"raw\": {\"bpb\": 2, \"nats\": 3465.7, \"targets\": 1000, \"bytes\": 2500},"
        " \"sliding\": {\"bpb\": %.17g, \"nats\": %.17g, \"targets\": 1000, \"bytes\": 2500}%s,"
        " \"xz_bpb\": 2.5}}",
        seed, hash, bpb, bpb * log(2.0) * 2500, more);
    write_text(name, text);
}

static struct results *make(void) {
    fw_error error = {.struct_size = sizeof error};
    struct results *results = NULL;
    assert_ok(results_create(&results, &error), &error);
    return results;
}

static void read_well(struct results *results, const char *path) {
    fw_error error = {.struct_size = sizeof error};
    assert_ok(results_read(path, results, &error), &error);
}

static void receipts(void **state) {
    (void)state;
    struct results *results = make();
    write_receipt("a.json", 1, HASH_A, 1.5, "");
    write_receipt("b.json", 2, HASH_A, 1.7, "");
    read_well(results, "a.json");
    read_well(results, "b.json");
    assert_int_equal(results->n, 2);
    assert_string_equal(results->name, "tiny");
    const struct run_result *run = &results->runs[1];
    assert_true(run->seed == 2 && run->steps == 7 && run->n_scores == 2);
    assert_true(run->model_bytes == 10 && run->total_bytes == 30 && run->train_seconds == 1.5);
    assert_string_equal(run->place, "b.json");
    assert_string_equal(run->model_sha256, "m");
    assert_string_equal(run->code_sha256, "s");
    const struct run_score *score = results_score(results, 1, "model");
    assert_string_equal(score->name, "sliding");
    assert_true(score_counts(score) && score->targets == 1000);
    assert_true(fabs(score->nats_per_token - 1.7 * log(2.0) * 2.5) < 1e-12);
    assert_null(results_score(results, 1, "cached"));
    results_destroy(results);
}

/* Written, and read again: the same numbers, in a directory too. */
static void round_trip(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    struct results *results = make(), *again = make();
    write_receipt("a.json", 1, HASH_A, 1.5,
                  ", \"cached\": {\"bpb\": 0.5, \"nats\": 900, \"targets\": 1000, \"valid\": false,"
                  " \"mean_sum\": 522, \"largest_sum\": 600}");
    write_receipt(
        "b.json", 2, HASH_A, 1.6,
        ", \"cached\": {\"bpb\": 0.6, \"nats\": 910, \"targets\": 1000, \"valid\": true}");
    read_well(results, "a.json");
    read_well(results, "b.json");
    assert_ok(results_write(results, "results.json", &error), &error);
    read_well(again, ".");
    assert_int_equal(again->n, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct run_result *a = &results->runs[i], *b = &again->runs[i];
        assert_true(a->seed == b->seed && a->steps == b->steps && a->n_scores == b->n_scores);
        assert_string_equal(a->experiment, b->experiment);
        assert_string_equal(a->model_sha256, b->model_sha256);
        assert_true(a->total_bytes == b->total_bytes);
        for (size_t s = 0; s < a->n_scores; s++) {
            assert_string_equal(a->scores[s].name, b->scores[s].name);
            assert_true(a->scores[s].bpb == b->scores[s].bpb);
            assert_true(a->scores[s].nats_per_token == b->scores[s].nats_per_token);
            assert_true(a->scores[s].valid == b->scores[s].valid);
            assert_string_equal(a->scores[s].why, b->scores[s].why);
        }
    }
    char *text = read_bytes("results.json", &(size_t){0});
    assert_non_null(strstr(text, "\"deviation\""));
    assert_non_null(strstr(text, "the distribution sums to 522 (largest 600)"));
    free(text);
    results_destroy(results);
    results_destroy(again);
}

/* An invalid score is never the honest one, nor one that counts targets several times. */
static void honest_scores(void **state) {
    (void)state;
    struct results *results = make();
    write_receipt("a.json", 1, HASH_A, 1.5,
                  ", \"cached\": {\"bpb\": 0.5, \"valid\": false},"
                  " \"counterpart\": {\"bpb\": 1.2, \"nats\": 1, \"targets\": 1}");
    write_receipt("b.json", 2, HASH_A, 1.5, ", \"cached\": {\"bpb\": 1.1}");
    write_receipt("c.json", 3, HASH_A, 1.5, ", \"cached\": {\"bpb\": 1.6}");
    write_receipt(
        "d.json", 4, HASH_A, 1.5,
        ", \"sliding_fair\": {\"bpb\": 1.55}, \"cached\": {\"bpb\": 0.4, \"fair\": false}");
    /* What is said of a score in any other way than `true` does not make it count. */
    write_receipt("e.json", 5, HASH_A, 1.5, ", \"cached\": {\"bpb\": 0.5, \"valid\": 0}");
    write_receipt("f.json", 6, HASH_A, 1.5, ", \"cached\": {\"bpb\": 0.5, \"valid\": \"no\"}");
    write_receipt("g.json", 7, HASH_A, 1.5, ", \"cached\": {\"bpb\": 0.5, \"fair\": null}");
    static const char *const names[] = {"counterpart", "cached",  "sliding", "sliding_fair",
                                        "sliding",     "sliding", "sliding"};
    static const char *const files[] = {"a.json", "b.json", "c.json", "d.json",
                                        "e.json", "f.json", "g.json"};
    for (size_t i = 0; i < 7; i++) {
        read_well(results, files[i]);
        assert_string_equal(results_honest(results, i)->name, names[i]);
    }
    assert_string_equal(results_score(results, 3, "model")->name, "sliding_fair");
    results_destroy(results);
}

static void references(void **state) {
    (void)state;
    struct results *results = make();
    write_text("r.json",
               "{\"name\": \"record\", \"seeds\": [5, 6], \"bytes_per_token\": 2.5,"
               " \"model\": {\"mode\": \"sliding\", \"bpb\": [1.1, 1.2]},"
               " \"cached\": {\"bpb\": [0.9, 0.8], \"nats_per_token\": [2, 3], \"valid\": false,"
               " \"why\": \"sums to 522\"}}");
    read_well(results, "r.json");
    assert_true(results->n == 2 && results->runs[1].seed == 6);
    const struct run_score *model = results_score(results, 1, "model");
    assert_string_equal(model->name, "sliding");
    assert_true(fabs(model->nats_per_token - 1.2 * log(2.0) * 2.5) < 1e-15);
    const struct run_score *cached = results_score(results, 1, "cached");
    assert_true(cached->nats_per_token == 3 && !score_counts(cached));
    assert_string_equal(cached->why, "sums to 522");
    results_destroy(results);
    results = make();
    write_text("s.json", "{\"model\": {\"bpb\": [1.1]}}"); /* as little as possible */
    read_well(results, "s.json");
    assert_true(results->n == 1 && results->runs[0].seed == -1);
    assert_string_equal(results_score(results, 0, "model")->name, "plain");
    assert_true(isnan(results_score(results, 0, "model")->nats_per_token));
    results_destroy(results);
}

static void refuse(struct results *results, const char *path, fw_status status, const char *part,
                   const char *other) {
    fw_error error = {.struct_size = sizeof error};
    const size_t n = results->n;
    assert_fails(results_read(path, results, &error), status, &error, path, part, other);
    assert_int_equal(results->n, n);
}

/* A run that ended with an error wrote its receipt all the same. */
static void failed_runs(void **state) {
    (void)state;
    struct results *results = make();
    write_receipt("failed.json", 1, HASH_A, 1.5,
                  "}, \"failure\": \"swa had no effect\", \"more\": {\"a\": 1");
    refuse(results, "failed.json", FW_E_CONFIG, "this run failed", "swa had no effect");
    write_receipt("failed.json", 1, HASH_A, 1.5, "}, \"failure\": 1, \"more\": {\"a\": 1");
    refuse(results, "failed.json", FW_E_CONFIG, "this run failed", "does not say why");
    results_destroy(results);
}

static void wrong_files(void **state) {
    (void)state;
    struct results *results = make();
    static const struct {
        const char *text, *part, *other;
    } cases[] = {
        {"not json", "no JSON object", ""},
        {"[1]", "no JSON object", ""},
        {"{}", "neither a receipt nor results nor a reference", "\"model\""},
        {"{\"runs\": []}", "no valid \"runs\"", ""},
        {"{\"runs\": [{\"seed\": -1}]}", "no valid \"seed\"", ""},
        {"{\"runs\": [{\"seed\": 1}]}", "no valid \"experiment_sha256\"", ""},
        {"{\"runs\": [{\"seed\": 1, \"experiment_sha256\": \"" HASH_A "\"}]}",
         "no valid \"scores\"", ""},
        {"{\"seed\": 1.5, \"scores\": {}}", "no valid \"seed\"", ""},
        {"{\"model\": {}}", "holds 0 scores", "1 to 64"},
        {"{\"model\": {\"bpb\": 1.1}}", "holds 0 scores", ""},
        {"{\"model\": {\"bpb\": [1, \"x\"]}}", "\"model\"", "no positive number"},
        {"{\"model\": {\"bpb\": [1, -1]}}", "\"model\"", "no positive number"},
        {"{\"model\": {\"bpb\": [1], \"mode\": \"slow\"}}", "\"mode\"", "stream nor plain"},
        {"{\"model\": {\"bpb\": [1]}, \"cached\": {\"bpb\": [1, 2]}}", "\"cached\"", "one score"},
        {"{\"model\": {\"bpb\": [1], \"nats_per_token\": []}}", "\"model\"", "another length"},
        {"{\"seeds\": [1], \"model\": {\"bpb\": [1, 2]}}", "\"seeds\"", "another length"},
        {"{\"seeds\": [1, 2.5], \"model\": {\"bpb\": [1, 2]}}", "\"seeds\"", "no whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_text("bad.json", cases[i].text);
        refuse(results, "bad.json", FW_E_FORMAT, cases[i].part, cases[i].other);
    }
    refuse(results, "none.json", FW_E_IO, "No such file", "");
    refuse(results, ".", FW_E_NOT_FOUND, "neither results.json nor receipt.json", "");
    results_destroy(results);
}

static void other_experiments(void **state) {
    (void)state;
    struct results *results = make();
    write_receipt("a.json", 1, HASH_A, 1.5, "");
    write_receipt("b.json", 2, HASH_B, 1.5, "");
    write_receipt("c.json", 1, HASH_A, 1.6, "");
    write_text("r.json", "{\"model\": {\"bpb\": [1.1]}}");
    read_well(results, "a.json");
    fw_error error = {.struct_size = sizeof error};
    assert_fails(results_read("b.json", results, &error), FW_E_CONFIG, &error, "a.json", HASH_A,
                 "b.json", HASH_B, "aggregated");
    refuse(results, "c.json", FW_E_CONFIG, "seed 1", "a.json");
    write_text("e.json", "{\"seed\": 9, \"experiment_sha256\": \"" HASH_A "\", \"scores\":"
                         " {\"sliding\": {\"bpb\": 1, \"targets\": 1000, \"bytes\": 2501}}}");
    refuse(results, "e.json", FW_E_CONFIG, "\"sliding\" on 2500 bytes", "on 2501");
    refuse(results, "r.json", FW_E_CONFIG, "experiment -", HASH_A);
    results_destroy(results);
    results = make();
    write_text("d.json", "{\"seeds\": [3, 3], \"model\": {\"bpb\": [1.1, 1.2]}}");
    refuse(results, "d.json", FW_E_CONFIG, "seed 3", "no second measurement");
    results_destroy(results);
}

/* What compare_print writes, as text. The caller frees. */
static char *comparison(const char *const *result_files, const char *reference_file,
                        fw_status *status) {
    fw_error error = {.struct_size = sizeof error};
    struct results *result = make(), *reference = make();
    for (; *result_files != NULL; result_files++) read_well(result, *result_files);
    read_well(reference, reference_file);
    (void)fflush(stdout);
    const int saved = dup(1);
    FILE *file = fopen("out.txt", "w");
    assert_true(file != NULL && saved >= 0 && dup2(fileno(file), 1) >= 0);
    *status = compare_print(result, reference, &error);
    (void)fflush(stdout);
    (void)dup2(saved, 1);
    (void)close(saved);
    (void)fclose(file);
    results_destroy(result);
    results_destroy(reference);
    return read_bytes("out.txt", &(size_t){0});
}

static void check_words(const char *text, bool there, const char *words) {
    if ((strstr(text, words) != NULL) == there) return;
    print_error("%s \"%s\" in:\n%s\n", there ? "no" : "there is", words, text);
    fail();
}

static void comparisons(void **state) {
    (void)state;
    fw_status status;
    write_text("r.json", "{\"name\": \"record\", \"bytes_per_token\": 2.5,"
                         " \"model\": {\"mode\": \"sliding\", \"bpb\": [1.52, 1.521, 1.519]},"
                         " \"cached\": {\"bpb\": [0.2, 0.2, 0.2], \"valid\": false}}");
    write_receipt("a.json", 1, HASH_A, 1.5, ", \"cached\": {\"bpb\": 1.1}");
    write_receipt("b.json", 2, HASH_A, 1.501, ", \"cached\": {\"bpb\": 1.11}");
    write_receipt("c.json", 3, HASH_A, 1.499, ", \"cached\": {\"bpb\": 1.12}");
    const char *const three[] = {"a.json", "b.json", "c.json", NULL};
    char *text = comparison(three, "r.json", &status);
    assert_int_equal(status, FW_OK);
    /* 0.02 bits are 0.034657 nats a token, 0.013863 a byte; s.e. sqrt(2/3) * 0.001 of the unit. */
    check_words(text, true, "-0.034657");
    check_words(text, true, "-0.013863");
    check_words(text, true, "  BETTER\n");
    check_words(text, true, "with cache");
    check_words(text, true, "INVALID");
    check_words(text, true, "never counts");
    check_words(text, true, "best that counts");
    check_words(text, false, "0.200000");
    check_words(text, false, "no test");
    free(text);
    const char *const one[] = {"a.json", NULL};
    text = comparison(one, "r.json", &status);
    assert_int_equal(status, FW_OK);
    check_words(text, true, "no test is possible: the result has 1 run and the reference 3");
    check_words(text, true, "-0.034657");
    check_words(text, false, "p = ");
    free(text);
    /* Tokens of another length: the test is of bytes alone. */
    write_text("t.json", "{\"name\": \"record\", \"bytes_per_token\": 3,"
                         " \"model\": {\"mode\": \"sliding\", \"bpb\": [1.49, 1.491, 1.489]}}");
    text = comparison(three, "t.json", &status);
    assert_int_equal(status, FW_OK);
    check_words(text, true, "only the bytes compare");
    check_words(text, true, "-0.499066  no test\n");
    check_words(text, true, "p = 1\n");
    free(text);
    /* Scores of other text differ, but not for better or worse. */
    write_text("o.json",
               "{\"runs\": [{\"seed\": 1, \"experiment_sha256\": \"" HASH_B "\", \"scores\":"
               " {\"sliding\": {\"bpb\": 1.7, \"nats_per_token\": 3, \"bytes\": 99}}},"
               " {\"seed\": 2, \"experiment_sha256\": \"" HASH_B "\", \"scores\":"
               " {\"sliding\": {\"bpb\": 1.71, \"nats_per_token\": 3.1, \"bytes\": 99}}}]}");
    write_receipt("d.json", 4, HASH_A, 1.5, "");
    write_receipt("e.json", 5, HASH_A, 1.51, "");
    const char *const two[] = {"d.json", "e.json", NULL};
    text = comparison(two, "o.json", &status);
    assert_int_equal(status, FW_OK);
    check_words(text, true, "scored on other text: 2500 bytes against 99");
    check_words(text, false, "p = ");
    check_words(text, false, "  BETTER\n");
    free(text);
    /* The honest counterpart of a void cache stands in for it. */
    write_receipt("f.json", 6, HASH_A, 1.5,
                  ", \"cached\": {\"bpb\": 0.2, \"valid\": false},"
                  " \"counterpart\": {\"bpb\": 1.3, \"nats\": 2252.7, \"targets\": 1000}");
    write_receipt("g.json", 7, HASH_A, 1.5, ", \"cached\": {\"bpb\": 1.2, \"nats\": 2079.4}");
    const char *const void_cache[] = {"f.json", NULL};
    text = comparison(void_cache, "g.json", &status);
    assert_int_equal(status, FW_OK);
    check_words(text, true, "best that counts, byte");
    check_words(text, true, "0.901091"); /* 1.3 ln 2 */
    check_words(text, true, "the result is counterpart, the reference cached");
    free(text);
    /* Both lines above say all that there is to say. */
    const char *const honest[] = {"g.json", NULL};
    text = comparison(honest, "g.json", &status);
    check_words(text, false, "best that counts");
    free(text);
    /* Only void scores: nothing to compare. */
    write_text("void.json", "{\"cached\": {\"bpb\": [0.2, 0.3], \"valid\": false}}");
    text = comparison(three, "void.json", &status);
    assert_int_equal(status, FW_E_CONFIG);
    free(text);
}

#define in_workspace(test)                                                                         \
    cmocka_unit_test_setup_teardown(test, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        in_workspace(receipts),          in_workspace(round_trip),  in_workspace(honest_scores),
        in_workspace(references),        in_workspace(failed_runs), in_workspace(wrong_files),
        in_workspace(other_experiments), in_workspace(comparisons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
