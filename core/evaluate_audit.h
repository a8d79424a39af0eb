/* The audit that an evaluation makes, as eval.audit says: of its caches while they are scored, of
 * its model afterwards, and what a probe that failed means for the score. */
#ifndef FAIRWAY_EVALUATE_AUDIT_H
#define FAIRWAY_EVALUATE_AUDIT_H

#include "audit.h"
#include "evaluate.h"
#include "windows.h"

/* Which positions are looked at: eval.audit_seed, or a seed that nobody could know before, so that
 * no plugin can behave where it is looked at alone. 0 where there is no audit. E_IO. */
fw_status evaluate_audit_seed(const struct evaluate_options *options, uint64_t *seed,
                              fw_error *error);

/* An audit of the cache of `choice` ("cache" or "counterpart"), or NULL where none is wanted. */
fw_status evaluate_open_audit(const struct evaluate_options *options,
                              const struct plugin_choice *choice, uint64_t targets, uint64_t seed,
                              struct verdicts *verdicts, struct cache_audit **audit,
                              fw_error *error);

/* Probe the model on the windows, or in EVAL_STREAM the chunks, of the stream that was scored. */
fw_status evaluate_audit_model(const struct evaluate_options *options,
                               const struct windows *windows, const uint16_t *tokens, uint64_t seed,
                               struct verdicts *verdicts, fw_error *error);

/* E_PROTOCOL for the first probe that failed, with its words, unless on_violation = report. */
fw_status evaluate_judge(const struct evaluate_options *options, const struct verdicts *verdicts,
                         fw_error *error);

#endif
