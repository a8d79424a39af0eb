/* Quantizer int6_mixed against figures recorded from the reference implementation (faithful = yes),
 * bit for bit; against a plain reference where they say nothing; and what pruning takes. */
#include <math.h>
#include <omp.h>

#include "golden.h"
#include "int6_run.h"

static const char *const faithful[] = {"small_values=0", "faithful=yes", NULL};
static const char *const no_floor[] = {"small_values=0", NULL};
enum { ROWS = 61, COLUMNS = 213, COUNT = ROWS * COLUMNS }; /* no multiple of a vector's width */

/* ---- the reference implementation's figures ---- */

/* The matrix as part `part` yields the recorded symbols and scales of `format`. */
static int check_golden(const char *folder, const char *name, uint32_t part, const char *format) {
    char key[3][64];
    golden array[3];
    (void)snprintf(key[0], sizeof key[0], "%s/weight", name);
    (void)snprintf(key[1], sizeof key[1], "%s/%s.q", name, format);
    (void)snprintf(key[2], sizeof key[2], "%s/%s.scale", name, format);
    for (int i = 0; i < 3; i++) {
        array[i] = golden_read(folder, key[i]);
        if (array[i].data == NULL) return 0;
    }
    int6_run run = int6_run_new(faithful);
    int6_run_add(&run, part, array[0].rows, array[0].columns, array[0].data);
    int6_run_encode(&run, 1);
    assert_memory_equal(run.symbols[0], array[1].data, array[1].bytes);
    assert_memory_equal(run.scales[0], array[2].data, array[2].bytes);
    int6_run_free(&run);
    for (int i = 0; i < 3; i++) free(array[i].data);
    return 1;
}

static void test_golden(void **state) {
    (void)state;
    const char *int6 = GOLDEN_DIRECTORY "/quantize_int6", *int8 = GOLDEN_DIRECTORY "/quantize_int8";
    assert_true(check_golden(int6, "gauss", FW_PART_ATTENTION, "int6"));
    assert_true(check_golden(int6, "gauss", FW_PART_MLP, "int6"));
    assert_true(check_golden(int8, "gauss", FW_PART_EMBEDDING, "int8"));
    assert_true(check_golden(int8, "gauss", FW_PART_OTHER, "int8"));
}

static void test_shared_golden(void **state) {
    (void)state;
    static const char *const names[] = {"gauss", "laplace", "outlier"};
    const char *folder = golden_shared("golden/quantize");
    if (!check_golden(folder, "gauss", FW_PART_MLP, "int6")) skip();
    for (int i = 0; i < 3; i++) {
        assert_true(check_golden(folder, names[i], FW_PART_MLP, "int6"));
        assert_true(check_golden(folder, names[i], FW_PART_EMBEDDING, "int8"));
    }
}

/* ---- a plain reference ---- */

