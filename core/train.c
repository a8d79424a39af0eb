#include "train.h"

#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "train_internal.h"

/* ---- steps ---- */

static fw_status maybe_validate(const struct trainer *t, fw_error *error) {
    const struct train_options *options = t->options;
    const int64_t every = options->experiment->run.validate_every;
    if (options->validate == NULL || every <= 0 || t->step % every != 0) return FW_OK;
    if (schedule_done(&t->schedule, t->step, t->elapsed)) return FW_OK;
    float *weights = malloc((size_t)model_arena_count(options->model) * sizeof *weights);
    if (weights == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to validate");
    fw_status status =
        model_download(options->model, model_masters(options->model), weights, error);
    if (status == FW_OK)
        status = options->validate(options->validate_argument, t->step, weights, error);
    free(weights);
    return status;
}

/* What is done between steps, when none is under way. */
static bool pauses_after(const struct trainer *t, int64_t steps) {
    const struct train_options *options = t->options;
    const struct run_keys *run = &options->experiment->run;
    return (run->checkpoint_every > 0 && options->checkpoint != NULL &&
            steps % run->checkpoint_every == 0) ||
           (run->validate_every > 0 && options->validate != NULL &&
            steps % run->validate_every == 0);
}

/* Of the oldest step under way. */
static fw_status hear(struct trainer *t, fw_error *error) {
    const double scale = t->issued[t->step % 2].scale;
    double loss = 0;
    fw_step outcome;
    FW_TRY(train_hear(t, &loss, &outcome, error));
    t->mean_loss = t->step == 1 ? loss : t->mean_loss + 0.05 * (loss - t->mean_loss);
    FW_TRY(train_log_step(t, loss, &outcome, scale, error));
    train_show_progress(t);
    return FW_OK;
}

/* Seconds of training once the step under way is done, as far as can be told. */
static double expected_elapsed(const struct trainer *t) {
    return t->next > t->step ? t->elapsed + t->pace : t->elapsed;
}

/* A device that works by itself is one step ahead: it computes while the host prepares the next
 * step, and then hears of the one before. */
static fw_status take_step(struct trainer *t, fw_error *error) {
    const double elapsed = expected_elapsed(t);
    const double scale = schedule_scale(&t->schedule, t->next, elapsed);
    const bool behind = t->next > t->step;
    FW_TRY(train_issue(t, scale, qat_begins(t->qat, t->next, scale), error));
    if (behind) FW_TRY(hear(t, error));
    if (!train_runs_ahead(t) || pauses_after(t, t->next)) FW_TRY(hear(t, error));
    if (t->next > t->step) return FW_OK;
    FW_TRY(train_maybe_checkpoint(t, error));
    return maybe_validate(t, error);
}

static fw_status train_steps(struct trainer *t, fw_error *error) {
    for (;;) {
        if (!schedule_done(&t->schedule, t->next, expected_elapsed(t)))
            FW_TRY(take_step(t, error));
        else if (t->next > t->step)
            FW_TRY(hear(t, error)); /* how long it took may leave time for another */
        else
            break;
    }
    progress_end(t->options->progress);
    return FW_OK;
}

/* ---- the end ---- */

static double relative_distance(const float *a, const float *b, int64_t n) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

/* A feature that took no part is said at the end of the run: the weights are worth keeping. */
static fw_status note_shortfall(struct train_result *result, fw_status status, const fw_error *why,
                                fw_error *error) {
    if (status != FW_OK && status != FW_E_LIMIT) return fw_fail(error, status, "%s", why->message);
    if (status == FW_OK || result->shortfall != FW_OK) return FW_OK;
    result->shortfall = status;
    (void)snprintf(result->shortfall_message, sizeof result->shortfall_message, "%s", why->message);
    return FW_OK;
}

static fw_status export_quantized(const struct trainer *t, struct train_result *result,
                                  fw_error *error) {
    const uint32_t n = model_n_weights(t->options->model);
    if (t->qat == NULL) return FW_OK;
    result->quantized = calloc(n, sizeof *result->quantized);
    if (result->quantized == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a list");
    for (uint32_t i = 0; i < n; i++) result->quantized[i] = qat_covers(t->qat, i);
    return FW_OK;
}

static fw_status export_average(struct trainer *t, struct train_result *result, fw_error *error) {
    const int64_t n = model_arena_count(t->options->model);
    fw_error why = {.struct_size = sizeof why};
    if (!averaging_is_on(t->averaging)) return FW_OK;
    float *averaged = malloc((size_t)n * sizeof *averaged);
    if (averaged == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the averaged weights");
    const fw_status status = averaging_result(t->averaging, averaged, &why);
    if (status != FW_OK) {
        free(averaged);
        return note_shortfall(result, status, &why, error);
    }
    result->averaged = averaged;
    result->averaged_is_raw = false;
    result->average_effect = relative_distance(averaged, result->raw, n);
    return FW_OK;
}

static bool is_zero(const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (values[i] != 0) return false;
    return true;
}

/* A weight that began as zeros and ends as zeros had no effect, and what hangs on it had none. */
static fw_status check_alive(const struct model *model, const float *weights, fw_error *error) {
    for (uint32_t i = 0; i < model_n_weights(model); i++) {
        const fw_weight *weight = model_weight(model, i);
        const int64_t count =
            weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3];
        if (!is_zero(weights + model_offset(model, i), count)) continue;
        return fw_fail(error, FW_E_LIMIT,
                       "%s is zero after the whole training, so that its part of the model had no "
                       "effect; its learning rate may be 0, or nothing reaches it",
                       weight->name);
    }
    return FW_OK;
}

/* The optimizers go first: their state is as large as the copies of the weights that follow. */
static fw_status export_weights(struct trainer *t, struct train_result *result, fw_error *error) {
    const struct model *model = t->options->model;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = qat_state_effects(t->qat, &why);
    FW_TRY(note_shortfall(result, status, &why, error));
    FW_TRY(export_quantized(t, result, error));
    optimizers_destroy(t->optimizers);
    t->optimizers = NULL;
    result->raw = malloc((size_t)model_arena_count(model) * sizeof *result->raw);
    if (result->raw == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the trained weights");
    result->averaged = result->raw;
    result->averaged_is_raw = true;
    FW_TRY(model_download(model, model_masters(model), result->raw, error));
    status = check_alive(model, result->raw, &why);
    FW_TRY(note_shortfall(result, status, &why, error));
    return export_average(t, result, error);
}

/* ---- the whole ---- */

int64_t train_micro_batch(const struct experiment *experiment) {
    const int64_t sequences = experiment->run.batch_tokens / experiment->data.sequence;
    const int64_t micro = experiment->run.micro_batch;
    return micro > 0 && micro < sequences ? micro : sequences;
}

static struct schedule schedule_of(const struct run_keys *run) {
    return (struct schedule){run->steps, run->seconds, run->warmup_steps, run->warmdown_steps};
}

fw_status train_check(const struct experiment *experiment, const fw_host *host, struct model *model,
                      fw_error *error) {
    const struct schedule schedule = schedule_of(&experiment->run);
    struct optimizers *optimizers = NULL;
    struct qat *qat = NULL;
    fw_status status = optimizers_create(experiment, host, model, &optimizers, error);
    if (status == FW_OK) status = averaging_rehearse(&experiment->average, host, &schedule, error);
    if (status == FW_OK) status = qat_create(experiment, host, model, &schedule, &qat, error);
    qat_destroy(qat);
    optimizers_destroy(optimizers);
    return status;
}

static fw_status trainer_open(struct trainer *t, fw_error *error) {
    const struct train_options *options = t->options;
    const struct run_keys *run = &options->experiment->run;
    t->device = options->host->device;
    t->schedule = schedule_of(run);
    t->tokens = options->experiment->data.sequence;
    t->sequences = run->batch_tokens / t->tokens;
    t->micro = train_micro_batch(options->experiment);
    FW_TRY(feed_create(t, error));
    t->captures = train_can_capture(t);
    FW_TRY(batches_create(options->corpus, t->tokens,
                          options->experiment->data.shuffle == SHUFFLE_SEQUENCES,
                          (uint64_t)run->seed, &t->batches, error));
    FW_TRY(optimizers_create(options->experiment, options->host, options->model, &t->optimizers,
                             error));
    FW_TRY(averaging_rehearse(&options->experiment->average, options->host, &t->schedule, error));
    FW_TRY(averaging_create(&options->experiment->average, options->host, options->model,
                            &t->averaging, error));
    FW_TRY(qat_create(options->experiment, options->host, options->model, &t->schedule, &t->qat,
                      error));
    return options->resume ? train_find_checkpoint(t, error) : FW_OK;
}

fw_status trainer_create(const struct train_options *options, struct trainer **trainer,
                         fw_error *error) {
    struct trainer *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for training");
    made->options = options;
    const fw_status status = trainer_open(made, error);
    if (status == FW_OK)
        *trainer = made;
    else
        trainer_destroy(made);
    return status;
}

void trainer_destroy(struct trainer *t) {
    if (t == NULL) return;
    if (t->feed.staging != NULL) train_forget_graphs(t);
    feed_destroy(t);
    checkpoint_close(t->resumed);
    qat_destroy(t->qat);
    averaging_destroy(t->averaging);
    optimizers_destroy(t->optimizers);
    batches_destroy(t->batches);
    free(t);
}

fw_status trainer_start(struct trainer *t, fw_error *error) {
    fw_status status = train_prime(t, error);
    if (status == FW_OK) status = train_restore(t, error);
    progress_end(t->options->progress);
    return status;
}

double trainer_elapsed(const struct trainer *t) { return t->elapsed; }

static fw_status run_and_export(struct trainer *t, struct train_result *result, fw_error *error) {
    if (t->resumed_at > 0) FW_TRY(train_log_at(t, "resume", error));
    FW_TRY(train_steps(t, error));
    const double begin = clock_seconds();
    FW_TRY(export_weights(t, result, error));
    result->average_seconds = clock_seconds() - begin;
    return FW_OK;
}

fw_status trainer_run(struct trainer *t, struct log *log, struct train_result *result,
                      fw_error *error) {
    struct train_result made = {0};
    t->log = log;
    const fw_status status = run_and_export(t, &made, error);
    progress_end(t->options->progress);
    if (status != FW_OK) {
        free(made.raw);
        free(made.quantized);
        return status;
    }
    made.steps = t->step;
    made.tokens = (uint64_t)t->step * (uint64_t)(t->sequences * t->tokens);
    made.seconds = t->elapsed;
    made.checkpoint_seconds = t->checkpoint_seconds;
    made.loss = t->mean_loss;
    *result = made;
    return FW_OK;
}
