/* Quantizer int8 against figures recorded from the reference implementation (scale floor 1/127),
 * bit for bit, and the cases that it does not cover: no floor, clipping, rounding, tiny scales. */
#include <math.h>

#include "golden.h"
#include "support.h"

static const fw_quantizer *quantizer;

/* One matrix through plan, streams, encode and, in another instance, decode. */
typedef struct result {
    int8_t *symbols;
    uint16_t *scales;
    float *decoded;
} result;

static void ok(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("status %d: %s", status, error->message);
}

static void *instance_new(const char *const *overrides) {
    const fw_plugin *plugin = test_plugin(FW_QUANTIZER, "int8");
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    quantizer = plugin->vtable;
    fw_value *values = test_values(plugin, overrides);
    ok(quantizer->create(test_host(NULL), values, &self, &error), &error);
    free(values);
    return self;
}

static fw_status plan(void *self, const fw_weight *weight, const float *values, fw_error *error) {
    const fw_quantizer_plan plan = {.struct_size = sizeof plan,
                                    .n_tensors = 1,
                                    .weights = &weight,
                                    .values = &values,
                                    .rate = 1};
    return quantizer->plan(self, &plan, error);
}

static fw_weight matrix(int64_t rows, int64_t columns) {
    return (fw_weight){.struct_size = sizeof(fw_weight),
                       .role = FW_ROLE_MATRIX,
                       .rank = 2,
                       .shape = {rows, columns, 1, 1},
                       .name = "matrix"};
}

static result quantize(const char *const *overrides, const float *values, int64_t rows,
                       int64_t columns) {
    const fw_weight weight = matrix(rows, columns);
    void *self = instance_new(overrides);
    fw_error error = {.struct_size = sizeof error};
    fw_stream streams[FW_MAX_STREAMS] = {{.struct_size = sizeof(fw_stream)}};
    uint32_t n = 0;
    ok(plan(self, &weight, values, &error), &error);
    ok(quantizer->streams(self, 0, streams, &n, &error), &error);
    assert_int_equal(n, 2);
    const size_t count = (size_t)(rows * columns);
    result r = {malloc(count), malloc((size_t)rows * 2), malloc(count * sizeof(float))};
    streams[0].data = r.symbols;
    streams[1].data = r.scales;
    ok(quantizer->encode(self, 0, streams, n, &error), &error);
    quantizer->destroy(self);
    self = instance_new(NULL);
    ok(quantizer->decode(self, &weight, streams, n, r.decoded, &error), &error);
    quantizer->destroy(self);
    return r;
}

static void result_free(result *r) {
    free(r->symbols);
    free(r->scales);
    free(r->decoded);
}

static const char *const like_reference[] = {"small_values=0", "scale_floor=0.007874015748031496",
                                             NULL};
static const char *const no_floor[] = {"small_values=0", NULL};

static int check_golden(const char *folder, const char *name) {
    char key[64];
    golden array[3];
    static const char *const parts[] = {"weight", "int8.q", "int8.scale"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(key, sizeof key, "%s/%s", name, parts[i]);
        array[i] = golden_read(folder, key);
        if (array[i].data == NULL) return 0;
    }
    const int64_t rows = array[0].rows, columns = array[0].columns;
    result r = quantize(like_reference, array[0].data, rows, columns);
    assert_int_equal(array[1].bytes, rows * columns);
    assert_int_equal(array[2].bytes, rows * 2);
    assert_memory_equal(r.symbols, array[1].data, array[1].bytes);
    assert_memory_equal(r.scales, array[2].data, array[2].bytes);
    result_free(&r);
    for (int i = 0; i < 3; i++) free(array[i].data);
    return 1;
}

static void test_golden(void **state) {
    (void)state;
    assert_true(check_golden(GOLDEN_DIRECTORY "/quantize_int8", "gauss"));
}

static void test_shared_golden(void **state) {
    (void)state;
    const char *folder = golden_shared("golden/quantize");
    if (!check_golden(folder, "gauss")) skip();
    assert_true(check_golden(folder, "laplace"));
    assert_true(check_golden(folder, "outlier"));
}

static void test_zero_row(void **state) {
    (void)state;
    const float values[2][3] = {{0, -0.0f, 0}, {1, -2, 0.5f}};
    result r = quantize(no_floor, &values[0][0], 2, 3);
    for (int i = 0; i < 3; i++) assert_true(r.decoded[i] == 0);
    assert_int_equal(r.scales[0], 0);
    assert_int_equal(r.symbols[4], -127);
    assert_int_equal(r.symbols[3], 64); /* 63.5 rounds to even */
    result_free(&r);
}

