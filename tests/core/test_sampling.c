/* Choosing tokens: the frequencies of many draws against the probabilities that temperature, top-k
 * and top-p leave; ties; seeds; refusals. */
#include "support.h"

#include <math.h>

#include "sampling.h"

enum { V = 5, DRAWS = 40000 };

/* 0.4, 0.3, 0.15, 0.1 and 0.05, not in order. */
static const double p[V] = {0.1, 0.4, 0.05, 0.3, 0.15};
static fw_error error = {.struct_size = sizeof error};

static void fill(float l[V]) {
    for (int v = 0; v < V; v++) l[v] = (float)log(p[v]);
}

static struct sampler *open_sampler(struct sampling_options options) {
    struct sampler *sampler = NULL;
    if (sampler_create(&options, V, &sampler, &error) != FW_OK) fail_msg("%s", error.message);
    return sampler;
}

/* Frequencies within five standard deviations of what is expected; 0 exactly where that is 0. */
static void expect(struct sampling_options options, const double expected[V]) {
    float l[V];
    int counts[V] = {0};
    fill(l);
    struct sampler *sampler = open_sampler(options);
    for (int i = 0; i < DRAWS; i++) {
        uint32_t token = V;
        assert_int_equal(sampler_take(sampler, l, &token, &error), FW_OK);
        assert_true(token < V);
        counts[token]++;
    }
    for (int v = 0; v < V; v++) {
        const double e = expected[v];
        const double allowed = 5 * sqrt(e * (1 - e) / DRAWS);
        if (fabs((double)counts[v] / DRAWS - e) > allowed)
            fail_msg("token %d came %d times of %d, not %g", v, counts[v], DRAWS, e);
    }
    sampler_destroy(sampler);
}

static void test_the_row_itself(void **state) {
    (void)state;
    expect((struct sampling_options){.temperature = 1, .top_p = 1, .seed = 1}, p);
}

static void test_temperature(void **state) {
    (void)state;
    const double temperatures[] = {0.5, 2, 0.05};
    for (int i = 0; i < 3; i++) {
        double expected[V], total = 0;
        for (int v = 0; v < V; v++) total += expected[v] = pow(p[v], 1 / temperatures[i]);
        for (int v = 0; v < V; v++) expected[v] /= total;
        expect((struct sampling_options){.temperature = temperatures[i], .top_p = 1, .seed = 2},
               expected);
    }
}

static void test_top_k(void **state) {
    (void)state;
    expect((struct sampling_options){.temperature = 1, .top_k = 2, .top_p = 1, .seed = 3},
           (double[]){0, 4 / 7.0, 0, 3 / 7.0, 0});
    expect((struct sampling_options){.temperature = 1, .top_k = 1, .top_p = 1, .seed = 3},
           (double[]){0, 1, 0, 0, 0});
    expect((struct sampling_options){.temperature = 1, .top_k = 99, .top_p = 1, .seed = 3}, p);
}

/* The fewest that hold so much; with top-k, of what that leaves. */
static void test_top_p(void **state) {
    (void)state;
    expect((struct sampling_options){.temperature = 1, .top_p = 0.69, .seed = 4},
           (double[]){0, 4 / 7.0, 0, 3 / 7.0, 0});
    expect((struct sampling_options){.temperature = 1, .top_p = 0.71, .seed = 4},
           (double[]){0, 40 / 85.0, 0, 30 / 85.0, 15 / 85.0});
    expect((struct sampling_options){.temperature = 1, .top_p = 1e-9, .seed = 4},
           (double[]){0, 1, 0, 0, 0});
    expect((struct sampling_options){.temperature = 1, .top_k = 3, .top_p = 0.8, .seed = 4},
           (double[]){0, 4 / 7.0, 0, 3 / 7.0, 0});
}

static void test_greedy(void **state) {
    (void)state;
    float l[V];
    fill(l);
    l[3] = l[1]; /* of equals the first */
    struct sampler *sampler = open_sampler((struct sampling_options){.top_p = 1, .seed = 5});
    for (int i = 0; i < 9; i++) {
        uint32_t token = V;
        assert_int_equal(sampler_take(sampler, l, &token, &error), FW_OK);
        assert_int_equal(token, 1);
    }
    sampler_destroy(sampler);
}

static void test_seeds(void **state) {
    (void)state;
    float l[V];
    uint32_t tokens[3][64];
    fill(l);
    for (int i = 0; i < 3; i++) {
        struct sampler *sampler = open_sampler(
            (struct sampling_options){.temperature = 1, .top_p = 1, .seed = i == 2 ? 8 : 7});
        for (int j = 0; j < 64; j++)
            assert_int_equal(sampler_take(sampler, l, &tokens[i][j], &error), FW_OK);
        sampler_destroy(sampler);
    }
    assert_memory_equal(tokens[0], tokens[1], sizeof tokens[0]);
    assert_memory_not_equal(tokens[0], tokens[2], sizeof tokens[0]);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct sampling_options bad[] = {{.temperature = -1, .top_p = 1},
                                                  {.temperature = NAN, .top_p = 1},
                                                  {.temperature = 1, .top_p = 0},
                                                  {.temperature = 1, .top_p = 1.5}};
    struct sampler *sampler = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sampler_create(&bad[i], V, &sampler, &error), FW_E_RANGE);
    assert_null(sampler);
    sampler = open_sampler((struct sampling_options){.temperature = 1, .top_p = 1});
    float l[V];
    uint32_t token = 77;
    fill(l);
    l[2] = NAN;
    assert_int_equal(sampler_take(sampler, l, &token, &error), FW_E_NUMERIC);
    l[2] = INFINITY;
    assert_int_equal(sampler_take(sampler, l, &token, &error), FW_E_NUMERIC);
    l[2] = -INFINITY; /* never */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(sampler_take(sampler, l, &token, &error), FW_OK);
        assert_int_not_equal(token, 2);
    }
    sampler_destroy(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_row_itself), cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_top_k),          cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_greedy),         cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
