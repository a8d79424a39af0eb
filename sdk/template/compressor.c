/* Template of a compressor: runs of equal bytes become two bytes. Small, and complete: bounded,
 * without loss, and safe on damaged input.
 *
 *     cc -shared -fPIC -O2 -fvisibility=hidden $(pkg-config --cflags fairway) compressor.c \
 *        -o compressor-template.so
 *
 * In the INI:  [compress]  plugin = /path/to/compressor-template.so
 *
 * Format: a control byte c, then for c < 128: c + 1 bytes as they are; else: one byte that stands
 * c - 126 times (2 to 129). */
#include <fairway/fairway.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* 1. Parameters. They are the INI keys of the section; the host parses and checks them, and
 * create() gets the values in this order. */
enum { MIN_RUN, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [MIN_RUN] = FW_PARAM_RANGE(FW_PARAM_INT, "min_run", "3", 3, 129, "bytes",
                               "shortest run that is worth two bytes"),
};

/* 2. An instance is whatever create() allocates; every call gets it back as `self`. */
typedef struct run_length {
    size_t min_run;
} run_length;

enum { MAX_LITERALS = 128, MAX_RUN = 129, RUN_OFFSET = 126 };

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    (void)host; /* log, threads, seeds, ...: fairway/host.h */
    run_length *compressor = calloc(1, sizeof *compressor);
    if (compressor == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the compressor");
    compressor->min_run = (size_t)values[MIN_RUN].integer;
    *self = compressor;
    return FW_OK;
}

static void destroy(void *self) { free(self); }

/* 3. The streams of an artifact, one after the other, are this compressor's input. */
static size_t stream_bytes(const fw_stream *stream) {
    return (size_t)(stream->rows * stream->columns) * fw_dtype_size(stream->dtype);
}

/* Shapes come from a file, too: one that no memory could hold is damage. */
static bool possible(const fw_stream *stream) {
    const int64_t most = INT64_MAX / 16;
    return stream->rows >= 0 && stream->columns >= 0 &&
           (stream->columns == 0 || stream->rows <= most / stream->columns);
}

static size_t total_bytes(const fw_stream *streams, uint32_t n_streams) {
    size_t total = 0;
    for (uint32_t i = 0; i < n_streams; i++) total += stream_bytes(&streams[i]);
    return total;
}

/* The worst case has no runs: one control byte for each 128 bytes, and one for the rest of each
 * stream. A run of 3 saves the byte that the literals before it cost; a run of 2 would not. */
static size_t bound(void *self, const fw_stream *streams, uint32_t n_streams) {
    (void)self;
    const size_t total = total_bytes(streams, n_streams);
    return total + total / MAX_LITERALS + n_streams;
}

/* Where output goes; with `to` NULL it is only counted. */
typedef struct output {
    uint8_t *to;
    size_t bytes;
} output;

static void put(output *out, uint8_t control, const uint8_t *bytes, size_t n) {
    if (out->to != NULL) {
        out->to[out->bytes] = control;
        memcpy(out->to + out->bytes + 1, bytes, n);
    }
    out->bytes += n + 1;
}

static void put_literals(output *out, const uint8_t *from, const uint8_t *end) {
    while (from < end) {
        const size_t left = (size_t)(end - from);
        const size_t n = left < MAX_LITERALS ? left : MAX_LITERALS;
        put(out, (uint8_t)(n - 1), from, n);
        from += n;
    }
}

static size_t run_at(const uint8_t *from, const uint8_t *end) {
    size_t n = 1;
    while (from + n < end && n < MAX_RUN && from[n] == from[0]) n++;
    return n;
}

static void compress_stream(const run_length *compressor, const uint8_t *from, size_t n,
                            output *out) {
    const uint8_t *end = from + n, *literals = from;
    while (from < end) {
        const size_t run = run_at(from, end);
        if (run >= compressor->min_run) {
            put_literals(out, literals, from);
            put(out, (uint8_t)(run + RUN_OFFSET), from, 1);
            literals = from + run;
        }
        from += run;
    }
    put_literals(out, literals, end);
}

/* Outputs stay untouched on failure, so the size is known before the first byte is written. */
static fw_status compress(void *self, const fw_stream *streams, uint32_t n_streams, void *out,
                          size_t *bytes, fw_error *error) {
    output counted = {NULL, 0}, written = {out, 0};
    for (uint32_t i = 0; i < n_streams; i++)
        compress_stream(self, streams[i].data, stream_bytes(&streams[i]), &counted);
    if (counted.bytes > *bytes)
        return fw_fail(error, FW_E_BUFFER, "the streams take %zu bytes, not %zu", counted.bytes,
                       *bytes);
    for (uint32_t i = 0; i < n_streams; i++)
        compress_stream(self, streams[i].data, stream_bytes(&streams[i]), &written);
    *bytes = written.bytes;
    return FW_OK;
}

/* 4. Whatever stands in the file, nothing is read or written outside the buffers. With `to` NULL
 * the bytes are only checked. */
static bool decompress_stream(const uint8_t **from, const uint8_t *end, uint8_t *to, size_t n) {
    while (n > 0) {
        if (*from == end) return false;
        const uint8_t control = *(*from)++;
        const bool literal = control < MAX_LITERALS;
        const size_t count = literal ? control + 1u : control - (size_t)RUN_OFFSET;
        const size_t needed = literal ? count : 1;
        if (count > n || (size_t)(end - *from) < needed) return false;
        if (to != NULL && literal) memcpy(to, *from, count);
        if (to != NULL && !literal) memset(to, **from, count);
        if (to != NULL) to += count;
        *from += needed;
        n -= count;
    }
    return true;
}

static fw_status check(const uint8_t *from, size_t bytes, const fw_stream *streams,
                       uint32_t n_streams, fw_error *error) {
    const uint8_t *end = from + bytes;
    for (uint32_t i = 0; i < n_streams; i++)
        if (!possible(&streams[i]) ||
            !decompress_stream(&from, end, NULL, stream_bytes(&streams[i])))
            return fw_fail(error, FW_E_FORMAT, "the compressed data is damaged in stream %u", i);
    if (from != end)
        return fw_fail(error, FW_E_FORMAT, "%zu bytes follow the compressed data",
                       (size_t)(end - from));
    return FW_OK;
}

static fw_status decompress(void *self, const void *in, size_t bytes, const fw_stream *streams,
                            uint32_t n_streams, fw_error *error) {
    (void)self;
    FW_TRY(check(in, bytes, streams, n_streams, error));
    const uint8_t *from = in, *end = from + bytes;
    for (uint32_t i = 0; i < n_streams; i++)
        (void)decompress_stream(&from, end, streams[i].data, stream_bytes(&streams[i]));
    return FW_OK;
}

/* 5. The table of functions, the description, and the one symbol that the host looks up. */
static const fw_compressor vtable = {.struct_size = sizeof vtable,
                                     .create = create,
                                     .destroy = destroy,
                                     .bound = bound,
                                     .compress = compress,
                                     .decompress = decompress};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_COMPRESSOR,
                                 .id = "template",
                                 .version = "1.0.0",
                                 .summary = "runs of equal bytes become two bytes",
                                 .vendor = "yours",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
