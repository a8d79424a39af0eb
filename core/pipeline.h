/* The stages that verbs share: train, save, validate, pack. Each notes its seconds in the report.
 */
#ifndef FAIRWAY_PIPELINE_H
#define FAIRWAY_PIPELINE_H

#include "report.h"

struct pipeline {
    struct session session;
    struct model *scoring; /* for inference */
    float *raw, *averaged; /* host arenas of the trained weights */
    struct report report;
};

/* Session, run directory, tokenizer and corpora for the INI that `arguments` names. */
fw_status pipeline_open(const struct arguments *arguments, const char *log_name,
                        bool with_validation, struct pipeline *pipeline, fw_error *error);
void pipeline_close(struct pipeline *pipeline);

/* Train from scratch; leaves the raw and averaged weights. */
fw_status pipeline_train(struct pipeline *pipeline, fw_error *error);

/* RUN/weights.fw. */
fw_status pipeline_save_weights(struct pipeline *pipeline, fw_error *error);

/* Score weights that are not packed yet, plainly, on eval.ladder_tokens. */
fw_status pipeline_score_weights(struct pipeline *pipeline, const float *weights, const char *label,
                                 struct evaluate_result *result, fw_error *error);

/* Write the artifact of `weights` to `path`. */
fw_status pipeline_pack(struct pipeline *pipeline, const struct token_table *table,
                        const float *weights, const char *path, fw_error *error);

#endif
