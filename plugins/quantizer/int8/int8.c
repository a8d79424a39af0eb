/* int8 with one scale per row: matrices of more than `small_values` values; the rest is float16.
 *
 * A row's clip is the `percentile` quantile of its magnitudes; scale = max(clip / 127, scale_floor)
 * in float32, q = round_half_even(clamp(w, -clip, clip) / scale), and the scale is stored as
 * float16. Parameter Golf record 993 uses scale_floor = 1/127 = 0.007874015748, which is coarse for
 * small weights; the default is no floor.
 *
 * Quantization-aware training takes the row's largest magnitude for its clip: no device has a
 * quantile, and at the default percentile the two differ by a fraction below 1.6e-6 * columns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../half.h"
#include "../tensors.h"
#include "quantile.h"

enum { LEVELS = 127, SYMBOLS = 0, SCALES = 1, N_STREAMS = 2 };

enum { PERCENTILE, SCALE_FLOOR, SMALL_VALUES, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [PERCENTILE] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "percentile", "0.9999984", 0.5, 1.0, "",
                                  "quantile of a row's magnitudes at which it is clipped"),
    [SCALE_FLOOR] = FW_PARAM_RANGE(
        FW_PARAM_FLOAT, "scale_floor", "0", 0.0, 65504.0, "",
        "least scale of a row; Parameter Golf record 993 has 1/127 = 0.007874015748"),
    [SMALL_VALUES] = FW_PARAM_RANGE(FW_PARAM_INT, "small_values", "65536", 0.0, 0x1p40, "values",
                                    "tensors of at most this many values stay float16"),
};

typedef struct int8_quantizer {
    const fw_host *host;
    float percentile, scale_floor;
    int64_t small_values;
    tensor_set planned;
} int8_quantizer;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    int8_quantizer *quantizer = calloc(1, sizeof *quantizer);
    if (quantizer == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for quantizer int8");
    quantizer->host = host;
    quantizer->percentile = (float)values[PERCENTILE].real;
    quantizer->scale_floor = (float)values[SCALE_FLOOR].real;
    quantizer->small_values = values[SMALL_VALUES].integer;
    *self = quantizer;
    return FW_OK;
}

static void destroy(void *self) {
    int8_quantizer *quantizer = self;
    if (quantizer != NULL) tensors_forget(&quantizer->planned);
    free(quantizer);
}

static int is_quantized(const int8_quantizer *quantizer, const fw_weight *weight) {
    return weight->rank == 2 && tensors_count(weight) > quantizer->small_values;
}

static fw_status plan(void *self, const fw_quantizer_plan *plan, fw_error *error) {
    int8_quantizer *quantizer = self;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        /* The scale of such a row fits float16. */
        const float levels = is_quantized(quantizer, plan->weights[i]) ? LEVELS : 1;
        FW_TRY(tensors_check(plan->weights[i], plan->values[i], HALF_OVERFLOW * levels, error));
    }
    return tensors_remember(&quantizer->planned, plan, error);
}

static void symbol_streams(const fw_weight *weight, fw_stream *streams) {
    fw_stream *symbols = &streams[SYMBOLS], *scales = &streams[SCALES];
    symbols->kind = FW_STREAM_SYMBOLS;
    symbols->dtype = FW_I8;
    symbols->columns = weight->shape[1];
    symbols->symbol_min = -LEVELS;
    symbols->symbol_max = LEVELS;
    scales->kind = FW_STREAM_SCALES;
    scales->dtype = FW_F16;
    scales->columns = 1;
    scales->symbol_min = scales->symbol_max = 0;
    for (int i = 0; i < N_STREAMS; i++) {
        streams[i].tensor = weight->index;
        streams[i].rows = weight->shape[0];
        streams[i].data = NULL;
    }
}

static fw_status streams(void *self, uint32_t index, fw_stream *streams, uint32_t *n_streams,
                         fw_error *error) {
    const int8_quantizer *quantizer = self;
    FW_TRY(tensors_require(&quantizer->planned, index, error));
    const fw_weight *weight = quantizer->planned.weights[index];
    if (is_quantized(quantizer, weight)) {
        symbol_streams(weight, streams);
        *n_streams = N_STREAMS;
    } else {
        tensors_half_stream(weight, &streams[0]);
        *n_streams = 1;
    }
    return FW_OK;
}

