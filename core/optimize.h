/* The optimizers of a run: one plugin instance for each group of weights, their state and scalars.
 */
#ifndef FAIRWAY_OPTIMIZE_H
#define FAIRWAY_OPTIMIZE_H

#include <fairway/optimizer.h>

#include "model.h"

struct optimizers;

/* Creates the instances and their state. Errors: those of the plugins, with file, section and
 * plugin; E_UNSUPPORTED also when the device lacks an op. */
fw_status optimizers_create(const struct experiment *experiment, const fw_host *host,
                            struct model *model, struct optimizers **optimizers, fw_error *error);
void optimizers_destroy(struct optimizers *optimizers); /* NULL is fine */

/* Set the scalars of the step about to be taken, for every group. */
fw_status optimizers_prepare(struct optimizers *optimizers, int64_t step, double schedule,
                             fw_error *error);

/* Clip the model's gradients and update its weights. */
fw_status optimizers_step(struct optimizers *optimizers, float max_norm, fw_error *error);

/* What the last step saw: gradient norm, clip factor, whether it was finite. */
fw_status optimizers_outcome(struct optimizers *optimizers, fw_step *step, fw_error *error);

#endif
