/* Student's tail against Simpson integration of its density in double, and against closed forms;
 * Welch's test against a hand calculation, invariances and cases without variance. */
#include <math.h>

#include "statistics.h"
#include "support.h"

#define assert_near(value, expected, tolerance)                                                    \
    check_near(__FILE__, __LINE__, (value), (expected), (tolerance))

static void check_near(const char *file, int line, double value, double expected,
                       double tolerance) {
    if (fabs(value - expected) <= tolerance) return;
    print_error("%s:%d: %.17g instead of %.17g (tolerance %g)\n", file, line, value, expected,
                tolerance);
    fail();
}

static double density(double x, double df) {
    return exp(lgamma((df + 1) / 2) - lgamma(df / 2) - (df + 1) / 2 * log1p(x * x / df)) /
           sqrt(df * acos(-1.0));
}

/* P(T >= t), t >= 0, as an integral over u = 1 / (1 + x), whose range is finite. */
static double tail_by_simpson(double t, double df) {
    enum { N = 200000 };
    const double end = 1 / (1 + t), h = end / N;
    double sum = 0;
    for (int i = 0; i <= N; i++) {
        const double u = i * h;
        const double value = i == 0 ? 0 : density(1 / u - 1, df) / (u * u);
        sum += value * (i == 0 || i == N ? 1 : i % 2 == 1 ? 4 : 2);
    }
    return sum * h / 3;
}

static void tail_by_integration(void **state) {
    (void)state;
    static const double dfs[] = {1.5, 2, 2.718, 3.9, 4, 7.5, 30, 200};
    static const double ts[] = {0, 0.01, 0.5, 1, 2.5, 6.9646, 12, 40};
    for (size_t i = 0; i < sizeof dfs / sizeof dfs[0]; i++)
        for (size_t j = 0; j < sizeof ts / sizeof ts[0]; j++) {
            const double expected = tail_by_simpson(ts[j], dfs[i]);
            assert_near(student_upper(ts[j], dfs[i]), expected, 1e-10 + 1e-8 * expected);
            assert_near(student_upper(-ts[j], dfs[i]), 1 - expected, 1e-9);
        }
}

/* One degree of freedom is Cauchy's distribution, two have a closed form, many are normal. */
static void tail_by_closed_forms(void **state) {
    (void)state;
    for (double t = -50; t <= 50; t += 0.37) {
        assert_near(student_upper(t, 1), 0.5 - atan(t) / acos(-1.0), 1e-14);
        const double two =
            t > 0 ? 1 / ((t * t + 2) * (1 + t / sqrt(t * t + 2))) : 0.5 - t / (2 * sqrt(t * t + 2));
        assert_near(student_upper(t, 2), two, 1e-14);
        assert_near(student_upper(t, 1e6), 0.5 * erfc(t / sqrt(2.0)), 1e-6);
    }
    assert_near(student_upper(6.964556734283582, 2), 0.01, 1e-15);
    assert_true(student_upper(1e3, 4) > 0 && student_upper(1e3, 4) < 1e-11);
    assert_near(student_upper(1e150, 4), 0, 0);
    assert_true(student_upper(INFINITY, 3) == 0 && student_upper(-INFINITY, 3) == 1);
    assert_true(isnan(student_upper(NAN, 3)));
}

static void incomplete_beta_identities(void **state) {
    (void)state;
    for (double x = 0.05; x < 1; x += 0.05)
        for (double a = 0.5; a < 40; a *= 1.7) {
            assert_near(incomplete_beta(a, 1, x), pow(x, a), 1e-14);
            assert_near(incomplete_beta(1, a, x), 1 - pow(1 - x, a), 1e-14);
            assert_near(incomplete_beta(a, 2.3, x) + incomplete_beta(2.3, a, 1 - x), 1, 1e-13);
        }
    assert_true(incomplete_beta(2, 3, 0) == 0 && incomplete_beta(2, 3, 1) == 1);
}

static void means_and_deviations(void **state) {
    (void)state;
    const double values[] = {2, 4, 4, 4, 5, 5, 7, 9};
    assert_near(statistics_mean(values, 8), 5, 0);
    assert_near(statistics_deviation(values, 8), sqrt(32.0 / 7), 1e-15);
    const double equal[] = {0.1, 0.1, 0.1};
    assert_true(statistics_mean(equal, 3) == 0.1);
    assert_true(statistics_deviation(equal, 3) == 0);
    assert_true(isnan(statistics_deviation(values, 1)));
    assert_true(isnan(statistics_mean(values, 0)));
    /* A large common offset costs no digits. */
    const double offset[] = {1e9 + 1, 1e9 + 2, 1e9 + 3};
    assert_near(statistics_deviation(offset, 3), 1, 1e-9);
}

