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

/* Scoring from the file takes from this run what belongs to the machine: device and its keys,
 * threads, seed, and where plugins lie that are named by path. */
struct overrides {
    char *text; /* lines "key = value" of [device], cut into overrides */
    char run[3][512];
    char device[32][512];
};

static fw_status machine_overrides(const struct session *session, const struct arguments *arguments,
                                   struct arguments *again, struct overrides *overrides,
                                   fw_error *error) {
    static const char *const sections[] = {"device", NULL};
    const struct run_keys *run = &session->experiment->run;
    *again = *arguments;
    FW_TRY(config_text(session->config, sections, &overrides->text, error));
    (void)snprintf(overrides->run[0], 512, "run.device=%s", run->device);
    (void)snprintf(overrides->run[1], 512, "run.threads=%lld", (long long)run->threads);
    (void)snprintf(overrides->run[2], 512, "run.seed=%lld", (long long)run->seed);
    size_t n = 0, n_device = 0;
    for (; n < 3; n++) again->overrides[n] = overrides->run[n];
    for (char *line = strtok(overrides->text, "\n"); line != NULL && n_device < 32;
         line = strtok(NULL, "\n")) {
        char key[64], value[400];
        if (sscanf(line, "%63[a-z0-9_] = %399[^\n]", key, value) != 2) continue;
        (void)snprintf(overrides->device[n_device], 512, "device.%s=%s", key, value);
        again->overrides[n++] = overrides->device[n_device++];
    }
    again->n_overrides = n;
    return config_plugin_overrides(session->config, again->overrides, &again->n_overrides,
                                   MAX_ARGUMENTS, error);
}

/* Score the artifact that was just written, from the file alone. */
static fw_status score_artifact(struct pipeline *pipeline, const struct arguments *arguments,
                                const char *path, fw_error *error) {
    const struct experiment *experiment = pipeline->session.experiment;
    const struct corpus *corpus = pipeline->session.validation;
    struct arguments again;
    struct overrides overrides;
    FW_TRY(machine_overrides(&pipeline->session, arguments, &again, &overrides, error));
    const double begin = clock_seconds();
    struct scorer scorer;
    fw_status status = scorer_open(&again, path, &scorer, error);
    free(overrides.text);
    FW_TRY(status);
    struct report *report = &pipeline->report;
    report->seconds[PHASE_RELOAD] += clock_seconds() - begin;
    report->cache_on = choice_is_on(&experiment->cache);
    status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus, EVAL_PLAIN,
                          (uint64_t)experiment->eval.ladder_tokens, false, "packed",
                          &report->packed, error);
    if (status == FW_OK)
        status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus,
                              experiment->eval.mode, 0, report->cache_on, "evaluate",
                              &report->final, error);
    report->seconds[PHASE_EVALUATE] += report->packed.seconds + report->final.seconds;
    scorer_close(&scorer);
    return status;
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
    const size_t prefix = xz_size(training, n_training);
    const size_t whole = xz_size(both, n_training + n_validation);
    report->validation_xz = xz_size(validation, n_validation);
    report->prefixed_xz = prefix > 0 && whole > prefix ? whole - prefix : 0;
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

static fw_status log_final(struct pipeline *pipeline, fw_error *error) {
    const struct report *report = &pipeline->report;
    const int64_t step = report->training.steps;
    FW_TRY(pipeline_log_score(pipeline, "packed", step, &report->packed, &report->packed.model,
                              error));
    FW_TRY(
        pipeline_log_score(pipeline, "final", step, &report->final, &report->final.model, error));
    if (!report->cache_on) return FW_OK;
    return pipeline_log_score(pipeline, "cached", step, &report->final, &report->final.cached,
                              error);
}

static fw_status compare(struct pipeline *pipeline, fw_error *error) {
    FW_TRY(pipeline_measure_code(pipeline, error));
    const double begin = clock_seconds();
    compare_with_xz(pipeline);
    pipeline->report.seconds[PHASE_COMPARE] += clock_seconds() - begin;
    return FW_OK;
}

/* Whatever fails, what was made before it is on disk. */
static fw_status run(struct pipeline *pipeline, const struct arguments *arguments,
                     fw_error *error) {
    char path[4096];
    FW_TRY(pipeline_train(pipeline, "log.jsonl", error));
    FW_TRY(pipeline_save_weights(pipeline, error));
    FW_TRY(score_trained(pipeline, error));
    (void)snprintf(path, sizeof path, "%s", session_path(&pipeline->session, "model.fairway"));
    FW_TRY(pipeline_pack(pipeline, pipeline->session.table, pipeline->averaged, path, error));
    FW_TRY(score_artifact(pipeline, arguments, path, error));
    FW_TRY(log_final(pipeline, error));
    FW_TRY(compare(pipeline, error));
    FW_TRY(report_write_receipt(&pipeline->session, &pipeline->report, error));
    report_print(&pipeline->session, &pipeline->report);
    return pipeline_check_effects(pipeline, error);
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
    if (status == FW_OK) status = pipeline_open(&arguments, true, &pipeline, &error);
    if (status != FW_OK) return report_failure(status, &error);
    status = run(&pipeline, &arguments, &error);
    progress_end(&pipeline.session.progress);
    pipeline_close(&pipeline);
    return report_failure(status, &error);
}
