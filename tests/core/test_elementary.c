/* The exponential and the logarithm of scores: within one unit in the last place of libm's in long
 * double, the same bits whichever way this machine computes them, and the same bits as everywhere.
 */
#include "elementary.h"

#include <float.h>
#include <math.h>

#include "support.h"

enum { N = 4096, ROUNDS = 50 };

/* How far `value` lies from `exact`, in units of the last place of a double near it. */
static double units_off(double value, long double exact) {
    int exponent = 0;
    (void)frexpl(exact, &exponent);
    return (double)(fabsl((long double)value - exact) / ldexpl(1, exponent - 53));
}

/* Values between 0 and `end`, whose distance from 0 is spread over `octaves` powers of two. */
static double spread(test_random *random, double end, double octaves) {
    return end * exp2(-octaves * test_uniform(random)) * test_uniform(random);
}

static void test_exp_is_accurate(void **state) {
    (void)state;
    static const double ends[] = {-708, -20, 709};
    test_random random = {1};
    static float x[N];
    static double y[N];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N; i++) x[i] = (float)spread(&random, ends[round % 3], 30.0 * (i & 1));
        elementary_rows()->exp(x, N, y);
        for (int i = 0; i < N; i++) {
            const double off = units_off(y[i], expl((long double)x[i]));
            if (!(off < 1)) fail_msg("exp(%.9g) is off by %.3f units", (double)x[i], off);
        }
    }
}

static void test_exp_limits(void **state) {
    (void)state;
    const float x[] = {0,   -0.0F,  -708,  -708.1F, -1e30F,   -INFINITY, INFINITY,
                       NAN, 709.5F, 1e30F, 1e-40F,  -FLT_MIN, 709,       -0x1p-149F};
    double y[sizeof x / sizeof *x];
    elementary_rows()->exp(x, sizeof x / sizeof *x, y);
    assert_true(y[0] == 1 && y[1] == 1 && y[10] == 1 && y[11] == 1 && y[13] == 1);
    assert_true(units_off(y[2], expl(-708)) < 1 && units_off(y[12], expl(709)) < 1);
    assert_true(y[3] == 0 && y[4] == 0 && y[5] == 0);
    assert_true(isinf(y[6]) && isnan(y[7]) && isinf(y[8]) && isinf(y[9]));
}

static double lane_sum(const double *y, const float *x, uint32_t n) {
    double lanes[16] = {0}, sum = 0;
    for (uint32_t i = 0; i < n; i++) lanes[i % 16] += x != NULL ? y[i] * (double)x[i] : y[i];
    for (uint32_t k = 0; k < 16; k++) sum += lanes[k];
    return sum;
}

static void compare_ways(const float *x, uint32_t n) {
    enum { MOST = 101 };
    double first[MOST] = {0}, other[MOST] = {0};
    uint32_t n_ways = 0;
    const struct elementary_rows *ways = elementary_all(&n_ways);
    assert_in_range(n_ways, 1, 3);
    first[n] = other[n] = 42;
    for (uint32_t way = 0; way < n_ways; way++) {
        double *y = way == 0 ? first : other;
        ways[way].exp(x, n, y);
        const double sum = lane_sum(y, NULL, n), dot = lane_sum(y, x, n);
        assert_true(ways[way].sum(y, n) == sum || isnan(sum));
        assert_true(ways[way].dot(y, x, n) == dot || isnan(dot));
        ways[way].scale(y, n, 1 / 3.0);
        assert_memory_equal(first, y, (n + 1) * sizeof *first);
    }
}

/* Every length, so that the ends of vectors differ; one value out of range in some of them. */
static void test_ways_agree(void **state) {
    (void)state;
    test_random random = {2};
    float x[100];
    for (uint32_t n = 0; n <= 100; n++) {
        for (uint32_t i = 0; i < n; i++) x[i] = (float)spread(&random, n % 2 ? -700 : -3, 12);
        if (n % 5 == 4) x[n / 2] = n % 2 ? -INFINITY : 800.0F;
        compare_ways(x, n);
    }
}

static void test_log_is_accurate(void **state) {
    (void)state;
    test_random random = {3};
    for (int i = 0; i < N * ROUNDS; i++) {
        const double from_one = spread(&random, 0.5, 50), sign = i & 2 ? 1 : -1;
        const double x = i & 1 ? 1 + sign * from_one : exp2(2098 * test_uniform(&random) - 1074);
        const double y = elementary_log(x);
        if (x == 1 || isinf(x) || x == 0) continue;
        const double off = units_off(y, logl((long double)x));
        if (!(off < 1)) fail_msg("log(%.17g) is off by %.3f units", x, off);
    }
}

static void test_log_limits(void **state) {
    (void)state;
    assert_true(elementary_log(1) == 0);
    assert_true(isinf(elementary_log(0)) && elementary_log(0) < 0);
    assert_true(isinf(elementary_log(-0.0)) && elementary_log(-0.0) < 0);
    assert_true(isnan(elementary_log(-1)) && isnan(elementary_log(NAN)));
    assert_true(isnan(elementary_log(-(double)INFINITY)));
    assert_true(elementary_log((double)INFINITY) > 1e308);
    assert_true(units_off(elementary_log(0x1p-1074), logl(0x1p-1074L)) < 1);
    assert_true(units_off(elementary_log(DBL_MAX), logl((long double)DBL_MAX)) < 1);
}

static uint64_t mix(uint64_t hash, double value) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * UINT64_C(1099511628211);
    return hash ^ hash >> 29;
}

/* What a score means rests on these bits. The hashes come from the same formulas in exact rational
 * arithmetic, each operation rounded once. */
static void test_bits_are_pinned(void **state) {
    (void)state;
    static float x[N];
    static double y[N];
    for (int i = 0; i < N; i++) x[i] = -(float)i * 0x1.234567p-8F;
    elementary_rows()->exp(x, N, y);
    uint64_t of_exp = 1, of_log = 1;
    for (int i = 0; i < N; i++) {
        of_exp = mix(of_exp, y[i]);
        of_log = mix(of_log, elementary_log((i + 1) * 0x1.0fedcba987654p-9));
    }
    assert_int_equal(of_exp, UINT64_C(0x9e2d7c5a23faed6a));
    assert_int_equal(of_log, UINT64_C(0x54c1407d9cd2ec57));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_is_accurate), cmocka_unit_test(test_exp_limits),
        cmocka_unit_test(test_ways_agree),      cmocka_unit_test(test_log_is_accurate),
        cmocka_unit_test(test_log_limits),      cmocka_unit_test(test_bits_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
