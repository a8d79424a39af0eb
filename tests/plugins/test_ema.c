/* The moving average against its formula in float64, with and without the rising decay. */
#include "support.h"

#include <math.h>
#include <stdbool.h>

enum { N = 5, STEPS = 40 };

static double expected_decay(double decay, bool warmup, int updates) {
    const double most = (1.0 + updates) / (10.0 + updates);
    return warmup && most < decay ? most : decay;
}

static void check_run(const char *setting, bool warmup) {
    const fw_plugin *plugin = test_plugin(FW_AVERAGER, "ema");
    const fw_averager *averager = plugin->vtable;
    const char *const overrides[] = {"decay=0.9", setting, NULL};
    fw_value *values = test_values(plugin, overrides);
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    if (averager->create(test_host(test_device("cpu")), values, &self, &error) != FW_OK)
        fail_msg("%s", error.message);
    float weights[N], slot[N] = {0}, result[N];
    double average[N] = {0};
    fw_averager_tensor tensor = {.struct_size = sizeof tensor,
                                 .parameter = fw_vector(weights, FW_F32, N),
                                 .result = fw_vector(result, FW_F32, N)};
    tensor.slot[0] = fw_vector(slot, FW_F32, N);
    test_random random = {9};
    for (int step = 0; step < STEPS; step++) {
        const double decay = step == 0 ? 0 : expected_decay(0.9, warmup, step);
        for (int i = 0; i < N; i++) {
            weights[i] = (float)test_normal(&random);
            average[i] += (1 - decay) * ((double)weights[i] - average[i]);
        }
        const fw_averager_call call = {
            .struct_size = sizeof call, .n_tensors = 1, .tensors = &tensor, .step = step};
        assert_int_equal(averager->update(self, &call, &error), FW_OK);
        assert_int_equal(averager->result(self, &call, &error), FW_OK);
        assert_true(test_relative_error(result, average, N) < 1e-6);
    }
    averager->destroy(self);
    free(values);
}

static void test_with_warmup(void **state) {
    (void)state;
    check_run("warmup=yes", true);
}

static void test_without_warmup(void **state) {
    (void)state;
    check_run("warmup=no", false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_warmup),
        cmocka_unit_test(test_without_warmup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
