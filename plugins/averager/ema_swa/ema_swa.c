/* Exponential moving average and late stochastic weight averaging together: exports
 *
 *   ema + swa_share * (mean of the snapshots - ema)
 *
 * Parameter Golf record 993 keeps both, and then exports the moving average alone; here the
 * snapshots take part. ../moving.h and ../snapshots.h have the two formulas and their sources. */
#include <fairway/plugin.h>

#include "../moving.h"
#include "../saved.h"
#include "../snapshots.h"

enum { DECAY, WARMUP, EVERY, BELOW, SWA_SHARE, N_PARAMS };
enum { MOVING_SLOT, SNAPSHOTS_SLOT, N_SLOTS };

typedef struct ema_swa {
    const fw_host *host;
    moving_average moving;
    snapshots taken;
    double swa_share;
} ema_swa;

/* What save() writes. */
typedef struct saved_state {
    int64_t updates;
    struct snapshots_state taken;
} saved_state;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (!snapshots_can_run(host->device))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "ema_swa needs a device with the ops lerp, axpby and reduce");
    ema_swa *made = host->allocate(host, sizeof *made);
    if (made == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for ema_swa (%zu bytes)", sizeof *made);
    *made = (ema_swa){.host = host,
                      .moving = {.decay = values[DECAY].real,
                                 .warmup = values[WARMUP].integer != 0,
                                 .slot = MOVING_SLOT},
                      .taken = {.below = values[BELOW].real,
                                .every = values[EVERY].integer,
                                .slot = SNAPSHOTS_SLOT},
                      .swa_share = values[SWA_SHARE].real};
    *self = made;
    return FW_OK;
}

static void destroy(void *self) {
    ema_swa *made = self;
    if (made != NULL) made->host->release(made->host, made);
}

static fw_status update(void *self, const fw_averager_call *call, fw_error *error) {
    ema_swa *made = self;
    FW_TRY(moving_update(&made->moving, made->host->device, call, error));
    return snapshots_update(&made->taken, made->host->device, call, error);
}

static fw_status result(void *self, const fw_averager_call *call, fw_error *error) {
    const ema_swa *made = self;
    FW_TRY(snapshots_require(&made->taken, "ema_swa", error));
    return snapshots_result(&made->taken, made->host, call, MOVING_SLOT, made->swa_share, error);
}

static fw_status save(void *self, void *state, size_t *bytes, fw_error *error) {
    const ema_swa *made = self;
    const saved_state saved = {.updates = made->moving.updates, .taken = made->taken.state};
    return saved_put("ema_swa", &saved, sizeof saved, state, bytes, error);
}

static fw_status load(void *self, const void *state, size_t bytes, fw_error *error) {
    ema_swa *made = self;
    saved_state read;
    FW_TRY(saved_take("ema_swa", state, bytes, &read, sizeof read, error));
    moving_average moving = made->moving;
    FW_TRY(moving_restore(&moving, "ema_swa", read.updates, error));
    FW_TRY(snapshots_restore(&made->taken, "ema_swa", &read.taken, error));
    made->moving = moving;
    return FW_OK;
}

static const fw_param params[N_PARAMS] = {
    [DECAY] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "decay", "0.997", 0, 0.999999, "",
                             "share of the moving average that each step keeps"),
    [WARMUP] = FW_PARAM_PLAIN(FW_PARAM_BOOL, "warmup", "no",
                              "keep less at first: at step t at most (1 + t) / (10 + t)"),
    [EVERY] = SNAPSHOTS_EVERY,
    [BELOW] = SNAPSHOTS_BELOW,
    [SWA_SHARE] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "swa_share", "0.5", 1e-9, 1, "",
                                 "share of the snapshots' mean in the result; the moving average "
                                 "has the rest"),
};

static const fw_averager vtable = {.struct_size = sizeof vtable,
                                   .n_slots = N_SLOTS,
                                   .create = create,
                                   .destroy = destroy,
                                   .update = update,
                                   .result = result,
                                   .save = save,
                                   .load = load};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_AVERAGER,
                                 .id = "ema_swa",
                                 .version = "1.0.0",
                                 .summary = "moving average mixed with the mean of late snapshots",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
