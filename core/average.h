/* Weight averaging during training: the averager plugin, its state and its result. */
#ifndef FAIRWAY_AVERAGE_H
#define FAIRWAY_AVERAGE_H

#include "model.h"

struct averaging;

fw_status averaging_create(const struct plugin_choice *choice, const fw_host *host,
                           struct model *model, struct averaging **averaging, fw_error *error);
void averaging_destroy(struct averaging *averaging); /* NULL is fine */

/* After each step taken. */
fw_status averaging_update(struct averaging *averaging, int64_t step, double schedule,
                           fw_error *error);

/* The averaged weights to a host arena. E_LIMIT: the averager never took part. */
fw_status averaging_result(struct averaging *averaging, float *host, fw_error *error);

/* True when the plugin averages at all. */
bool averaging_is_on(const struct averaging *averaging);

#endif
