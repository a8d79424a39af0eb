/* The host's check of what caches state: each form gives the probability of its formula, the whole
 * distribution agrees with it bit for bit, and each violation is refused with a sentence. */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "prediction.h"
#include "support.h"

enum { V = 8, POSITION = 41 };

static const double row_values[V] = {0.30, 0.25, 0.20, 0.10, 0.08, 0.04, 0.02, 0.01};
static const fw_row row = {.struct_size = sizeof row,
                           .vocabulary = V,
                           .position = POSITION,
                           .probabilities = row_values,
                           .entropy = -1};

static struct prediction_buffers *buffers;
static fw_prediction prediction;
static fw_error error = {.struct_size = sizeof error};

static int setup(void **state) {
    (void)state;
    buffers = prediction_buffers_create(V);
    prediction_prepare(buffers, &prediction);
    return buffers == NULL;
}

static int teardown(void **state) {
    (void)state;
    prediction_buffers_destroy(buffers);
    return 0;
}

static void state_list(uint32_t form, double weight, uint32_t n, const uint32_t *tokens,
                       const double *values) {
    prediction_prepare(buffers, &prediction);
    prediction.form = form;
    prediction.lm_weight = weight;
    prediction.n = n;
    for (uint32_t i = 0; i < n; i++) {
        prediction.tokens[i] = tokens[i];
        prediction.values[i] = values[i];
    }
}

static double probability_of(uint32_t target) {
    double probability = -1;
    if (prediction_probability(buffers, &row, &prediction, target, &probability, &error) != FW_OK)
        fail_msg("token %u: %s", target, error.message);
    return probability;
}

/* `expected` within 1e-15 each, the same bits from both functions, and a sum of one. */
static void expect_distribution(const double *expected) {
    double full[V], sum = 0;
    if (prediction_full(buffers, &row, &prediction, full, &error) != FW_OK)
        fail_msg("%s", error.message);
    for (uint32_t v = 0; v < V; v++) {
        const double single = probability_of(v);
        assert_memory_equal(&single, &full[v], sizeof single);
        assert_true(fabs(single - expected[v]) < 1e-15);
        sum += single;
    }
    assert_true(fabs(sum - 1) < 1e-14);
}

/* Both functions refuse with E_PROTOCOL, name the position and `words`, and leave outputs alone. */
static void expect_refused(const char *words) {
    double probability = -1, full[V] = {-1, -1, -1, -1, -1, -1, -1, -1};
    assert_int_equal(prediction_full(buffers, &row, &prediction, full, &error), FW_E_PROTOCOL);
    assert_true(full[0] == -1 && full[V - 1] == -1);
    assert_int_equal(prediction_probability(buffers, &row, &prediction, 2, &probability, &error),
                     FW_E_PROTOCOL);
    assert_true(probability == -1);
    if (strstr(error.message, "position 41") == NULL || strstr(error.message, words) == NULL)
        fail_msg("'%s' does not say 'position 41' and '%s'", error.message, words);
    assert_int_equal(prediction_probability(buffers, &row, &prediction, 2, &probability, NULL),
                     FW_E_PROTOCOL);
}

static void expect_list_refused(uint32_t form, double weight, uint32_t n, const uint32_t *tokens,
                                const double *values, const char *words) {
    state_list(form, weight, n, tokens, values);
    expect_refused(words);
}

static void test_mix(void **state) {
    (void)state;
    state_list(FW_PREDICT_MIX, 0.5, 2, (uint32_t[]){3, 0}, (double[]){0.4, 0.1});
    double expected[V];
    for (uint32_t v = 0; v < V; v++) expected[v] = 0.5 * row_values[v];
    expected[3] += 0.4;
    expected[0] += 0.1;
    expect_distribution(expected);
}

static void test_mix_of_nothing_is_the_row(void **state) {
    (void)state;
    state_list(FW_PREDICT_MIX, 1.0, 0, NULL, NULL);
    for (uint32_t v = 0; v < V; v++) assert_true(probability_of(v) == row_values[v]);
    expect_distribution(row_values);
}

static void test_mix_with_negative_mass(void **state) {
    (void)state;
    state_list(FW_PREDICT_MIX, 1.1, 2, (uint32_t[]){0, 1}, (double[]){0.05, -0.15});
    double expected[V];
    for (uint32_t v = 0; v < V; v++) expected[v] = 1.1 * row_values[v];
    expected[0] += 0.05;
    expected[1] -= 0.15;
    expect_distribution(expected);
}

static void test_mix_is_divided_by_its_sum(void **state) {
    (void)state;
    state_list(FW_PREDICT_MIX, 0.5, 1, (uint32_t[]){4}, (double[]){0.5 + 9e-7});
    double expected[V];
    for (uint32_t v = 0; v < V; v++) expected[v] = 0.5 * row_values[v] / (1 + 9e-7);
    expected[4] = (0.5 * row_values[4] + 0.5 + 9e-7) / (1 + 9e-7);
    expect_distribution(expected);
}

