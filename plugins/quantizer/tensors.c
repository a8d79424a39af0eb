/* Planned tensors and float16 streams; see tensors.h. */
#include "tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "half.h"

fw_status tensors_remember(tensor_set *tensors, const fw_quantizer_plan *plan, fw_error *error) {
    const size_t n = plan->n_tensors;
    const fw_weight **weights = malloc((n + 1) * sizeof *weights);
    const float **values = malloc((n + 1) * sizeof *values);
    if (weights == NULL || values == NULL) {
        free(weights);
        free(values);
        return fw_fail(error, FW_E_MEMORY, "no memory for a plan of %zu tensors", n);
    }
    for (size_t i = 0; i < n; i++) weights[i] = plan->weights[i];
    for (size_t i = 0; i < n; i++) values[i] = plan->values[i];
    tensors_forget(tensors);
    tensors->n = plan->n_tensors;
    tensors->weights = weights;
    tensors->values = values;
    return FW_OK;
}

void tensors_forget(tensor_set *tensors) {
    free(tensors->weights);
    free(tensors->values);
    tensors->weights = NULL;
    tensors->values = NULL;
    tensors->n = 0;
}

fw_status tensors_require(const tensor_set *tensors, uint32_t index, fw_error *error) {
    if (index < tensors->n) return FW_OK;
    return fw_fail(error, FW_E_ARGUMENT, "tensor %u is not in the plan of %u tensors", index,
                   tensors->n);
}

int64_t tensors_count(const fw_weight *weight) {
    return weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3];
}

fw_status tensors_check(const fw_weight *weight, const float *values, float limit,
                        fw_error *error) {
    const int64_t count = tensors_count(weight);
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(values[i]) < limit))
            return fw_fail(error, FW_E_NUMERIC,
                           "%s: value %lld is %g, but must be finite and below %g in magnitude",
                           weight->name, (long long)i, (double)values[i], (double)limit);
    return FW_OK;
}

int tensors_fits(const fw_stream *stream, uint32_t kind, uint32_t dtype, int64_t rows,
                 int64_t columns) {
    return stream->kind == kind && stream->dtype == dtype && stream->rows == rows &&
           stream->columns == columns && (stream->data != NULL || rows * columns == 0);
}

static void half_shape(const fw_weight *weight, int64_t *rows, int64_t *columns) {
    *rows = weight->rank >= 2 ? weight->shape[0] : 1;
    *columns = *rows > 0 ? tensors_count(weight) / *rows : 0;
}

void tensors_half_stream(const fw_weight *weight, fw_stream *stream) {
    stream->kind = FW_STREAM_FLOATS;
    stream->dtype = FW_F16;
    stream->tensor = weight->index;
    stream->symbol_min = 0;
    stream->symbol_max = 0;
    stream->data = NULL;
    half_shape(weight, &stream->rows, &stream->columns);
}

static fw_status half_require(const fw_weight *weight, const fw_stream *stream, fw_status status,
                              fw_error *error) {
    int64_t rows, columns;
    half_shape(weight, &rows, &columns);
    if (tensors_fits(stream, FW_STREAM_FLOATS, FW_F16, rows, columns)) return FW_OK;
    return fw_fail(error, status, "%s: the stream is not %lld x %lld values of float16",
                   weight->name, (long long)rows, (long long)columns);
}

fw_status tensors_half_encode(const fw_weight *weight, const float *values, fw_stream *stream,
                              fw_error *error) {
    FW_TRY(half_require(weight, stream, FW_E_ARGUMENT, error));
    const int64_t count = tensors_count(weight);
    uint8_t *out = stream->data; /* the stream need not be aligned */
    for (int64_t i = 0; i < count; i++) {
        const uint16_t half = half_from_float(values[i]);
        memcpy(out + i * 2, &half, sizeof half);
    }
    return FW_OK;
}

fw_status tensors_half_decode(const fw_weight *weight, const fw_stream *stream, float *values,
                              fw_error *error) {
    FW_TRY(half_require(weight, stream, FW_E_FORMAT, error));
    const int64_t count = tensors_count(weight);
    const uint8_t *in = stream->data;
    uint16_t half;
    for (int64_t i = 0; i < count; i++) {
        memcpy(&half, in + i * 2, sizeof half);
        if ((half & 0x7c00u) == 0x7c00u)
            return fw_fail(error, FW_E_FORMAT, "%s: stored value %lld is not finite", weight->name,
                           (long long)i);
    }
    for (int64_t i = 0; i < count; i++) {
        memcpy(&half, in + i * 2, sizeof half);
        values[i] = half_to_float(half);
    }
    return FW_OK;
}
