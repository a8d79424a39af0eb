/* The state of training as a whole: put back after priming, saved in checkpoints, taken up again.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "files.h"
#include "train_internal.h"

/* ---- priming ---- */

/* The last step also exercises what quantization-aware training adds. */
static fw_status priming_steps(struct trainer *t, fw_error *error) {
    const int64_t n = t->options->experiment->run.priming_steps;
    while (t->step < n) {
        const double scale = schedule_scale(&t->schedule, t->step, 0);
        double loss = 0;
        fw_step outcome;
        progress_update(t->options->progress, "prime  step %" PRId64 "/%" PRId64, t->step, n);
        FW_TRY(train_issue(t, scale, t->qat != NULL && t->step == n - 1, error));
        FW_TRY(train_hear(t, &loss, &outcome, error));
    }
    t->step = t->next = 0;
    t->elapsed = t->pace = 0; /* how long the first steps took says nothing of those that count */
    return FW_OK;
}

/* The initial weights are kept; all else begins at zero or is a function of the step. */
fw_status train_prime(struct trainer *t, fw_error *error) {
    struct model *model = t->options->model;
    if (t->options->experiment->run.priming_steps == 0) return FW_OK;
    float *initial = malloc((size_t)model_arena_count(model) * sizeof *initial);
    if (initial == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for run.priming_steps");
    t->priming = true;
    fw_status status = model_download(model, model_masters(model), initial, error);
    if (status == FW_OK) status = priming_steps(t, error);
    if (status == FW_OK) status = model_set_weights(model, initial, error);
    free(initial);
    t->priming = false;
    FW_TRY(status);
    train_forget_graphs(t);
    FW_TRY(optimizers_reset(t->optimizers, error));
    return averaging_reset(t->averaging, error);
}

/* ---- identities ---- */

/* The number of tokens, samples of them from all over the corpus, and its documents' hashes where
 * they are known: other data differ in these, without reading all. */
static fw_status data_identity(const struct trainer *t, uint8_t hash[32], fw_error *error) {
    enum { SAMPLES = 256, TOKENS = 64 };
    const struct corpus *corpus = t->options->corpus;
    const uint64_t n = corpus_tokens(corpus);
    uint16_t tokens[TOKENS];
    struct bytes bytes = {0};
    bytes_put_u64(&bytes, n);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        corpus_read(corpus, n / SAMPLES * i, TOKENS, tokens);
        bytes_put(&bytes, tokens, sizeof tokens);
    }
    uint64_t n_documents = 0;
    const struct corpus_document *documents = corpus_documents(corpus, &n_documents);
    for (uint64_t i = 0; i < n_documents; i++)
        bytes_put(&bytes, documents[i].hash, sizeof documents[i].hash);
    const bool failed = bytes.failed;
    if (!failed) sha256_bytes(bytes.data, bytes.size, hash);
    bytes_free(&bytes);
    return failed ? fw_fail(error, FW_E_MEMORY, "no memory to identify the data") : FW_OK;
}

static void put_plugin(struct bytes *bytes, const struct plugin_choice *choice) {
    bytes_put_text(bytes, choice->entry->plugin->id);
    bytes_put_text(bytes, choice->entry->plugin->version);
}

/* What gives the bytes of a checkpoint their meaning. */
static fw_status layout_identity(const struct trainer *t, uint8_t hash[32], fw_error *error) {
    const struct experiment *experiment = t->options->experiment;
    const struct model *model = t->options->model;
    struct bytes bytes = {0};
    for (uint32_t i = 0; i < model_n_weights(model); i++) {
        const fw_weight *weight = model_weight(model, i);
        bytes_put_text(&bytes, weight->name);
        bytes_put_u32(&bytes, weight->role);
        bytes_put_u64(&bytes, (uint64_t)model_offset(model, i));
        for (int d = 0; d < FW_MAX_RANK; d++) bytes_put_u64(&bytes, (uint64_t)weight->shape[d]);
    }
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) put_plugin(&bytes, &experiment->optimizer[i]);
    put_plugin(&bytes, &experiment->average);
    const bool failed = bytes.failed;
    if (!failed) sha256_bytes(bytes.data, bytes.size, hash);
    bytes_free(&bytes);
    return failed ? fw_fail(error, FW_E_MEMORY, "no memory to list the tensors") : FW_OK;
}

/* ---- checkpoints ---- */

_Static_assert(1 + OPTIMIZER_GROUPS + FW_MAX_SLOTS <= CHECKPOINT_PIECES,
               "masters, optimizers' and averager's slots must fit a checkpoint");