/* Means 3 and 6, variances 1 and 4 of 3 and 4 values: v = 1/3 + 1 = 4/3,
 * df = (16/9) / (1/9/2 + 1/3) = 32/7, t = (3 - 1) / sqrt(4/3). */
static void welch_by_hand(void **state) {
    (void)state;
    const double a[] = {2, 3, 4};
    const double r = sqrt(6.0);
    const double b[] = {6 - r, 6 + r, 6, 6}; /* sum of squares 12, variance 4 */
    struct welch w;
    assert_true(welch_test(a, 3, b, 4, 1, &w));
    assert_near(w.difference, -3, 1e-15);
    assert_near(w.df, 32.0 / 7, 1e-13);
    assert_near(w.t, sqrt(3.0), 1e-14);
    assert_near(w.p, tail_by_simpson(sqrt(3.0), 32.0 / 7), 1e-9);
    struct welch reverse; /* with the sign of the margin turned, the other tail */
    assert_true(welch_test(b, 4, a, 3, -1, &reverse));
    assert_near(reverse.p, 1 - w.p, 1e-14);
    assert_true(welch_test(a, 3, b, 4, 3, &w)); /* exactly on the margin */
    assert_near(w.p, 0.5, 1e-14);
}

/* The record's own three seeds: 0.005 nats below themselves is what must be shown. */
static void welch_of_a_record(void **state) {
    (void)state;
    const double before[] = {1.12124241, 1.12125743, 1.12043283};
    double after[3];
    struct welch w;
    assert_true(welch_test(before, 3, before, 3, 0.005, &w));
    assert_true(w.p > 0.99 && w.difference == 0);
    for (int i = 0; i < 3; i++) after[i] = before[i] - 0.005;
    assert_true(welch_test(after, 3, before, 3, 0.005, &w));
    assert_near(w.p, 0.5, 1e-9);
    for (int i = 0; i < 3; i++) after[i] = before[i] - 0.008;
    assert_true(welch_test(after, 3, before, 3, 0.005, &w));
    assert_near(w.df, 4, 1e-9); /* equal variances and sizes */
    assert_near(w.p, tail_by_simpson(w.t, 4), 1e-9);
    assert_true(w.p < 0.01);
}

static void no_variance(void **state) {
    (void)state;
    const double low[] = {1.1, 1.1, 1.1}, high[] = {1.2, 1.2}, near_high[] = {1.2, 1.21};
    struct welch w;
    assert_true(welch_test(low, 3, high, 2, 0.005, &w));
    assert_true(w.p == 0 && !isnan(w.t) && fabs(w.difference + 0.1) < 1e-15);
    assert_true(welch_test(high, 2, low, 3, 0.005, &w));
    assert_true(w.p == 1 && !isnan(w.t));
    assert_true(welch_test(high, 2, high, 2, 0, &w)); /* not lower by more than nothing */
    assert_true(w.p == 1 && w.difference == 0);
    assert_true(welch_test(high, 2, high, 2, 0.005, &w));
    assert_true(w.p == 1);
    assert_true(welch_test(low, 3, near_high, 2, 0.005, &w)); /* one side alone */
    assert_true(w.p > 0 && w.p < 0.05);
    assert_near(w.df, 1, 1e-12);
}

static void too_few(void **state) {
    (void)state;
    const double a[] = {1, 2}, b[] = {3};
    struct welch w = {.p = -1};
    assert_false(welch_test(a, 2, b, 1, 0, &w));
    assert_near(w.difference, -1.5, 0);
    assert_false(welch_test(b, 1, a, 2, 0, &w));
    assert_near(w.difference, 1.5, 0);
    assert_true(w.p == -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tail_by_integration),
        cmocka_unit_test(tail_by_closed_forms),
        cmocka_unit_test(incomplete_beta_identities),
        cmocka_unit_test(means_and_deviations),
        cmocka_unit_test(welch_by_hand),
        cmocka_unit_test(welch_of_a_record),
        cmocka_unit_test(no_variance),
        cmocka_unit_test(too_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
