/* Quantization-aware training of rows with one scale each, composed of device ops:
 * scale = max(largest magnitude of the row / levels, scale_floor). No device has a quantile, so the
 * clip is the row's largest magnitude whatever percentile packing takes. */
#ifndef FAIRWAY_QUANTIZER_FAKE_H
#define FAIRWAY_QUANTIZER_FAKE_H

#include <fairway/fairway.h>

/* Bytes of scratch. */
size_t fake_rows_scratch(const fw_weight *weight);

/* out = the master as quantization would leave it; the arguments are fake_quantize()'s of
 * fairway/quantizer.h. E_UNSUPPORTED when the device lacks an op. */
fw_status fake_rows(fw_device *device, const fw_weight *weight, int levels, float scale_floor,
                    const fw_tensor *master, const fw_tensor *out, const fw_step *step,
                    void *scratch, fw_error *error);

#endif
