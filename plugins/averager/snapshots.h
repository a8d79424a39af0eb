/* Late stochastic weight averaging: the mean of snapshots of the weights, one when the window opens
 * and one every `every` steps after it. The window opens with the first step whose learning-rate
 * scale is below `below` and not rising (a warm-up also begins low), and stays open.
 * Source: Izmailov et al., "Averaging weights leads to wider optima and better generalization",
 * 2018; record 993 of Parameter Golf collects such snapshots late, and then leaves them unused. */
#ifndef FAIRWAY_AVERAGER_SNAPSHOTS_H
#define FAIRWAY_AVERAGER_SNAPSHOTS_H

#include <fairway/averager.h>
#include <fairway/ops.h>

/* Zero-initialised but for the parameters: nothing was seen yet. */
typedef struct snapshots {
    double below;
    int64_t every;
    uint32_t slot; /* of each tensor, that holds the mean */
    struct snapshots_state {
        int64_t steps; /* seen */
        int64_t taken; /* snapshots */
        int64_t until; /* steps left until the next one, once there is one */
        double last;   /* scale of the last step */
        double lowest; /* of those that did not rise; at least 1 when there is none */
    } state;
} snapshots;

/* The parameters every and below, for a plugin's table. */
#define SNAPSHOTS_EVERY                                                                            \
    FW_PARAM_RANGE(FW_PARAM_INT, "every", "50", 1, 1e9, "steps",                                   \
                   "steps between two snapshots; the first one is taken when the window opens")
#define SNAPSHOTS_BELOW                                                                            \
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "below", "0.2", 1e-9, 1, "",                                    \
                   "the window opens once the learning rate's scale falls below this")

/* What the functions below need of a device. */
int snapshots_can_run(const fw_device *device);

/* After a step: take a snapshot if one is due. [no-alloc] */
fw_status snapshots_update(snapshots *s, fw_device *device, const fw_averager_call *call,
                           fw_error *error);

/* E_LIMIT, with what to change, when there is no snapshot; `id` names the plugin. */
fw_status snapshots_require(const snapshots *s, const char *id, fw_error *error);

/* Write result = base + share * (mean - base) for every tensor, base its slot `base_slot`, or the
 * raw weights when `base_slot` is negative, and state the effects swa_snapshots and
 * swa_relative_distance = share |mean - base| / |base| to the host. share = 1 gives the mean as it
 * is. */
fw_status snapshots_result(const snapshots *s, const fw_host *host, const fw_averager_call *call,
                           int base_slot, double share, fw_error *error);

/* E_FORMAT unless `state`, as read from a file, can be right; `id` names the plugin. */
fw_status snapshots_restore(snapshots *s, const char *id, const struct snapshots_state *state,
                            fw_error *error);

#endif
