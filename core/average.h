/* Weight averaging during training: the averager plugin, its state and its result. */
#ifndef FAIRWAY_AVERAGE_H
#define FAIRWAY_AVERAGE_H

#include "bytes.h"
#include "model.h"
#include "schedule.h"

struct averaging;

fw_status averaging_create(const struct plugin_choice *choice, const fw_host *host,
                           struct model *model, struct averaging **averaging, fw_error *error);
void averaging_destroy(struct averaging *averaging); /* NULL is fine */

/* After each step taken. */
fw_status averaging_update(struct averaging *averaging, int64_t step, double schedule,
                           fw_error *error);

/* Show another instance the whole schedule, without any tensor: what it would refuse at the end is
 * refused now. E_LIMIT, in its words: it would take no part. FW_OK also when the wall clock decides
 * about the schedule, so that only the run itself can tell. */
fw_status averaging_rehearse(const struct plugin_choice *choice, const fw_host *host,
                             const struct schedule *schedule, fw_error *error);

/* As just created: a new instance, zero slots. */
fw_status averaging_reset(struct averaging *averaging, fw_error *error);

/* The averaged weights to a host arena, by way of the model's gradients, which are lost. E_LIMIT:
 * the averager never took part. Errors carry file, section and plugin. */
fw_status averaging_result(struct averaging *averaging, float *host, fw_error *error);

/* True when the plugin averages at all. Else there is no need to ask for its result. */
bool averaging_is_on(const struct averaging *averaging);

/* What a checkpoint must hold: visit(argument, memory, bytes) for each piece of device memory,
 * always in the same order; and host state, which averaging_save appends to `state` and
 * averaging_load takes back. */
void averaging_each_state(const struct averaging *averaging,
                          void (*visit)(void *argument, void *memory, size_t bytes),
                          void *argument);
fw_status averaging_save(const struct averaging *averaging, struct bytes *state, fw_error *error);
fw_status averaging_load(struct averaging *averaging, const uint8_t *state, size_t size,
                         fw_error *error);

#endif
