#include "snapshots.h"

#include <math.h>

#include "moving.h"

int snapshots_can_run(const fw_device *device) {
    return device != NULL && FW_HAS(device->ops, lerp) && FW_HAS(device->ops, axpby) &&
           FW_HAS(device->ops, reduce);
}

/* mean += (weights - mean) / (taken + 1); the first one copies. */
static fw_status take(snapshots *s, fw_device *device, const fw_averager_call *call,
                      fw_error *error) {
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_averager_tensor *tensor = &call->tensors[i];
        const fw_lerp lerp = {.struct_size = sizeof lerp,
                              .weight = (float)(1.0 / (double)(s->state.taken + 1)),
                              .x = tensor->parameter,
                              .y = tensor->slot[s->slot]};
        FW_TRY(s->state.taken == 0 ? moving_copy(device, &lerp.x, &lerp.y, error)
                                   : device->ops->lerp(device, &lerp, error));
    }
    s->state.taken++;
    s->state.until = s->every;
    return FW_OK;
}

/* A first step cannot be told from a rising one. */
static void look_at_schedule(snapshots *s, double schedule) {
    struct snapshots_state *state = &s->state;
    if (state->steps == 0) state->lowest = 1;
    if (state->steps > 0 && schedule <= state->last && schedule < state->lowest)
        state->lowest = schedule;
    state->last = schedule;
    state->steps++;
}

fw_status snapshots_update(snapshots *s, fw_device *device, const fw_averager_call *call,
                           fw_error *error) {
    look_at_schedule(s, call->schedule);
    if (s->state.taken > 0) s->state.until--;
    const int due = s->state.taken > 0 ? s->state.until <= 0 : s->state.lowest < s->below;
    return due ? take(s, device, call, error) : FW_OK;
}

fw_status snapshots_require(const snapshots *s, const char *id, fw_error *error) {
    if (s->state.taken > 0) return FW_OK;
    return fw_fail(error, FW_E_LIMIT,
                   "%s took no snapshot: the learning rate's scale never fell below %g (its lowest "
                   "was %g in %lld steps); raise below, or lengthen run.warmdown_steps",
                   id, s->below, s->state.steps > 0 ? s->state.lowest : 1.0,
                   (long long)s->state.steps);
}

/* ---- the result ---- */

/* Two device scalars: squares of the difference, squares of the base. */
enum { DIFFERENCE, BASE, SUMS };

static fw_status add_squares(fw_device *device, const fw_tensor *x, float *sum, int first,
                             fw_error *error) {
    const fw_reduce reduce = {.struct_size = sizeof reduce,
                              .reduction = FW_SUM_SQUARES,
                              .accumulate = !first,
                              .x = *x,
                              .y = fw_absent(),
                              .result = fw_vector(sum, FW_F32, 1)};
    return device->ops->reduce(device, &reduce, error);
}

/* The difference passes through `result`, so that no further memory is needed. */
static fw_status mix(const snapshots *s, fw_device *device, const fw_averager_tensor *tensor,
                     int base_slot, double share, float *sums, int first, fw_error *error) {
    const fw_tensor *base = base_slot < 0 ? &tensor->parameter : &tensor->slot[base_slot];
    const fw_tensor *mean = &tensor->slot[s->slot];
    FW_TRY(moving_copy(device, mean, &tensor->result, error));
    const fw_axpby subtract = {
        .struct_size = sizeof subtract, .alpha = -1, .beta = 1, .x = *base, .y = tensor->result};
    FW_TRY(device->ops->axpby(device, &subtract, error));
    FW_TRY(add_squares(device, &tensor->result, &sums[DIFFERENCE], first, error));
    FW_TRY(add_squares(device, base, &sums[BASE], first, error));
    if (share == 1) return moving_copy(device, mean, &tensor->result, error);
    const fw_axpby add = {.struct_size = sizeof add,
                          .alpha = 1,
                          .beta = (float)share,
                          .x = *base,
                          .y = tensor->result};
    return device->ops->axpby(device, &add, error);
}

static void state_effects(const snapshots *s, const fw_host *host, const float *sums,
                          double share) {
    if (!FW_HAS(host, effect)) return;
    const double difference = sqrt((double)sums[DIFFERENCE]), base = sqrt((double)sums[BASE]);
    host->effect(host, "swa_snapshots", (double)s->state.taken);
    host->effect(host, "swa_relative_distance",
                 share * (base > 0 ? difference / base : difference));
}

fw_status snapshots_result(const snapshots *s, const fw_host *host, const fw_averager_call *call,
                           int base_slot, double share, fw_error *error) {
    fw_device *device = host->device;
    float sums[SUMS] = {0};
    void *on_device = NULL;
    FW_TRY(device->allocate(device, sizeof sums, &on_device, error));
    fw_status status = device->zero(device, on_device, sizeof sums, error);
    for (uint32_t i = 0; i < call->n_tensors && status == FW_OK; i++)
        status = mix(s, device, &call->tensors[i], base_slot, share, on_device, i == 0, error);
    if (status == FW_OK) status = device->copy_to_host(device, sums, on_device, sizeof sums, error);
    device->release(device, on_device);
    if (status == FW_OK) state_effects(s, host, sums, share);
    return status;
}

fw_status snapshots_restore(snapshots *s, const char *id, const struct snapshots_state *state,
                            fw_error *error) {
    const int counts = state->steps >= 0 && state->taken >= 0 && state->taken <= state->steps &&
                       state->until >= 0 && state->until <= s->every;
    if (!counts || !isfinite(state->last) || !isfinite(state->lowest))
        return fw_fail(error, FW_E_FORMAT,
                       "the state of %s is not one that it saves: %lld snapshots in %lld steps", id,
                       (long long)state->taken, (long long)state->steps);
    s->state = *state;
    return FW_OK;
}
