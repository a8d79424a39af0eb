#include "fake.h"

/* Two vectors of one value a row, the second aligned: largest magnitudes, scales. */
static size_t row_vector_bytes(const fw_weight *weight) {
    return ((size_t)weight->shape[0] * sizeof(float) + 255) / 256 * 256;
}

size_t fake_rows_scratch(const fw_weight *weight) { return 2 * row_vector_bytes(weight); }

fw_status fake_rows(fw_device *device, const fw_weight *weight, int levels, float scale_floor,
                    const fw_tensor *master, const fw_tensor *out, const fw_step *step,
                    void *scratch, fw_error *error) {
    const fw_ops *ops = device->ops;
    if (!FW_HAS(ops, row_absmax) || !FW_HAS(ops, axpby) || !FW_HAS(ops, fake_quantize))
        return fw_fail(error, FW_E_UNSUPPORTED, "the device lacks row_absmax or fake_quantize");
    const int64_t rows = weight->shape[0];
    const fw_tensor absmax = fw_vector(scratch, FW_F32, rows);
    const fw_tensor scale = fw_vector((char *)scratch + row_vector_bytes(weight), FW_F32, rows);
    const fw_row_absmax largest = {.struct_size = sizeof largest, .x = *master, .absmax = absmax};
    const fw_axpby divide = {
        .struct_size = sizeof divide, .alpha = 1.0f / (float)levels, .x = absmax, .y = scale};
    const fw_fake_quantize round = {.struct_size = sizeof round,
                                    .levels = (uint32_t)levels,
                                    .step = step,
                                    .x = *master,
                                    .scale = scale,
                                    .out = *out,
                                    .scale_floor = scale_floor};
    FW_TRY(ops->row_absmax(device, &largest, error));
    FW_TRY(ops->axpby(device, &divide, error));
    return ops->fake_quantize(device, &round, error);
}
