#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "average.h"
#include "batches.h"
#include "clock.h"
#include "optimize.h"
#include "schedule.h"

struct trainer {
    const struct train_options *options;
    struct log *log;
    struct schedule schedule;
    struct optimizers *optimizers;
    struct averaging *averaging;
    int64_t tokens;    /* T */
    int64_t sequences; /* of one step */
    int64_t micro;     /* sequences of one pass */
    struct batches *batches;
    int32_t *inputs, *targets;
    int64_t step;
    double elapsed;   /* training seconds so far */
    double mean_loss; /* running mean, for the progress line and the result */
};

/* ---- one step ---- */

static fw_status accumulate_gradients(struct trainer *t, fw_error *error) {
    const int64_t rows = t->sequences * t->tokens;
    const uint64_t first = (uint64_t)t->step * (uint64_t)t->sequences;
    for (int64_t done = 0; done < t->sequences; done += t->micro) {
        const int64_t n = t->sequences - done < t->micro ? t->sequences - done : t->micro;
        batches_read(t->batches, first + (uint64_t)done, n, t->inputs, t->targets);
        const struct model_batch batch = {t->inputs, t->targets, n, t->tokens};
        FW_TRY(model_train_pass(t->options->model, &batch, 1.0f / (float)rows, done > 0, error));
    }
    return FW_OK;
}

/* Find the first tensor whose gradient is not finite and say so. */
static fw_status report_not_finite(const struct trainer *t, double loss, fw_error *error) {
    const struct model *model = t->options->model;
    const int64_t n = model_arena_count(model);
    const char *name = "the loss";
    float *gradients = malloc((size_t)n * sizeof *gradients);
    if (gradients != NULL &&
        model_download(model, model_gradients(model), gradients, NULL) == FW_OK)
        for (uint32_t i = model_n_weights(model); i-- > 0;) {
            const int64_t end = i + 1 < model_n_weights(model) ? model_offset(model, i + 1) : n;
            for (int64_t j = model_offset(model, i); j < end; j++)
                if (!isfinite(gradients[j])) name = model_weight(model, i)->name;
        }
    free(gradients);
    return fw_fail(
        error, FW_E_NUMERIC,
        "training stopped at step %" PRId64
        ": the gradient of %s is not finite (loss %g nats per token); a lower learning rate or "
        "a smaller run.gradient_clip may help",
        t->step, name, loss);
}

static fw_status take_step(struct trainer *t, double scale, double *loss, fw_step *outcome,
                           fw_error *error) {
    const struct train_options *options = t->options;
    FW_TRY(optimizers_prepare(t->optimizers, t->step, scale, error));
    FW_TRY(accumulate_gradients(t, error));
    FW_TRY(optimizers_step(t->optimizers, (float)options->experiment->run.gradient_clip, error));
    FW_TRY(averaging_update(t->averaging, t->step, scale, error));
    FW_TRY(model_read_loss(options->model, loss, error));
    FW_TRY(optimizers_outcome(t->optimizers, outcome, error));
    *loss /= (double)(t->sequences * t->tokens);
    if (!isfinite(*loss) || outcome->finite == 0) return report_not_finite(t, *loss, error);
    return FW_OK;
}

/* ---- reporting ---- */

static double tokens_per_second(const struct trainer *t) {
    const double tokens = (double)t->step * (double)(t->sequences * t->tokens);
    return t->elapsed > 0 ? tokens / t->elapsed : 0;
}

static fw_status log_step(const struct trainer *t, double loss, const fw_step *outcome,
                          double scale, fw_error *error) {
    const int64_t every = t->options->experiment->run.log_every;
    const bool last = schedule_done(&t->schedule, t->step, t->elapsed);
    if (t->step % every != 0 && !last) return FW_OK;
    cJSON *fields = cJSON_CreateObject();
    (void)cJSON_AddNumberToObject(fields, "step", (double)t->step);
    (void)cJSON_AddNumberToObject(fields, "loss", loss);
    (void)cJSON_AddNumberToObject(fields, "gradient_norm", (double)outcome->gradient_norm);
    (void)cJSON_AddNumberToObject(fields, "schedule", scale);
    (void)cJSON_AddNumberToObject(fields, "tokens_per_second", tokens_per_second(t));
    return log_event(t->log, "step", fields, error);
}

