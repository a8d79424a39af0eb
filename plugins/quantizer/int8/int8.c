/* int8 with one scale per row: matrices of more than `small_values` values; the rest is float16.
 *
 * A row is clipped at the `percentile` quantile of its magnitudes and its scale is at least
 * `scale_floor` (clipped.h). Parameter Golf record 993 uses scale_floor = 1/127 = 0.007874015748,
 * which is coarse for small weights; the default is no floor.
 *
 * Quantization-aware training takes the row's largest magnitude for its clip: no device has a
 * quantile, and at the default percentile the two differ by a fraction below 1.6e-6 * columns. */
#include <stdlib.h>

#include "../clipped.h"
#include "../fake.h"
#include "../half.h"
#include "../rows.h"
#include "../tensors.h"

enum { LEVELS = 127 };

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
    clipped_format format;
    int64_t small_values;
    tensor_set planned;
} int8_quantizer;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    int8_quantizer *quantizer = calloc(1, sizeof *quantizer);
    if (quantizer == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for quantizer int8");
    quantizer->host = host;
    quantizer->format = (clipped_format){.levels = LEVELS,
                                         .percentile = (float)values[PERCENTILE].real,
                                         .scale_floor = (float)values[SCALE_FLOOR].real};
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

static fw_status streams(void *self, uint32_t index, fw_stream *streams, uint32_t *n_streams,
                         fw_error *error) {
    const int8_quantizer *quantizer = self;
    FW_TRY(tensors_require(&quantizer->planned, index, error));
    const fw_weight *weight = quantizer->planned.weights[index];
    if (is_quantized(quantizer, weight)) {
        rows_streams(weight, LEVELS, streams);
        *n_streams = ROWS_STREAMS;
    } else {
        tensors_half_stream(weight, &streams[0]);
        *n_streams = 1;
    }
    return FW_OK;
}

static fw_status encode(void *self, uint32_t index, fw_stream *streams, uint32_t n_streams,
                        fw_error *error) {
    const int8_quantizer *quantizer = self;
    FW_TRY(tensors_require(&quantizer->planned, index, error));
    const fw_weight *weight = quantizer->planned.weights[index];
    const int quantized = is_quantized(quantizer, weight);
    if (n_streams != (quantized ? ROWS_STREAMS : 1) || (quantized && !rows_fit(weight, streams)))
        return fw_fail(error, FW_E_ARGUMENT, "%s: the streams are not those of the plan",
                       weight->name);
    const float *values = quantizer->planned.values[index];
    if (!quantized) return tensors_half_encode(weight, values, &streams[0], error);
    return clipped_encode(quantizer->host, &quantizer->format, weight, values, streams, error);
}

static fw_status decode(void *self, const fw_weight *weight, const fw_stream *streams,
                        uint32_t n_streams, float *values, fw_error *error) {
    (void)self;
    if (n_streams == 1) return tensors_half_decode(weight, &streams[0], values, error);
    return rows_decode(weight, LEVELS, streams, n_streams, values, error);
}

static size_t fake_scratch(void *self, const fw_weight *weight) {
    return is_quantized(self, weight) ? fake_rows_scratch(weight) : 0;
}

static fw_status fake_quantize(void *self, fw_device *device, const fw_weight *weight,
                               const fw_tensor *master, const fw_tensor *out, const fw_step *step,
                               void *scratch, fw_error *error) {
    const int8_quantizer *quantizer = self;
    if (!is_quantized(quantizer, weight))
        return fw_fail(error, FW_E_UNSUPPORTED, "%s is stored as float16", weight->name);
    return fake_rows(device, weight, LEVELS, quantizer->format.scale_floor, master, out, step,
                     scratch, error);
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