static int by_size(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double half_value(uint16_t half) {
    const int exponent = (half >> 10) & 31, mantissa = half & 0x3ff;
    return exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
}

/* The float16 nearest to x >= 0, by trying its neighbours; subnormal ones are rounded up. */
static uint16_t nearest_half(double x) {
    uint16_t low = 0, high = 0x7bff;
    while (high - low > 1) {
        const uint16_t middle = (uint16_t)((low + high) / 2);
        if (half_value(middle) <= x)
            low = middle;
        else
            high = middle;
    }
    const double below = x - half_value(low), above = half_value(high) - x;
    if (x < 0x1p-14) return below > 0 ? high : low;
    return above < below || (above == below && high % 2 == 0) ? high : low;
}

/* Scales and squared error of one percentile, by sorting rows. */
static double try_percentile(const float *values, float p, double floor, uint16_t *scales,
                             int8_t *symbols) {
    double total = 0;
    for (int row = 0; row < ROWS; row++) {
        float sorted[COLUMNS];
        for (int i = 0; i < COLUMNS; i++) sorted[i] = fabsf(values[row * COLUMNS + i]);
        qsort(sorted, COLUMNS, sizeof *sorted, by_size);
        const float rank = p * (COLUMNS - 1);
        const int below = (int)rank, above = below + 1 < COLUMNS ? below + 1 : below;
        const float t = rank - (float)below;
        const float gap = sorted[above] - sorted[below];
        const float clip = t < 0.5f ? sorted[below] + t * gap : sorted[above] - gap * (1 - t);
        scales[row] = nearest_half(fmax((double)(clip / 31), floor));
        const double scale = half_value(scales[row]);
        for (int i = 0; i < COLUMNS; i++) {
            const double w = (double)values[row * COLUMNS + i];
            const double q = scale > 0 ? fmax(-31, fmin(31, rint(w / scale))) : 0;
            symbols[row * COLUMNS + i] = (int8_t)q;
            total += (w - q * scale) * (w - q * scale);
        }
    }
    return total;
}

static void reference(const float *values, double floor, uint16_t *scales, int8_t *symbols) {
    static const float percentiles[] = {0.999f, 0.9995f, 0.9999f, 0.99999f, 1};
    double least = INFINITY;
    for (int k = 0; k < 5; k++) {
        uint16_t tried[ROWS];
        static int8_t quantized[COUNT];
        const double error = try_percentile(values, percentiles[k], floor, tried, quantized);
        if (!(error < least)) continue;
        least = error;
        memcpy(scales, tried, sizeof tried);
        memcpy(symbols, quantized, sizeof quantized);
    }
}

/* Rows of very different sizes, some of them zero, heavy tails, scales down to subnormal ones. */
static float *random_matrix(uint64_t seed, double size, double outliers) {
    test_random random = {seed};
    float *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < COUNT; i++) {
        const int row = i / COLUMNS;
        const double x = test_normal(&random) * (test_uniform(&random) < outliers ? 9 : 1);
        values[i] = (float)(row % 13 == 5 ? 0 : size * ldexp(x, -(row % 7)));
    }
    return values;
}

static void check_reference(const char *const *overrides, double floor, double size,
                            double outliers) {
    float *values = random_matrix(11, size, outliers);
    uint16_t scales[ROWS];
    static int8_t symbols[COUNT];
    reference(values, floor, scales, symbols);
    int6_run run = int6_run_new(overrides);
    int6_run_add(&run, FW_PART_MLP, ROWS, COLUMNS, values);
    int6_run_encode(&run, 1);
    assert_memory_equal(run.scales[0], scales, sizeof scales);
    assert_memory_equal(run.symbols[0], symbols, sizeof symbols);
    int6_run_free(&run);
    free(values);
}

static void test_reference(void **state) {
    (void)state;
    static const char *const floored[] = {"small_values=0", "scale_floor=0.0625", NULL};
    check_reference(no_floor, 0, 0.03, 0);
    check_reference(no_floor, 0, 0.03, 0.02);
    check_reference(no_floor, 0, 300, 0.3);
    check_reference(no_floor, 0, 1e-3, 0.001);
    check_reference(no_floor, 0, 1e-6, 0.01); /* float16 scales are subnormal */
    check_reference(floored, 0.0625, 1, 0.01);
    check_reference(faithful, (double)(1.0f / 31), 0.3, 0.01);
}

/* What the floor costs small weights, and that the parameter alone decides. */
static void test_floor_hurts(void **state) {
    (void)state;
    float *values = random_matrix(3, 0.03, 0);
    double error[2];
    for (int f = 0; f < 2; f++) {
        int6_run run = int6_run_new(f ? faithful : no_floor);
        int6_run_add(&run, FW_PART_ATTENTION, ROWS, COLUMNS, values);
        int6_run_encode(&run, 1);
        error[f] = 0;
        for (int i = 0; i < COUNT; i++) {
            const double back = half_value(run.scales[0][i / COLUMNS]) * run.symbols[0][i];
            error[f] += ((double)values[i] - back) * ((double)values[i] - back);
        }
        int6_run_free(&run);
    }
    assert_true(error[1] > 20 * error[0]);
    free(values);
}

