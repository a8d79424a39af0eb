/* Conformance of compressors: lossless within the bound, deterministic, and safe on any bytes.
 * Every buffer that the plugin writes stands between guards. */
#include <math.h>
#include <omp.h>

#include "conform.h"
#include "guarded.h"

static conform c;
static const fw_compressor *compressor;

enum { MAX_STREAMS = 12 };

/* Streams with their data. */
typedef struct bundle {
    uint32_t n;
    fw_stream streams[MAX_STREAMS];
    guarded buffers[MAX_STREAMS];
} bundle;

static size_t stream_bytes(const fw_stream *stream) {
    return (size_t)stream->rows * (size_t)stream->columns * fw_dtype_size(stream->dtype);
}

static void bundle_add(bundle *b, uint32_t kind, uint32_t dtype, int64_t rows, int64_t columns) {
    fw_stream *stream = &b->streams[b->n];
    *stream = (fw_stream){.struct_size = sizeof *stream,
                          .kind = kind,
                          .dtype = dtype,
                          .tensor = b->n / 2,
                          .rows = rows,
                          .columns = columns};
    b->buffers[b->n] = guarded_new(stream_bytes(stream));
    stream->data = b->buffers[b->n].data;
    b->n++;
}

/* The same shapes with untouched buffers. */
static bundle bundle_like(const bundle *b) {
    bundle other = {0};
    for (uint32_t i = 0; i < b->n; i++) {
        const fw_stream *s = &b->streams[i];
        bundle_add(&other, s->kind, s->dtype, s->rows, s->columns);
        other.streams[i].tensor = s->tensor;
        other.streams[i].symbol_min = s->symbol_min;
        other.streams[i].symbol_max = s->symbol_max;
    }
    return other;
}

static void bundle_free(bundle *b) {
    for (uint32_t i = 0; i < b->n; i++) {
        guarded_check(&b->buffers[i]);
        guarded_free(&b->buffers[i]);
    }
}

static int bundle_untouched(const bundle *b) {
    for (uint32_t i = 0; i < b->n; i++)
        if (!guarded_untouched(&b->buffers[i])) return 0;
    return 1;
}

static void assert_same_data(const bundle *a, const bundle *b) {
    for (uint32_t i = 0; i < a->n; i++)
        if (memcmp(a->buffers[i].data, b->buffers[i].data, a->buffers[i].bytes) != 0)
            fail_msg("stream %u came back changed", i);
}

/* Symbols of a quantizer, their range declared: normal, of scale levels / 4. */
static void add_symbols(bundle *b, test_random *random, int levels, int64_t rows, int64_t columns) {
    bundle_add(b, FW_STREAM_SYMBOLS, FW_I8, rows, columns);
    fw_stream *stream = &b->streams[b->n - 1];
    stream->symbol_min = -levels;
    stream->symbol_max = levels;
    int8_t *data = stream->data;
    for (int64_t i = 0; i < rows * columns; i++) {
        const double x = rint(test_normal(random) * levels / 4);
        data[i] = (int8_t)fmin(fmax(x, -levels), levels);
    }
}

/* Bytes: `kinds_of_byte` = 256 is incompressible, 1 is constant. */
static void add_bytes(bundle *b, test_random *random, uint32_t kind, uint32_t dtype, int64_t rows,
                      int64_t columns, uint64_t kinds_of_byte) {
    bundle_add(b, kind, dtype, rows, columns);
    const guarded *buffer = &b->buffers[b->n - 1];
    for (size_t i = 0; i < buffer->bytes; i++)
        buffer->data[i] = (uint8_t)test_below(random, kinds_of_byte);
}

/* float16 near one, as scales and norms are. */
static void add_halves(bundle *b, test_random *random, uint32_t kind, int64_t rows) {
    bundle_add(b, kind, FW_F16, rows, 1);
    for (int64_t i = 0; i < rows; i++) {
        const uint16_t half = (uint16_t)(0x3c00 + test_below(random, 300));
        memcpy(b->buffers[b->n - 1].data + 2 * i, &half, sizeof half);
    }
}

