/* The stages that verbs share: train, save, validate, pack. Each notes its seconds in the report.
 */
#ifndef FAIRWAY_PIPELINE_H
#define FAIRWAY_PIPELINE_H

#include "report.h"

struct pipeline {
    struct session session;
    struct model *scoring; /* for inference */
    float *raw,
        *averaged;     /* host arenas of the trained weights; the same one if nothing averages */
    bool *quantized;   /* weights that were trained quantization-aware; NULL: none */
    bool resume;       /* set by the verb: train on from RUN/checkpoint.fw */
    bool keep_sources; /* set by the verb: leave the packed sources as RUN/code.tar.xz */
    struct report report;
};

/* E_CONFIG when the arguments name no INI. */
fw_status pipeline_need_ini(const struct arguments *arguments, fw_error *error);

/* Session, tokenizer, corpora and model for the INI that `arguments` names; the validation corpus
 * too if the run validates on its way. Quantizer, compressor and cache are tried: what cannot work
 * is refused here. */
fw_status pipeline_open(const struct arguments *arguments, bool with_validation,
                        struct pipeline *pipeline, fw_error *error);
void pipeline_close(struct pipeline *pipeline);

/* Open the run directory with its log, and train, from scratch or from the checkpoint; leaves the
 * raw and averaged weights. */
fw_status pipeline_train(struct pipeline *pipeline, const char *log_name, fw_error *error);

/* RUN/weights.fw. */
fw_status pipeline_save_weights(struct pipeline *pipeline, fw_error *error);

/* Score weights that are not packed yet, plainly, on eval.ladder_tokens. */
fw_status pipeline_score_weights(struct pipeline *pipeline, const float *weights, const char *label,
                                 struct evaluate_result *result, fw_error *error);

/* Note `score`, one of `result`, in the run's log, with "fair": false and "valid": false where that
 * is so. */
fw_status pipeline_log_score(struct pipeline *pipeline, const char *what, int64_t step,
                             const struct evaluate_result *result, const struct score *score,
                             fw_error *error);

/* Take the effects that plugins of `host` stated into the report. */
void pipeline_note_effects(struct pipeline *pipeline, const struct host *host);

/* E_LIMIT when a feature that is switched on changed nothing: that is a mistake, not a result. */
fw_status pipeline_check_effects(const struct pipeline *pipeline, fw_error *error);

/* Bytes of the code, measured once. Noted in the report. */
fw_status pipeline_measure_code(struct pipeline *pipeline, fw_error *error);

/* Create the cache of [cache] and destroy it again. What cannot be created is refused, and plugins
 * that it asks for count as code. */
fw_status pipeline_check_cache(const struct session *session, const struct token_table *table,
                               fw_error *error);

/* Write the artifact of `weights` to `path`; with run.fit_size and a quantizer that has a rate, at
 * the largest rate at which artifact and code are within run.size_limit. E_LIMIT when there is
 * none. */
fw_status pipeline_pack(struct pipeline *pipeline, const struct token_table *table,
                        const float *weights, const char *path, fw_error *error);

#endif
