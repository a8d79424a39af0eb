/* Exponential moving average of the weights: average <- average + (1 - decay) (weights - average)
 * after every step, beginning at the weights of the first one. With `warmup` the decay of step t is
 * at most (1 + t) / (10 + t): else a run of a few hundred steps exports mostly its beginning.
 * Source: Polyak and Juditsky, 1992, in the exponential form that networks use. */
#include <stdbool.h>
#include <string.h>

#include <fairway/averager.h>
#include <fairway/ops.h>
#include <fairway/plugin.h>

enum { DECAY, WARMUP, N_PARAMS };

typedef struct ema {
    const fw_host *host;
    double decay;
    bool warmup;
    int64_t updates; /* seen so far; the first one copies */
} ema;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (host->device == NULL || !FW_HAS(host->device->ops, lerp))
        return fw_fail(error, FW_E_UNSUPPORTED, "ema needs a device with the op lerp");
    ema *average = host->allocate(host, sizeof *average);
    if (average == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for ema (%zu bytes)", sizeof *average);
    *average =
        (ema){.host = host, .decay = values[DECAY].real, .warmup = values[WARMUP].integer != 0};
    *self = average;
    return FW_OK;
}

static void destroy(void *self) {
    ema *average = self;
    if (average != NULL) average->host->release(average->host, average);
}

static fw_status copy(fw_device *device, const fw_tensor *from, const fw_tensor *to,
                      fw_error *error) {
    const size_t bytes = (size_t)fw_tensor_count(from) * fw_dtype_size(from->dtype);
    return device->copy(device, to->data, from->data, bytes, error);
}

static double decay_now(const ema *average) {
    const double steps = (double)average->updates;
    const double most = (1.0 + steps) / (10.0 + steps);
    return average->warmup && most < average->decay ? most : average->decay;
}

static fw_status update(void *self, const fw_averager_call *call, fw_error *error) {
    ema *average = self;
    fw_device *device = average->host->device;
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_averager_tensor *tensor = &call->tensors[i];
        if (average->updates == 0) {
            FW_TRY(copy(device, &tensor->parameter, &tensor->slot[0], error));
            continue;
        }
        const fw_lerp lerp = {.struct_size = sizeof lerp,
                              .weight = (float)(1.0 - decay_now(average)),
                              .x = tensor->parameter,
                              .y = tensor->slot[0]};
        FW_TRY(device->ops->lerp(device, &lerp, error));
    }
    average->updates++;
    return FW_OK;
}

static fw_status result(void *self, const fw_averager_call *call, fw_error *error) {
    const ema *average = self;
    if (average->updates == 0)
        return fw_fail(
            error, FW_E_LIMIT,
            "ema never saw a step, so there is no average to export; train at least one");
    for (uint32_t i = 0; i < call->n_tensors; i++)
        FW_TRY(copy(average->host->device, &call->tensors[i].slot[0], &call->tensors[i].result,
                    error));
    return FW_OK;
}

static fw_status save(void *self, void *state, size_t *bytes, fw_error *error) {
    const ema *average = self;
    const size_t capacity = *bytes;
    if (capacity < sizeof average->updates) {
        *bytes = sizeof average->updates;
        return fw_fail(error, FW_E_BUFFER, "the state of ema takes %zu bytes, not %zu",
                       sizeof average->updates, capacity);
    }
    memcpy(state, &average->updates, sizeof average->updates);
    *bytes = sizeof average->updates;
    return FW_OK;
}

static fw_status load(void *self, const void *state, size_t bytes, fw_error *error) {
    ema *average = self;
    int64_t updates = 0;
    if (bytes != sizeof updates)
        return fw_fail(error, FW_E_FORMAT, "the state of ema is %zu bytes, but it must be %zu",
                       bytes, sizeof updates);
    memcpy(&updates, state, sizeof updates);
    if (updates < 0)
        return fw_fail(error, FW_E_FORMAT, "the state of ema counts %lld updates",
                       (long long)updates);
    average->updates = updates;
    return FW_OK;
}

static const fw_param params[N_PARAMS] = {
    [DECAY] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "decay", "0.997", 0, 0.999999, "",
                             "share of the average that each step keeps"),
    [WARMUP] = FW_PARAM_PLAIN(FW_PARAM_BOOL, "warmup", "yes",
                              "keep less at first: at step t at most (1 + t) / (10 + t)"),
};

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
                                 .id = "ema",
                                 .version = "1.0.0",
                                 .summary = "exponential moving average of the weights",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
