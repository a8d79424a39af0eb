/* Late stochastic weight averaging: exports the mean of snapshots of the raw weights, taken while
 * the learning rate is low; see ../snapshots.h for when, and for the source. */
#include <fairway/plugin.h>

#include "../saved.h"
#include "../snapshots.h"

enum { EVERY, BELOW, N_PARAMS };

typedef struct swa {
    const fw_host *host;
    snapshots taken;
} swa;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (!snapshots_can_run(host->device))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "swa needs a device with the ops lerp, axpby and reduce");
    swa *made = host->allocate(host, sizeof *made);
    if (made == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for swa (%zu bytes)", sizeof *made);
    *made =
        (swa){.host = host,
              .taken = {.below = values[BELOW].real, .every = values[EVERY].integer, .slot = 0}};
    *self = made;
    return FW_OK;
}

static void destroy(void *self) {
    swa *made = self;
    if (made != NULL) made->host->release(made->host, made);
}

static fw_status update(void *self, const fw_averager_call *call, fw_error *error) {
    swa *made = self;
    return snapshots_update(&made->taken, made->host->device, call, error);
}

static fw_status result(void *self, const fw_averager_call *call, fw_error *error) {
    const swa *made = self;
    FW_TRY(snapshots_require(&made->taken, "swa", error));
    return snapshots_result(&made->taken, made->host, call, -1, 1, error);
}

static fw_status save(void *self, void *state, size_t *bytes, fw_error *error) {
    const swa *made = self;
    return saved_put("swa", &made->taken.state, sizeof made->taken.state, state, bytes, error);
}

static fw_status load(void *self, const void *state, size_t bytes, fw_error *error) {
    swa *made = self;
    struct snapshots_state read;
    FW_TRY(saved_take("swa", state, bytes, &read, sizeof read, error));
    return snapshots_restore(&made->taken, "swa", &read, error);
}

static const fw_param params[N_PARAMS] = {
    [EVERY] = SNAPSHOTS_EVERY,
    [BELOW] = SNAPSHOTS_BELOW,
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
                                 .id = "swa",
                                 .version = "1.0.0",
                                 .summary = "mean of late snapshots of the weights",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