static void test_mix_accepts_tiny_masses(void **state) {
    (void)state;
    state_list(FW_PREDICT_MIX, 1.0, 2, (uint32_t[]){6, 7}, (double[]){0.0, DBL_MIN});
    expect_distribution(row_values);
}

static void test_mix_without_model(void **state) {
    (void)state;
    const uint32_t tokens[] = {0, 1, 2, 3, 4, 5, 6, 7};
    const double masses[] = {0.5, 0.1, 0.1, 0.1, 0.1, 0.05, 0.04, 0.01};
    state_list(FW_PREDICT_MIX, 0.0, 8, tokens, masses);
    expect_distribution(masses);

    /* An unlisted token has probability 0: stated, but it cannot be scored. */
    state_list(FW_PREDICT_MIX, 0.0, 2, tokens, (double[]){0.5, 0.5});
    double full[V], probability = -1;
    assert_int_equal(prediction_full(buffers, &row, &prediction, full, &error), FW_OK);
    assert_true(full[0] == 0.5 && full[7] == 0);
    assert_true(probability_of(1) == 0.5);
    assert_int_equal(prediction_probability(buffers, &row, &prediction, 7, &probability, &error),
                     FW_E_PROTOCOL);
    assert_non_null(strstr(error.message, "token 7"));
    assert_true(probability == -1);
}

static void test_mix_violations(void **state) {
    (void)state;
    const uint32_t pair[] = {1, 2}, twice[] = {5, 5}, high[] = {1, V};
    const double half[] = {0.25, 0.25};
    const uint32_t form = FW_PREDICT_MIX;
    expect_list_refused(form, 0.5, 2, twice, half, "token 5 twice");
    expect_list_refused(form, 0.5, 2, high, half, "token 8");
    state_list(form, 0.5, 2, pair, half);
    prediction.n = V + 1;
    expect_refused("9 tokens");
    prediction.n = UINT32_MAX;
    expect_refused("4294967295 tokens");
    expect_list_refused(form, 0.5 + 2e-6, 2, pair, half, "sum to 1.000002");
    expect_list_refused(form, 0.5 - 2e-6, 2, pair, half, "sum to 0.999998");
    expect_list_refused(form, NAN, 2, pair, half, "lm_weight");
    expect_list_refused(form, INFINITY, 2, pair, half, "lm_weight");
    expect_list_refused(form, -0.5, 2, pair, (double[]){0.75, 0.75}, "lm_weight is -0.5");
    expect_list_refused(form, 0.5, 2, pair, (double[]){0.25, NAN}, "mass of token 2 is");
    expect_list_refused(form, 0.5, 2, pair, (double[]){INFINITY, 0.25}, "mass of token 1 is inf");
    expect_list_refused(form, 0.5, 2, pair, (double[]){INFINITY, -INFINITY}, "token 1 is inf");
    expect_list_refused(form, 0.5, 2, pair, (double[]){DBL_MAX, DBL_MAX}, "too large");
    expect_list_refused(form, 0.5, 2, pair, (double[]){0.65, -0.15}, "leaves token 2");
    expect_list_refused(form, 1.25, 1, pair, (double[]){-0.25 * 1.25}, "sum to");
    expect_list_refused(form, 0.0, 2, pair, (double[]){1.0, 1e-13}, "leaves token 2");
}

/* Exactly at the floor is allowed; the mass is picked so that the remainder is exact. */
static void test_mix_floor(void **state) {
    (void)state;
    const double exact[V] = {0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.0078125};
    const fw_row binary = {.struct_size = sizeof binary,
                           .vocabulary = V,
                           .position = POSITION,
                           .probabilities = exact};
    double probability = -1;
    state_list(FW_PREDICT_MIX, 1.0, 2, (uint32_t[]){1, 0},
               (double[]){-(0.25 - 0x1p-39), 0.25 - 0x1p-39}); /* 2^-39 is above 1e-12 */
    assert_int_equal(prediction_probability(buffers, &binary, &prediction, 1, &probability, &error),
                     FW_OK);
    assert_true(probability == 0x1p-39);
    state_list(FW_PREDICT_MIX, 1.0, 2, (uint32_t[]){1, 0},
               (double[]){-(0.25 - 0x1p-40), 0.25 - 0x1p-40}); /* 2^-40 is below */
    assert_int_equal(prediction_probability(buffers, &binary, &prediction, 0, &probability, &error),
                     FW_E_PROTOCOL);
}

