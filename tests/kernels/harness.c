/* Arrays, comparisons and finite differences for the op tests. */
#include "harness.h"

#include <math.h>

fw_device *device;
uint32_t compute;
test_random random_;

enum { MAX_ARRAYS = 256, SAMPLES = 96 };
static array *arrays[MAX_ARRAYS];
static size_t n_arrays;
static const fw_device_driver *driver;

static void check(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("%s", error->message);
}

int setup_group(void **state) {
    (void)state;
    const char *id = getenv("FAIRWAY_TEST_DEVICE"), *seed = getenv("FAIRWAY_TEST_SEED");
    if (id == NULL) id = "cpu";
    /* One seed by default, so that a failure is everyone's; FAIRWAY_TEST_SEED=N explores others. */
    random_.state = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    print_message("device %s, FAIRWAY_TEST_SEED=%llu\n", id, (unsigned long long)random_.state);
    driver = test_plugin(FW_DEVICE, id)->vtable;
    device = test_device(id);
    compute = device->compute_dtype;
    return 0;
}

int teardown_group(void **state) {
    (void)state;
    driver->destroy(device);
    return 0;
}

int teardown(void **state) {
    (void)state;
    while (n_arrays > 0) {
        array *a = arrays[--n_arrays];
        device->release(device, a->memory);
        free(a->host);
        free(a);
    }
    return 0;
}

int64_t between(int64_t low, int64_t high) {
    return low + (int64_t)test_below(&random_, (uint64_t)(high - low + 1));
}

double tolerance(double f32, double bf16) { return compute == FW_F32 ? f32 : bf16; }

/* The nearest bfloat16, ties to even: what upload() stores. */
static uint16_t bf16_bits(double value) {
    const float x = (float)value;
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    if (x != x) return 0x7fc0;
    return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

static double bf16_value(uint16_t bits) {
    const uint32_t word = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &word, sizeof x);
    return (double)x;
}

static void upload(array *a) {
    const size_t bytes = (size_t)a->n * fw_dtype_size(a->dtype);
    char *raw = malloc(bytes + 1);
    assert_non_null(raw);
    for (int64_t i = 0; i < a->n; i++) {
        if (a->dtype == FW_F32) {
            ((float *)(void *)raw)[i] = (float)a->host[i];
            a->host[i] = (double)(float)a->host[i];
        } else if (a->dtype == FW_BF16) {
            const uint16_t bits = bf16_bits(a->host[i]);
            ((uint16_t *)(void *)raw)[i] = bits;
            a->host[i] = bf16_value(bits);
        } else if (a->dtype == FW_I32) {
            ((int32_t *)(void *)raw)[i] = (int32_t)a->host[i];
        } else {
            ((uint16_t *)(void *)raw)[i] = 0xffff;
        }
    }
    fw_error error = {.struct_size = sizeof error};
    check(device->copy_from_host(device, a->memory, raw, bytes, &error), &error);
    free(raw);
}

void fetch(array *a) {
    const size_t bytes = (size_t)a->n * fw_dtype_size(a->dtype);
    char *raw = malloc(bytes + 1);
    assert_non_null(raw);
    fw_error error = {.struct_size = sizeof error};
    check(device->copy_to_host(device, raw, a->memory, bytes, &error), &error);
    for (int64_t i = 0; i < a->n; i++)
        a->host[i] = a->dtype == FW_F32    ? (double)((float *)(void *)raw)[i]
                     : a->dtype == FW_BF16 ? bf16_value(((uint16_t *)(void *)raw)[i])
                                           : (double)((int32_t *)(void *)raw)[i];
    free(raw);
}

static array *make(int64_t n, uint32_t dtype) {
    assert_true(n_arrays < MAX_ARRAYS);
    array *a = calloc(1, sizeof *a);
    assert_non_null(a);
    *a = (array){.host = calloc((size_t)n + 1, sizeof(double)), .n = n, .dtype = dtype};
    assert_non_null(a->host);
    fw_error error = {.struct_size = sizeof error};
    check(device->allocate(device, (size_t)n * fw_dtype_size(dtype), &a->memory, &error), &error);
    arrays[n_arrays++] = a;
    return a;
}

array *make_random(int64_t n, uint32_t dtype, double scale) {
    array *a = make(n, dtype);
    for (int64_t i = 0; i < n; i++) a->host[i] = scale * test_normal(&random_);
    upload(a);
    return a;
}

array *make_values(const double *values, int64_t n, uint32_t dtype) {
    array *a = make(n, dtype);
    memcpy(a->host, values, (size_t)n * sizeof *values);
    upload(a);
    return a;
}

array *make_ints(const int32_t *values, int64_t n) {
    array *a = make(n, FW_I32);
    for (int64_t i = 0; i < n; i++) a->host[i] = values[i];
    upload(a);
    return a;
}

array *make_poison(int64_t n, uint32_t dtype) {
    array *a = make(n, dtype);
    poison(a);
    return a;
}

void poison(array *a) {
    for (int64_t i = 0; i < a->n; i++) a->host[i] = a->dtype == FW_I32 ? -1.0 : (double)NAN;
    upload(a);
}

