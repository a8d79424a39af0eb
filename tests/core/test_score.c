/* The bookkeeping of scores and training: ledger, windows, schedule, rows. */
#include "support.h"

#include <math.h>

#include "ledger.h"
#include "rows.h"
#include "schedule.h"
#include "windows.h"

static fw_error error = {.struct_size = sizeof error};

static void test_ledger_adds_up(void **state) {
    (void)state;
    struct ledger *ledger = NULL;
    assert_int_equal(ledger_create(3, false, &ledger, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 2, 0.25, 4, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 0, 1.5, 1, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 1, 0, 2, &error), FW_OK);
    struct ledger_total total;
    assert_int_equal(ledger_close(ledger, &total, &error), FW_OK);
    assert_true(total.nats == 1.75 && total.bytes == 7 && total.targets == 3);
    ledger_destroy(ledger);
}

static void test_ledger_refuses_a_second_score(void **state) {
    (void)state;
    struct ledger *ledger = NULL;
    assert_int_equal(ledger_create(9, false, &ledger, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 8, 1, 1, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 8, 1, 1, &error), FW_E_PROTOCOL);
    assert_non_null(strstr(error.message, "twice"));
    assert_int_equal(ledger_enter(ledger, 9, 1, 1, &error), FW_E_PROTOCOL);
    assert_int_equal(ledger_enter(ledger, 0, NAN, 1, &error), FW_E_PROTOCOL);
    assert_int_equal(ledger_enter(ledger, 0, INFINITY, 1, &error), FW_E_PROTOCOL);
    assert_int_equal(ledger_enter(ledger, 0, -0.1, 1, &error), FW_E_PROTOCOL);
    struct ledger_total total;
    assert_int_equal(ledger_close(ledger, &total, &error), FW_E_PROTOCOL);
    assert_non_null(strstr(error.message, "target 0 was never scored"));
    ledger_destroy(ledger);
}

/* Where repeats are allowed they add up, but nothing may be missing. */
static void test_ledger_of_repeats(void **state) {
    (void)state;
    struct ledger *ledger = NULL;
    assert_int_equal(ledger_create(2, true, &ledger, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 1, 0.5, 3, &error), FW_OK);
    assert_int_equal(ledger_enter(ledger, 1, 0.25, 3, &error), FW_OK);
    struct ledger_total total;
    assert_int_equal(ledger_close(ledger, &total, &error), FW_E_PROTOCOL);
    assert_int_equal(ledger_enter(ledger, 0, 1, 4, &error), FW_OK);
    assert_int_equal(ledger_close(ledger, &total, &error), FW_OK);
    assert_true(total.nats == 1.75 && total.bytes == 10 && total.targets == 3);
    assert_int_equal(ledger_enter(ledger, 2, 1, 1, &error), FW_E_PROTOCOL);
    ledger_destroy(ledger);
}

/* Over all windows every target is scored once, in order, with as much context as the mode
 * promises. */
static void check_windows(uint64_t targets, uint64_t length, uint64_t stride) {
    const struct windows windows = {targets, length, stride, false};
    uint64_t next = 0;
    for (uint64_t i = 0; i < windows_count(&windows); i++) {
        const struct window window = windows_get(&windows, i);
        assert_true(window.n >= 1 && window.n <= length && window.first < window.n);
        assert_int_equal(window.start + window.first, next);
        if (i > 0) assert_true(window.first >= length - stride);
        next = window.start + window.n;
    }
    assert_int_equal(next, targets);
}

static void test_windows_cover_each_target_once(void **state) {
    (void)state;
    for (uint64_t length = 1; length <= 9; length++)
        for (uint64_t stride = 1; stride <= length; stride++)
            for (uint64_t targets = 1; targets < 40; targets++)
                check_windows(targets, length, stride);
    const struct windows empty = {.length = 8, .stride = 8};
    assert_int_equal(windows_count(&empty), 0);
}

/* As record 993 has it: for start in 0, stride, 2 stride, ... below the targets; each scores its
 * last `stride`, the first all. */
static void check_faithful(uint64_t targets, uint64_t length, uint64_t stride) {
    const struct windows windows = {targets, length, stride, true};
    uint64_t i = 0, next = 0;
    for (uint64_t start = 0; start < targets; start += stride, i++) {
        const struct window window = windows_get(&windows, i);
        const uint64_t end = start + length < targets ? start + length : targets;
        assert_int_equal(window.start, start);
        assert_int_equal(window.n, end - start);
        const uint64_t scored = i == 0 || window.n < stride ? window.n : stride;
        assert_int_equal(window.n - window.first, scored);
        assert_true(window.start + window.first <= next); /* nothing is skipped */
        next = end;
    }
    assert_int_equal(windows_count(&windows), i);
    assert_int_equal(next, targets);
}