static void test_tilt(void **state) {
    (void)state;
    state_list(FW_PREDICT_TILT, 0, 3, (uint32_t[]){2, 7, 0}, (double[]){3.0, 0.0, 0.5});
    const double Z = 1 + 0.20 * 2 - 0.01 - 0.30 * 0.5;
    double expected[V];
    for (uint32_t v = 0; v < V; v++) expected[v] = row_values[v] / Z;
    expected[2] = 0.60 / Z;
    expected[0] = 0.15 / Z;
    expected[7] = 0;
    double full[V], sum = 0, probability = -1;
    assert_int_equal(prediction_full(buffers, &row, &prediction, full, &error), FW_OK);
    for (uint32_t v = 0; v < V; v++) {
        assert_true(fabs(full[v] - expected[v]) < 1e-15);
        if (v != 7) assert_true(probability_of(v) == full[v]);
        sum += full[v];
    }
    assert_true(fabs(sum - 1) < 1e-14);
    assert_int_equal(prediction_probability(buffers, &row, &prediction, 7, &probability, &error),
                     FW_E_PROTOCOL);
}

static void test_tilt_of_nothing_is_the_row(void **state) {
    (void)state;
    state_list(FW_PREDICT_TILT, 0, 0, NULL, NULL);
    expect_distribution(row_values);
}

static void test_tilt_violations(void **state) {
    (void)state;
    const uint32_t pair[] = {1, 2}, all[] = {0, 1, 2, 3, 4, 5, 6, 7};
    const uint32_t form = FW_PREDICT_TILT;
    const double zeros[V] = {0};
    expect_list_refused(form, 0, 2, (uint32_t[]){4, 4}, (double[]){1, 1}, "token 4 twice");
    expect_list_refused(form, 0, 2, (uint32_t[]){4, 99}, (double[]){1, 1}, "token 99");
    expect_list_refused(form, 0, 2, pair, (double[]){1, NAN}, "gain of token 2 is");
    expect_list_refused(form, 0, 2, pair, (double[]){INFINITY, 1}, "gain of token 1 is inf");
    expect_list_refused(form, 0, 2, pair, (double[]){-1e-9, 1}, "must not be negative");
    expect_list_refused(form, 0, 2, pair, (double[]){DBL_MAX, DBL_MAX}, "too large");
    expect_list_refused(form, 0, V, all, zeros, "1e-6 or more");
}

static void test_dense(void **state) {
    (void)state;
    prediction.form = FW_PREDICT_DENSE;
    for (uint32_t v = 0; v < V; v++) prediction.dense[v] = 0.125 + (v % 2 == 0 ? 1e-8 : 0.0);
    double expected[V];
    for (uint32_t v = 0; v < V; v++) expected[v] = prediction.dense[v] / (1 + 4e-8);
    expect_distribution(expected);
}

static void refuse_dense(uint32_t at, double value, double other, const char *words) {
    prediction_prepare(buffers, &prediction);
    prediction.form = FW_PREDICT_DENSE;
    for (uint32_t v = 0; v < V; v++) prediction.dense[v] = 0.125;
    prediction.dense[at] = value;
    prediction.dense[0] = other;
    expect_refused(words);
}

static void test_dense_violations(void **state) {
    (void)state;
    refuse_dense(3, NAN, 0.125, "token 3");
    refuse_dense(3, INFINITY, 0.125, "token 3");
    refuse_dense(3, -1e-9, 0.25, "token 3 is -1e-09");
    refuse_dense(3, 0.125 + 2e-6, 0.125, "sum to 1.000002");
    refuse_dense(3, 1.25, -1.0, "[0, 1]");
}

static double half_for_two(void *self, const fw_row *at, uint32_t token) {
    assert_ptr_equal(self, &row_values);
    assert_int_equal(at->position, POSITION);
    switch (token) {
    case 0: return 2.0;
    case 1: return 0.0;
    case 2: return 0.5;
    case 3: return -INFINITY;
    default: return 0.25;
    }
}

static double not_a_number(void *self, const fw_row *at, uint32_t token) {
    (void)self, (void)at, (void)token;
    return NAN;
}

static void test_unverified(void **state) {
    (void)state;
    prediction.form = FW_PREDICT_UNVERIFIED;
    prediction.probability = half_for_two;
    buffers->cache = (void *)(uintptr_t)&row_values;
    double probability = -1, full[V];
    assert_int_equal(prediction_probability(buffers, &row, &prediction, 2, &probability, &error),
                     FW_E_PROTOCOL);
    assert_non_null(strstr(error.message, "on_violation"));
    buffers->allow_unverified = true;
    const double expected[V] = {1.0, 1e-12, 0.5, 1e-12, 0.25, 0.25, 0.25, 0.25};
    assert_int_equal(prediction_full(buffers, &row, &prediction, full, &error), FW_OK);
    for (uint32_t v = 0; v < V; v++) {
        assert_true(full[v] == expected[v]);
        assert_true(probability_of(v) == expected[v]);
    }
    prediction.probability = not_a_number;
    expect_refused("not a number");
    prediction.probability = NULL;
    expect_refused("function");
}