static int symbols_fit(const fw_weight *weight, const fw_stream *streams) {
    const int64_t rows = weight->shape[0], columns = weight->shape[1];
    return weight->rank == 2 &&
           tensors_fits(&streams[SYMBOLS], FW_STREAM_SYMBOLS, FW_I8, rows, columns) &&
           tensors_fits(&streams[SCALES], FW_STREAM_SCALES, FW_F16, rows, 1);
}

/* One tensor on its way into its streams; rows are independent of each other. */
typedef struct row_job {
    const int8_quantizer *quantizer;
    const float *values;
    float *magnitudes; /* scratch of the tensor's size */
    int64_t columns;
    int8_t *symbols;
    uint8_t *scales;
} row_job;

/* The scale as stored. Where float16 is subnormal its relative error is no longer small, so there
 * the scale is rounded up first and the symbols are formed with what will be read back. */
static uint16_t store_scale(float *scale) {
    uint16_t stored = half_from_float(*scale);
    if (*scale < HALF_LEAST_NORMAL) {
        if (half_to_float(stored) < *scale) stored++;
        *scale = half_to_float(stored);
    }
    return stored;
}

static void encode_row(const row_job *job, int64_t row) {
    const int64_t columns = job->columns;
    const float *values = job->values + row * columns;
    float *magnitudes = job->magnitudes + row * columns;
    int8_t *symbols = job->symbols + row * columns;
    for (int64_t i = 0; i < columns; i++) magnitudes[i] = fabsf(values[i]);

    const float clip = quantile(magnitudes, columns, job->quantizer->percentile);
    float scale = fmaxf(clip / (float)LEVELS, job->quantizer->scale_floor);
    const uint16_t stored = store_scale(&scale);
    memcpy(job->scales + row * 2, &stored, sizeof stored);
    for (int64_t i = 0; i < columns; i++) {
        const float clipped = fminf(fmaxf(values[i], -clip), clip);
        const float q = scale > 0 ? rintf(clipped / scale) : 0.0f;
        symbols[i] = (int8_t)fminf(fmaxf(q, -LEVELS), LEVELS);
    }
}

static void encode_rows(void *argument, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) encode_row(argument, row);
}

static fw_status encode_symbols(const int8_quantizer *quantizer, uint32_t index, fw_stream *streams,
                                fw_error *error) {
    const fw_weight *weight = quantizer->planned.weights[index];
    const int64_t count = tensors_count(weight);
    if (count == 0) return FW_OK;
    const fw_host *host = quantizer->host;
    float *magnitudes = host->allocate(host, (size_t)count * sizeof *magnitudes);
    if (magnitudes == NULL)
        return fw_fail(error, FW_E_MEMORY, "%s: no memory for %lld values", weight->name,
                       (long long)count);
    row_job job = {.quantizer = quantizer,
                   .values = quantizer->planned.values[index],
                   .magnitudes = magnitudes,
                   .columns = weight->shape[1],
                   .symbols = streams[SYMBOLS].data,
                   .scales = streams[SCALES].data};
    host->parallel_for(host, weight->shape[0], 16, encode_rows, &job);
    host->release(host, magnitudes);
    return FW_OK;
}

static fw_status encode(void *self, uint32_t index, fw_stream *streams, uint32_t n_streams,
                        fw_error *error) {
    const int8_quantizer *quantizer = self;
    FW_TRY(tensors_require(&quantizer->planned, index, error));
    const fw_weight *weight = quantizer->planned.weights[index];
    const int quantized = is_quantized(quantizer, weight);
    if (n_streams != (quantized ? N_STREAMS : 1) || (quantized && !symbols_fit(weight, streams)))
        return fw_fail(error, FW_E_ARGUMENT, "%s: the streams are not those of the plan",
                       weight->name);
    if (quantized) return encode_symbols(quantizer, index, streams, error);
    return tensors_half_encode(weight, quantizer->planned.values[index], &streams[0], error);
}

