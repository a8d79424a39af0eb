#include "pipeline.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "artifact.h"
#include "clock.h"
#include "files.h"
#include "pack.h"
#include "qat.h"
#include "scorer.h"
#include "weights_file.h"

fw_status pipeline_need_ini(const struct arguments *arguments, fw_error *error) {
    if (arguments->input != NULL) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "no INI file is given; try `fairway run configs/quickstart.ini`");
}

/* A cache that cannot be created, or whose score would be refused, is refused now, not after the
 * training. */
fw_status pipeline_check_cache(const struct session *session, const struct token_table *table,
                               fw_error *error) {
    return evaluate_check(session->experiment, session->services, table, error);
}

static fw_status open_all(const struct arguments *arguments, bool with_validation,
                          struct pipeline *pipeline, fw_error *error) {
    struct session *session = &pipeline->session;
    FW_TRY(pipeline_need_ini(arguments, error));
    FW_TRY(session_open(arguments, arguments->input, NULL, CONFIG_BIND_ALL, session, error));
    FW_TRY(session_open_tokenizer(session, error));
    FW_TRY(session_open_training(session, error));
    if (with_validation || session->experiment->run.validate_every > 0)
        FW_TRY(session_open_validation(session, error));
    FW_TRY(scoring_model(session, session->table->vocabulary, &pipeline->scoring, error));
    FW_TRY(pack_check(session->experiment, session->services, pipeline->scoring, error));
    return pipeline_check_cache(session, session->table, error);
}

fw_status pipeline_open(const struct arguments *arguments, bool with_validation,
                        struct pipeline *pipeline, fw_error *error) {
    const double begin = clock_seconds();
    *pipeline = (struct pipeline){0};
    const fw_status status = open_all(arguments, with_validation, pipeline, error);
    pipeline->report.seconds[PHASE_LOAD] = clock_seconds() - begin;
    if (status != FW_OK) pipeline_close(pipeline);
    return status;
}

void pipeline_close(struct pipeline *pipeline) {
    model_destroy(pipeline->scoring);
    if (pipeline->averaged != pipeline->raw) free(pipeline->averaged);
    free(pipeline->raw);
    free(pipeline->quantized);
    session_close(&pipeline->session);
    *pipeline = (struct pipeline){0};
}

/* ---- scoring weights in memory ---- */

static fw_status score(struct pipeline *pipeline, const float *weights, const char *label,
                       struct evaluate_result *result, fw_error *error) {
    struct session *session = &pipeline->session;
    FW_TRY(model_set_weights(pipeline->scoring, weights, error));
    return score_corpus(session, pipeline->scoring, session->table, session->validation, EVAL_PLAIN,
                        (uint64_t)session->experiment->eval.ladder_tokens, false, label, result,
                        error);
}

fw_status pipeline_log_score(struct pipeline *pipeline, const char *what, int64_t step,
                             const struct evaluate_result *result, const struct score *score,
                             fw_error *error) {
    cJSON *fields = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(fields, "what", what);
    (void)cJSON_AddNumberToObject(fields, "step", (double)step);
    (void)cJSON_AddNumberToObject(fields, "bpb", score->bpb);
    (void)cJSON_AddNumberToObject(fields, "nats_per_token", score->nats / (double)score->targets);
    if (!score->fair) (void)cJSON_AddBoolToObject(fields, "fair", false);
    char why[REPORT_WHY_BYTES];
    if (report_is_invalid(result, score, why)) {
        (void)cJSON_AddBoolToObject(fields, "valid", false);
        (void)cJSON_AddNumberToObject(fields, "mean_sum", result->mean_sum);
        (void)cJSON_AddNumberToObject(fields, "largest_sum", result->largest_sum);
        (void)cJSON_AddStringToObject(fields, "why", why);
    }
    return log_event(pipeline->session.log, "score", fields, error);
}

fw_status pipeline_score_weights(struct pipeline *pipeline, const float *weights, const char *label,
                                 struct evaluate_result *result, fw_error *error) {
    FW_TRY(score(pipeline, weights, label, result, error));
    pipeline->report.seconds[PHASE_LADDER] += result->seconds;
    return pipeline_log_score(pipeline, label, pipeline->report.training.steps, result,
                              &result->model, error);
}

static fw_status validate(void *argument, int64_t step, const float *weights, fw_error *error) {
    struct pipeline *pipeline = argument;
    struct evaluate_result result;
    FW_TRY(score(pipeline, weights, "validate", &result, error));
    pipeline->report.seconds[PHASE_VALIDATE] += result.seconds;
    progress_end(&pipeline->session.progress);
    (void)fprintf(stderr, "step %" PRId64 "  validation %.4f bpb\n", step, result.model.bpb);
    return pipeline_log_score(pipeline, "raw", step, &result, &result.model, error);
}

/* ---- training ---- */

static fw_status create_training_model(const struct session *session, struct model **model,
                                       fw_error *error) {
    const struct experiment *experiment = session->experiment;
    const struct model_options options = {.experiment = experiment,
                                          .host = session->services,
                                          .vocabulary = session->table->vocabulary,
                                          .batch = train_micro_batch(experiment),
                                          .tokens = experiment->data.sequence,
                                          .training = true,
                                          .compute_copies = experiment->run.qat_below > 0};
    FW_TRY(model_create(&options, model, error));
    const fw_status status = model_initialise(*model, error);
    if (status == FW_OK) return FW_OK;
    model_destroy(*model);
    *model = NULL;
    return status;
}

