#include "moving.h"

fw_status moving_copy(fw_device *device, const fw_tensor *from, const fw_tensor *to,
                      fw_error *error) {
    const size_t bytes = (size_t)fw_tensor_count(from) * fw_dtype_size(from->dtype);
    return device->copy(device, to->data, from->data, bytes, error);
}

static double decay_now(const moving_average *average) {
    const double steps = (double)average->updates;
    const double most = (1.0 + steps) / (10.0 + steps);
    return average->warmup && most < average->decay ? most : average->decay;
}

fw_status moving_update(moving_average *average, fw_device *device, const fw_averager_call *call,
                        fw_error *error) {
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_averager_tensor *tensor = &call->tensors[i];
        const fw_tensor *slot = &tensor->slot[average->slot];
        if (average->updates == 0) {
            FW_TRY(moving_copy(device, &tensor->parameter, slot, error));
            continue;
        }
        const fw_lerp lerp = {.struct_size = sizeof lerp,
                              .weight = (float)(1.0 - decay_now(average)),
                              .x = tensor->parameter,
                              .y = *slot};
        FW_TRY(device->ops->lerp(device, &lerp, error));
    }
    average->updates++;
    return FW_OK;
}

fw_status moving_restore(moving_average *average, const char *id, int64_t updates,
                         fw_error *error) {
    if (updates < 0)
        return fw_fail(error, FW_E_FORMAT, "the state of %s counts %lld updates", id,
                       (long long)updates);
    average->updates = updates;
    return FW_OK;
}
