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

/* As just created: new instances, zero state. Errors as of optimizers_create. */
fw_status optimizers_reset(struct optimizers *optimizers, fw_error *error);

/* Call visit(argument, memory, bytes) for each piece of device memory that a checkpoint must hold,
 * always in the same order; bytes may be 0. */
void optimizers_each_state(const struct optimizers *optimizers,
                           void (*visit)(void *argument, void *memory, size_t bytes),
                           void *argument);

/* Compute copies of all weights from the masters, as every step leaves them. */
fw_status optimizers_refresh_copies(struct optimizers *optimizers, fw_error *error);

/* Set the scalars of the step about to be taken, for every group; `quantize` says whether
 * quantization-aware training is on. They go to the device by way of `steps`, which must stay as it
 * is for as long as the device reads it (fairway/device.h, allocate_host). */
fw_status optimizers_prepare(struct optimizers *optimizers, int64_t step, double schedule,
                             bool quantize, fw_step steps[OPTIMIZER_GROUPS], fw_error *error);

/* Those scalars in device memory. */
const fw_step *optimizers_device_step(const struct optimizers *optimizers);

/* Clip the model's gradients and update its weights. Where they are not finite nothing changes, nor
 * at any later step, so that the weights are still those before this one when the host hears of it.
 */
fw_status optimizers_step(struct optimizers *optimizers, float max_norm, fw_error *error);

/* What the last step saw, once it is done: gradient norm, clip factor, whether it was finite. */
fw_status optimizers_outcome(struct optimizers *optimizers, fw_step *step, fw_error *error);

#endif
