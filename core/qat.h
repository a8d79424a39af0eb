/* Quantization-aware training: late in the run, once the learning rate's scale is below
 * run.qat_below, the forward pass uses of each tensor that [quantize] will quantize what the
 * quantizer's fake_quantize makes of it. That stands for packing without being it in every bit:
 * int8 and int6_mixed clip there at a row's largest magnitude, not at their percentiles. Gradients
 * go straight through to the masters, which stay exact.
 *
 * The model must have compute copies (model_options.compute_copies): the optimizers refresh them
 * with every step, and qat_apply overwrites those of the quantized tensors before the next pass. */
#ifndef FAIRWAY_QAT_H
#define FAIRWAY_QAT_H

#include <fairway/quantizer.h>

#include "model.h"
#include "schedule.h"

struct qat;

/* NULL when run.qat_below is 0. Tries every tensor once and leaves the compute copies as they were.
 * Errors, with the place in the INI: E_CONFIG when the schedule can never fall below the threshold;
 * E_UNSUPPORTED when the quantizer cannot take part, quantizes no tensor, or quantizes one that has
 * no compute copy. */
fw_status qat_create(const struct experiment *experiment, const fw_host *host, struct model *model,
                     const struct schedule *schedule, struct qat **qat, fw_error *error);
void qat_destroy(struct qat *qat); /* NULL is fine */

/* Whether step `step` is to be taken quantization-aware: from the first one below the threshold on,
 * the warm-up aside. False for NULL. */
bool qat_begins(struct qat *qat, int64_t step, double scale);

/* Before a forward pass: what fake_quantize makes of the masters, to the compute copies. `step` is
 * device memory, with its `quantize` set. [no-alloc] */
fw_status qat_apply(const struct qat *qat, const fw_step *step, fw_error *error);

/* Whether weight `index` is one of those. */
bool qat_covers(const struct qat *qat, uint32_t index);

/* Hold what was trained against what was packed: E_LIMIT, naming the tensor, when one that
 * `covered` (an entry for each weight) has was packed as plain floats, or one that it lacks was
 * packed as symbols. */
fw_status qat_check_packed(const bool *covered, const struct model *model, const fw_stream *streams,
                           uint32_t n_streams, fw_error *error);

/* At the end: state to the host how many weights differ from what they would be computed with, and
 * by how much: qat_changed_weights and qat_relative_distance. The compute copies are the masters
 * again. E_LIMIT: it never began, with the lowest scale and what to change. */
fw_status qat_state_effects(const struct qat *qat, fw_error *error);

/* What a checkpoint must hold. */
struct qat_state {
    bool on;
    double lowest; /* scale so far, the warm-up aside */
};
struct qat_state qat_save(const struct qat *qat); /* of NULL: off */
void qat_load(struct qat *qat, const struct qat_state *state);

#endif
