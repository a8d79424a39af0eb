/* What steps of training are fed with, on its way to the device, and what is heard of them. */
#include <stdlib.h>
#include <string.h>

#include "train_internal.h"

struct feed_slot {
    int32_t *inputs, *targets, *pairs; /* as on the device */
    fw_step *steps;                    /* [OPTIMIZER_GROUPS] */
    struct outcome *outcome;
};

enum { PASS_ALIGNMENT = 64 }; /* tokens: every pass begins at 256 bytes */

static size_t token_bytes(const struct trainer *t) {
    return (size_t)(t->feed.passes * t->feed.pass_rows) * sizeof(int32_t);
}

/* Inputs, targets and, where the model has them, pairs. */
static size_t all_token_bytes(const struct trainer *t) {
    return token_bytes(t) * (model_has_pairs(t->options->model) ? 3 : 2);
}

static struct feed_slot slot_at(const struct trainer *t, char *memory) {
    const size_t tokens = token_bytes(t);
    char *rest = memory + all_token_bytes(t);
    return (struct feed_slot){.inputs = (int32_t *)memory,
                              .targets = (int32_t *)(memory + tokens),
                              .pairs = (int32_t *)(memory + 2 * tokens),
                              .steps = (fw_step *)rest,
                              .outcome =
                                  (struct outcome *)(rest + OPTIMIZER_GROUPS * sizeof(fw_step))};
}

static size_t slot_bytes(const struct trainer *t) {
    return all_token_bytes(t) + OPTIMIZER_GROUPS * sizeof(fw_step) + sizeof(struct outcome);
}

static uint32_t slot_of(const struct trainer *t, int64_t step) {
    return (uint32_t)(step % staging_slots(t->feed.staging));
}

fw_status feed_create(struct trainer *t, fw_error *error) {
    struct feed *feed = &t->feed;
    const int64_t rows = t->micro * t->tokens;
    feed->passes = (t->sequences + t->micro - 1) / t->micro;
    feed->pass_rows = (rows + PASS_ALIGNMENT - 1) / PASS_ALIGNMENT * PASS_ALIGNMENT;
    feed->positions = calloc((size_t)t->sequences, sizeof *feed->positions);
    if (feed->positions == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a batch of %lld sequences",
                       (long long)t->sequences);
    FW_TRY(staging_create(t->device, 2, slot_bytes(t), &feed->staging, error));
    const uint32_t n = staging_slots(feed->staging);
    feed->slots = calloc(n, sizeof *feed->slots);
    if (feed->slots == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a batch");
    for (uint32_t i = 0; i < n; i++)
        feed->slots[i] = slot_at(t, memset(staging_memory(feed->staging, i), 0, slot_bytes(t)));
    void *memory = NULL;
    FW_TRY(model_allocate(t->options->model, all_token_bytes(t), "the tokens of a step", &memory,
                          error));
    feed->tokens = memory;
    return FW_OK;
}

void feed_destroy(struct trainer *t) {
    struct feed *feed = &t->feed;
    staging_destroy(feed->staging);
    if (feed->tokens != NULL) t->device->release(t->device, feed->tokens);
    free(feed->slots);
    free(feed->positions);
}

int64_t feed_sequences(const struct trainer *t, int64_t pass) {
    const int64_t left = t->sequences - pass * t->micro;
    return left < t->micro ? left : t->micro;
}

struct model_tokens feed_tokens(const struct trainer *t, int64_t pass) {
    const struct feed *feed = &t->feed;
    const int64_t all = feed->passes * feed->pass_rows;
    int32_t *inputs = feed->tokens + pass * feed->pass_rows;
    return (struct model_tokens){inputs, inputs + all,
                                 model_has_pairs(t->options->model) ? inputs + 2 * all : NULL};
}

/* ---- filling ---- */

struct filling {
    const struct trainer *trainer;
    const struct feed_slot *slot;
};

static void fill_sequences(void *argument, int64_t begin, int64_t end) {
    const struct filling *filling = argument;
    const struct trainer *t = filling->trainer;
    const struct feed_slot *slot = filling->slot;
    const struct model *model = t->options->model;
    for (int64_t s = begin; s < end; s++) {
        const int64_t at = s / t->micro * t->feed.pass_rows + s % t->micro * t->tokens;
        batches_read_at(t->batches, t->feed.positions[s], slot->inputs + at, slot->targets + at);
        if (model_has_pairs(model))
            model_pair_slots(model, slot->inputs + at, t->tokens, slot->pairs + at);
    }
}

fw_status feed_send(struct trainer *t, int64_t step, double scale, bool quantize, fw_error *error) {
    const struct feed *feed = &t->feed;
    const struct feed_slot *slot = &feed->slots[slot_of(t, step)];
    const fw_host *host = t->options->host;
    struct filling filling = {t, slot};
    FW_TRY(staging_wait(feed->staging, slot_of(t, step), error));
    batches_locate(t->batches, (uint64_t)step * (uint64_t)t->sequences, t->sequences,
                   feed->positions);
    host->parallel_for(host, t->sequences, 1, fill_sequences, &filling);
    FW_TRY(t->device->copy_from_host(t->device, feed->tokens, slot->inputs, all_token_bytes(t),
                                     error));
    FW_TRY(optimizers_prepare(t->optimizers, step, scale, quantize, slot->steps, error));
    return staging_mark(feed->staging, slot_of(t, step), error);
}

/* ---- hearing ---- */

fw_status feed_ask(struct trainer *t, int64_t step, fw_error *error) {
    const struct feed *feed = &t->feed;
    struct outcome *outcome = feed->slots[slot_of(t, step)].outcome;
    FW_TRY(staging_receive(feed->staging, &outcome->loss, model_loss_sum(t->options->model),
                           sizeof outcome->loss, error));
    FW_TRY(staging_receive(feed->staging, &outcome->step, optimizers_device_step(t->optimizers),
                           sizeof outcome->step, error));
    return staging_mark(feed->staging, slot_of(t, step), error);
}

fw_status feed_hear(struct trainer *t, int64_t step, struct outcome *outcome, fw_error *error) {
    FW_TRY(staging_wait(t->feed.staging, slot_of(t, step), error));
    *outcome = *t->feed.slots[slot_of(t, step)].outcome;
    return FW_OK;
}
