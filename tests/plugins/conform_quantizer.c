/* Conformance of quantizers: plan, streams, encode and decode as fairway/quantizer.h states them.
 * Buffers stand between guards; decoding happens in a fresh instance that has seen no plan. */
#include <math.h>

#include "conform.h"
#include "quantizer_samples.h"
#include "quantizer_streams.h"

static conform c;
static const fw_quantizer *quantizer;

static void *instance_new(void) {
    void *self = NULL;
    fw_error error = {.struct_size = sizeof error};
    conform_ok(quantizer->create(c.host, c.values, &self, &error), &error);
    return self;
}

static fw_status plan(void *self, samples *s, double rate, fw_error *error) {
    for (int i = 0; i < N_SAMPLES; i++) s->weights[i] = &s->weight[i];
    const fw_quantizer_plan plan = {.struct_size = sizeof plan,
                                    .n_tensors = N_SAMPLES,
                                    .weights = s->weights,
                                    .values = (const float *const *)s->values,
                                    .rate = rate};
    return quantizer->plan(self, &plan, error);
}

static void *planned_new(samples *s, double rate) {
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    conform_ok(plan(self, s, rate, &error), &error);
    return self;
}

static packed describe(void *self, uint32_t index) {
    packed p = {0};
    fw_error error = {.struct_size = sizeof error};
    for (int i = 0; i < FW_MAX_STREAMS; i++) p.streams[i].struct_size = sizeof(fw_stream);
    conform_ok(quantizer->streams(self, index, p.streams, &p.n, &error), &error);
    return p;
}

static packed encode(void *self, uint32_t index) {
    packed p = describe(self, index);
    fw_error error = {.struct_size = sizeof error};
    for (uint32_t i = 0; i < p.n; i++) {
        p.buffers[i] = guarded_new(stream_bytes(&p.streams[i]));
        p.streams[i].data = p.buffers[i].data;
    }
    conform_ok(quantizer->encode(self, index, p.streams, p.n, &error), &error);
    for (uint32_t i = 0; i < p.n; i++) guarded_check(&p.buffers[i]);
    return p;
}

/* Decode in a fresh instance; the caller frees. */
static float *decode(const fw_weight *weight, const packed *p) {
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    guarded out = guarded_new(samples_count(weight) * sizeof(float));
    float *values = malloc(out.bytes);
    assert_non_null(values);
    conform_ok(quantizer->decode(self, weight, p->streams, p->n, (float *)(out.data), &error),
               &error);
    guarded_check(&out);
    memcpy(values, out.data, out.bytes);
    guarded_free(&out);
    quantizer->destroy(self);
    return values;
}

static void test_descriptor(void **state) {
    (void)state;
    conform_check_descriptor(&c);
    assert_true(quantizer->struct_size >= sizeof(uint32_t) * 2 + 7 * sizeof(void *));
    /* fake_quantize and its scratch come together */
    assert_int_equal(FW_HAS(quantizer, fake_scratch), FW_HAS(quantizer, fake_quantize));
}

static void test_streams(void **state) {
    (void)state;
    samples s = samples_new();
    void *self = planned_new(&s, 1);
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        const packed p = describe(self, i);
        assert_in_range(p.n, 1, FW_MAX_STREAMS);
        for (uint32_t k = 0; k < p.n; k++) stream_check(&p.streams[k], i);
    }
    fw_stream streams[FW_MAX_STREAMS] = {0};
    uint32_t n = 77;
    fw_error error = {.struct_size = sizeof error};
    assert_int_not_equal(quantizer->streams(self, N_SAMPLES, streams, &n, &error), FW_OK);
    assert_int_equal(n, 77);
    assert_true(error.message[0] != '\0');
    quantizer->destroy(self);
    samples_free(&s);
}

static void test_empty_plan(void **state) {
    (void)state;
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    const fw_quantizer_plan plan = {.struct_size = sizeof plan, .rate = 1};
    conform_ok(quantizer->plan(self, &plan, &error), &error);
    quantizer->destroy(self);
}

