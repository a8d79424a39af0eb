/* No quantization: every tensor as float16, rounded to nearest even. The reference that other
 * quantizers are compared with, and the format of whatever is too small to be worth quantizing. */
#include <stdlib.h>

#include "../half.h"
#include "../tensors.h"

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    (void)host, (void)values;
    tensor_set *planned = calloc(1, sizeof *planned);
    if (planned == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for quantizer none");
    *self = planned;
    return FW_OK;
}

static void destroy(void *self) {
    if (self != NULL) tensors_forget(self);
    free(self);
}

static fw_status plan(void *self, const fw_quantizer_plan *plan, fw_error *error) {
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        FW_TRY(tensors_check(plan->weights[i], plan->values[i], HALF_OVERFLOW, error));
    return tensors_remember(self, plan, error);
}

static fw_status streams(void *self, uint32_t index, fw_stream *streams, uint32_t *n_streams,
                         fw_error *error) {
    const tensor_set *planned = self;
    FW_TRY(tensors_require(planned, index, error));
    tensors_half_stream(planned->weights[index], &streams[0]);
    *n_streams = 1;
    return FW_OK;
}

static fw_status encode(void *self, uint32_t index, fw_stream *streams, uint32_t n_streams,
                        fw_error *error) {
    const tensor_set *planned = self;
    FW_TRY(tensors_require(planned, index, error));
    if (n_streams != 1)
        return fw_fail(error, FW_E_ARGUMENT, "%s has 1 stream, not %u",
                       planned->weights[index]->name, n_streams);
    return tensors_half_encode(planned->weights[index], planned->values[index], &streams[0], error);
}

static fw_status decode(void *self, const fw_weight *weight, const fw_stream *streams,
                        uint32_t n_streams, float *values, fw_error *error) {
    (void)self;
    if (n_streams != 1)
        return fw_fail(error, FW_E_FORMAT, "%s has %u streams, but unquantized tensors have 1",
                       weight->name, n_streams);
    return tensors_half_decode(weight, &streams[0], values, error);
}

static const fw_quantizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .plan = plan,
                                    .streams = streams,
                                    .encode = encode,
                                    .decode = decode};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_QUANTIZER,
                                 .id = "none",
                                 .version = "1.0.0",
                                 .summary = "every tensor as float16",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
