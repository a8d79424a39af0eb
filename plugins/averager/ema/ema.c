/* Exponential moving average of the weights; see ../moving.h for its formula and source. */
#include <fairway/plugin.h>

#include "../moving.h"
#include "../saved.h"

enum { DECAY, WARMUP, N_PARAMS };

typedef struct ema {
    const fw_host *host;
    moving_average average;
} ema;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (host->device == NULL || !FW_HAS(host->device->ops, lerp))
        return fw_fail(error, FW_E_UNSUPPORTED, "ema needs a device with the op lerp");
    ema *made = host->allocate(host, sizeof *made);
    if (made == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for ema (%zu bytes)", sizeof *made);
    *made = (ema){.host = host,
                  .average = {.decay = values[DECAY].real, .warmup = values[WARMUP].integer != 0}};
    *self = made;
    return FW_OK;
}

static void destroy(void *self) {
    ema *made = self;
    if (made != NULL) made->host->release(made->host, made);
}

static fw_status update(void *self, const fw_averager_call *call, fw_error *error) {
    ema *made = self;
    return moving_update(&made->average, made->host->device, call, error);
}

static fw_status result(void *self, const fw_averager_call *call, fw_error *error) {
    const ema *made = self;
    if (made->average.updates == 0)
        return fw_fail(
            error, FW_E_LIMIT,
            "ema never saw a step, so there is no average to export; train at least one");
    for (uint32_t i = 0; i < call->n_tensors; i++)
        FW_TRY(moving_copy(made->host->device, &call->tensors[i].slot[0], &call->tensors[i].result,
                           error));
    return FW_OK;
}

static fw_status save(void *self, void *state, size_t *bytes, fw_error *error) {
    const ema *made = self;
    const int64_t updates = made->average.updates;
    return saved_put("ema", &updates, sizeof updates, state, bytes, error);
}

static fw_status load(void *self, const void *state, size_t bytes, fw_error *error) {
    ema *made = self;
    int64_t updates = 0;
    FW_TRY(saved_take("ema", state, bytes, &updates, sizeof updates, error));
    return moving_restore(&made->average, "ema", updates, error);
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
