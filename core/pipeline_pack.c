/* The end of the pipeline: from weights to an artifact within its limit of bytes. */
#include <stdio.h>
#include <string.h>

#include "artifact.h"
#include "clock.h"
#include "files.h"
#include "pack.h"
#include "pipeline.h"
#include "qat.h"
#include "scorer.h"

fw_status pipeline_measure_code(struct pipeline *pipeline, fw_error *error) {
    struct report *report = &pipeline->report;
    if (report->code.counted > 0) return FW_OK;
    const double begin = clock_seconds();
    const struct session *session = &pipeline->session;
    const char *path = pipeline->keep_sources ? session_path(session, "code.tar.xz") : NULL;
    FW_TRY(code_size_measure(session->experiment, session->host, path, &report->code, error));
    report->seconds[PHASE_COMPARE] += clock_seconds() - begin;
    return FW_OK;
}

static void note_pruned(void *argument, const char *name, double size) {
    if (strcmp(name, "pruned_weights") == 0) *(double *)argument = size;
}

static fw_status cannot_fit(const struct pipeline *pipeline, const struct pack_result *packed,
                            fw_error *error) {
    const size_t code = pipeline->report.code.counted;
    const long long limit = pipeline->session.experiment->run.size_limit;
    return fw_fail(error, FW_E_LIMIT,
                   "the artifact has %zu bytes even with all pruned (rate 0; %zu at rate 1), the "
                   "code %zu: %zu, but run.size_limit is %lld; a smaller model, a coarser "
                   "[quantize] or a larger run.size_limit fits, and run.fit_size = no packs it as "
                   "it is; the trained weights are in weights.fw for `fairway pack`",
                   packed->least_bytes, packed->full_bytes, code, packed->least_bytes + code,
                   limit);
}

/* A quantizer without a rate cannot be fitted: the artifact is written as it is, with a word. The
 * code is measured, which takes seconds, only for artifacts that come near the limit. */
static fw_status warn_of_size(struct pipeline *pipeline, const struct artifact *artifact,
                              fw_error *error) {
    const struct session *session = &pipeline->session;
    const size_t model = artifact->payload_bytes;
    const size_t limit = (size_t)session->experiment->run.size_limit;
    if (model < limit / 2) return FW_OK;
    FW_TRY(pipeline_measure_code(pipeline, error));
    const size_t code = pipeline->report.code.counted;
    if (model + code <= limit) return FW_OK;
    char message[512];
    (void)snprintf(message, sizeof message,
                   "the artifact takes over %zu bytes and the code %zu, more than run.size_limit = "
                   "%zu; quantizer %s has no rate that could be lowered to fit, int6_mixed has",
                   model, code, limit, session->experiment->quantize.entry->plugin->id);
    session->services->log(session->services, FW_LOG_WARNING, message);
    return FW_OK;
}

/* After a training all of this is open, and what is scored was held against what is trained on. */
static fw_status open_training_text(struct session *session, const struct token_table *table,
                                    fw_error *error) {
    if (session->training != NULL && session->validation != NULL) return FW_OK;
    FW_TRY(session_open_tokenizer(session, error));
    FW_TRY(session_open_training(session, error));
    FW_TRY(session_open_validation(session, error));
    if (memcmp(session->table->fingerprint, table->fingerprint, sizeof table->fingerprint) == 0)
        return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "tokenizer %s (%u tokens) is not the one that these weights were trained with "
                   "(%u tokens), which calibration takes",
                   session->experiment->tokenizer.entry->plugin->id, session->table->vocabulary,
                   table->vocabulary);
}

