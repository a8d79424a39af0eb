/* The exponential moving average that averagers share: average <- average + (1 - decay) (weights -
 * average) after every step, beginning at the weights of the first one. With `warmup` the decay of
 * step t is at most (1 + t) / (10 + t): else a run of a few hundred steps exports mostly its
 * beginning. Source: Polyak and Juditsky, 1992, in the exponential form that networks use. */
#ifndef FAIRWAY_AVERAGER_MOVING_H
#define FAIRWAY_AVERAGER_MOVING_H

#include <fairway/averager.h>
#include <fairway/ops.h>

typedef struct moving_average {
    double decay;
    uint32_t warmup;
    uint32_t slot;   /* of each tensor, that holds the average */
    int64_t updates; /* seen so far; the first one copies */
} moving_average;

/* One update of every tensor. The device needs the op lerp. */
fw_status moving_update(moving_average *average, fw_device *device, const fw_averager_call *call,
                        fw_error *error);

/* to = from, of equal counts and types, on the device. */
fw_status moving_copy(fw_device *device, const fw_tensor *from, const fw_tensor *to,
                      fw_error *error);

/* E_FORMAT unless `updates`, as read from a saved state, can be right; `id` names the plugin. */
fw_status moving_restore(moving_average *average, const char *id, int64_t updates, fw_error *error);

#endif
