/* What every quantizer does alike: remember the planned tensors, refuse values that a format cannot
 * hold, and keep a tensor unquantized as one stream of float16. */
#ifndef FAIRWAY_QUANTIZER_TENSORS_H
#define FAIRWAY_QUANTIZER_TENSORS_H

#include <fairway/fairway.h>

/* Copies of the plan's pointers; the tensors stay the host's. Zero-initialised: nothing planned. */
typedef struct tensor_set {
    uint32_t n;
    const fw_weight **weights;
    const float **values;
} tensor_set;

/* Remember `plan`; on E_MEMORY the previous plan stays. */
fw_status tensors_remember(tensor_set *tensors, const fw_quantizer_plan *plan, fw_error *error);
void tensors_forget(tensor_set *tensors);

/* E_ARGUMENT when `index` was not planned. */
fw_status tensors_require(const tensor_set *tensors, uint32_t index, fw_error *error);

/* Elements of a weight. */
int64_t tensors_count(const fw_weight *weight);

/* E_NUMERIC, naming tensor and index, unless every value is finite and of magnitude < limit. */
fw_status tensors_check(const fw_weight *weight, const float *values, float limit, fw_error *error);

/* True when `stream` has that kind, type and shape, and data. */
int tensors_fits(const fw_stream *stream, uint32_t kind, uint32_t dtype, int64_t rows,
                 int64_t columns);

/* One FLOATS stream of float16 for the whole weight: its description, encoding and decoding.
 * Values below HALF_OVERFLOW are assumed. Decoding returns E_FORMAT for another stream or a value
 * that is not finite, and then writes nothing. */
void tensors_half_stream(const fw_weight *weight, fw_stream *stream);
fw_status tensors_half_encode(const fw_weight *weight, const float *values, fw_stream *stream,
                              fw_error *error);
fw_status tensors_half_decode(const fw_weight *weight, const fw_stream *stream, float *values,
                              fw_error *error);

#endif
