/* int6 for the matrices of attention and MLP, int8 for other large ones, float16 for tensors of at
 * most `small_values` values.
 *
 * int6 rows are clipped where the tensor's squared error is least (search.h), int8 rows at
 * `percentile` (clipped.h); both have one float16 scale a row. At a rate below 1, symbols +1 and -1
 * of the int6 rows of least scale become 0: the values that matter least, in absolute terms.
 *
 * The scale floor. Record 993 has scale >= 1/31 for int6 and >= 1/127 for int8, which says that no
 * row is clipped below 1. Weights are usually far smaller: in a row of standard deviation 0.03 the
 * step of 1/31 leaves nine symbols in ten at 0 or +-1, and the error is the floor's, not that of 6
 * bits. It compresses well and loses what could have been kept. So there is no floor unless
 * `scale_floor` sets one, and the record's two only by `faithful`.
 *
 * Quantization-aware training clips at the row's largest magnitude (fake.h), with the same floor.
 * Source: openai/parameter-golf pull request 993. */
#include <stdlib.h>

#include "../clipped.h"
#include "../fake.h"
#include "../half.h"
#include "../rows.h"
#include "../tensors.h"
#include "search.h"

enum { INT8_LEVELS = 127 };

enum { PERCENTILE, SCALE_FLOOR, FAITHFUL, SMALL_VALUES, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [PERCENTILE] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "percentile", "0.9999984", 0.5, 1.0, "",
                                  "quantile of a row's magnitudes at which int8 rows are clipped"),
    [SCALE_FLOOR] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "scale_floor", "0", 0.0, 65504.0, "",
                                   "least scale of a row; 0: none"),
    [FAITHFUL] = FW_PARAM_PLAIN(FW_PARAM_BOOL, "faithful", "no",
                                "the scale floors of Parameter Golf record 993, 1/31 for int6 and "
                                "1/127 for int8, instead of scale_floor"),
    [SMALL_VALUES] = FW_PARAM_RANGE(FW_PARAM_INT, "small_values", "65536", 0.0, 0x1p40, "values",
                                    "tensors of at most this many values stay float16"),
};

typedef enum storage { STORED_HALF, STORED_INT6, STORED_INT8 } storage;

typedef struct int6_mixed {
    const fw_host *host;
    float int6_floor;
    clipped_format int8;
    int64_t small_values;
    tensor_set planned;
    search search;
} int6_mixed;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    const int faithful = values[FAITHFUL].integer != 0;
    const float floor = (float)values[SCALE_FLOOR].real;
    if (faithful && floor > 0)
        return fw_fail(error, FW_E_CONFIG,
                       "int6_mixed: faithful = yes has scale floors of its own; leave out "
                       "scale_floor = %g",
                       (double)floor);
    int6_mixed *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for quantizer int6_mixed");
    made->host = host;
    made->int6_floor = faithful ? 1.0f / INT6_LEVELS : floor;
    made->int8 = (clipped_format){.levels = INT8_LEVELS,
                                  .percentile = (float)values[PERCENTILE].real,
                                  .scale_floor = faithful ? 1.0f / INT8_LEVELS : floor};
    made->small_values = values[SMALL_VALUES].integer;
    *self = made;
    return FW_OK;
}

static void destroy(void *self) {
    int6_mixed *quantizer = self;
    if (quantizer == NULL) return;
    tensors_forget(&quantizer->planned);
    search_free(&quantizer->search);
    free(quantizer);
}

static int levels_of(const fw_weight *weight) {
    return weight->part == FW_PART_ATTENTION || weight->part == FW_PART_MLP ? INT6_LEVELS
                                                                            : INT8_LEVELS;
}

static storage storage_of(const int6_mixed *quantizer, const fw_weight *weight) {
    if (weight->rank != 2 || tensors_count(weight) <= quantizer->small_values) return STORED_HALF;
    return levels_of(weight) == INT6_LEVELS ? STORED_INT6 : STORED_INT8;
}

static fw_status check_plan(const int6_mixed *quantizer, const fw_quantizer_plan *plan,
                            fw_error *error) {
    if (!(plan->rate >= 0 && plan->rate <= 1))
        return fw_fail(error, FW_E_ARGUMENT, "int6_mixed: a rate of %g; 0 to 1 are right",
                       plan->rate);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const fw_weight *weight = plan->weights[i];
        const int half = storage_of(quantizer, weight) == STORED_HALF;
        const float levels = half ? 1.0f : (float)levels_of(weight); /* a scale fits float16 */
        FW_TRY(tensors_check(weight, plan->values[i], HALF_OVERFLOW * levels, error));
    }
    return FW_OK;
}