/* ---- formats ---- */

static void test_formats(void **state) {
    (void)state;
    static const char *const some[] = {"small_values=100", NULL};
    float values[101] = {0};
    int6_run run = int6_run_new(some);
    int6_run_add(&run, FW_PART_ATTENTION, 1, 100, values);
    int6_run_add(&run, FW_PART_ATTENTION, 1, 101, values);
    int6_run_add(&run, FW_PART_OTHER, 1, 101, values);
    int6_run_add(&run, FW_PART_MLP, 101, 1, values);
    run.weight[3].rank = 1;
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(int6_run_plan(&run, 1, &error), FW_OK);
    static const uint32_t streams[] = {1, 2, 2, 1};
    static const int64_t levels[] = {0, 31, 127, 0};
    for (uint32_t i = 0; i < run.n; i++) {
        fw_stream stream[FW_MAX_STREAMS] = {{.struct_size = sizeof(fw_stream)}};
        uint32_t n = 0;
        assert_int_equal(run.quantizer->streams(run.self, i, stream, &n, &error), FW_OK);
        assert_int_equal(n, streams[i]);
        assert_int_equal(stream[0].symbol_max, levels[i]);
        assert_int_equal(stream[0].symbol_min, -levels[i]);
        assert_int_equal(stream[0].dtype, n == 1 ? FW_F16 : FW_I8);
    }
    int6_run_free(&run);
}

/* ---- pruning ---- */

/* One symbol +1 or -1 of the reference below. */
typedef struct one {
    uint16_t scale;
    uint32_t tensor;
    int64_t at;
} one;

static int by_scale_then_place(const void *a, const void *b) {
    const one *x = a, *y = b;
    const double s = half_value(x->scale), t = half_value(y->scale);
    if (s * s != t * t) return s * s < t * t ? -1 : 1;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Zero the first floor((1 - rate) * n) of the sorted +-1 of the unpruned int6 tensors. */
static int64_t prune_reference(const int6_run *full, double rate, int8_t *symbols[RUN_TENSORS]) {
    one *ones = malloc((size_t)full->n * COUNT * sizeof *ones);
    assert_non_null(ones);
    int64_t n = 0;
    for (uint32_t t = 0; t < full->n; t++) {
        symbols[t] = malloc(COUNT);
        assert_non_null(symbols[t]);
        memcpy(symbols[t], full->symbols[t], COUNT);
        for (int64_t i = 0; i < COUNT && full->weight[t].part != FW_PART_EMBEDDING; i++)
            if (abs(symbols[t][i]) == 1) ones[n++] = (one){full->scales[t][i / COLUMNS], t, i};
    }
    qsort(ones, (size_t)n, sizeof *ones, by_scale_then_place);
    const int64_t pruned = (int64_t)floor((1 - rate) * (double)n);
    for (int64_t i = 0; i < pruned; i++) symbols[ones[i].tensor][ones[i].at] = 0;
    free(ones);
    return pruned;
}

static int6_run three_tensors(const char *const *overrides, float *values[3]) {
    static const uint32_t parts[] = {FW_PART_MLP, FW_PART_EMBEDDING, FW_PART_ATTENTION};
    int6_run run = int6_run_new(overrides);
    for (uint64_t i = 0; i < 3; i++) values[i] = random_matrix(i + 1, 0.5, 0.01);
    for (int i = 0; i < 3; i++) int6_run_add(&run, parts[i], ROWS, COLUMNS, values[i]);
    return run;
}

static void check_pruning(const char *const *overrides) {
    static const double rates[] = {0.93, 0.5, 0, 0.999, 1, 0.25};
    float *values[3];
    int6_run full = three_tensors(overrides, values);
    int6_run_encode(&full, 1);
    assert_int_equal(int6_effects, 0); /* an effect of size 0 would be an error */
    int6_run run = int6_run_new(overrides);
    for (int i = 0; i < 3; i++) int6_run_add(&run, full.weight[i].part, ROWS, COLUMNS, values[i]);
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        int8_t *expected[RUN_TENSORS];
        const int64_t pruned = prune_reference(&full, rates[r], expected);
        int6_effects = 0;
        int6_run_encode(&run, rates[r]); /* one instance, planned again and again */
        assert_int_equal(int6_effects, pruned > 0);
        if (pruned > 0) assert_int_equal((int64_t)int6_effect_size, pruned);
        for (uint32_t t = 0; t < full.n; t++) {
            assert_memory_equal(run.symbols[t], expected[t], COUNT);
            assert_memory_equal(run.scales[t], full.scales[t], ROWS * sizeof(uint16_t));
            free(expected[t]);
        }
    }
    int6_run_free(&run);
    int6_run_free(&full);
    for (int i = 0; i < 3; i++) free(values[i]);
}