static void test_round_trip(void **state) {
    (void)state;
    samples s = samples_new();
    void *self = planned_new(&s, 1);
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        packed p = encode(self, i);
        packed_check_symbols(&p);
        float *values = decode(&s.weight[i], &p);
        const size_t n = samples_count(&s.weight[i]);
        conform_assert_finite(s.weight[i].name, values, n);
        const int bounded = i == GAUSS || !packed_is_quantized(&p);
        if (bounded && i != TINY)
            conform_assert_close(s.weight[i].name, values, s.values[i], n, packed_tolerance(&p));
        else /* better than dropping the tensor, but for what a floor of the scale swallows */
            conform_assert_close(s.weight[i].name, values, s.values[i], n, 1);
        if (i == ZERO) conform_assert_same("zeros", values, s.values[i], n);
        free(values);
        packed_free(&p);
    }
    quantizer->destroy(self);
    samples_free(&s);
}

static void test_deterministic(void **state) {
    (void)state;
    samples s = samples_new();
    void *first = planned_new(&s, 1), *second = planned_new(&s, 1);
    fw_error error = {.struct_size = sizeof error};
    conform_ok(plan(second, &s, 1, &error), &error); /* planning again changes nothing */
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        packed a = encode(first, i), b = encode(second, N_SAMPLES - 1 - i);
        packed_free(&b); /* another order of the tensors */
        b = encode(second, i);
        assert_int_equal(a.n, b.n);
        for (uint32_t k = 0; k < a.n; k++) {
            assert_int_equal(a.buffers[k].bytes, b.buffers[k].bytes);
            assert_memory_equal(a.streams[k].data, b.streams[k].data, a.buffers[k].bytes);
        }
        packed_free(&a);
        packed_free(&b);
    }
    quantizer->destroy(first);
    quantizer->destroy(second);
    samples_free(&s);
}

static void test_not_finite(void **state) {
    (void)state;
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    samples s = samples_new();
    for (int i = 0; i < N_SAMPLES; i++) {
        void *self = instance_new();
        fw_error error = {.struct_size = sizeof error};
        float *value = &s.values[i][samples_count(&s.weight[i]) - 1];
        const float kept = *value;
        *value = (float)bad[i % 3];
        assert_int_equal(plan(self, &s, 1, &error), FW_E_NUMERIC);
        if (strstr(error.message, s.weight[i].name) == NULL)
            fail_msg("the message does not name %s: %s", s.weight[i].name, error.message);
        *value = kept;
        quantizer->destroy(self);
    }
    samples_free(&s);
}

/* decode() refuses the streams with E_FORMAT and writes nothing. */
static void assert_refused(const fw_weight *weight, const fw_stream *streams, uint32_t n,
                           const char *what) {
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    guarded out = guarded_new(samples_count(weight) * sizeof(float));
    const fw_status status =
        quantizer->decode(self, weight, streams, n, (float *)(out.data), &error);
    if (status != FW_E_FORMAT) fail_msg("%s: %s: status %d", weight->name, what, status);
    if (!guarded_untouched(&out)) fail_msg("%s: %s: values were written", weight->name, what);
    guarded_check(&out);
    guarded_free(&out);
    quantizer->destroy(self);
}

static void refuse_stream(const fw_weight *weight, const packed *p, uint32_t k) {
    packed bad = *p;
    bad.streams[k].kind = bad.streams[k].kind % FW_STREAM_OTHER + 1;
    assert_refused(weight, bad.streams, bad.n, "another kind");
    bad = *p;
    bad.streams[k].dtype = FW_I64;
    assert_refused(weight, bad.streams, bad.n, "another type");
    bad = *p;
    bad.streams[k].rows -= 1;
    assert_refused(weight, bad.streams, bad.n, "a row less");
    bad = *p;
    bad.streams[k].columns += 1;
    assert_refused(weight, bad.streams, bad.n, "a column more");
    bad = *p;
    bad.streams[k].rows = -bad.streams[k].rows;
    bad.streams[k].columns = -bad.streams[k].columns;
    assert_refused(weight, bad.streams, bad.n, "negative shape");
}

static void test_malformed(void **state) {
    (void)state;
    samples s = samples_new();
    void *self = planned_new(&s, 1);
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        packed p = encode(self, i);
        for (uint32_t k = 0; k < p.n; k++) refuse_stream(&s.weight[i], &p, k);
        assert_refused(&s.weight[i], p.streams, 0, "no streams");
        p.streams[p.n] = p.streams[p.n - 1];
        assert_refused(&s.weight[i], p.streams, p.n + 1, "one stream more");
        packed_free(&p);
    }
    quantizer->destroy(self);
    samples_free(&s);
}

