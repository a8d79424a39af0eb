/* The fused linear layer and activation of Hopper; see linear_activation.h. */
#include "linear_activation.h"

bool cuda_linear_activation_forward_hopper_takes(const cuda_device *cuda,
                                                 const fw_linear_activation *a) {
    (void)cuda, (void)a;
    return false;
}

fw_status cuda_linear_activation_forward_hopper(cuda_device *cuda, const fw_linear_activation *a,
                                                fw_error *error) {
    (void)cuda, (void)a;
    return fw_fail(error, FW_E_UNSUPPORTED, "linear_activation_forward: no product of Hopper");
}

bool cuda_linear_activation_backward_hopper_takes(const cuda_device *cuda,
                                                  const fw_linear_activation *a) {
    (void)cuda, (void)a;
    return false;
}

fw_status cuda_linear_activation_backward_hopper(cuda_device *cuda, const fw_linear_activation *a,
                                                 fw_error *error) {
    (void)cuda, (void)a;
    return fw_fail(error, FW_E_UNSUPPORTED, "linear_activation_backward: no product of Hopper");
}