enum { NO_STREAMS, EMPTY_STREAMS, ONE_BYTE, MIXED, RANDOM, CONSTANT, MODEL, N_BUNDLES };

static bundle bundle_make(int which) {
    bundle b = {0};
    test_random random = {(uint64_t)which + 1};
    switch (which) {
    case EMPTY_STREAMS:
        add_symbols(&b, &random, 31, 0, 7);
        bundle_add(&b, FW_STREAM_FLOATS, FW_F16, 3, 0);
        break;
    case ONE_BYTE: add_bytes(&b, &random, FW_STREAM_OTHER, FW_U8, 1, 1, 256); break;
    case MIXED: /* kinds in no order, an empty one between */
        add_halves(&b, &random, FW_STREAM_FLOATS, 37);
        add_symbols(&b, &random, 31, 9, 33);
        add_halves(&b, &random, FW_STREAM_SCALES, 9);
        add_bytes(&b, &random, FW_STREAM_OTHER, FW_I32, 3, 5, 4);
        add_symbols(&b, &random, 31, 0, 5);
        add_symbols(&b, &random, 127, 17, 20);
        add_halves(&b, &random, FW_STREAM_SCALES, 17);
        break;
    case RANDOM: add_bytes(&b, &random, FW_STREAM_OTHER, FW_U8, 41, 100, 256); break;
    case CONSTANT: add_bytes(&b, &random, FW_STREAM_SYMBOLS, FW_I8, 50, 1000, 1); break;
    case MODEL: /* beyond any internal buffer */
        add_symbols(&b, &random, 31, 512, 512);
        add_halves(&b, &random, FW_STREAM_SCALES, 512);
        add_symbols(&b, &random, 127, 200, 500);
        add_halves(&b, &random, FW_STREAM_SCALES, 200);
        add_bytes(&b, &random, FW_STREAM_FLOATS, FW_F16, 1, 3000, 256);
        break;
    default: break;
    }
    return b;
}

static void *instance_new(void) {
    void *self = NULL;
    fw_error error = {.struct_size = sizeof error};
    conform_ok(compressor->create(c.host, c.values, &self, &error), &error);
    return self;
}

/* Compressed into a buffer of exactly the bound; the caller frees. */
static guarded compress(const bundle *b, size_t *used) {
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    fw_stream shapes[MAX_STREAMS];
    for (uint32_t i = 0; i < b->n; i++) shapes[i] = b->streams[i], shapes[i].data = NULL;
    const size_t bound = compressor->bound(self, shapes, b->n);
    assert_true(bound < 1u << 30);
    guarded out = guarded_new(bound);
    *used = out.bytes;
    conform_ok(compressor->compress(self, b->streams, b->n, out.data, used, &error), &error);
    assert_true(*used <= out.bytes);
    guarded_check(&out);
    compressor->destroy(self);
    return out;
}

static fw_status decompress(const uint8_t *in, size_t bytes, const bundle *into) {
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    uint8_t *exact = malloc(bytes + (bytes == 0)); /* so that a sanitizer sees reads beyond */
    assert_non_null(exact);
    if (bytes > 0) memcpy(exact, in, bytes);
    const fw_status status =
        compressor->decompress(self, exact, bytes, into->streams, into->n, &error);
    if (status != FW_OK && error.message[0] == '\0') fail_msg("an error without a message");
    free(exact);
    compressor->destroy(self);
    return status;
}

/* E_FORMAT or E_CHECKSUM, nothing written. */
static void assert_refused(const uint8_t *in, size_t bytes, const bundle *like, const char *what) {
    bundle into = bundle_like(like);
    const fw_status status = decompress(in, bytes, &into);
    if (status != FW_E_FORMAT && status != FW_E_CHECKSUM)
        fail_msg("%s (%zu bytes): status %d", what, bytes, status);
    if (!bundle_untouched(&into)) fail_msg("%s (%zu bytes): streams were written", what, bytes);
    bundle_free(&into);
}