static void show_progress(const struct trainer *t, double loss) {
    char total[32] = "", left[32];
    if (t->schedule.steps > 0) (void)snprintf(total, sizeof total, "/%" PRId64, t->schedule.steps);
    progress_update(t->options->progress,
                    "train  step %" PRId64 "%s  loss %.4f  %.0f tokens/s  %s left", t->step, total,
                    loss, tokens_per_second(t),
                    format_duration(schedule_seconds_left(&t->schedule, t->step, t->elapsed), left,
                                    sizeof left));
}

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

/* ---- the whole ---- */

static fw_status train_steps(struct trainer *t, fw_error *error) {
    while (!schedule_done(&t->schedule, t->step, t->elapsed)) {
        const double begin = clock_seconds();
        const double scale = schedule_scale(&t->schedule, t->step, t->elapsed);
        double loss = 0;
        fw_step outcome;
        FW_TRY(take_step(t, scale, &loss, &outcome, error));
        t->elapsed += clock_seconds() - begin;
        t->step++;
        t->mean_loss = t->step == 1 ? loss : t->mean_loss + 0.05 * (loss - t->mean_loss);
        FW_TRY(log_step(t, loss, &outcome, scale, error));
        show_progress(t, t->mean_loss);
        FW_TRY(maybe_validate(t, error));
    }
    progress_end(t->options->progress);
    return FW_OK;
}

static double relative_distance(const float *a, const float *b, int64_t n) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

static fw_status export_weights(struct trainer *t, struct train_result *result, fw_error *error) {
    const struct model *model = t->options->model;
    const int64_t n = model_arena_count(model);
    result->raw = calloc((size_t)n, sizeof *result->raw);
    result->averaged = calloc((size_t)n, sizeof *result->averaged);
    if (result->raw == NULL || result->averaged == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the trained weights");
    FW_TRY(model_download(model, model_masters(model), result->raw, error));
    FW_TRY(averaging_result(t->averaging, result->averaged, error));
    result->average_effect = relative_distance(result->averaged, result->raw, n);
    return FW_OK;
}

int64_t train_micro_batch(const struct experiment *experiment) {
    const int64_t sequences = experiment->run.batch_tokens / experiment->data.sequence;
    const int64_t micro = experiment->run.micro_batch;
    return micro > 0 && micro < sequences ? micro : sequences;
}

static fw_status trainer_open(struct trainer *t, fw_error *error) {
    const struct train_options *options = t->options;
    const struct run_keys *run = &options->experiment->run;
    t->schedule =
        (struct schedule){run->steps, run->seconds, run->warmup_steps, run->warmdown_steps};
    t->tokens = options->experiment->data.sequence;
    t->sequences = run->batch_tokens / t->tokens;
    t->micro = train_micro_batch(options->experiment);
    const size_t rows = (size_t)(t->micro * t->tokens);
    t->inputs = malloc(rows * sizeof *t->inputs);
    t->targets = malloc(rows * sizeof *t->targets);
    if (t->inputs == NULL || t->targets == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a batch of %zu tokens", rows);
    FW_TRY(batches_create(options->corpus, t->tokens,
                          options->experiment->data.shuffle == SHUFFLE_SEQUENCES,
                          (uint64_t)run->seed, &t->batches, error));
    FW_TRY(optimizers_create(options->experiment, options->host, options->model, &t->optimizers,
                             error));
    return averaging_create(&options->experiment->average, options->host, options->model,
                            &t->averaging, error);
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
    averaging_destroy(t->averaging);
    optimizers_destroy(t->optimizers);
    free(t->targets);
    free(t->inputs);
    batches_destroy(t->batches);
    free(t);
}

fw_status trainer_run(struct trainer *t, struct log *log, struct train_result *result,
                      fw_error *error) {
    struct train_result made = {0};
    t->log = log;
    fw_status status = train_steps(t, error);
    if (status == FW_OK) status = export_weights(t, &made, error);
    progress_end(t->options->progress);
    if (status == FW_OK) {
        made.steps = t->step;
        made.tokens = (uint64_t)t->step * (uint64_t)(t->sequences * t->tokens);
        made.seconds = t->elapsed;
        made.loss = t->mean_loss;
        *result = made;
    } else {
        free(made.raw);
        free(made.averaged);
    }
    return status;
}
