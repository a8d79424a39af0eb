/* Frequencies: the rule itself, sums, order, and rows at the edge of what numbers can say. */
#include "support.h"

#include <math.h>

#include "frequencies.h"

enum { MOST = FREQUENCY_MOST_TOKENS };

static fw_error error = {.struct_size = sizeof error};
static double row[MOST];
static uint64_t cumulative[MOST + 1];

static uint64_t frequency(uint32_t v) { return cumulative[v + 1] - cumulative[v]; }

/* The sum is exact, nobody is left out, and order is kept. */
static void check(uint32_t n) {
    assert_int_equal(frequencies_form(row, n, cumulative, &error), FW_OK);
    assert_int_equal(cumulative[0], 0);
    assert_true(cumulative[n] == FREQUENCY_TOTAL);
    uint64_t sum = 0;
    for (uint32_t v = 0; v < n; v++) {
        assert_true(cumulative[v] < cumulative[v + 1]);
        sum += frequency(v);
    }
    assert_true(sum == FREQUENCY_TOTAL);
    for (uint32_t v = 1; v < n; v++) {
        if (row[v] > row[v - 1]) assert_true(frequency(v) >= frequency(v - 1));
        if (row[v] < row[v - 1]) assert_true(frequency(v) <= frequency(v - 1));
    }
}

static void test_the_rule(void **state) {
    (void)state;
    const double p[] = {0.5, 0.25, 0.125, 0.125};
    memcpy(row, p, sizeof p);
    check(4); /* shares of 2^32 - 4 and one more each, which leaves one for the first */
    assert_true(frequency(0) == UINT64_C(2147483648) && frequency(1) == 1073741824);
    assert_true(frequency(2) == 536870912 && frequency(3) == 536870912);
    const double thirds[] = {1.0, 1.0, 1.0};
    memcpy(row, thirds, sizeof thirds);
    check(3); /* 4294967293 / 3 = 1431655764.33: the first of equals takes what is missing */
    assert_true(frequency(0) == 1431655766 && frequency(1) == 1431655765);
    assert_true(frequency(2) == 1431655765);
    const double last[] = {0.2, 0.2, 0.6};
    memcpy(row, last, sizeof last);
    check(3);
    assert_true(frequency(0) == 858993459 && frequency(1) == 858993459);
    assert_true(frequency(2) == FREQUENCY_TOTAL - 2 * UINT64_C(858993459));
}

static void test_single_and_uniform_rows(void **state) {
    (void)state;
    row[0] = 1;
    check(1);
    for (uint32_t n = 2; n <= MOST; n = n < 300 ? n + 7 : n * 2) {
        for (uint32_t v = 0; v < n; v++) row[v] = 1.0 / n;
        check(n);
        assert_true(frequency(n - 1) + 1 >= FREQUENCY_TOTAL / n);
    }
    for (uint32_t v = 0; v < MOST; v++) row[v] = 1.0 / MOST;
    check(MOST);
    for (uint32_t v = 0; v < MOST; v++) assert_true(frequency(v) == FREQUENCY_TOTAL / MOST);
}

static void test_extreme_rows(void **state) {
    (void)state;
    for (uint32_t sure = 0; sure < 1024; sure += 341) {
        for (uint32_t v = 0; v < 1024; v++) row[v] = v == sure ? 1 : 0;
        check(1024);
        assert_true(frequency(sure) == FREQUENCY_TOTAL - 1023);
        for (uint32_t v = 0; v < 1024; v++) row[v] = v == sure ? 1 : 1e-300;
        check(1024);
        for (uint32_t v = 0; v < 1024; v++) row[v] = v == sure ? 5e-324 : 0;
        check(1024);
        assert_true(frequency(sure) == FREQUENCY_TOTAL - 1023);
    }
    for (uint32_t v = 0; v < MOST; v++) row[v] = 5e-324;
    check(MOST);
    for (uint32_t v = 0; v < MOST; v++) row[v] = 1e303; /* adds up to less than infinity */
    check(MOST);
    for (uint32_t v = 0; v < MOST; v++) row[v] = ldexp(1, -(int)(v % 1000));
    check(MOST);
}

/* Whatever rounding does, the floors never exceed their share and the code loses next to nothing.
 */
static void test_random_rows(void **state) {
    (void)state;
    static const uint32_t sizes[] = {2, 3, 37, 256, 1000, 1024, 8192, 65521, 65536};
    test_random random = {.state = 5};
    for (int round = 0; round < 60; round++) {
        const uint32_t n = sizes[(size_t)round % (sizeof sizes / sizeof sizes[0])];
        const double spread = 30 * test_uniform(&random);
        double sum = 0, lost = 0;
        for (uint32_t v = 0; v < n; v++) sum += row[v] = exp(spread * test_normal(&random));
        check(n);
        for (uint32_t v = 0; v < n; v++)
            if (row[v] > 0)
                lost += row[v] / sum * log2(row[v] / sum * 0x1p32 / (double)frequency(v));
        assert_true(lost < 2e-4); /* bits a token; n / 2^32 / ln 2 is 2.2e-5 for 65,536 */
    }
}

static void test_refusals(void **state) {
    (void)state;
    row[0] = row[1] = 0.5;
    assert_int_equal(frequencies_form(row, 0, cumulative, &error), FW_E_RANGE);
    assert_int_equal(frequencies_form(row, MOST + 1, cumulative, &error), FW_E_RANGE);
    const double bad[] = {NAN, -1e-9, INFINITY, -INFINITY};
    for (size_t i = 0; i < 4; i++) {
        row[1] = bad[i];
        assert_int_equal(frequencies_form(row, 2, cumulative, &error), FW_E_NUMERIC);
        assert_non_null(strstr(error.message, "token 1"));
    }
    row[0] = row[1] = 0;
    assert_int_equal(frequencies_form(row, 2, cumulative, &error), FW_E_NUMERIC);
    row[0] = row[1] = 1.5e308;
    assert_int_equal(frequencies_form(row, 2, cumulative, &error), FW_E_NUMERIC);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rule),     cmocka_unit_test(test_single_and_uniform_rows),
        cmocka_unit_test(test_extreme_rows), cmocka_unit_test(test_random_rows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