static void test_descriptor(void **state) {
    (void)state;
    conform_check_descriptor(&c);
    assert_true(compressor->struct_size >= sizeof(uint32_t) * 2 + 5 * sizeof(void *));
}

static void test_lossless(void **state) {
    (void)state;
    for (int which = 0; which < N_BUNDLES; which++) {
        bundle b = bundle_make(which), back = bundle_like(&b);
        size_t used = 0;
        guarded out = compress(&b, &used);
        assert_int_equal(decompress(out.data, used, &back), FW_OK);
        assert_same_data(&b, &back);
        guarded_free(&out);
        bundle_free(&back);
        bundle_free(&b);
    }
}

static void test_deterministic(void **state) {
    (void)state;
    const int threads = omp_get_max_threads();
    for (int which = 0; which < N_BUNDLES; which++) {
        bundle b = bundle_make(which);
        size_t first = 0, second = 0;
        omp_set_num_threads(1);
        guarded one = compress(&b, &first);
        omp_set_num_threads(3);
        guarded two = compress(&b, &second);
        assert_int_equal(first, second);
        if (first > 0) assert_memory_equal(one.data, two.data, first);
        guarded_free(&one);
        guarded_free(&two);
        bundle_free(&b);
    }
    omp_set_num_threads(threads);
}

/* One byte too few: E_BUFFER, nothing written; exactly enough: the same bytes. */
static void test_capacity(void **state) {
    (void)state;
    for (int which = 0; which < N_BUNDLES; which++) {
        bundle b = bundle_make(which);
        size_t used = 0;
        guarded out = compress(&b, &used);
        void *self = instance_new();
        fw_error error = {.struct_size = sizeof error};
        guarded exact = guarded_new(used);
        size_t bytes = used;
        conform_ok(compressor->compress(self, b.streams, b.n, exact.data, &bytes, &error), &error);
        assert_int_equal(bytes, used);
        if (used > 0) assert_memory_equal(exact.data, out.data, used);
        guarded_check(&exact);
        for (int i = 0; i < 2 && used > 0; i++) {
            guarded small = guarded_new(i == 0 ? used - 1 : 0);
            bytes = small.bytes;
            assert_int_equal(compressor->compress(self, b.streams, b.n, small.data, &bytes, &error),
                             FW_E_BUFFER);
            guarded_check(&small);
            assert_true(guarded_untouched(&small));
            guarded_free(&small);
        }
        compressor->destroy(self);
        guarded_free(&exact);
        guarded_free(&out);
        bundle_free(&b);
    }
}

static void test_truncated(void **state) {
    (void)state;
    for (int which = ONE_BYTE; which < N_BUNDLES; which++) {
        bundle b = bundle_make(which);
        size_t used = 0;
        guarded out = compress(&b, &used);
        const size_t step = used > 4096 ? used / 64 + 1 : 1;
        for (size_t length = used - 1; length + 1 > 0; length -= length < step ? length + 1 : step)
            assert_refused(out.data, length, &b, "truncated");
        guarded_free(&out);
        bundle_free(&b);
    }
}

static void test_trailing(void **state) {
    (void)state;
    for (int which = 0; which < N_BUNDLES; which++) {
        bundle b = bundle_make(which);
        size_t used = 0;
        guarded out = compress(&b, &used);
        uint8_t *longer = calloc(used + 100, 1);
        assert_non_null(longer);
        if (used > 0) memcpy(longer, out.data, used);
        assert_refused(longer, used + 1, &b, "a byte more");
        assert_refused(longer, used + 100, &b, "100 bytes more");
        free(longer);
        guarded_free(&out);
        bundle_free(&b);
    }
}

/* Damage may go unnoticed (the artifact has a checksum) but never does harm. */
static void decompress_anything(const uint8_t *in, size_t bytes, const bundle *like) {
    bundle into = bundle_like(like);
    const fw_status status = decompress(in, bytes, &into);
    if (status != FW_OK && status != FW_E_FORMAT && status != FW_E_CHECKSUM)
        fail_msg("damaged bytes: status %d", status);
    if (status != FW_OK && !bundle_untouched(&into)) fail_msg("damaged bytes: streams written");
    bundle_free(&into);
}