/* What a quantizer that wants it sees of the model: training text alone. */
static fw_status prepare_calibration(struct pipeline *pipeline, const struct token_table *table,
                                     const float *weights, struct pack_options *options,
                                     struct calibration *calibration, fw_error *error) {
    struct session *session = &pipeline->session;
    const struct experiment *experiment = session->experiment;
    bool wanted = false;
    FW_TRY(
        pack_wants_calibration(experiment, session->services, pipeline->scoring, &wanted, error));
    if (!wanted) return FW_OK;
    FW_TRY(open_training_text(session, table, error));
    FW_TRY(model_set_weights(pipeline->scoring, weights, error));
    *calibration = (struct calibration){.model = pipeline->scoring,
                                        .batch = experiment->eval.batch,
                                        .tokens = evaluate_window(experiment),
                                        .corpus = session->training,
                                        .total = (uint64_t)experiment->run.calibration_tokens};
    options->calibration = calibration;
    return FW_OK;
}

static fw_status pack_to_limit(struct pipeline *pipeline, const struct token_table *table,
                               const float *weights, struct artifact *artifact, fw_error *error) {
    const struct session *session = &pipeline->session;
    const struct run_keys *run = &session->experiment->run;
    struct report *report = &pipeline->report;
    struct calibration calibration;
    struct pack_options options = {.experiment = session->experiment,
                                   .host = session->services,
                                   .model = pipeline->scoring,
                                   .weights = weights,
                                   .fit = run->fit_size && pack_has_rate(session->experiment)};
    if (options.fit) {
        FW_TRY(pipeline_measure_code(pipeline, error));
        const size_t code = report->code.counted, limit = (size_t)run->size_limit;
        options.limit = code < limit ? limit - code : 0;
    }
    FW_TRY(prepare_calibration(pipeline, table, weights, &options, &calibration, error));
    FW_TRY(pack_weights(&options, artifact, &report->pack, error));
    if (!report->pack.fits) return cannot_fit(pipeline, &report->pack, error);
    if (run->fit_size && !options.fit) FW_TRY(warn_of_size(pipeline, artifact, error));
    report->pruned_weights = 0;
    if (report->pack.rate < 1)
        host_each_effect(session->host, note_pruned, &report->pruned_weights);
    return FW_OK;
}

/* Said at the end of the run, as other features that took no part. */
static void check_quantized(struct pipeline *pipeline, const struct artifact *artifact) {
    struct train_result *training = &pipeline->report.training;
    fw_error why = {.struct_size = sizeof why};
    if (pipeline->quantized == NULL || training->shortfall != FW_OK) return;
    training->shortfall = qat_check_packed(pipeline->quantized, pipeline->scoring,
                                           artifact->streams, artifact->n_streams, &why);
    (void)snprintf(training->shortfall_message, sizeof training->shortfall_message, "%s",
                   why.message);
}

static fw_status write_artifact(struct pipeline *pipeline, const struct token_table *table,
                                const float *weights, const char *path, struct artifact *artifact,
                                fw_error *error) {
    FW_TRY(scorer_config_text(&pipeline->session, &artifact->config, error));
    FW_TRY(token_table_copy(table, &artifact->table, error));
    FW_TRY(pack_to_limit(pipeline, table, weights, artifact, error));
    return artifact_write(path, artifact, error);
}

fw_status pipeline_pack(struct pipeline *pipeline, const struct token_table *table,
                        const float *weights, const char *path, fw_error *error) {
    double *seconds = pipeline->report.seconds;
    const double begin = clock_seconds(), compared = seconds[PHASE_COMPARE];
    struct artifact artifact = {0};
    fw_status status = write_artifact(pipeline, table, weights, path, &artifact, error);
    progress_end(&pipeline->session.progress);
    if (status == FW_OK) check_quantized(pipeline, &artifact);
    if (status == FW_OK) status = sha256_file(path, pipeline->report.artifact_hash, error);
    pipeline->report.artifact_bytes = artifact.file_bytes;
    artifact_free(&artifact);
    pipeline_note_effects(pipeline, pipeline->session.host);
    const double calibrated = pipeline->report.pack.calibration_seconds;
    seconds[PHASE_CALIBRATE] += calibrated;
    seconds[PHASE_PACK] +=
        clock_seconds() - begin - calibrated - (seconds[PHASE_COMPARE] - compared);
    return status;
}