/* Whatever the bytes: E_FORMAT, or finite values. */
static void test_damaged_bytes(void **state) {
    (void)state;
    samples s = samples_new();
    void *self = planned_new(&s, 1);
    test_random random = {9};
    fw_error error = {.struct_size = sizeof error};
    for (uint32_t i = 0; i < 8 * N_SAMPLES; i++) {
        const fw_weight *weight = &s.weight[i % N_SAMPLES];
        packed p = encode(self, weight->index);
        guarded out = guarded_new(samples_count(weight) * sizeof(float));
        float *values = (float *)(out.data);
        for (uint32_t k = 0; k < p.n; k++) {
            uint8_t *data = p.streams[k].data;
            const size_t damaged = i < 4 * N_SAMPLES ? 1 : p.buffers[k].bytes;
            for (size_t j = 0; j < damaged; j++)
                data[test_below(&random, p.buffers[k].bytes)] = (uint8_t)test_below(&random, 256);
        }
        const fw_status status = quantizer->decode(self, weight, p.streams, p.n, values, &error);
        if (status == FW_OK)
            conform_assert_finite(weight->name, values, samples_count(weight));
        else
            assert_int_equal(status, FW_E_FORMAT);
        guarded_check(&out);
        guarded_free(&out);
        packed_free(&p);
    }
    quantizer->destroy(self);
    samples_free(&s);
}

/* Packing what was unpacked loses no more than packing did. */
static void test_stable(void **state) {
    (void)state;
    samples s = samples_new();
    void *self = planned_new(&s, 1);
    packed p = encode(self, GAUSS);
    float *once = decode(&s.weight[GAUSS], &p);
    memcpy(s.values[GAUSS], once, samples_count(&s.weight[GAUSS]) * sizeof *once);
    void *again = planned_new(&s, 1);
    packed q = encode(again, GAUSS);
    float *twice = decode(&s.weight[GAUSS], &q);
    conform_assert_close("twice", twice, once, samples_count(&s.weight[GAUSS]),
                         packed_tolerance(&p));
    free(once);
    free(twice);
    packed_free(&p);
    packed_free(&q);
    quantizer->destroy(self);
    quantizer->destroy(again);
    samples_free(&s);
}

static size_t planned_bytes(samples *s, double rate) {
    void *self = planned_new(s, rate);
    size_t bytes = 0;
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        const packed p = describe(self, i);
        for (uint32_t k = 0; k < p.n; k++) bytes += stream_bytes(&p.streams[k]);
    }
    quantizer->destroy(self);
    return bytes;
}

static void test_rate(void **state) {
    (void)state;
    samples s = samples_new();
    size_t before = 0;
    for (int i = 0; i <= 4; i++) {
        const size_t bytes = planned_bytes(&s, 0.25 * i);
        assert_true(bytes >= before);
        before = bytes;
    }
    samples_free(&s);
}

/* out = fake_quantize(values) on the device, as host floats; the caller frees. */
static float *fake(void *self, const fw_weight *weight, const float *values, uint32_t quantize) {
    const size_t mark = conform_mark(), n = samples_count(weight);
    const int64_t rows = weight->shape[0], columns = weight->shape[1];
    fw_error error = {.struct_size = sizeof error};
    fw_tensor master = conform_tensor(&c, FW_F32, 2, rows, columns);
    fw_tensor out = conform_tensor(&c, c.device->compute_dtype, 2, rows, columns);
    void *scratch = conform_take(&c, quantizer->fake_scratch(self, weight));
    void *step = conform_take(&c, sizeof(fw_step));
    const fw_step host_step = {.finite = 1, .clip = 1, .quantize = quantize};
    conform_write(&c, &master, values);
    conform_ok(c.device->copy_from_host(c.device, step, &host_step, sizeof host_step, &error),
               &error);
    conform_ok(
        quantizer->fake_quantize(self, c.device, weight, &master, &out, step, scratch, &error),
        &error);
    float *result = conform_floats(n);
    conform_read(&c, &out, result);
    conform_release(mark);
    return result;
}