fw_step *make_step(const fw_step *step) {
    array *a = make(sizeof *step / sizeof(float), FW_F32);
    fw_error error = {.struct_size = sizeof error};
    check(device->copy_from_host(device, a->memory, step, sizeof *step, &error), &error);
    return (fw_step *)a->memory;
}

void fetch_step(fw_step *to, const fw_step *from) {
    fw_error error = {.struct_size = sizeof error};
    check(device->copy_to_host(device, to, from, sizeof *to, &error), &error);
}

static double magnitude(const double *a, int64_t n) {
    double squares = 0.0;
    for (int64_t i = 0; i < n; i++) squares += a[i] * a[i];
    return sqrt(squares);
}

/* |a - b|; a NaN anywhere gives NaN, which no comparison with a limit passes. */
static double difference(const double *a, const double *b, int64_t n) {
    double squares = 0.0;
    for (int64_t i = 0; i < n; i++) squares += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(squares);
}

void expect_close(const char *what, array *got, const double *want, double limit) {
    fetch(got);
    const double norm = magnitude(want, got->n), error = difference(got->host, want, got->n);
    if (!(error <= limit * (norm > 0.0 ? norm : 1.0)))
        fail_msg("%s: error %.3g of %.3g over %lld elements, at most %.3g of it allowed", what,
                 error, norm, (long long)got->n, limit);
}

void expect_close_sum(const char *what, array *got, const double *want, const double *size,
                      double limit) {
    fetch(got);
    const double error = difference(got->host, want, got->n);
    const double norm = magnitude(size, got->n);
    if (!(error <= limit * norm))
        fail_msg("%s: error %.3g, terms of %.3g over %lld elements, at most %.3g of them allowed",
                 what, error, norm, (long long)got->n, limit);
}

void expect_gradient(const char *what, array *got, double *x, objective *f, void *context,
                     double limit) {
    expect_gradient_sum(what, got, x, f, context, NULL, limit);
}

void expect_gradient_sum(const char *what, array *got, double *x, objective *f, void *context,
                         const double *size, double limit) {
    fetch(got);
    double device_values[SAMPLES], differences[SAMPLES], sizes[SAMPLES];
    const int64_t samples = got->n < SAMPLES ? got->n : SAMPLES;
    for (int64_t s = 0; s < samples; s++) {
        const int64_t i = samples == got->n ? s : between(0, got->n - 1);
        const double kept = x[i], step = 1e-5 * (1.0 + fabs(kept));
        x[i] = kept + step;
        const double above = f(context);
        x[i] = kept - step;
        const double below = f(context);
        x[i] = kept;
        device_values[s] = got->host[i];
        sizes[s] = size == NULL ? 0.0 : size[i];
        differences[s] = (above - below) / (2.0 * step);
    }
    /* f is rounded to double, and the quotient by the step magnifies that: where all sampled slopes
     * are tiny beside f, it is all that a difference can tell. */
    double norm = magnitude(size == NULL ? differences : sizes, samples);
    /* A gradient that is zero because its terms cancel (queries that see one key) has nothing to be
     * relative to but those terms, and inputs here are of the size of 1. */
    if (size == NULL && !(norm > 0.0)) norm = 1.0;
    const double noise = 1e-15 * fabs(f(context)) / 1e-5 * sqrt((double)samples);
    const double error = difference(device_values, differences, samples);
    if (!(error <= limit * norm + noise))
        fail_msg("%s: error %.3g of %.3g against finite differences at %lld places, at most %.3g "
                 "of it and %.3g allowed",
                 what, error, norm, (long long)samples, limit, noise);
}

static size_t bytes_of(array **outputs, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += (size_t)outputs[i]->n * fw_dtype_size(outputs[i]->dtype);
    return bytes;
}

static char *gather(array **outputs, size_t n) {
    char *bits = malloc(bytes_of(outputs, n) + 1), *to = bits;
    assert_non_null(bits);
    fw_error error = {.struct_size = sizeof error};
    for (size_t i = 0; i < n; i++) {
        const size_t bytes = (size_t)outputs[i]->n * fw_dtype_size(outputs[i]->dtype);
        check(device->copy_to_host(device, to, outputs[i]->memory, bytes, &error), &error);
        to += bytes;
    }
    return bits;
}

void *snapshot(array **outputs, size_t n) {
    void *bits = gather(outputs, n);
    for (size_t i = 0; i < n; i++) poison(outputs[i]);
    return bits;
}

void expect_same_bits(const char *what, array **outputs, size_t n, void *bits) {
    char *again = gather(outputs, n);
    const int same = memcmp(again, bits, bytes_of(outputs, n)) == 0;
    free(again);
    free(bits);
    if (!same) fail_msg("%s: the second run gave other bits", what);
}

void expect_sentence(const char *op, const fw_error *error, fw_status status) {
    assert_int_equal(error->status, status);
    if (strncmp(error->message, op, strlen(op)) != 0)
        fail_msg("the message '%s' does not begin with %s", error->message, op);
}