/* Where float16 scales are subnormal the error still stays within half a stored scale, but for the
 * clip of the percentile, which is 4e-5 of the largest value here. */
static void test_tiny_rows(void **state) {
    (void)state;
    enum { COLUMNS = 25, ROWS = 40 };
    float values[ROWS][COLUMNS];
    test_random random = {3};
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < COLUMNS; i++)
            values[row][i] = (float)(ldexp(1, -row) * (2 * test_uniform(&random) - 1));
    result r = quantize(no_floor, &values[0][0], ROWS, COLUMNS);
    for (int row = 0; row < ROWS; row++) {
        const double largest = ldexp(1, -row), subnormal = 0x1p-24;
        const double bound = 0.51 * fmax(largest / 127 * (1 + 0x1p-11), subnormal) +
                             largest * (4e-5 + 0x1p-11) + (largest < 0x1p-7 ? subnormal : 0);
        for (int i = 0; i < COLUMNS; i++)
            if (!(fabs((double)values[row][i] - (double)r.decoded[row * COLUMNS + i]) <= bound))
                fail_msg("row %d: %g became %g", row, (double)values[row][i],
                         (double)r.decoded[row * COLUMNS + i]);
    }
    result_free(&r);
}

static int by_size(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The scale follows from the quantile of the sorted row, for several percentiles and row lengths.
 */
static void test_quantile(void **state) {
    (void)state;
    static const char *const percentiles[] = {"0.5", "0.9", "0.999", "0.9999984", "1"};
    test_random random = {5};
    for (int trial = 0; trial < 100; trial++) {
        const int64_t n = 1 + (int64_t)test_below(&random, 700);
        const char *text = percentiles[trial % 5];
        char setting[64];
        (void)snprintf(setting, sizeof setting, "percentile=%s", text);
        const char *const overrides[] = {"small_values=0", setting, NULL};
        float *row = malloc((size_t)n * sizeof *row);
        for (int64_t i = 0; i < n; i++) /* with ties when the trial is odd */
            row[i] = trial % 2 ? (float)test_below(&random, 9) : (float)test_normal(&random);
        result r = quantize(overrides, row, 1, n);
        for (int64_t i = 0; i < n; i++) row[i] = fabsf(row[i]);
        qsort(row, (size_t)n, sizeof *row, by_size);
        const double rank = strtod(text, NULL) * (double)(n - 1);
        const int64_t below = (int64_t)rank, above = below + 1 < n ? below + 1 : below;
        const double clip =
            (double)row[below] + (rank - (double)below) * ((double)row[above] - (double)row[below]);
        const double scale = ldexp(1024 + (r.scales[0] & 0x3ff), (r.scales[0] >> 10) - 25);
        if (r.scales[0] > 0x3ff && fabs(scale - clip / 127) > clip / 127 * 0x1p-10)
            fail_msg("percentile %s of %lld: scale %g, not %g", text, (long long)n, scale,
                     clip / 127);
        result_free(&r);
        free(row);
    }
}

static void test_limits(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    const fw_weight weight = matrix(1, 4);
    void *small = instance_new(NULL), *large = instance_new(no_floor);
    float values[4] = {1, 2, 65519, 3};
    ok(plan(small, &weight, values, &error), &error); /* rounds to 65504 */
    values[2] = 65520;
    assert_int_equal(plan(small, &weight, values, &error), FW_E_NUMERIC);
    assert_non_null(strstr(error.message, "value 2"));
    ok(plan(large, &weight, values, &error),
       &error); /* here the scale is float16, 127 times less */
    values[2] = 127 * 65520.0f;
    assert_int_equal(plan(large, &weight, values, &error), FW_E_NUMERIC);
    quantizer->destroy(small);
    quantizer->destroy(large);
}

/* decode() refuses symbols and scales that encode() never writes. */
static void test_damaged_streams(void **state) {
    (void)state;
    const fw_weight weight = matrix(1, 2);
    void *self = instance_new(NULL);
    int8_t symbols[] = {5, -127};
    uint16_t scale = 0x3c00;
    float values[2] = {7, 7};
    const fw_stream streams[] = {{.struct_size = sizeof(fw_stream),
                                  .kind = FW_STREAM_SYMBOLS,
                                  .dtype = FW_I8,
                                  .rows = 1,
                                  .columns = 2,
                                  .data = symbols},
                                 {.struct_size = sizeof(fw_stream),
                                  .kind = FW_STREAM_SCALES,
                                  .dtype = FW_F16,
                                  .rows = 1,
                                  .columns = 1,
                                  .data = &scale}};
    static const uint16_t bad_scales[] = {0x7c00, 0x7e01, 0xbc00};
    for (int i = 0; i < 3; i++) {
        scale = bad_scales[i];
        assert_int_equal(quantizer->decode(self, &weight, streams, 2, values, NULL), FW_E_FORMAT);
    }
    scale = 0x3c00;
    symbols[1] = -128;
    assert_int_equal(quantizer->decode(self, &weight, streams, 2, values, NULL), FW_E_FORMAT);
    assert_true(values[0] == 7 && values[1] == 7);
    symbols[1] = -127;
    assert_int_equal(quantizer->decode(self, &weight, streams, 2, values, NULL), FW_OK);
    assert_true(values[0] == 5 && values[1] == -127);
    quantizer->destroy(self);
}

/* Every float16 but infinities and NaN survives a tensor that stays unquantized. */
static void test_float16(void **state) {
    (void)state;
    enum { N = 0x7c00 };
    const fw_weight weight = {.struct_size = sizeof weight, .rank = 1, .shape = {N, 1, 1, 1}};
    static float values[N], decoded[N];
    static uint16_t stored[N];
    for (int i = 0; i < N; i++)
        values[i] = (float)(i < 0x400 ? ldexp(i, -24) : ldexp(1024 + (i & 0x3ff), (i >> 10) - 25));
    for (int i = 1; i < N; i += 2) values[i] = -values[i];
    void *self = instance_new(NULL);
    fw_error error = {.struct_size = sizeof error};
    fw_stream stream[FW_MAX_STREAMS] = {{.struct_size = sizeof(fw_stream)}};
    uint32_t n = 0;
    ok(plan(self, &weight, values, &error), &error);
    ok(quantizer->streams(self, 0, stream, &n, &error), &error);
    assert_int_equal(n, 1);
    stream[0].data = stored;
    ok(quantizer->encode(self, 0, stream, n, &error), &error);
    ok(quantizer->decode(self, &weight, stream, n, decoded, &error), &error);
    for (int i = 0; i < N; i++) assert_int_equal(stored[i], i % 2 ? i | 0x8000 : i);
    assert_memory_equal(values, decoded, sizeof values);
    quantizer->destroy(self);
}

/* Halfway cases of float16 go to even, their neighbours to the nearer side. */
static void test_float16_rounding(void **state) {
    (void)state;
    static const struct {
        float value;
        uint16_t stored;
    } cases[] = {{0x1.002p0f, 0x3c00},    {0x1.006p0f, 0x3c02},   {0x1.002002p0f, 0x3c01},
                 {0x1.005ffep0f, 0x3c01}, {0x1p-25f, 0},          {0x1.000002p-25f, 1},
                 {0x1.8p-24f, 2},         {0x1.ffcp-15f, 0x0400}, {0x1.ffap-15f, 0x03ff},
                 {65519.996f, 0x7bff},    {-0x1.006p0f, 0xbc02}};
    enum { N = sizeof cases / sizeof cases[0] };
    const fw_weight weight = {.struct_size = sizeof weight, .rank = 1, .shape = {N, 1, 1, 1}};
    float values[N];
    uint16_t stored[N];
    for (int i = 0; i < N; i++) values[i] = cases[i].value;
    void *self = instance_new(NULL);
    fw_error error = {.struct_size = sizeof error};
    fw_stream stream[FW_MAX_STREAMS] = {{.struct_size = sizeof(fw_stream)}};
    uint32_t n = 0;
    ok(plan(self, &weight, values, &error), &error);
    ok(quantizer->streams(self, 0, stream, &n, &error), &error);
    stream[0].data = stored;
    ok(quantizer->encode(self, 0, stream, n, &error), &error);
    for (int i = 0; i < N; i++)
        if (stored[i] != cases[i].stored)
            fail_msg("%a is stored as %04x, not %04x", (double)values[i], stored[i],
                     cases[i].stored);
    quantizer->destroy(self);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),           cmocka_unit_test(test_shared_golden),
        cmocka_unit_test(test_zero_row),         cmocka_unit_test(test_tiny_rows),
        cmocka_unit_test(test_quantile),         cmocka_unit_test(test_limits),
        cmocka_unit_test(test_damaged_streams),  cmocka_unit_test(test_float16),
        cmocka_unit_test(test_float16_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
