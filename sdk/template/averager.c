/* Template of an averager: the plain mean of the weights of all steps from `first_step` on. It is
 * made of device ops, so it runs wherever the model does.
 *
 *     cc -shared -fPIC -O2 -fvisibility=hidden $(pkg-config --cflags fairway) averager.c \
 *        -o averager-template.so
 *
 * In the INI:  [average]  plugin = /path/to/averager-template.so */
#include <fairway/fairway.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_STEP, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [FIRST_STEP] = FW_PARAM_RANGE(FW_PARAM_INT, "first_step", "0", 0, 1e12, "steps",
                                  "step from which on weights are averaged"),
};

typedef struct mean {
    const fw_host *host;
    int64_t first_step;
    int64_t n; /* updates so far */
} mean;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (host->device == NULL || !FW_HAS(host->device->ops, lerp) ||
        !FW_HAS(host->device->ops, axpby))
        return fw_fail(error, FW_E_UNSUPPORTED, "the device lacks the ops lerp and axpby");
    mean *average = calloc(1, sizeof *average);
    if (average == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the averager");
    average->host = host;
    average->first_step = values[FIRST_STEP].integer;
    *self = average;
    return FW_OK;
}

static void destroy(void *self) { free(self); }

/* mean += (parameter - mean) / n, in the host's slot 0. */
static fw_status update(void *self, const fw_averager_call *call, fw_error *error) {
    mean *average = self;
    fw_device *device = average->host->device;
    if (call->step < average->first_step) return FW_OK;
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_lerp lerp = {.struct_size = sizeof lerp,
                              .weight = (float)(1.0 / (double)(average->n + 1)),
                              .x = call->tensors[i].parameter,
                              .y = call->tensors[i].slot[0]};
        FW_TRY(device->ops->lerp(device, &lerp, error));
    }
    average->n++;
    return FW_OK;
}

static fw_status result(void *self, const fw_averager_call *call, fw_error *error) {
    const mean *average = self;
    fw_device *device = average->host->device;
    if (average->n == 0)
        return fw_fail(error, FW_E_LIMIT,
                       "no step was averaged: first_step = %lld, and the last step was %lld",
                       (long long)average->first_step, (long long)call->step);
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_axpby copy = {.struct_size = sizeof copy,
                               .alpha = 1,
                               .x = call->tensors[i].slot[0],
                               .y = call->tensors[i].result};
        FW_TRY(device->ops->axpby(device, &copy, error));
    }
    return FW_OK;
}

/* The count is the only state beyond the slots; checkpoints carry both. */
static fw_status save(void *self, void *state, size_t *bytes, fw_error *error) {
    const mean *average = self;
    const size_t capacity = *bytes;
    *bytes = sizeof average->n;
    if (capacity < sizeof average->n)
        return fw_fail(error, FW_E_BUFFER, "the state takes %zu bytes, not %zu", *bytes, capacity);
    memcpy(state, &average->n, sizeof average->n);
    return FW_OK;
}

static fw_status load(void *self, const void *state, size_t bytes, fw_error *error) {
    mean *average = self;
    int64_t n = -1;
    if (bytes == sizeof n) memcpy(&n, state, sizeof n);
    if (n < 0) return fw_fail(error, FW_E_FORMAT, "%zu bytes are not a count of steps", bytes);
    average->n = n;
    return FW_OK;
}

static const fw_averager vtable = {.struct_size = sizeof vtable,
                                   .n_slots = 1,
                                   .create = create,
                                   .destroy = destroy,
                                   .update = update,
                                   .result = result,
                                   .save = save,
                                   .load = load};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_AVERAGER,
                                 .id = "template",
                                 .version = "1.0.0",
                                 .summary = "mean of the weights of all steps",
                                 .vendor = "yours",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