static void note_training(struct pipeline *pipeline, const struct model *model,
                          const struct train_result *result) {
    struct report *report = &pipeline->report;
    const int64_t sequence = pipeline->session.experiment->data.sequence;
    report->training = *result;
    report->training.raw = report->training.averaged = NULL;
    report->training.quantized = NULL;
    report->parameters = model_parameters(model);
    report->forward_backward_flops =
        3 * model_forward_flops(model, 1, sequence) * ((double)result->tokens / (double)sequence);
    report->average_on = !result->averaged_is_raw;
    report->seconds[PHASE_TRAIN] = result->seconds;
    report->seconds[PHASE_CHECKPOINT] = result->checkpoint_seconds;
    report->seconds[PHASE_AVERAGE] = result->average_seconds;
    pipeline->raw = result->raw;
    pipeline->averaged = result->averaged;
    pipeline->quantized = result->quantized;
    pipeline_note_effects(pipeline, pipeline->session.host);
}

/* Now, or what is left of run.seconds after the training that a checkpoint holds. */
static double deadline(const struct session *session, const struct trainer *trainer) {
    const double limit = session->experiment->run.seconds;
    return limit > 0 ? clock_seconds() + limit - trainer_elapsed(trainer) : 0;
}

/* The run directory is opened once the trainer exists: nothing is written, and nothing of an
 * earlier run removed, before all that can be refused has been. */
static fw_status start(struct pipeline *pipeline, struct trainer *trainer, const char *log_name,
                       fw_error *error) {
    struct session *session = &pipeline->session;
    FW_TRY(session_open_directory(session, log_name, pipeline->resume, error));
    const double begin = clock_seconds();
    FW_TRY(trainer_start(trainer, error));
    pipeline->report.seconds[PHASE_PRIME] = clock_seconds() - begin;
    return FW_OK;
}

static fw_status train_model(struct pipeline *pipeline, struct model *model, const char *log_name,
                             double begin, struct train_result *result, fw_error *error) {
    struct session *session = &pipeline->session;
    char checkpoint[4096];
    (void)snprintf(checkpoint, sizeof checkpoint, "%s", session_path(session, CHECKPOINT_NAME));
    const struct train_options options = {.experiment = session->experiment,
                                          .host = session->services,
                                          .model = model,
                                          .corpus = session->training,
                                          .progress = &session->progress,
                                          .checkpoint = checkpoint,
                                          .resume = pipeline->resume,
                                          .validate = session->validation != NULL ? validate : NULL,
                                          .validate_argument = pipeline};
    struct trainer *trainer = NULL;
    FW_TRY(trainer_create(&options, &trainer, error));
    pipeline->report.seconds[PHASE_LOAD] += clock_seconds() - begin;
    fw_status status = start(pipeline, trainer, log_name, error);
    session->deadline = deadline(session, trainer);
    if (status == FW_OK) status = trainer_run(trainer, session->log, result, error);
    session->deadline = 0;
    trainer_destroy(trainer);
    return status;
}

fw_status pipeline_train(struct pipeline *pipeline, const char *log_name, fw_error *error) {
    const double begin = clock_seconds();
    struct model *model = NULL;
    struct train_result result;
    FW_TRY(create_training_model(&pipeline->session, &model, error));
    const fw_status status = train_model(pipeline, model, log_name, begin, &result, error);
    if (status == FW_OK) note_training(pipeline, model, &result);
    model_destroy(model);
    return status;
}

fw_status pipeline_save_weights(struct pipeline *pipeline, fw_error *error) {
    struct session *session = &pipeline->session;
    return weights_save(session_path(session, "weights.fw"), pipeline->scoring, session->table,
                        session->experiment->hash, pipeline->raw, pipeline->averaged, error);
}

static void note_effect(void *argument, const char *name, double size) {
    report_add_effect(argument, name, size);
}

void pipeline_note_effects(struct pipeline *pipeline, const struct host *host) {
    host_each_effect(host, note_effect, &pipeline->report);
}

static fw_status check_stated_effects(const struct report *report, fw_error *error) {
    for (size_t i = 0; i < report->n_effects; i++)
        if (!(fabs(report->effects[i].size) > 0))
            return fw_fail(error, FW_E_LIMIT,
                           "%s is %g: a feature that is switched on had no effect; switch it off, "
                           "or give it something to do (train longer, say)",
                           report->effects[i].name, report->effects[i].size);
    return FW_OK;
}

fw_status pipeline_check_effects(const struct pipeline *pipeline, fw_error *error) {
    const struct experiment *experiment = pipeline->session.experiment;
    const struct report *report = &pipeline->report;
    if (report->training.shortfall != FW_OK)
        return fw_fail(error, report->training.shortfall, "%s", report->training.shortfall_message);
    FW_TRY(check_stated_effects(report, error));
    if (report->average_on && report->training.average_effect == 0)
        return fw_fail(
            error, FW_E_LIMIT,
            "[average] plugin %s is on, but its result equals the raw weights; train longer or "
            "set average.plugin = none",
            experiment->average.entry->plugin->id);
    if (report->cache_on && report->final.cache_changed == 0)
        return fw_fail(error, FW_E_LIMIT,
                       "[cache] plugin %s is on but changed no prediction; set cache.plugin = none",
                       experiment->cache.entry->plugin->id);
    return FW_OK;
}