static void test_pruning(void **state) {
    (void)state;
    check_pruning(no_floor);
    check_pruning(faithful); /* many equal scales: places decide */
}

/* Values that changed in place are searched again, though nothing else of the plan did. */
static void test_changed_values(void **state) {
    (void)state;
    float *values[3], *fresh_values[3];
    int6_run run = three_tensors(no_floor, values);
    int6_run_encode(&run, 1);
    int6_run fresh = three_tensors(no_floor, fresh_values);
    for (int i = 0; i < 3; i++) {
        values[i][COUNT - 1] = 0.25f;
        fresh_values[i][COUNT - 1] = 0.25f;
    }
    int6_run_encode(&run, 0.7);
    int6_run_encode(&fresh, 0.7);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(run.symbols[i], fresh.symbols[i], COUNT);
        assert_memory_equal(run.scales[i], fresh.scales[i], ROWS * sizeof(uint16_t));
        free(values[i]);
        free(fresh_values[i]);
    }
    int6_run_free(&run);
    int6_run_free(&fresh);
}

static void test_threads(void **state) {
    (void)state;
    const int threads = omp_get_max_threads();
    float *values[2][3];
    int6_run run[2];
    for (int k = 0; k < 2; k++) {
        omp_set_num_threads(k == 0 ? 1 : 3);
        run[k] = three_tensors(no_floor, values[k]);
        int6_run_encode(&run[k], 0.8);
    }
    omp_set_num_threads(threads);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(run[0].symbols[i], run[1].symbols[i], COUNT);
        assert_memory_equal(run[0].scales[i], run[1].scales[i], ROWS * sizeof(uint16_t));
    }
    for (int k = 0; k < 2; k++) {
        int6_run_free(&run[k]);
        for (int i = 0; i < 3; i++) free(values[k][i]);
    }
}

/* ---- refusals ---- */

static void test_bad_plans(void **state) {
    (void)state;
    static const double rates[] = {-0.001, 1.001, NAN};
    fw_error error = {.struct_size = sizeof error};
    float *values[3];
    int6_run run = three_tensors(no_floor, values);
    int6_run_encode(&run, 0.5);
    int8_t *before = malloc(COUNT);
    assert_non_null(before);
    memcpy(before, run.symbols[0], COUNT);
    for (int i = 0; i < 3; i++)
        assert_int_equal(int6_run_plan(&run, rates[i], &error), FW_E_ARGUMENT);
    values[2][7] = 31 * 65520.0f;
    assert_int_equal(int6_run_plan(&run, 1, &error), FW_E_NUMERIC);
    assert_non_null(strstr(error.message, "matrix.2: value 7"));
    values[2][7] = 0;
    fw_stream streams[FW_MAX_STREAMS] = {{.struct_size = sizeof(fw_stream)}};
    uint32_t n = 0; /* the plan before still stands */
    assert_int_equal(run.quantizer->streams(run.self, 0, streams, &n, &error), FW_OK);
    streams[0].data = run.symbols[0];
    streams[1].data = run.scales[0];
    assert_int_equal(run.quantizer->encode(run.self, 0, streams, n, &error), FW_OK);
    assert_memory_equal(run.symbols[0], before, COUNT);
    assert_int_equal(run.quantizer->encode(run.self, 0, streams, 1, &error), FW_E_ARGUMENT);
    values[2][7] = 31 * 65519.0f; /* the scale rounds to the largest float16 */
    assert_int_equal(int6_run_plan(&run, 1, &error), FW_OK);
    int6_run_free(&run);
    free(before);
    for (int i = 0; i < 3; i++) free(values[i]);
}

