/* One step of training, and what is said about it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "train_internal.h"

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

/* The first tensor of an arena, in the model's order, that holds a value that is not finite. */
static const char *first_not_finite(const struct model *model, const float *arena) {
    const int64_t n = model_arena_count(model);
    const char *name = NULL;
    float *host = malloc((size_t)n * sizeof *host);
    if (host != NULL && model_download(model, arena, host, NULL) == FW_OK)
        for (uint32_t i = model_n_weights(model); i-- > 0;) {
            const int64_t end = i + 1 < model_n_weights(model) ? model_offset(model, i + 1) : n;
            for (int64_t j = model_offset(model, i); j < end; j++)
                if (!isfinite(host[j])) name = model_weight(model, i)->name;
        }
    free(host);
    return name;
}

static fw_status report_not_finite(const struct trainer *t, double loss, fw_error *error) {
    const struct model *model = t->options->model;
    const char *what = "weights", *name = first_not_finite(model, model_masters(model));
    char saved[600] = "";
    if (name == NULL) {
        what = "gradient";
        name = first_not_finite(model, model_gradients(model));
    }
    if (t->saved_at > 0)
        (void)snprintf(saved, sizeof saved,
                       "; the last good checkpoint is %.500s, of step %" PRId64,
                       t->options->checkpoint, t->saved_at);
    return fw_fail(
        error, FW_E_NUMERIC,
        "training stopped at %sstep %" PRId64
        ": the %s of %s is not finite (loss %g nats per token); a lower learning rate or "
        "a smaller run.gradient_clip may help%s",
        t->priming ? "priming " : "", t->step, what, name != NULL ? name : "the loss", loss, saved);
}

fw_status train_step(struct trainer *t, double scale, bool quantize, double *loss, fw_step *outcome,
                     fw_error *error) {
    const struct train_options *options = t->options;
    FW_TRY(optimizers_prepare(t->optimizers, t->step, scale, quantize, error));
    if (quantize) FW_TRY(qat_apply(t->qat, optimizers_device_step(t->optimizers), error));
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

fw_status train_log_step(const struct trainer *t, double loss, const fw_step *outcome, double scale,
                         fw_error *error) {
    const int64_t every = t->options->experiment->run.log_every;
    const bool last = schedule_done(&t->schedule, t->step, t->elapsed);
    if (t->step % every != 0 && !last) return FW_OK;
    cJSON *fields = cJSON_CreateObject();
    (void)cJSON_AddNumberToObject(fields, "step", (double)t->step);
    (void)cJSON_AddNumberToObject(fields, "loss", loss);
    (void)cJSON_AddNumberToObject(fields, "gradient_norm", (double)outcome->gradient_norm);
    (void)cJSON_AddNumberToObject(fields, "schedule", scale);
    if (outcome->quantize != 0) (void)cJSON_AddBoolToObject(fields, "quantized", true);
    (void)cJSON_AddNumberToObject(fields, "tokens_per_second", tokens_per_second(t));
    return log_event(t->log, "step", fields, error);
}

fw_status train_log_at(const struct trainer *t, const char *event, fw_error *error) {
    cJSON *fields = cJSON_CreateObject();
    (void)cJSON_AddNumberToObject(fields, "step", (double)t->step);
    (void)cJSON_AddNumberToObject(fields, "training_seconds", t->elapsed);
    return log_event(t->log, event, fields, error);
}

void train_show_progress(const struct trainer *t) {
    char total[32] = "", left[32];
    if (t->schedule.steps > 0) (void)snprintf(total, sizeof total, "/%" PRId64, t->schedule.steps);
    progress_update(t->options->progress,
                    "train  step %" PRId64 "%s  loss %.4f  %.0f tokens/s  %s left", t->step, total,
                    t->mean_loss, tokens_per_second(t),
                    format_duration(schedule_seconds_left(&t->schedule, t->step, t->elapsed), left,
                                    sizeof left));
}
