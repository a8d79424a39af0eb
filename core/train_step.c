/* One step of training, and what is said about it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "train_internal.h"

/* ---- issuing ---- */

static fw_status run_passes(const struct trainer *t, bool quantize, fw_error *error) {
    const float scale = 1.0f / (float)(t->sequences * t->tokens);
    if (quantize) FW_TRY(qat_apply(t->qat, optimizers_device_step(t->optimizers), error));
    for (int64_t pass = 0; pass < t->feed.passes; pass++) {
        const struct model_tokens at = feed_tokens(t, pass);
        FW_TRY(model_train_pass_at(t->options->model, &at, feed_sequences(t, pass), t->tokens,
                                   scale, pass > 0, error));
    }
    return FW_OK;
}

/* All that is the same in every step: what differs lies in device memory. */
static fw_status compute(const struct trainer *t, bool quantize, fw_error *error) {
    FW_TRY(run_passes(t, quantize, error));
    return optimizers_step(t->optimizers, (float)t->options->experiment->run.gradient_clip, error);
}

static bool has_graphs(const fw_device *device) {
    return FW_HAS(device, capture_begin) && FW_HAS(device, capture_end) &&
           FW_HAS(device, graph_launch) && FW_HAS(device, graph_destroy);
}

bool train_can_capture(const struct trainer *t) {
    return train_runs_ahead(t) && has_graphs(t->device);
}

bool train_runs_ahead(const struct trainer *t) { return staging_slots(t->feed.staging) > 1; }

static fw_status capture(const struct trainer *t, bool quantize, void **graph, fw_error *error) {
    fw_device *device = t->device;
    FW_TRY(device->capture_begin(device, error));
    const fw_status status = compute(t, quantize, error);
    const fw_status end = device->capture_end(device, graph, status == FW_OK ? error : NULL);
    if (status == FW_OK && end == FW_OK && *graph != NULL) return FW_OK;
    if (*graph != NULL) device->graph_destroy(device, *graph);
    *graph = NULL;
    if (status != FW_OK) return status;
    return end != FW_OK ? end : fw_fail(error, FW_E_DEVICE, "the device made no graph");
}

/* A device that captures nothing, or a plugin that waits: slower, and otherwise the same. */
static void go_without_graphs(struct trainer *t, const fw_error *why) {
    char message[1200];
    t->captures = false;
    (void)snprintf(message, sizeof message, "training steps are issued one by one: %s",
                   why->message);
    t->options->host->log(t->options->host, FW_LOG_WARNING, message);
}

/* The first step of its kind runs as it is issued, as a device decides some things by its first
 * calls; the second is captured; from then on there is one launch a step. */
static fw_status compute_or_launch(struct trainer *t, bool quantize, fw_error *error) {
    void **graph = &t->graph[quantize];
    if (*graph == NULL && t->captures && t->ran[quantize]) {
        fw_error why = {.struct_size = sizeof why};
        if (capture(t, quantize, graph, &why) != FW_OK) go_without_graphs(t, &why);
    }
    t->ran[quantize] = true;
    if (*graph == NULL) return compute(t, quantize, error);
    return t->device->graph_launch(t->device, *graph, error);
}

void train_forget_graphs(struct trainer *t) {
    if (t->graph[0] != NULL || t->graph[1] != NULL) (void)t->device->synchronize(t->device, NULL);
    for (int i = 0; i < 2; i++) {
        if (t->graph[i] != NULL) t->device->graph_destroy(t->device, t->graph[i]);
        t->graph[i] = NULL;
    }
}

fw_status train_issue(struct trainer *t, double scale, bool quantize, fw_error *error) {
    const int64_t step = t->next;
    if (step == t->step) t->since = clock_seconds();
    FW_TRY(feed_send(t, step, scale, quantize, error));
    FW_TRY(compute_or_launch(t, quantize, error));
    FW_TRY(averaging_update(t->averaging, step, scale, error));
    FW_TRY(feed_ask(t, step, error));
    t->issued[step % 2] = (struct issued){scale, quantize};
    t->next++;
    return FW_OK;
}

/* ---- hearing ---- */

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

/* The gradients of the step that was just heard of, which a later one may have overwritten. Its
 * weights are still there (optimizers_step); only their compute copies may have been quantized
 * since. */
static fw_status compute_gradients_again(struct trainer *t, fw_error *error) {
    const struct issued *issued = &t->issued[t->step % 2];
    FW_TRY(t->device->synchronize(t->device, error));
    if (t->next == t->step + 1) return FW_OK;
    FW_TRY(optimizers_refresh_copies(t->optimizers, error));
    FW_TRY(feed_send(t, t->step, issued->scale, issued->quantize, error));
    return run_passes(t, issued->quantize, error);
}

static fw_status report_not_finite(struct trainer *t, double loss, fw_error *error) {
    const struct model *model = t->options->model;
    FW_TRY(compute_gradients_again(t, error));
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

fw_status train_hear(struct trainer *t, double *loss, fw_step *outcome, fw_error *error) {
    struct outcome heard;
    FW_TRY(feed_hear(t, t->step, &heard, error));
    const double now = clock_seconds();
    *loss = (double)heard.loss / (double)(t->sequences * t->tokens);
    *outcome = heard.step;
    if (!isfinite(*loss) || outcome->finite == 0) return report_not_finite(t, *loss, error);
    t->pace = now - t->since;
    t->since = now;
    t->elapsed += t->pace;
    t->step++;
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
    const bool last = t->next == t->step && schedule_done(&t->schedule, t->step, t->elapsed);
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