static void test_bit_flips(void **state) {
    (void)state;
    test_random random = {77};
    for (int which = ONE_BYTE; which < N_BUNDLES; which++) {
        bundle b = bundle_make(which);
        size_t used = 0;
        guarded out = compress(&b, &used);
        const int flips = which == MODEL ? 20 : 500;
        for (int i = 0; i < flips; i++) {
            const uint64_t span = i < 64 && used > 8 ? 64 : 8 * used; /* the header too */
            const uint64_t bit = test_below(&random, span);
            out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            decompress_anything(out.data, used, &b);
            out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        guarded_free(&out);
        bundle_free(&b);
    }
}

static void test_garbage(void **state) {
    (void)state;
    test_random random = {78};
    bundle b = bundle_make(MIXED);
    uint8_t bytes[2000];
    for (int i = 0; i < 1000; i++) {
        const size_t n = test_below(&random, sizeof bytes);
        for (size_t k = 0; k < n; k++) bytes[k] = (uint8_t)test_below(&random, 256);
        if (n > 0) bytes[0] = (uint8_t)i; /* every header byte several times */
        decompress_anything(bytes, n, &b);
    }
    bundle_free(&b);
}

/* Streams that ask for another number of bytes, or for an absurd one. */
static void test_other_shapes(void **state) {
    (void)state;
    bundle b = bundle_make(MIXED);
    size_t used = 0;
    guarded out = compress(&b, &used);
    for (int64_t more = -1; more <= 1; more += 2) {
        bundle other = bundle_like(&b);
        guarded_free(&other.buffers[1]);
        other.streams[1].rows += more;
        other.buffers[1] = guarded_new(stream_bytes(&other.streams[1]));
        other.streams[1].data = other.buffers[1].data;
        assert_refused(out.data, used, &other, "another number of rows");
        bundle_free(&other);
    }
    /* the last one wraps around to the right number of bytes */
    static const int64_t absurd[][3] = {
        {0, INT64_MAX, INT64_MAX}, {0, -1, 5}, {0, INT64_MAX, 8}, {3, ((int64_t)1 << 62) + 3, 5}};
    for (size_t i = 0; i < sizeof absurd / sizeof absurd[0]; i++) {
        bundle other = bundle_like(&b);
        other.streams[absurd[i][0]].rows = absurd[i][1];
        other.streams[absurd[i][0]].columns = absurd[i][2];
        assert_int_not_equal(decompress(out.data, used, &other), FW_OK);
        assert_true(bundle_untouched(&other));
        bundle_free(&other);
    }
    guarded_free(&out);
    bundle_free(&b);
}

/* A cost model states at most a distribution: 2^-bits sums to at most one. */
static void test_cost_model(void **state) {
    (void)state;
    if (!FW_HAS(compressor, cost_model)) skip();
    bundle b = bundle_make(MODEL);
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    float bits[255];
    for (uint32_t i = 0; i < b.n; i++) {
        if (b.streams[i].kind != FW_STREAM_SYMBOLS) continue;
        const int64_t n = b.streams[i].symbol_max - b.streams[i].symbol_min + 1;
        double sum = 0;
        conform_ok(compressor->cost_model(self, &b.streams[i], bits, &error), &error);
        for (int64_t k = 0; k < n; k++) sum += exp2(-(double)bits[k]);
        conform_assert_finite("bits", bits, (size_t)n);
        assert_true(sum <= 1 + 1e-3);
    }
    compressor->destroy(self);
    bundle_free(&b);
}

int main(int argc, char **argv) {
    c = conform_open(argc, argv, FW_COMPRESSOR);
    compressor = c.plugin->vtable;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor),    cmocka_unit_test(test_lossless),
        cmocka_unit_test(test_deterministic), cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_trailing),
        cmocka_unit_test(test_bit_flips),     cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_other_shapes),  cmocka_unit_test(test_cost_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
