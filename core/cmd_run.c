/* fairway run: the whole story. Train, average, pack, reload the artifact from disk, score, report.
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "commands.h"
#include "files.h"
#include "pipeline.h"
#include "scorer.h"

static const char help[] =
    "usage: fairway run FILE.ini [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n\n"
    "Trains as FILE.ini says, averages and packs the weights, reloads the artifact from disk,\n"
    "scores it on the validation data and prints a table. The run directory (run.output) then\n"
    "holds resolved.ini, log.jsonl, weights.fw, model.fairway and receipt.json; running that\n"
    "resolved.ini again gives the same run.\n\n"
    "examples\n"
    "  fairway run configs/quickstart.ini\n"
    "  fairway run configs/quickstart.ini --set attention.plugin=xsa --set run.name=xsa\n"
    "  fairway run mine.ini --set run.steps=50 --set run.output=/tmp/try --plugin-dir ~/plugins\n";

/* Score the artifact that was just written, from the file alone. */
static fw_status score_artifact(struct pipeline *pipeline, const struct arguments *arguments,
                                const char *path, fw_error *error) {
    struct session *own = &pipeline->session;
    const struct experiment *experiment = own->experiment;
    struct arguments again = *arguments;
    char device[512], threads[64];
    (void)snprintf(device, sizeof device, "run.device=%s", experiment->run.device);
    (void)snprintf(threads, sizeof threads, "run.threads=%lld", (long long)experiment->run.threads);
    again.overrides[0] = device;
    again.overrides[1] = threads;
    again.n_overrides = 2;
    const double begin = clock_seconds();
    struct scorer scorer;
    FW_TRY(scorer_open(&again, path, &scorer, error));
    struct report *report = &pipeline->report;
    report->seconds[PHASE_RELOAD] += clock_seconds() - begin;
    report->cache_on = strcmp(experiment->cache.name, "none") != 0;
    fw_status status = score_corpus(
        &scorer.session, scorer.model, scorer.artifact.table, own->validation, EVAL_PLAIN,
        (uint64_t)experiment->eval.ladder_tokens, false, "packed", &report->packed, error);
    if (status == FW_OK)
        status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, own->validation,
                              experiment->eval.mode, 0, report->cache_on, "evaluate",
                              &report->final, error);
    report->seconds[PHASE_EVALUATE] += report->packed.seconds + report->final.seconds;
    scorer_close(&scorer);
    return status;
}

/* A feature that is switched on and changes nothing is a mistake, not a result. */
static fw_status check_effects(const struct pipeline *pipeline, fw_error *error) {
    const struct report *report = &pipeline->report;
    if (report->cache_on && report->final.cache_changed == 0)
        return fw_fail(error, FW_E_LIMIT,
                       "[cache] plugin %s is on but changed no prediction; set cache.plugin = none",
                       pipeline->session.experiment->cache.name);
    return FW_OK;
}

/* What xz makes of the validation text alone, and of what it adds to the training text. */
static void compare_with_xz(struct pipeline *pipeline) {
    struct session *session = &pipeline->session;
    size_t n_training = 0, n_validation = 0;
    const uint8_t *training = corpus_text(session->training, &n_training);
    const uint8_t *validation = corpus_text(session->validation, &n_validation);
    if (training == NULL || validation == NULL) return;
    uint8_t *both = malloc(n_training + n_validation);
    if (both == NULL) return;
    memcpy(both, training, n_training);
    memcpy(both + n_training, validation, n_validation);
    struct report *report = &pipeline->report;
    report->validation_text = n_validation;
    report->validation_xz = xz_size(validation, n_validation);
    report->prefixed_xz = xz_size(both, n_training + n_validation) - xz_size(training, n_training);
    free(both);
}

static fw_status score_trained(struct pipeline *pipeline, fw_error *error) {
    struct report *report = &pipeline->report;
    FW_TRY(pipeline_score_weights(pipeline, pipeline->raw, "raw", &report->raw, error));
    report->averaged = report->raw;
    if (!report->average_on) return FW_OK;
    return pipeline_score_weights(pipeline, pipeline->averaged, "averaged", &report->averaged,
                                  error);
}

static fw_status run(struct pipeline *pipeline, const struct arguments *arguments,
                     fw_error *error) {
    FW_TRY(pipeline_train(pipeline, error));
    FW_TRY(pipeline_save_weights(pipeline, error));
    FW_TRY(score_trained(pipeline, error));
    char path[4096];
    (void)snprintf(path, sizeof path, "%s", session_path(&pipeline->session, "model.fairway"));
    FW_TRY(pipeline_pack(pipeline, pipeline->session.table, pipeline->averaged, path, error));
    FW_TRY(score_artifact(pipeline, arguments, path, error));
    FW_TRY(check_effects(pipeline, error));
    FW_TRY(code_size_measure(pipeline->session.experiment, &pipeline->report.code, error));
    compare_with_xz(pipeline);
    FW_TRY(report_write_receipt(&pipeline->session, &pipeline->report, error));
    report_print(&pipeline->session, &pipeline->report);
    return FW_OK;
}

int cmd_run(int argc, char **argv) {
    static const struct option none[] = {{NULL, NULL, NULL}};
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    fw_status status = arguments_parse(argc, argv, none, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    struct pipeline pipeline;
    if (status == FW_OK) status = pipeline_open(&arguments, "log.jsonl", true, &pipeline, &error);
    if (status != FW_OK) return report_failure(status, &error);
    status = run(&pipeline, &arguments, &error);
    progress_end(&pipeline.session.progress);
    pipeline_close(&pipeline);
    return report_failure(status, &error);
}