static void test_unknown_forms(void **state) {
    (void)state;
    expect_refused("form 0"); /* predict() that wrote nothing */
    prediction.form = 5;
    expect_refused("form 5");
}

static void test_target_out_of_range(void **state) {
    (void)state;
    double probability = -1;
    state_list(FW_PREDICT_MIX, 1.0, 0, NULL, NULL);
    assert_int_equal(prediction_probability(buffers, &row, &prediction, V, &probability, &error),
                     FW_E_RANGE);
}

/* A cache may redirect the pointers; only the host's own buffers count. */
static void test_redirected_pointers(void **state) {
    (void)state;
    state_list(FW_PREDICT_MIX, 0.5, 1, (uint32_t[]){3}, (double[]){0.5});
    prediction.tokens = NULL;
    prediction.values = NULL;
    assert_true(fabs(probability_of(3) - 0.55) < 1e-15);
}

/* Uniqueness is tracked by a counter of 32 bits: the check must survive its wrap. */
static void test_stamp_wraps(void **state) {
    (void)state;
    buffers->stamp = UINT32_MAX - 3;
    for (uint32_t i = 0; i < 8; i++) {
        state_list(FW_PREDICT_MIX, 0.5, 2, (uint32_t[]){i % V, (i + 1) % V}, (double[]){0.2, 0.3});
        assert_true(probability_of(2) > 0);
        expect_list_refused(FW_PREDICT_MIX, 0.5, 2, (uint32_t[]){6, 6}, (double[]){0.2, 0.3},
                            "token 6 twice");
    }
}

/* Long random lists: single probabilities, the distribution and a plain float64 formula agree. */
static void test_random_mixes(void **state) {
    (void)state;
    enum { LARGE = 1024 };
    struct prediction_buffers *large = prediction_buffers_create(LARGE);
    test_random random = {5};
    double *model = malloc(LARGE * sizeof *model), *full = malloc(LARGE * sizeof *full);
    assert_non_null(model);
    assert_non_null(full);
    for (uint32_t round = 0; round < 50; round++) {
        double sum = 0, masses = 0, total = 0;
        for (uint32_t v = 0; v < LARGE; v++) sum += model[v] = test_uniform(&random) + 1e-3;
        for (uint32_t v = 0; v < LARGE; v++) model[v] /= sum;
        const fw_row at = {.struct_size = sizeof at, .vocabulary = LARGE, .probabilities = model};
        fw_prediction stated;
        prediction_prepare(large, &stated);
        stated.form = FW_PREDICT_MIX;
        const uint32_t first = (uint32_t)test_below(&random, 7);
        const uint32_t step = 3 + round % 5;
        for (uint32_t v = first; v < LARGE; v += step) {
            stated.tokens[stated.n] = v;
            masses += stated.values[stated.n++] = test_uniform(&random) * 1e-3;
        }
        stated.lm_weight = 1 - masses;
        assert_int_equal(prediction_full(large, &at, &stated, full, &error), FW_OK);
        for (uint32_t v = 0; v < LARGE; v++) {
            double single = -1;
            assert_int_equal(prediction_probability(large, &at, &stated, v, &single, &error),
                             FW_OK);
            assert_memory_equal(&single, &full[v], sizeof single);
            const bool listed = v >= first && (v - first) % step == 0;
            const double mass = listed ? stated.values[(v - first) / step] : 0.0;
            assert_true(fabs(single - (stated.lm_weight * model[v] + mass)) < 1e-15);
            total += single;
        }
        assert_true(fabs(total - 1) < 1e-13);
    }
    free(full);
    free(model);
    prediction_buffers_destroy(large);
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_mix),
        CHECKED(test_mix_of_nothing_is_the_row),
        CHECKED(test_mix_with_negative_mass),
        CHECKED(test_mix_is_divided_by_its_sum),
        CHECKED(test_mix_accepts_tiny_masses),
        CHECKED(test_mix_without_model),
        CHECKED(test_mix_violations),
        CHECKED(test_mix_floor),
        CHECKED(test_tilt),
        CHECKED(test_tilt_of_nothing_is_the_row),
        CHECKED(test_tilt_violations),
        CHECKED(test_dense),
        CHECKED(test_dense_violations),
        CHECKED(test_unverified),
        CHECKED(test_unknown_forms),
        CHECKED(test_target_out_of_range),
        CHECKED(test_redirected_pointers),
        CHECKED(test_stamp_wraps),
        CHECKED(test_random_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
