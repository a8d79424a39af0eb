/* Quantization-aware training with a scale floor, int8 and int6_mixed, on the CPU device: each row
 * is on the grid of max(largest magnitude / levels, floor), and the floor is heeded. */
#include <math.h>

#include "support.h"

enum { ROWS = 9, COLUMNS = 33, COUNT = ROWS * COLUMNS };

static void ok(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("status %d: %s", status, error->message);
}

/* Rows of size 1, 1/4, 1/16, ...: some above any floor of these tests, some below. */
static void fill(float *values) {
    test_random random = {8};
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)ldexp(test_normal(&random), -2 * (i / COLUMNS));
}

static void check(const char *id, const char *setting, uint32_t part, double levels, double floor) {
    const char *const overrides[] = {"small_values=0", setting, NULL};
    const fw_plugin *plugin = test_plugin(FW_QUANTIZER, id);
    const fw_quantizer *quantizer = plugin->vtable;
    const fw_weight weight = {
        .struct_size = sizeof weight, .part = part, .rank = 2, .shape = {ROWS, COLUMNS, 1, 1}};
    fw_device *device = test_device("cpu");
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    fw_value *parameters = test_values(plugin, overrides);
    ok(quantizer->create(test_host(device), parameters, &self, &error), &error);
    free(parameters);
    float values[COUNT], out[COUNT];
    void *scratch = malloc(quantizer->fake_scratch(self, &weight));
    assert_non_null(scratch);
    fill(values);
    const fw_step step = {.finite = 1, .clip = 1, .quantize = 1};
    const fw_tensor master = fw_matrix(values, FW_F32, ROWS, COLUMNS);
    const fw_tensor result = fw_matrix(out, FW_F32, ROWS, COLUMNS);
    ok(quantizer->fake_quantize(self, device, &weight, &master, &result, &step, scratch, &error),
       &error);
    int floored = 0;
    for (int row = 0; row < ROWS; row++) {
        double largest = 0;
        for (int i = 0; i < COLUMNS; i++)
            largest = fmax(largest, fabs((double)values[row * COLUMNS + i]));
        const double scale = fmax(largest / levels, floor);
        floored += floor > largest / levels;
        for (int i = row * COLUMNS; i < (row + 1) * COLUMNS; i++) {
            const double q = (double)out[i] / scale;
            if (fabs(q - rint(q)) > 1e-4 || fabs((double)(out[i] - values[i])) > 0.5001 * scale)
                fail_msg("%s: row %d: %g became %g at scale %g", id, row, (double)values[i],
                         (double)out[i], scale);
        }
    }
    assert_true(floored > 0 && floored < ROWS);
    free(scratch);
    quantizer->destroy(self);
}

static void test_int8(void **state) {
    (void)state;
    check("int8", "scale_floor=0.001", FW_PART_MLP, 127, 0.001);
}

static void test_int6_mixed(void **state) {
    (void)state;
    check("int6_mixed", "scale_floor=0.01", FW_PART_MLP, 31, 0.01);
    check("int6_mixed", "scale_floor=0.001", FW_PART_EMBEDDING, 127, 0.001);
    check("int6_mixed", "faithful=yes", FW_PART_ATTENTION, 31, 1.0 / 31);
    check("int6_mixed", "faithful=yes", FW_PART_EMBEDDING, 127, 1.0 / 127);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_int8),
                                       cmocka_unit_test(test_int6_mixed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
