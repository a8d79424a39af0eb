/* Template of a quantizer: a few levels with one scale a row, clipped where least is lost. With
 * calibration an error counts by what the layer reads: one in a column that is large in training
 * text does more harm than one in a column that is nearly zero.
 *
 *     cc -shared -fPIC -O2 -fvisibility=hidden $(pkg-config --cflags fairway) quantizer.c \
 *        -o quantizer-template.so -lm
 *
 * In the INI:  [quantize]  plugin = /path/to/quantizer-template.so
 *
 * Format: a matrix is two streams, int8 symbols and a float32 scale a row; value = symbol * scale.
 * All else is one stream of float32. */
#include <fairway/fairway.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* 1. Parameters. They are the INI keys of the section; the host parses and checks them, and
 * create() gets the values in this order. */
enum { LEVELS, CALIBRATE, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [LEVELS] = FW_PARAM_RANGE(FW_PARAM_INT, "levels", "15", 1, 127, "",
                              "largest symbol; there are twice as many and 0"),
    [CALIBRATE] = FW_PARAM_PLAIN(FW_PARAM_BOOL, "calibrate", "yes",
                                 "weigh errors by what layers read of training text"),
};

/* 2. An instance is whatever create() allocates; every call gets it back as `self`. */
typedef struct reading { /* what a layer reads */
    int64_t n_columns;
    double *squares; /* [n_columns], summed over rows; NULL: nobody has looked */
} reading;

typedef struct rounding {
    int levels;
    bool calibrate;
    uint32_t n_readings;
    reading *readings; /* by weight */
    fw_quantizer_plan plan;
} rounding;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    (void)host; /* log, threads, seeds, ...: fairway/host.h */
    rounding *quantizer = calloc(1, sizeof *quantizer);
    if (quantizer == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the quantizer");
    quantizer->levels = (int)values[LEVELS].integer;
    quantizer->calibrate = values[CALIBRATE].integer != 0;
    *self = quantizer;
    return FW_OK;
}

static void destroy(void *self) {
    rounding *quantizer = self;
    if (quantizer == NULL) return;
    for (uint32_t i = 0; i < quantizer->n_readings; i++) free(quantizer->readings[i].squares);
    free(quantizer->readings);
    free(quantizer);
}

/* 3. Calibration: first a question with no rows for every matrix, then rows. */
static fw_status remember(rounding *quantizer, uint32_t index, int64_t n_columns, fw_error *error) {
    if (index >= quantizer->n_readings) {
        reading *more = realloc(quantizer->readings, (index + 1) * sizeof *more);
        if (more == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to calibrate");
        quantizer->readings = more;
        while (quantizer->n_readings <= index) more[quantizer->n_readings++] = (reading){0, NULL};
    }
    reading *one = &quantizer->readings[index];
    if (one->squares != NULL) return FW_OK;
    one->n_columns = n_columns;
    one->squares = calloc((size_t)n_columns, sizeof *one->squares);
    return one->squares != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "no memory to calibrate");
}

static fw_status observe(void *self, uint32_t index, const float *rows, int64_t n_rows,
                         int64_t n_columns, fw_error *error) {
    rounding *quantizer = self;
    if (!quantizer->calibrate) return fw_fail(error, FW_E_UNSUPPORTED, "calibrate = no");
    if (n_rows == 0) return FW_OK;
    FW_TRY(remember(quantizer, index, n_columns, error));
    double *squares = quantizer->readings[index].squares;
    for (int64_t i = 0; i < n_rows * n_columns; i++)
        squares[i % n_columns] += (double)rows[i] * (double)rows[i];
    return FW_OK;
}

/* 4. The plan comes with all tensors. They stay where they are until the last one is encoded. */
static int64_t count(const fw_weight *weight) {
    int64_t n = 1;
    for (uint32_t i = 0; i < weight->rank; i++) n *= weight->shape[i];
    return n;
}

static fw_status plan(void *self, const fw_quantizer_plan *plan, fw_error *error) {
    rounding *quantizer = self;
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        for (int64_t k = 0; k < count(plan->weights[i]); k++)
            if (!isfinite(plan->values[i][k]))
                return fw_fail(error, FW_E_NUMERIC, "%s: value %lld is not finite",
                               plan->weights[i]->name, (long long)k);
    quantizer->plan = *plan;
    return FW_OK;
}

enum { SYMBOLS, SCALES, N_STREAMS };

/* The streams of a weight by shape alone, so that decode() can hold what it gets against them. */
static uint32_t describe(const fw_weight *weight, int levels, fw_stream *streams) {
    if (weight->rank != 2) {
        streams[0].kind = FW_STREAM_FLOATS;
        streams[0].dtype = FW_F32;
        streams[0].rows = count(weight);
        streams[0].columns = 1;
        return 1;
    }
    streams[SYMBOLS].kind = FW_STREAM_SYMBOLS;
    streams[SYMBOLS].dtype = FW_I8;
    streams[SYMBOLS].columns = weight->shape[1];
    streams[SYMBOLS].symbol_min = -levels;
    streams[SYMBOLS].symbol_max = levels;
    streams[SCALES].kind = FW_STREAM_SCALES;
    streams[SCALES].dtype = FW_F32;
    streams[SCALES].columns = 1;
    streams[SYMBOLS].rows = streams[SCALES].rows = weight->shape[0];
    return N_STREAMS;
}

static fw_status streams(void *self, uint32_t index, fw_stream *streams, uint32_t *n_streams,
                         fw_error *error) {
    const rounding *quantizer = self;
    if (index >= quantizer->plan.n_tensors)
        return fw_fail(error, FW_E_ARGUMENT, "tensor %u was not planned", index);
    *n_streams = describe(quantizer->plan.weights[index], quantizer->levels, streams);
    for (uint32_t i = 0; i < *n_streams; i++) streams[i].tensor = index;
    return FW_OK;
}

