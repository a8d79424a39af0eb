/* The search for the rate that fits, with made-up quantizers and compressors: how many real encodes
 * it takes, how close it comes, and that what it keeps fits, whatever the estimate says. */
#include "fit.h"

#include <math.h>
#include <stdio.h>

#include "support.h"

/* bytes(rate) and estimate(rate), and what was asked of them. */
struct model {
    double (*bytes)(double rate);
    double (*estimate)(double rate);
    double tried[16]; /* rates of the real encodes */
    int encodes, estimates;
    double kept;       /* rate; -1: none */
    fw_status failure; /* of the second encode */
};

static fw_status estimate(void *argument, double rate, double *out, fw_error *error) {
    struct model *model = argument;
    (void)error;
    assert_true(rate >= 0 && rate <= 1);
    model->estimates++;
    *out = model->estimate(rate);
    return FW_OK;
}

static fw_status encode(void *argument, double rate, double *bytes, double *estimated,
                        fw_error *error) {
    struct model *model = argument;
    assert_true(model->encodes < FIT_ENCODES);
    if (model->encodes == 1 && model->failure != FW_OK)
        return fw_fail(error, model->failure, "the compressor fails");
    model->tried[model->encodes++] = rate;
    *bytes = floor(model->bytes(rate));
    *estimated = model->estimate(rate);
    return FW_OK;
}

static void keep(void *argument) {
    struct model *model = argument;
    model->kept = model->tried[model->encodes - 1];
}

static struct fit_result search(struct model *model, double limit) {
    struct fit_result result;
    fw_error error = {.struct_size = sizeof error};
    const struct fit_task task = {
        .limit = limit, .estimate = estimate, .encode = encode, .keep = keep, .argument = model};
    model->kept = -1;
    model->encodes = model->estimates = 0;
    assert_int_equal(fit_rate(&task, &result, &error), FW_OK);
    assert_int_equal(result.encodes, model->encodes);
    assert_true(result.encodes >= 1 && result.encodes <= FIT_ENCODES);
    assert_true(result.full_bytes == floor(model->bytes(1)));
    for (int i = 0; i < model->encodes; i++) /* no encode is wasted on a rate known already */
        for (int k = 0; k < i; k++) assert_true(model->tried[i] != model->tried[k]);
    if (result.fits) {
        assert_true(model->kept == result.rate);
        assert_true(result.bytes == floor(model->bytes(result.rate)) && result.bytes <= limit);
        for (int i = 0; i < model->encodes; i++) /* the largest of those that fit */
            assert_true(model->tried[i] <= result.rate || model->bytes(model->tried[i]) >= limit);
    } else {
        assert_true(model->kept == -1);
        assert_true(model->tried[model->encodes - 1] == 0);
        assert_true(result.least_bytes == floor(model->bytes(0)));
    }
    return result;
}

/* ---- made-up compressors ---- */

static double smooth(double r) { return 15e6 + 1.2e6 * pow(r, 1.4); }
static double proportional(double r) { return smooth(r) / 7; }
/* As measured of LZMA and entropy by blocks: their ratio drifts with the rate. */
static double drifting(double r) { return smooth(r) * (0.97 + 0.02 * r * r); }
static double kinked(double r) { return r < 0.6 ? 15e6 + 1e6 * r : 15.6e6 + 3e6 * (r - 0.6); }
static double noisy(double r) { return smooth(r) * (1 + 2e-4 * sin(900 * r)); }
static double constant(double r) { return 1e6 + 0 * r; }
static double opposite(double r) { return 2e6 - 1e6 * r; }
static double cliff(double r) { return r > 0.05 ? 1e6 + r : 5e5; }
static double steep(double r) { return 1000 + 1e6 * r * r * r; }

static void test_fits_at_once(void **state) {
    (void)state;
    struct model model = {.bytes = smooth, .estimate = proportional};
    const struct fit_result result = search(&model, 16.2e6);
    assert_true(result.fits && result.rate == 1 && result.encodes == 1);
    assert_int_equal(model.estimates, 0);
}

/* Close to the limit, with fewer encodes than are allowed when the estimate is good. */
static void test_close(void **state) {
    (void)state;
    struct model good = {.bytes = smooth, .estimate = proportional};
    struct model fair = {.bytes = drifting, .estimate = smooth};
    struct model bent = {.bytes = kinked, .estimate = smooth};
    struct model rough = {.bytes = noisy, .estimate = proportional};
    for (double share = 0.05; share < 1; share += 0.05) {
        struct model *models[] = {&good, &fair, &bent, &rough};
        for (int i = 0; i < 4; i++) {
            const double least = models[i]->bytes(0), full = models[i]->bytes(1);
            const double limit = floor(least + share * (full - least));
            const struct fit_result result = search(models[i], limit);
            const double tolerance = (i == 2 ? 5 : 1) * FIT_TOLERANCE; /* its estimate is 4% off */
            if (!result.fits || result.bytes < limit * (1 - tolerance))
                fail_msg("model %d at %.2f: %.0f of %.0f at rate %g", i, share, result.bytes, limit,
                         result.rate);
            if (i == 0 || i == 3) assert_int_equal(result.encodes, 2);
            assert_true(models[i]->estimates <= 20);
        }
    }
}

/* An estimate that says nothing, or the opposite, costs quality and not the limit. */
static void test_misleading(void **state) {
    (void)state;
    struct model models[] = {{.bytes = smooth, .estimate = constant},
                             {.bytes = smooth, .estimate = opposite},
                             {.bytes = cliff, .estimate = smooth},
                             {.bytes = steep, .estimate = smooth},
                             {.bytes = steep, .estimate = opposite}};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        for (double share = 0.01; share < 1; share += 0.07) {
            const double least = models[i].bytes(0), full = models[i].bytes(1);
            assert_true(search(&models[i], floor(least + share * (full - least))).fits);
        }
}

static void test_only_rate_0(void **state) {
    (void)state;
    struct model model = {.bytes = smooth, .estimate = proportional};
    const struct fit_result result = search(&model, 15e6);
    assert_true(result.fits && result.rate < 0.01 && result.bytes <= 15e6);
}

static void test_impossible(void **state) {
    (void)state;
    static const double limits[] = {15e6 - 1, 14.9e6, 7e6, 1, 0};
    struct model model = {.bytes = smooth, .estimate = proportional};
    for (int i = 0; i < 5; i++) assert_false(search(&model, limits[i]).fits);
    assert_false(search(&model, 10e6).encodes > 2); /* the estimate tells at once */
    model.estimate = constant;
    for (int i = 0; i < 5; i++) assert_false(search(&model, limits[i]).fits);
    model.estimate = opposite;
    for (int i = 0; i < 5; i++) assert_false(search(&model, limits[i]).fits);
    struct model flat = {.bytes = constant, .estimate = constant};
    assert_false(search(&flat, 999999).fits);
}

static void test_errors(void **state) {
    (void)state;
    struct model model = {
        .bytes = smooth, .estimate = proportional, .kept = -1, .failure = FW_E_MEMORY};
    struct fit_result result;
    fw_error error = {.struct_size = sizeof error};
    const struct fit_task task = {
        .limit = 15.5e6, .estimate = estimate, .encode = encode, .keep = keep, .argument = &model};
    assert_int_equal(fit_rate(&task, &result, &error), FW_E_MEMORY);
    assert_string_equal(error.message, "the compressor fails");
    assert_true(model.kept == -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits_at_once), cmocka_unit_test(test_close),
        cmocka_unit_test(test_misleading),   cmocka_unit_test(test_only_rate_0),
        cmocka_unit_test(test_impossible),   cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
