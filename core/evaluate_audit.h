/* The audit that an evaluation makes, as eval.audit says: of its caches while they are scored, of
 * its model afterwards, and what a probe that failed means for the score. */
#ifndef FAIRWAY_EVALUATE_AUDIT_H
#define FAIRWAY_EVALUATE_AUDIT_H

#include "audit.h"
#include "evaluate.h"
#include "windows.h"

/* An audit of the cache of `choice` ("cache" or "counterpart"), or NULL where none is wanted. */
fw_status evaluate_open_audit(const struct evaluate_options *options,
                              const struct plugin_choice *choice, uint64_t targets,
                              struct verdicts *verdicts, struct cache_audit **audit,
                              fw_error *error);

/* Probe the model on the windows, or in EVAL_STREAM the chunks, of the stream that was scored. */
fw_status evaluate_audit_model(const struct evaluate_options *options,
                               const struct windows *windows, const uint16_t *tokens,
                               struct verdicts *verdicts, fw_error *error);

/* E_PROTOCOL for the first probe that failed, with its words, unless on_violation = report. */
fw_status evaluate_judge(const struct evaluate_options *options, const struct verdicts *verdicts,
                         fw_error *error);

#endif
