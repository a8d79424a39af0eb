/* Probes of a whole model: each fails on a model that does what it looks for, naming the position,
 * and passes on one that does not. The models are made up: a row hashes the tokens that it reads.
 */
#include "probe_model.h"

#include <math.h>

#include "support.h"

enum { V = 11, LENGTH = 12, BATCH = 3, N = 90, BEGIN = 2 };

static fw_error error = {.struct_size = sizeof error};
static fw_token_info tokens[V];
static const struct token_table table = {.vocabulary = V, .begin_token = BEGIN, .tokens = tokens};
static uint16_t stream[N];
static struct windows windows = {.targets = N - 1, .length = LENGTH, .stride = 4};
static struct verdicts verdicts;

/* What a made-up model does beyond reading its own past. */
static struct lie {
    int64_t ahead;       /* reads so many tokens behind its position */
    bool after_begin;    /* but only right after a document's first token */
    bool neighbour;      /* reads the window beside it */
    bool counts_passes;  /* its rows change with every pass */
    double unnormalised; /* added to the log-probabilities */
    double by_place;     /* times the place in the batch, added to one of them */
    bool fails;
} lie;

static int32_t read_tokens[BATCH * LENGTH];
static uint64_t n_passes;

static fw_status infer(void *self, const int32_t *inputs, int64_t batch, int64_t length,
                       fw_error *why) {
    (void)self;
    assert_true(batch * length <= BATCH * LENGTH && length == LENGTH);
    if (lie.fails) return fw_fail(why, FW_E_DEVICE, "the device is gone");
    for (int64_t i = 0; i < batch * length; i++) {
        assert_true(inputs[i] >= 0 && inputs[i] < V);
        read_tokens[i] = inputs[i];
    }
    n_passes++;
    return FW_OK;
}

static uint64_t hash_of(int64_t slot, int64_t at) {
    const int32_t *own = read_tokens + slot * LENGTH;
    const bool looks = !lie.after_begin || own[at] == BEGIN;
    const int64_t last = looks && at + lie.ahead < LENGTH ? at + lie.ahead : at;
    uint64_t hash = 7;
    for (int64_t i = 0; i <= last; i++) hash = hash * 1000003 + (uint64_t)own[i];
    if (lie.neighbour) hash += (uint64_t)read_tokens[(slot + 1) % BATCH * LENGTH + at] * 77777;
    return lie.counts_passes ? hash + n_passes * 999 : hash;
}

static struct model_probes probes;

static fw_status log_probabilities(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *why) {
    (void)self, (void)why;
    const int64_t most = probes.model.most_rows > 0 ? probes.model.most_rows : LENGTH;
    assert_true(n > 0 && n <= most);
    for (int64_t i = first; i < first + n; i++, host += V) {
        test_random random = {hash_of(i / LENGTH, i % LENGTH)};
        double logits[V], sum = 0;
        for (uint32_t v = 0; v < V; v++) sum += exp(logits[v] = test_normal(&random));
        for (uint32_t v = 0; v < V; v++) host[v] = (float)(logits[v] - log(sum) + lie.unnormalised);
        host[0] += (float)(lie.by_place * (double)(i / LENGTH));
    }
    return FW_OK;
}

static int setup(void **state) {
    (void)state;
    lie = (struct lie){0};
    n_passes = 0;
    test_random random = {3};
    for (size_t i = 0; i < N; i++) stream[i] = (uint16_t)(3 + test_below(&random, V - 3));
    probes =
        (struct model_probes){.model = {.infer = infer, .log_probabilities = log_probabilities},
                              .table = &table,
                              .windows = &windows,
                              .tokens = stream,
                              .batch = BATCH,
                              .rounds = 4,
                              .seed = 11,
                              .thorough = true,
                              .rounding = 1e-3};
    return 0;
}

static void run(void) {
    verdicts = (struct verdicts){0};
    const fw_status status = model_probe(&probes, &verdicts, &error);
    if (status != FW_OK) fail_msg("%s", error.message);
}

static void expect(const char *name, enum verdict expected, const char *words) {
    const struct probe *probe = verdicts_find(&verdicts, name);
    if (probe == NULL) fail_msg("no probe %s", name);
    if (probe->verdict != expected || strstr(probe->words, words) == NULL)
        fail_msg("%s: %s: %s", name, verdict_name(probe->verdict), probe->words);
}

static void test_honest(void **state) {
    (void)state;
    static const char *const names[] = {"model.future-flip", "model.batch-independence",
                                        "model.row-sums", "model.batch-position",
                                        "model.document-edges"};
    run();
    for (size_t i = 0; i < 5; i++) {
        expect(names[i], VERDICT_PASS, "");
        assert_true(verdicts_find(&verdicts, names[i])->positions > 0);
    }
    probes.thorough = false;
    n_passes = 0;
    run();
    assert_int_equal(n_passes, 3 * 4);
    assert_null(verdicts_find(&verdicts, "model.batch-position"));
    assert_null(verdicts_find(&verdicts, "model.document-edges"));
}