static fw_status search_int6(int6_mixed *quantizer, const tensor_set *tensors, fw_error *error) {
    uint8_t *wanted = calloc((size_t)tensors->n + 1, 1);
    if (wanted == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a plan");
    for (uint32_t i = 0; i < tensors->n; i++)
        wanted[i] = storage_of(quantizer, tensors->weights[i]) == STORED_INT6;
    const fw_status status = search_plan(&quantizer->search, quantizer->host, tensors, wanted,
                                         quantizer->int6_floor, error);
    free(wanted);
    return status;
}

static fw_status plan(void *self, const fw_quantizer_plan *plan, fw_error *error) {
    int6_mixed *quantizer = self;
    tensor_set tensors = {0};
    FW_TRY(check_plan(quantizer, plan, error));
    FW_TRY(tensors_remember(&tensors, plan, error));
    const fw_status status = search_int6(quantizer, &tensors, error);
    if (status != FW_OK) {
        tensors_forget(&tensors);
        return status;
    }
    tensors_forget(&quantizer->planned);
    quantizer->planned = tensors;
    const int64_t pruned = search_prune(&quantizer->search, plan->rate);
    if (pruned > 0 && FW_HAS(quantizer->host, effect))
        quantizer->host->effect(quantizer->host, "pruned_weights", (double)pruned);
    return FW_OK;
}

static fw_status streams(void *self, uint32_t index, fw_stream *streams, uint32_t *n_streams,
                         fw_error *error) {
    const int6_mixed *quantizer = self;
    FW_TRY(tensors_require(&quantizer->planned, index, error));
    const fw_weight *weight = quantizer->planned.weights[index];
    if (storage_of(quantizer, weight) == STORED_HALF) {
        tensors_half_stream(weight, &streams[0]);
        *n_streams = 1;
    } else {
        rows_streams(weight, levels_of(weight), streams);
        *n_streams = ROWS_STREAMS;
    }
    return FW_OK;
}

static fw_status encode(void *self, uint32_t index, fw_stream *streams, uint32_t n_streams,
                        fw_error *error) {
    const int6_mixed *quantizer = self;
    const tensor_set *planned = &quantizer->planned;
    FW_TRY(tensors_require(planned, index, error));
    const fw_weight *weight = planned->weights[index];
    const storage stored = storage_of(quantizer, weight);
    const uint32_t right = stored == STORED_HALF ? 1 : ROWS_STREAMS;
    if (n_streams != right || (stored != STORED_HALF && !rows_fit(weight, streams)))
        return fw_fail(error, FW_E_ARGUMENT, "%s: the streams are not those of the plan",
                       weight->name);
    const float *values = planned->values[index];
    if (stored == STORED_HALF) return tensors_half_encode(weight, values, &streams[0], error);
    if (stored == STORED_INT8)
        return clipped_encode(quantizer->host, &quantizer->int8, weight, values, streams, error);
    search_encode(&quantizer->search, quantizer->host, index, planned, streams);
    return FW_OK;
}

static fw_status decode(void *self, const fw_weight *weight, const fw_stream *streams,
                        uint32_t n_streams, float *values, fw_error *error) {
    (void)self;
    if (n_streams == 1) return tensors_half_decode(weight, &streams[0], values, error);
    return rows_decode(weight, levels_of(weight), streams, n_streams, values, error);
}

static size_t fake_scratch(void *self, const fw_weight *weight) {
    return storage_of(self, weight) == STORED_HALF ? 0 : fake_rows_scratch(weight);
}

static fw_status fake_quantize(void *self, fw_device *device, const fw_weight *weight,
                               const fw_tensor *master, const fw_tensor *out, const fw_step *step,
                               void *scratch, fw_error *error) {
    const int6_mixed *quantizer = self;
    const storage stored = storage_of(quantizer, weight);
    if (stored == STORED_HALF)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s is stored as float16", weight->name);
    const float floor = stored == STORED_INT6 ? quantizer->int6_floor : quantizer->int8.scale_floor;
    return fake_rows(device, weight, levels_of(weight), floor, master, out, step, scratch, error);
}

static const fw_quantizer vtable = {.struct_size = sizeof vtable,
                                    .has_rate = 1,
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
                                 .id = "int6_mixed",
                                 .version = "1.0.0",
                                 .summary =
                                     "int6 attention and MLP, int8 tables, pruned to fit the bytes",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
