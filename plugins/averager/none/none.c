/* No averaging: the exported weights are those of the last step. */
#include <fairway/averager.h>
#include <fairway/plugin.h>

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    (void)values;
    if (host->device == NULL)
        return fw_fail(error, FW_E_UNSUPPORTED, "averaging needs a device, and the host gave none");
    /* The only state is the way to the device. */
    const fw_host **instance = host->allocate(host, sizeof *instance);
    if (instance == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for an averager (%zu bytes)",
                       sizeof *instance);
    *instance = host;
    *self = instance;
    return FW_OK;
}

static void destroy(void *self) {
    const fw_host **instance = self;
    if (instance != NULL) (*instance)->release(*instance, instance);
}

static fw_status result(void *self, const fw_averager_call *call, fw_error *error) {
    const fw_host **instance = self;
    fw_device *device = (*instance)->device;
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_tensor *from = &call->tensors[i].parameter;
        const size_t bytes = (size_t)fw_tensor_count(from) * fw_dtype_size(from->dtype);
        FW_TRY(device->copy(device, call->tensors[i].result.data, from->data, bytes, error));
    }
    return FW_OK;
}

static const fw_averager vtable = {
    .struct_size = sizeof vtable, .create = create, .destroy = destroy, .result = result};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_AVERAGER,
                                 .id = "none",
                                 .version = "1.0.0",
                                 .summary = "no averaging: exports the weights of the last step",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