static void test_one_token_ahead(void **state) {
    (void)state;
    lie.ahead = 1;
    run();
    expect("model.future-flip", VERDICT_FAIL, "with other tokens behind it, the log-probability");
    expect("model.batch-independence", VERDICT_PASS, "");
    expect("model.row-sums", VERDICT_PASS, "");
    expect("model.document-edges", VERDICT_FAIL, "position");
}

/* Only the row right before the change sees it: few rows are enough. */
static void test_the_row_of_the_flip_is_compared(void **state) {
    (void)state;
    lie.ahead = 1;
    probes.rows = 1;
    probes.thorough = false;
    run();
    expect("model.future-flip", VERDICT_FAIL, "position");
}

/* A model that gives few rows at a time. */
static void test_few_rows_at_a_time(void **state) {
    (void)state;
    probes.model.most_rows = 5;
    run();
    assert_null(verdicts_failed(&verdicts, NULL));
    lie.ahead = 1;
    run();
    expect("model.future-flip", VERDICT_FAIL, "position");
}

static void test_far_ahead(void **state) {
    (void)state;
    lie.ahead = 4;
    run();
    expect("model.future-flip", VERDICT_FAIL, "position");
}

/* No window of the stream begins a document, so that only windows made for it show this. */
static void test_ahead_at_edges_alone(void **state) {
    (void)state;
    lie.ahead = 1;
    lie.after_begin = true;
    for (int64_t batch = 1; batch <= BATCH; batch++) {
        probes.batch = batch;
        run();
        expect("model.future-flip", VERDICT_PASS, "");
        expect("model.document-edges", VERDICT_FAIL, "other tokens behind it");
    }
}

static void test_neighbour(void **state) {
    (void)state;
    lie.neighbour = true;
    run();
    expect("model.batch-independence", VERDICT_FAIL, "with other windows in its batch");
}

static void test_state_between_passes(void **state) {
    (void)state;
    lie.counts_passes = true;
    probes.batch = 1;
    run();
    expect("model.batch-independence", VERDICT_FAIL, "another pass before");
    expect("model.batch-position", VERDICT_SKIPPED, "there is one place");
}

static void test_sums(void **state) {
    (void)state;
    lie.unnormalised = 1e-4;
    run();
    expect("model.row-sums", VERDICT_PASS, "");
    lie.unnormalised = 2e-3;
    run();
    expect("model.row-sums", VERDICT_FAIL, "the model's probabilities sum to 1.002");
}

static void test_places(void **state) {
    (void)state;
    lie.by_place = 1e-4;
    run();
    expect("model.batch-position", VERDICT_PASS, "");
    expect("model.future-flip", VERDICT_PASS, "");
    lie.by_place = 1e-2;
    run();
    expect("model.batch-position", VERDICT_FAIL, "its window in another place");
    expect("model.batch-independence", VERDICT_PASS, "");
}

/* Every window of the stream once, when all are asked for; windows too short to change anything. */
static void test_all_windows(void **state) {
    (void)state;
    probes.thorough = false;
    probes.all_windows = true;
    probes.rounds = (windows_count(&windows) + BATCH - 1) / BATCH;
    lie.ahead = 1;
    run();
    expect("model.future-flip", VERDICT_FAIL, "position");
    const struct windows single = {.targets = 1, .length = LENGTH, .stride = LENGTH};
    probes.windows = &single;
    probes.rounds = 1;
    run();
    assert_null(verdicts_failed(&verdicts, NULL));
}

static void test_rounds(void **state) {
    (void)state;
    const struct windows few = {.targets = 1000, .length = 10, .stride = 10};
    const struct windows many = {.targets = 1000000, .length = 10, .stride = 10};
    assert_int_equal(model_probe_rounds(&few, 8), 1);
    assert_int_equal(model_probe_rounds(&many, 80), 4);
    assert_int_equal(model_probe_rounds(&many, 1), 8);
}

static void test_a_model_that_fails(void **state) {
    (void)state;
    lie.fails = true;
    assert_int_equal(model_probe(&probes, &verdicts, &error), FW_E_DEVICE);
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup(test, setup)
    const struct CMUnitTest tests[] = {
        CHECKED(test_honest),
        CHECKED(test_one_token_ahead),
        CHECKED(test_the_row_of_the_flip_is_compared),
        CHECKED(test_few_rows_at_a_time),
        CHECKED(test_far_ahead),
        CHECKED(test_ahead_at_edges_alone),
        CHECKED(test_neighbour),
        CHECKED(test_state_between_passes),
        CHECKED(test_sums),
        CHECKED(test_places),
        CHECKED(test_all_windows),
        CHECKED(test_rounds),
        CHECKED(test_a_model_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