/* The artifact may be damaged: refuse what encode never writes. */
static fw_status check_symbols(const fw_weight *weight, const fw_stream *streams, fw_error *error) {
    if (!symbols_fit(weight, streams))
        return fw_fail(error, FW_E_FORMAT,
                       "%s: the streams are not %lld x %lld int8 symbols and a float16 scale a row",
                       weight->name, (long long)weight->shape[0], (long long)weight->shape[1]);
    const int8_t *symbols = streams[SYMBOLS].data;
    const uint8_t *scales = streams[SCALES].data;
    for (int64_t i = 0; i < weight->shape[0]; i++) {
        uint16_t scale;
        memcpy(&scale, scales + i * 2, sizeof scale);
        if (scale >= 0x7c00u)
            return fw_fail(error, FW_E_FORMAT,
                           "%s: the scale of row %lld is negative or not finite", weight->name,
                           (long long)i);
    }
    for (int64_t i = 0; i < tensors_count(weight); i++)
        if (symbols[i] < -LEVELS)
            return fw_fail(error, FW_E_FORMAT, "%s: symbol %lld is below -%d", weight->name,
                           (long long)i, LEVELS);
    return FW_OK;
}

static fw_status decode(void *self, const fw_weight *weight, const fw_stream *streams,
                        uint32_t n_streams, float *values, fw_error *error) {
    (void)self;
    if (n_streams == 1) return tensors_half_decode(weight, &streams[0], values, error);
    if (n_streams != N_STREAMS)
        return fw_fail(error, FW_E_FORMAT, "%s has %u streams, but int8 writes 1 or 2",
                       weight->name, n_streams);
    FW_TRY(check_symbols(weight, streams, error));
    const int64_t columns = weight->shape[1];
    const int8_t *symbols = streams[SYMBOLS].data;
    const uint8_t *scales = streams[SCALES].data;
    for (int64_t row = 0; row < weight->shape[0]; row++) {
        uint16_t stored;
        memcpy(&stored, scales + row * 2, sizeof stored);
        const float scale = half_to_float(stored);
        for (int64_t i = row * columns; i < (row + 1) * columns; i++)
            values[i] = scale * (float)symbols[i];
    }
    return FW_OK;
}

/* Two vectors of one value a row, the second aligned: largest magnitudes, scales. */
static size_t row_vector_bytes(const fw_weight *weight) {
    return ((size_t)weight->shape[0] * sizeof(float) + 255) / 256 * 256;
}

static size_t fake_scratch(void *self, const fw_weight *weight) {
    return is_quantized(self, weight) ? 2 * row_vector_bytes(weight) : 0;
}

static fw_status check_fake(const int8_quantizer *quantizer, const fw_device *device,
                            const fw_weight *weight, fw_error *error) {
    if (!is_quantized(quantizer, weight))
        return fw_fail(error, FW_E_UNSUPPORTED, "%s is stored as float16", weight->name);
    if (quantizer->scale_floor > 0)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "%s: int8 trains quantization-aware only with scale_floor = 0",
                       weight->name);
    const fw_ops *ops = device->ops;
    if (!FW_HAS(ops, row_absmax) || !FW_HAS(ops, axpby) || !FW_HAS(ops, fake_quantize))
        return fw_fail(error, FW_E_UNSUPPORTED, "the device lacks row_absmax or fake_quantize");
    return FW_OK;
}

static fw_status fake_quantize(void *self, fw_device *device, const fw_weight *weight,
                               const fw_tensor *master, const fw_tensor *out, const fw_step *step,
                               void *scratch, fw_error *error) {
    FW_TRY(check_fake(self, device, weight, error));
    const int64_t rows = weight->shape[0];
    const fw_tensor absmax = fw_vector(scratch, FW_F32, rows);
    const fw_tensor scale = fw_vector((char *)scratch + row_vector_bytes(weight), FW_F32, rows);
    const fw_row_absmax largest = {.struct_size = sizeof largest, .x = *master, .absmax = absmax};
    const fw_axpby divide = {
        .struct_size = sizeof divide, .alpha = 1.0f / LEVELS, .x = absmax, .y = scale};
    const fw_fake_quantize round = {.struct_size = sizeof round,
                                    .levels = LEVELS,
                                    .step = step,
                                    .x = *master,
                                    .scale = scale,
                                    .out = *out};
    FW_TRY(device->ops->row_absmax(device, &largest, error));
    FW_TRY(device->ops->axpby(device, &divide, error));
    return device->ops->fake_quantize(device, &round, error);
}

static const fw_quantizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .plan = plan,
                                    .streams = streams,
                                    .encode = encode,
                                    .decode = decode,
                                    .fake_scratch = fake_scratch,
                                    .fake_quantize = fake_quantize};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_QUANTIZER,
                                 .id = "int8",
                                 .version = "1.0.0",
                                 .summary = "int8 symbols with a float16 scale per row",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
