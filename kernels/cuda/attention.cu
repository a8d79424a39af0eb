/* Attention: the checks of both passes, and the choice between the general kernels and Hopper's. */
#include "attention.h"

#include <climits>

/* Widest head: the accumulators of a block of rows must fit the registers. */
#define MAX_HEAD 128

/* Positions, rows of a sequence and blocks of a grid are 32-bit numbers in kernels. */
static fw_status check_sizes(const char *op, const fw_flash_attention *a, fw_error *error) {
    const int64_t batch = a->q.shape[0], heads = a->q.shape[2], keys = a->k.shape[1];
    const int64_t room = INT_MAX / 16;
    if (batch <= room && heads <= room && keys <= room && keys * heads <= room &&
        (keys / 64 + 2) * heads * batch <= room)
        return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED,
                   "%s: %lld sequences of %lld positions with %lld heads are too many for a launch",
                   op, (long long)batch, (long long)keys, (long long)heads);
}

static fw_status check(const char *op, const fw_flash_attention *a, fw_error *error) {
    FW_TRY(kernel_check_attention(op, a, FW_BF16, MAX_HEAD, error));
    return check_sizes(op, a, error);
}

/* Enough for either implementation: which one runs may depend on strides, and a plan knows only
 * shapes. */
size_t cuda_attention_scratch(fw_device *device, const fw_flash_attention *a) {
    if (device == NULL || a == NULL) return 0;
    if (a->q.shape[3] < 1 || a->q.shape[3] > MAX_HEAD) return SIZE_MAX;
    const cuda_device *cuda = cuda_self(device);
    const size_t most = cuda_attention_backward_general_scratch(cuda, a);
    if (!cuda->hopper) return most;
    const size_t hopper = cuda_attention_backward_hopper_scratch(cuda, a);
    return hopper > most ? hopper : most;
}

fw_status cuda_attention_forward(fw_device *device, const fw_flash_attention *a, fw_error *error) {
    const char *op = "attention_forward";
    CUDA_ARGUMENTS(op, device, a, error);
    FW_TRY(check(op, a, error));
    if (fw_tensor_count(&a->q) == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    if (cuda->hopper && cuda_attention_forward_hopper_takes(cuda, a))
        return cuda_attention_forward_hopper(cuda, a, error);
    return cuda_attention_forward_general(cuda, a, error);
}

static fw_status check_backward(const char *op, fw_device *device, const fw_flash_attention *a,
                                fw_error *error) {
    FW_TRY(cuda_check_heads(op, "d_out", &a->d_out, a->q.shape, error));
    FW_TRY(cuda_check_heads(op, "d_q", &a->d_q, a->q.shape, error));
    FW_TRY(cuda_check_heads(op, "d_k", &a->d_k, a->k.shape, error));
    FW_TRY(cuda_check_heads(op, "d_v", &a->d_v, a->k.shape, error));
    const size_t needed = cuda_attention_scratch(device, a);
    if (needed > 0 && (a->scratch == NULL || a->scratch_bytes < needed))
        return fw_fail(error, FW_E_ARGUMENT, "%s: scratch has %zu bytes, needs %zu", op,
                       a->scratch == NULL ? (size_t)0 : a->scratch_bytes, needed);
    if (reinterpret_cast<uintptr_t>(a->scratch) % 256 != 0)
        return fw_fail(error, FW_E_ARGUMENT, "%s: scratch lies at %p, no multiple of 256 bytes", op,
                       a->scratch);
    return FW_OK;
}

fw_status cuda_attention_backward(fw_device *device, const fw_flash_attention *a, fw_error *error) {
    const char *op = "attention_backward";
    CUDA_ARGUMENTS(op, device, a, error);
    FW_TRY(check(op, a, error));
    FW_TRY(check_backward(op, device, a, error));
    if (fw_tensor_count(&a->k) == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const bool queries = fw_tensor_count(&a->q) > 0; /* without them the gradients are zeros */
    if (queries && cuda->hopper && cuda_attention_backward_hopper_takes(cuda, a))
        return cuda_attention_backward_hopper(cuda, a, error);
    return cuda_attention_backward_general(cuda, a, error);
}