static struct checkpoint_memory device_memory(const struct trainer *t) {
    const struct model *model = t->options->model;
    struct checkpoint_memory memory = {.device = t->options->host->device};
    checkpoint_add_piece(&memory, model_masters(model),
                         (size_t)model_arena_count(model) * sizeof(float));
    optimizers_each_state(t->optimizers, checkpoint_add_piece, &memory);
    averaging_each_state(t->averaging, checkpoint_add_piece, &memory);
    return memory;
}

static fw_status write_checkpoint(const struct trainer *t, struct bytes *state, fw_error *error) {
    const struct qat_state qat = qat_save(t->qat);
    struct checkpoint checkpoint = {.step = t->step,
                                    .elapsed = t->elapsed,
                                    .mean_loss = t->mean_loss,
                                    .qat_on = qat.on,
                                    .lowest_scale = qat.lowest};
    (void)snprintf(checkpoint.config, sizeof checkpoint.config, "%s", t->options->experiment->hash);
    FW_TRY(data_identity(t, checkpoint.data, error));
    FW_TRY(layout_identity(t, checkpoint.layout, error));
    FW_TRY(averaging_save(t->averaging, state, error));
    if (state->failed) return fw_fail(error, FW_E_MEMORY, "no memory for a checkpoint");
    checkpoint.averager = state->data;
    checkpoint.averager_bytes = state->size;
    const struct checkpoint_memory memory = device_memory(t);
    return checkpoint_write(t->options->checkpoint, &checkpoint, &memory, error);
}

static void warn(const struct trainer *t, const fw_error *why) {
    char message[1200];
    (void)snprintf(message, sizeof message, "no checkpoint of step %" PRId64 ": %s", t->step,
                   why->message);
    t->options->host->log(t->options->host, FW_LOG_WARNING, message);
}

fw_status train_maybe_checkpoint(struct trainer *t, fw_error *error) {
    const int64_t every = t->options->experiment->run.checkpoint_every;
    if (every <= 0 || t->options->checkpoint == NULL || t->step % every != 0) return FW_OK;
    const double begin = clock_seconds();
    struct bytes state = {0};
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = write_checkpoint(t, &state, &why);
    bytes_free(&state);
    t->checkpoint_seconds += clock_seconds() - begin;
    if (status != FW_OK) {
        warn(t, &why);
        return FW_OK;
    }
    t->saved_at = t->step;
    return train_log_at(t, "checkpoint", error);
}

/* ---- resuming ---- */

static fw_status check_checkpoint(const struct trainer *t, fw_error *error) {
    const struct checkpoint *found = checkpoint_contents(t->resumed);
    const struct train_options *options = t->options;
    uint8_t data[32], layout[32];
    if (strcmp(found->config, options->experiment->hash) != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "%s belongs to other settings (their hash is %.12s..., that of this run "
                       "%.12s...); resume with those in the run directory's resolved.ini",
                       options->checkpoint, found->config, options->experiment->hash);
    FW_TRY(layout_identity(t, layout, error));
    if (memcmp(found->layout, layout, sizeof layout) != 0)
        return fw_fail(error, FW_E_FORMAT,
                       "%s: other versions of Fairway or of the optimizers or the averager wrote "
                       "it: its tensors are not those of this run",
                       options->checkpoint);
    FW_TRY(data_identity(t, data, error));
    if (memcmp(found->data, data, sizeof data) != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "%s belongs to other training data than those that data.train names now",
                       options->checkpoint);
    if (t->schedule.steps == 0 || found->step <= t->schedule.steps) return FW_OK;
    return fw_fail(error, FW_E_RANGE,
                   "%s is of step %" PRId64 ", beyond the end of this run of %" PRId64 " steps",
                   options->checkpoint, found->step, t->schedule.steps);
}

fw_status train_find_checkpoint(struct trainer *t, fw_error *error) {
    FW_TRY(checkpoint_open(t->options->checkpoint, &t->resumed, error));
    return check_checkpoint(t, error);
}

fw_status train_restore(struct trainer *t, fw_error *error) {
    if (t->resumed == NULL) return FW_OK;
    const struct checkpoint *found = checkpoint_contents(t->resumed);
    const struct checkpoint_memory memory = device_memory(t);
    const struct qat_state qat = {found->qat_on, found->lowest_scale};
    FW_TRY(checkpoint_restore(t->resumed, &memory, error));
    FW_TRY(averaging_load(t->averaging, found->averager, found->averager_bytes, error));
    FW_TRY(optimizers_refresh_copies(t->optimizers, error));
    qat_load(t->qat, &qat);
    t->step = t->next = t->resumed_at = t->saved_at = found->step;
    t->elapsed = found->elapsed;
    t->mean_loss = found->mean_loss;
    checkpoint_close(t->resumed);
    t->resumed = NULL;
    return FW_OK;
}