static void test_faithful_windows(void **state) {
    (void)state;
    for (uint64_t length = 1; length <= 9; length++)
        for (uint64_t stride = 1; stride <= length; stride++)
            for (uint64_t targets = 1; targets < 40; targets++)
                check_faithful(targets, length, stride);
}

static void test_parts_begin_where_ranks_do(void **state) {
    (void)state;
    for (uint64_t targets = 1; targets < 30; targets++)
        for (uint64_t parts = 1; parts < 40; parts++) {
            const struct windows windows = {.targets = targets, .length = 1, .stride = 1};
            for (uint64_t i = 0; i < targets; i++) {
                bool begins = false;
                for (uint64_t r = 0; r < parts; r++) begins |= targets * r / parts == i;
                assert_true(windows_begin_part(&windows, parts, i) == begins);
            }
        }
}

static void test_schedule_by_steps(void **state) {
    (void)state;
    const struct schedule s = {.steps = 100, .warmup_steps = 10, .warmdown_steps = 20};
    assert_true(schedule_scale(&s, 0, 0) == 0.1);
    assert_true(schedule_scale(&s, 9, 1) == 1);
    assert_true(schedule_scale(&s, 80, 1) == 1);
    assert_true(fabs(schedule_scale(&s, 90, 1) - 0.5) < 1e-12);
    assert_true(fabs(schedule_scale(&s, 99, 1) - 0.05) < 1e-12);
    assert_false(schedule_done(&s, 99, 1e9));
    assert_true(schedule_done(&s, 100, 0));
}

static void test_schedule_by_seconds(void **state) {
    (void)state;
    const struct schedule s = {.seconds = 100, .warmdown_steps = 50};
    assert_true(schedule_scale(&s, 0, 0) == 1);
    assert_true(schedule_scale(&s, 50, 50) == 1); /* 1 s a step: 50 s of warmdown left */
    assert_true(fabs(schedule_scale(&s, 75, 75) - 0.5) < 1e-12);
    assert_true(schedule_scale(&s, 101, 101) == 0);
    assert_false(schedule_done(&s, 1000000, 99.9));
    assert_true(schedule_done(&s, 1, 100));
}

static void test_rows_sum_to_one(void **state) {
    (void)state;
    enum { N = 5, V = 301 };
    float l[N * V];
    test_random random = {3};
    for (int i = 0; i < N * V; i++) l[i] = (float)(8 * test_normal(&random));
    struct rows rows;
    assert_int_equal(rows_create(N, V, &rows, &error), FW_OK);
    assert_int_equal(rows_form(&rows, test_host(NULL), l, N, 1, &error), FW_OK);
    for (int r = 0; r < N; r++) {
        double sum = 0, normaliser = 0, entropy = 0;
        for (int v = 0; v < V; v++) normaliser += exp((double)l[r * V + v]);
        for (int v = 0; v < V; v++) {
            const double p = exp((double)l[r * V + v]) / normaliser;
            assert_true(fabs(rows.probabilities[r * V + v] - p) < 1e-14);
            sum += rows.probabilities[r * V + v];
            entropy -= p * log(p);
        }
        assert_true(fabs(sum - 1) < 1e-12);
        assert_true(fabs(rows.entropy[r] - entropy) < 1e-9);
        assert_true(fabs(rows.log_normaliser[r] - log(normaliser)) < 1e-12);
    }
    l[V] = NAN;
    assert_int_equal(rows_form(&rows, test_host(NULL), l, N, 0, &error), FW_E_NUMERIC);
    rows_free(&rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ledger_adds_up),
        cmocka_unit_test(test_ledger_refuses_a_second_score),
        cmocka_unit_test(test_ledger_of_repeats),
        cmocka_unit_test(test_faithful_windows),
        cmocka_unit_test(test_parts_begin_where_ranks_do),
        cmocka_unit_test(test_windows_cover_each_target_once),
        cmocka_unit_test(test_schedule_by_steps),
        cmocka_unit_test(test_schedule_by_seconds),
        cmocka_unit_test(test_rows_sum_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