/* 5. A row at a time. */
static double symbol_of(float value, float scale, int levels) {
    return fmin(fmax(rint((double)value / (double)scale), -levels), levels);
}

/* What clipping the row at levels * scale loses. */
static double loss_of(const float *row, const double *squares, int64_t n, float scale, int levels) {
    double loss = 0;
    for (int64_t k = 0; k < n; k++) {
        const double e = (double)row[k] - symbol_of(row[k], scale, levels) * (double)scale;
        loss += e * e * (squares != NULL ? squares[k] : 1);
    }
    return loss;
}

static float best_scale(const float *row, const double *squares, int64_t n, int levels) {
    enum { TRIES = 12 };
    float largest = 0, best = 0;
    double least = INFINITY;
    for (int64_t k = 0; k < n; k++) largest = fmaxf(largest, fabsf(row[k]));
    for (int i = 0; i < TRIES; i++) {
        const float scale = largest * (1 - 0.05f * (float)i) / (float)levels;
        const double loss = scale > 0 ? loss_of(row, squares, n, scale, levels) : INFINITY;
        if (loss < least) least = loss, best = scale;
    }
    return best; /* 0 for a row of zeros */
}

static const double *squares_of(const rounding *quantizer, uint32_t index, int64_t n_columns) {
    if (index >= quantizer->n_readings) return NULL;
    const reading *one = &quantizer->readings[index];
    return one->n_columns == n_columns ? one->squares : NULL;
}

static void encode_matrix(const rounding *quantizer, uint32_t index, const fw_stream *streams) {
    const fw_weight *weight = quantizer->plan.weights[index];
    const int64_t n = weight->shape[1];
    const double *squares = squares_of(quantizer, index, n);
    int8_t *symbols = streams[SYMBOLS].data;
    for (int64_t r = 0; r < weight->shape[0]; r++) {
        const float *row = quantizer->plan.values[index] + r * n;
        const float scale = best_scale(row, squares, n, quantizer->levels);
        memcpy((char *)streams[SCALES].data + (size_t)r * sizeof scale, &scale, sizeof scale);
        for (int64_t k = 0; k < n; k++)
            symbols[r * n + k] =
                scale > 0 ? (int8_t)symbol_of(row[k], scale, quantizer->levels) : 0;
    }
}

static fw_status encode(void *self, uint32_t index, fw_stream *streams, uint32_t n_streams,
                        fw_error *error) {
    const rounding *quantizer = self;
    if (index >= quantizer->plan.n_tensors)
        return fw_fail(error, FW_E_ARGUMENT, "tensor %u was not planned", index);
    const fw_weight *weight = quantizer->plan.weights[index];
    if (n_streams == N_STREAMS)
        encode_matrix(quantizer, index, streams);
    else
        memcpy(streams[0].data, quantizer->plan.values[index],
               (size_t)count(weight) * sizeof(float));
    return FW_OK;
}

/* 6. Decoding: streams come from a file, so nothing about them is taken for granted, and nothing is
 * written before all of them are right. `levels` is not known here; symbols are whatever int8
 * holds.
 */
static bool fits(const fw_stream *stream, const fw_stream *right) {
    return stream->kind == right->kind && stream->dtype == right->dtype &&
           stream->rows == right->rows && stream->columns == right->columns && stream->data != NULL;
}

static bool are_finite(const void *data, int64_t n, float times) {
    for (int64_t i = 0; i < n; i++) {
        float value; /* need not be aligned */
        memcpy(&value, (const char *)data + (size_t)i * sizeof value, sizeof value);
        if (!isfinite(value * times)) return false;
    }
    return true;
}

static fw_status check(const fw_weight *weight, const fw_stream *streams, uint32_t n_streams,
                       fw_error *error) {
    fw_stream right[FW_MAX_STREAMS] = {{0}};
    bool good = n_streams == describe(weight, 127, right);
    for (uint32_t i = 0; good && i < n_streams; i++) good = fits(&streams[i], &right[i]);
    if (!good)
        return fw_fail(error, FW_E_FORMAT, "%s: the streams are not those of its shape",
                       weight->name);
    const fw_stream *floats = &streams[n_streams - 1];
    if (are_finite(floats->data, floats->rows, n_streams == N_STREAMS ? 128 : 1)) return FW_OK;
    return fw_fail(error, FW_E_FORMAT, "%s: a %s is not finite", weight->name,
                   n_streams == N_STREAMS ? "scale" : "value");
}

static fw_status decode(void *self, const fw_weight *weight, const fw_stream *streams,
                        uint32_t n_streams, float *values, fw_error *error) {
    (void)self;
    FW_TRY(check(weight, streams, n_streams, error));
    if (n_streams == 1) {
        memcpy(values, streams[0].data, (size_t)count(weight) * sizeof *values);
        return FW_OK;
    }
    const int8_t *symbols = streams[SYMBOLS].data;
    for (int64_t i = 0; i < count(weight); i++) {
        float scale;
        memcpy(&scale,
               (const char *)streams[SCALES].data + (size_t)(i / weight->shape[1]) * sizeof scale,
               sizeof scale);
        values[i] = scale * (float)symbols[i];
    }
    return FW_OK;
}

/* 7. The table of functions, the description, and the one symbol that the host looks up. */
static const fw_quantizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .plan = plan,
                                    .streams = streams,
                                    .encode = encode,
                                    .decode = decode,
                                    .observe = observe};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_QUANTIZER,
                                 .id = "template",
                                 .version = "1.0.0",
                                 .summary = "a few levels, clipped where layers lose least",
                                 .vendor = "yours",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