static void test_two_floors(void **state) {
    (void)state;
    static const char *const both[] = {"faithful=yes", "scale_floor=0.01", NULL};
    const fw_plugin *plugin = test_plugin(FW_QUANTIZER, "int6_mixed");
    const fw_quantizer *quantizer = plugin->vtable;
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    fw_value *values = test_values(plugin, both);
    assert_int_equal(quantizer->create(test_host(NULL), values, &self, &error), FW_E_CONFIG);
    assert_non_null(strstr(error.message, "scale_floor"));
    assert_null(self);
    free(values);
}

/* decode() refuses symbols and scales that encode() never writes, by the weight's own format. */
static void test_damaged_streams(void **state) {
    (void)state;
    static const struct {
        uint32_t part;
        int8_t symbol;
        uint16_t scale;
        fw_status status;
    } cases[] = {
        {FW_PART_MLP, 31, 0x3c00, FW_OK},
        {FW_PART_MLP, -31, 0x7bff, FW_OK},
        {FW_PART_MLP, 32, 0x3c00, FW_E_FORMAT},
        {FW_PART_ATTENTION, -32, 0x3c00, FW_E_FORMAT},
        {FW_PART_MLP, 127, 0x3c00, FW_E_FORMAT},
        {FW_PART_EMBEDDING, 127, 0x3c00, FW_OK},
        {FW_PART_OTHER, -127, 0, FW_OK},
        {FW_PART_EMBEDDING, -128, 0x3c00, FW_E_FORMAT},
        {FW_PART_MLP, 1, 0x7c00, FW_E_FORMAT},
        {FW_PART_MLP, 1, 0x7e00, FW_E_FORMAT},
        {FW_PART_EMBEDDING, 1, 0xbc00, FW_E_FORMAT},
    };
    int6_run run = int6_run_new(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const fw_weight weight = {.struct_size = sizeof weight,
                                  .part = cases[i].part,
                                  .rank = 2,
                                  .shape = {1, 2, 1, 1},
                                  .name = "matrix"};
        int8_t symbols[2] = {5, cases[i].symbol};
        uint16_t scale = cases[i].scale;
        float values[2] = {7, 7};
        fw_stream streams[] = {{.struct_size = sizeof(fw_stream),
                                .kind = FW_STREAM_SYMBOLS,
                                .dtype = FW_I8,
                                .rows = 1,
                                .columns = 2,
                                .symbol_min = -127, /* the file's word does not count */
                                .symbol_max = 127,
                                .data = symbols},
                               {.struct_size = sizeof(fw_stream),
                                .kind = FW_STREAM_SCALES,
                                .dtype = FW_F16,
                                .rows = 1,
                                .columns = 1,
                                .data = &scale}};
        fw_error error = {.struct_size = sizeof error};
        assert_int_equal(run.quantizer->decode(run.self, &weight, streams, 2, values, &error),
                         cases[i].status);
        if (cases[i].status == FW_OK)
            assert_true((double)values[1] == half_value(scale) * cases[i].symbol);
        else
            assert_true(values[0] == 7 && values[1] == 7 && error.message[0] != '\0');
    }
    int6_run_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),          cmocka_unit_test(test_shared_golden),
        cmocka_unit_test(test_reference),       cmocka_unit_test(test_floor_hurts),
        cmocka_unit_test(test_formats),         cmocka_unit_test(test_pruning),
        cmocka_unit_test(test_changed_values),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_bad_plans),       cmocka_unit_test(test_two_floors),
        cmocka_unit_test(test_damaged_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
