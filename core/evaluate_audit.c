#include "evaluate_audit.h"

#include <stdlib.h>

#include "coin.h"
#include "probe_model.h"

enum { ROWS_OF_A_SAMPLE = 64 }; /* of a window, before the tokens that change */

static int64_t wanted(const struct evaluate_options *options, enum evaluate_audited part) {
    const bool audited = (options->audited & (unsigned)part) != 0;
    return audited ? options->experiment->eval.audit : EVAL_AUDIT_OFF;
}

fw_status evaluate_audit_seed(const struct evaluate_options *options, uint64_t *seed,
                              fw_error *error) {
    const int64_t given = options->experiment->eval.audit_seed;
    const bool none = wanted(options, EVALUATE_AUDIT_ALL) == EVAL_AUDIT_OFF;
    *seed = none || given < 0 ? 0 : (uint64_t)given;
    return none || given >= 0 ? FW_OK : coin_fresh_seed(seed, error);
}

fw_status evaluate_open_audit(const struct evaluate_options *options,
                              const struct plugin_choice *choice, uint64_t targets, uint64_t seed,
                              struct verdicts *verdicts, struct cache_audit **audit,
                              fw_error *error) {
    *audit = NULL;
    if (wanted(options, EVALUATE_AUDIT_CACHES) == EVAL_AUDIT_OFF) return FW_OK;
    const struct experiment *experiment = options->experiment;
    const bool is_counterpart = choice == &experiment->counterpart;
    const struct cache_audit_options own = {
        .subject = is_counterpart ? "counterpart" : "cache",
        .choice = choice,
        .host = options->host,
        .table = options->table,
        .targets = targets,
        .allow_unverified =
            !is_counterpart && experiment->eval.on_violation == EVAL_VIOLATION_REPORT,
        .seed = seed,
        .full = wanted(options, EVALUATE_AUDIT_CACHES) == EVAL_AUDIT_FULL,
        .verdicts = verdicts};
    return cache_audit_open(&own, audit, error);
}

/* A model that reads on, as one that reads windows: each comes behind the stream's beginning, so
 * that keys and values are there which were kept. */
struct behind {
    const struct language_model *model;
    int32_t *before;
    int64_t n;
};

static fw_status begin_stream(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                              fw_error *error) {
    const struct behind *behind = self;
    const struct language_model *model = behind->model;
    (void)batch;
    FW_TRY(model->restart(model->stream, error));
    FW_TRY(model->read_on(model->stream, behind->before, behind->n, error));
    return model->read_on(model->stream, inputs, tokens, error);
}

static fw_status stream_rows(void *self, int64_t first, int64_t n, float *host, fw_error *error) {
    const struct language_model *model = ((const struct behind *)self)->model;
    return model->log_probabilities(model->self, first, n, host, error);
}

/* `before` is the caller's to free. */
static fw_status read_behind(const struct language_model *model, const struct windows *windows,
                             const uint16_t *tokens, struct behind *behind, fw_error *error) {
    const struct window first = windows_get(windows, 0);
    *behind = (struct behind){model, malloc(first.n * sizeof *behind->before), (int64_t)first.n};
    if (behind->before == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %llu tokens",
                       (unsigned long long)first.n);
    for (uint64_t i = 0; i < first.n; i++) behind->before[i] = tokens[first.start + i];
    return FW_OK;
}

static struct language_model stream_as_windows(const struct language_model *model,
                                               struct behind *behind) {
    return (struct language_model){.self = behind,
                                   .infer = begin_stream,
                                   .log_probabilities = stream_rows,
                                   .most_rows = model->most_rows};
}

fw_status evaluate_audit_model(const struct evaluate_options *options,
                               const struct windows *windows, const uint16_t *tokens, uint64_t seed,
                               struct verdicts *verdicts, fw_error *error) {
    if (wanted(options, EVALUATE_AUDIT_MODEL) == EVAL_AUDIT_OFF) return FW_OK;
    const bool full = wanted(options, EVALUATE_AUDIT_MODEL) == EVAL_AUDIT_FULL;
    const bool reads_on = options->mode == EVAL_STREAM;
    const int64_t batch = reads_on ? 1 : options->experiment->eval.batch;
    const uint64_t passes = (windows_count(windows) + (uint64_t)batch - 1) / (uint64_t)batch;
    struct behind behind = {0};
    if (reads_on) FW_TRY(read_behind(&options->model, windows, tokens, &behind, error));
    const struct model_probes probes = {
        .model = reads_on ? stream_as_windows(&options->model, &behind) : options->model,
        .table = options->table,
        .windows = windows,
        .tokens = tokens,
        .batch = batch,
        .rounds = full ? passes : model_probe_rounds(windows, batch),
        .seed = seed,
        .rows = full ? 0 : ROWS_OF_A_SAMPLE,
        .all_windows = full,
        .thorough = full,
        .rounding = model_probe_rounding(options->host->device)};
    const fw_status status = model_probe(&probes, verdicts, error);
    free(behind.before);
    return status;
}

fw_status evaluate_judge(const struct evaluate_options *options, const struct verdicts *verdicts,
                         fw_error *error) {
    const struct probe *failed = verdicts_failed(verdicts, NULL);
    if (failed == NULL || options->experiment->eval.on_violation == EVAL_VIOLATION_REPORT)
        return FW_OK;
    return fw_fail(error, FW_E_PROTOCOL,
                   "the probe %s fails: %s; there is no score (eval.on_violation = report gives "
                   "one that is marked INVALID)",
                   failed->name, failed->words);
}