static void check_fake(void *self, const samples *s, uint32_t i, const packed *p) {
    const size_t n = samples_count(&s->weight[i]);
    float *packed_values = decode(&s->weight[i], p);
    float *on = fake(self, &s->weight[i], s->values[i], 1);
    float *off = fake(self, &s->weight[i], s->values[i], 0);
    if (i == GAUSS || i == CONSTANT)
        conform_assert_close("fake", on, packed_values, n, packed_tolerance(p));
    conform_assert_finite("fake", on, n);
    for (size_t k = 0; k < n; k++)
        if (off[k] != conform_round(c.device->compute_dtype, s->values[i][k]))
            fail_msg("switched off, yet value %zu changed", k);
    free(packed_values);
    free(on);
    free(off);
}

static void test_fake_quantize(void **state) {
    (void)state;
    if (!FW_HAS(quantizer, fake_quantize)) skip();
    samples s = samples_new();
    void *self = planned_new(&s, 1);
    fw_error error = {.struct_size = sizeof error};
    const fw_tensor none = fw_absent();
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        packed p = encode(self, i);
        if (packed_is_quantized(&p))
            check_fake(self, &s, i, &p);
        else
            assert_int_equal(quantizer->fake_quantize(self, c.device, &s.weight[i], &none, &none,
                                                      NULL, NULL, &error),
                             FW_E_UNSUPPORTED);
        packed_free(&p);
    }
    quantizer->destroy(self);
    samples_free(&s);
}

/* ---- calibration ---- */

enum { OBSERVED_ROWS = 24 };

/* Asked about every matrix, then shown rows of those that are wanted; how many are. */
static int calibrate(void *self, const samples *s, uint64_t seed) {
    int wanted = 0;
    float rows[OBSERVED_ROWS * 512];
    test_random random = {seed};
    fw_error error = {.struct_size = sizeof error};
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        const int64_t columns = s->weight[i].shape[1];
        if (s->weight[i].rank != 2) continue;
        const fw_status status = quantizer->observe(self, i, NULL, 0, columns, &error);
        if (status != FW_OK) assert_int_equal(status, FW_E_UNSUPPORTED);
        if (status != FW_OK) continue;
        assert_true(columns <= 512);
        wanted++;
        for (int64_t k = 0; k < OBSERVED_ROWS * columns; k++)
            rows[k] = (float)(test_normal(&random) * (k % columns % 7 == 0 ? 8 : 0.5));
        const int64_t first = OBSERVED_ROWS / 3; /* in calls of any size */
        conform_ok(quantizer->observe(self, i, rows, first, columns, &error), &error);
        conform_ok(quantizer->observe(self, i, rows + first * columns, OBSERVED_ROWS - first,
                                      columns, &error),
                   &error);
    }
    return wanted;
}

/* A calibrated instance writes what a fresh one decodes, the same each time. */
static void test_calibration(void **state) {
    (void)state;
    if (!FW_HAS(quantizer, observe)) skip();
    samples s = samples_new();
    void *first = instance_new(), *second = instance_new();
    fw_error error = {.struct_size = sizeof error};
    const int wanted = calibrate(first, &s, 5);
    assert_int_equal(calibrate(second, &s, 5), wanted);
    conform_ok(plan(first, &s, 1, &error), &error);
    conform_ok(plan(second, &s, 1, &error), &error);
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        packed a = encode(first, i), b = encode(second, i);
        assert_int_equal(a.n, b.n);
        for (uint32_t k = 0; k < a.n; k++)
            assert_memory_equal(a.streams[k].data, b.streams[k].data, a.buffers[k].bytes);
        packed_check_symbols(&a);
        float *values = decode(&s.weight[i], &a);
        conform_assert_close(s.weight[i].name, values, s.values[i], samples_count(&s.weight[i]), 1);
        free(values);
        packed_free(&a);
        packed_free(&b);
    }
    quantizer->destroy(first);
    quantizer->destroy(second);
    samples_free(&s);
}

int main(int argc, char **argv) {
    c = conform_open(argc, argv, FW_QUANTIZER);
    quantizer = c.plugin->vtable;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor),    cmocka_unit_test(test_streams),
        cmocka_unit_test(test_empty_plan),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_deterministic), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_malformed),     cmocka_unit_test(test_damaged_bytes),
        cmocka_unit_test(test_stable),        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_fake_quantize), cmocka_unit_test(test_calibration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
