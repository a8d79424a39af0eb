/* A recorded model case at work: the host's own model, opened from an INI text that the case's
 * config.txt was turned into, and the places of its weights among the recorded tensors. */
#ifndef GOLDEN_MODEL_CASE_H
#define GOLDEN_MODEL_CASE_H

#include "cases.h"
#include "model.h"
#include "names.h"
#include "session.h"

struct model_case {
    struct folder *folder;
    struct shape shape;
    struct session session;
    struct model *model;  /* for training */
    struct place *places; /* of each weight */
    int32_t *inputs, *targets;
    bool exact; /* the device computes in float32 */
};

/* Errors: those of config.txt, of the model, E_NOT_FOUND / E_SHAPE, naming it, for a weight without
 * a recorded tensor or a recorded tensor that no weight takes. */
fw_status model_case_open(struct folder *folder, const struct case_options *options,
                          struct model_case *model_case, fw_error *error);
void model_case_close(struct model_case *model_case);

/* A host arena with the tensors "GROUP/NAME" ("param", "grad", "after_step") in the model's layout,
 * or a device arena copied to the host. The caller frees it. */
fw_status model_case_recorded(struct model_case *model_case, const char *group, float **arena,
                              fw_error *error);
fw_status model_case_download(const struct model_case *model_case, const float *device_arena,
                              float **arena, fw_error *error);

/* The mean loss, and gradients of it in the model's arena. */
fw_status model_case_loss(struct model_case *model_case, double *loss, fw_error *error);

/* model_step.c: one optimizer step from `before`, fed the recorded gradients. */
fw_status model_case_step(struct model_case *model_case, const float *before,
                          const float *gradients, struct verdicts *verdicts, fw_error *error);

#endif
