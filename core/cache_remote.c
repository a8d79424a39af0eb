#include "cache_remote.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache_opening.h"
#include "cache_process.h"
#include "clock.h"
#include "seat_channel.h"
#include "seat_notes.h"

static const double SLICE = 0.02; /* seconds of sleep before looking whether it still lives */
static const double FAREWELL = 2; /* seconds that destroy() has */

/* What was asked, until it is answered. */
struct pending {
    uint32_t request;
    uint64_t position; /* of the row shown last */
};

struct cache_remote {
    const struct plugin_choice *choice;
    const fw_host *host;
    fw_cache table;
    struct channel channel;
    struct cache_process process;
    uint32_t posted, settled; /* numbers of requests; settled: answered, and the answer looked at */
    struct pending pending[CHANNEL_SLOTS];
    uint32_t shown; /* the request that showed the last row */
    bool quiet;     /* the last post woke nobody */
    uint64_t position;
    struct channel_say said; /* a copy of the last answer, up to its message */
    bool broken;
    fw_error failure;
    struct cache_waiting waiting;
};

/* ---- failures ---- */

/* Nothing more can be asked. An update was posted with what came before, so that the position of
 * the call that hears of it is not its own. */
static fw_status break_off(struct cache_remote *r, const struct pending *pending, fw_status status,
                           const char *why, fw_error *error) {
    if (pending->request == ASK_UPDATE)
        (void)fw_fail(&r->failure, status, "its update after position %" PRIu64 ": %.800s",
                      pending->position, why);
    else
        (void)fw_fail(&r->failure, status, "%.900s", why);
    r->broken = true;
    return fw_fail(error, status, "%s", r->failure.message);
}

static fw_status fail_ended(struct cache_remote *r, const char *how, fw_error *error) {
    char why[900], words[400];
    const uint64_t fault = atomic_load(&r->channel.head->fault);
    const char *beyond = fault != 0 ? channel_segment_before(&r->channel, fault) : NULL;
    cache_process_words(&r->process, words, sizeof words);
    (void)snprintf(why, sizeof why, "its process has ended: %s%s%s%s%s%s", how,
                   beyond != NULL ? "; it reached beyond the end of " : "",
                   beyond != NULL ? beyond : "", words[0] != '\0' ? "; it wrote \"" : "", words,
                   words[0] != '\0' ? "\"" : "");
    return break_off(r, &r->pending[(r->settled + 1) % CHANNEL_SLOTS], FW_E_PROTOCOL, why, error);
}

static fw_status fail_silent(struct cache_remote *r, fw_error *error) {
    char why[200];
    cache_process_stop(&r->process, 0);
    (void)snprintf(why, sizeof why,
                   "its process has not answered for %g s and was ended; eval.cache_timeout is "
                   "what it has for each answer",
                   r->choice->apart->seconds);
    return break_off(r, &r->pending[(r->settled + 1) % CHANNEL_SLOTS], FW_E_PROTOCOL, why, error);
}

/* ---- asking ---- */

/* Time while this process was stopped or the machine asleep does not count. */
static fw_status wait_for(struct cache_remote *r, uint32_t number, fw_error *error) {
    char how[128];
    double waited = 0;
    while (waited <= r->choice->apart->seconds) {
        const double begin = clock_seconds();
        if (channel_wait(&r->channel, &r->channel.head->answered, number, SLICE)) return FW_OK;
        if (cache_process_ended(&r->process, how, sizeof how)) {
            if (channel_wait(&r->channel, &r->channel.head->answered, number, 0)) return FW_OK;
            return fail_ended(r, how, error);
        }
        waited += fmin(clock_seconds() - begin, 2 * SLICE);
    }
    return fail_silent(r, error);
}

static fw_status settle_one(struct cache_remote *r, fw_error *error) {
    const uint32_t number = r->settled + 1;
    const struct pending *pending = &r->pending[number % CHANNEL_SLOTS];
    const struct channel_say *say = r->channel.slots[number % CHANNEL_SLOTS].say;
    FW_TRY(wait_for(r, number, error));
    memcpy(&r->said, say, offsetof(struct channel_say, message));
    atomic_signal_fence(memory_order_seq_cst); /* from here on the copy is what was said */
    r->settled = number;
    if (r->said.note_bytes > 0 && r->said.note_bytes <= CHANNEL_NOTE_BYTES) {
        memcpy(r->said.notes, say->notes, r->said.note_bytes);
        seat_notes_tell(r->said.notes, r->said.note_bytes, r->host);
    }
    if (r->said.status == FW_OK) return FW_OK;
    memcpy(r->said.message, say->message, sizeof r->said.message);
    r->said.message[sizeof r->said.message - 1] = '\0';
    cache_process_clean(r->said.message);
    if (pending->request == ASK_UPDATE)
        return break_off(r, pending, r->said.status, r->said.message, error);
    return fw_fail(error, r->said.status, "%s", r->said.message);
}

static fw_status settle(struct cache_remote *r, uint32_t number, fw_error *error) {
    fw_status status = FW_OK;
    if (r->quiet) channel_advance(&r->channel.head->asked, r->posted, true);
    r->quiet = false;
    while (status == FW_OK && r->settled != number) status = settle_one(r, error);
    return status;
}

/* The slot of the next request, free to be written to. */
static fw_status next_slot(struct cache_remote *r, const struct channel_slot **slot,
                           fw_error *error) {
    if (r->broken) return fw_fail(error, r->failure.status, "%s", r->failure.message);
    if (r->posted - r->settled == CHANNEL_SLOTS) FW_TRY(settle(r, r->settled + 1, error));
    *slot = &r->channel.slots[(r->posted + 1) % CHANNEL_SLOTS];
    return FW_OK;
}

/* A child that sleeps is not woken for what need not be answered soon. */
static void post(struct cache_remote *r, uint32_t request, bool wake) {
    const uint32_t number = ++r->posted;
    r->pending[number % CHANNEL_SLOTS] = (struct pending){request, r->position};
    r->channel.slots[number % CHANNEL_SLOTS].ask->request = request;
    channel_advance(&r->channel.head->asked, number, wake);
    r->quiet = !wake;
}

static fw_status post_and_settle(struct cache_remote *r, uint32_t request, fw_error *error) {
    const double begin = clock_seconds();
    post(r, request, true);
    const fw_status status = settle(r, r->posted, error);
    r->waiting.seconds += clock_seconds() - begin;
    r->waiting.answers++;
    return status;
}

static fw_status ask_plainly(struct cache_remote *r, uint32_t request, fw_error *error) {
    const struct channel_slot *slot = NULL;
    FW_TRY(next_slot(r, &slot, error));
    return post_and_settle(r, request, error);
}

/* Put `bytes` bytes at the end of the next request's bulk. */
static fw_status fill_bulk(struct cache_remote *r, const void *data, size_t bytes, uint64_t n,
                           fw_error *error) {
    const struct channel_slot *slot = NULL;
    FW_TRY(next_slot(r, &slot, error));
    slot->ask->n = n;
    if (bytes > 0) memcpy(slot->bulk_ask + (CHANNEL_BULK_BYTES - bytes), data, bytes);
    return FW_OK;
}

/* All but the last bulk go ahead as parts; what is left is in *data, *size. */
static fw_status send_parts(struct cache_remote *r, const uint8_t **data, size_t *size,
                            size_t most_left, fw_error *error) {
    while (*size > most_left) {
        const size_t part = *size < CHANNEL_BULK_BYTES ? *size : CHANNEL_BULK_BYTES;
        FW_TRY(fill_bulk(r, *data, part, part, error));
        post(r, ASK_PART, true);
        *data += part;
        *size -= part;
    }
    return FW_OK;
}

static fw_status send_tokens(struct cache_remote *r, const uint32_t *tokens, uint64_t n,
                             fw_error *error) {
    const uint8_t *data = (const uint8_t *)tokens;
    size_t size = n * sizeof *tokens;
    FW_TRY(send_parts(r, &data, &size, CHANNEL_BULK_BYTES, error));
    return fill_bulk(r, data, size, n, error);
}

/* ---- the functions of a cache ---- */

static fw_status remote_begin(void *self, fw_error *error) {
    return ask_plainly(self, ASK_BEGIN, error);
}

static fw_status remote_prefill(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    FW_TRY(send_tokens(self, tokens, n, error));
    return post_and_settle(self, ASK_PREFILL, error);
}

static fw_status remote_update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    FW_TRY(send_tokens(self, tokens, n, error));
    post(self, ASK_UPDATE, false);
    return FW_OK;
}

/* NAN when it cannot be asked: cache_remote_check says why. */
static double remote_probability(void *self, const fw_row *row, uint32_t token) {
    struct cache_remote *r = self;
    const struct channel_slot *slot = NULL;
    fw_error why;
    why.struct_size = sizeof why;
    (void)row;
    if (next_slot(r, &slot, &why) != FW_OK) return (double)NAN;
    slot->ask->token = token;
    if (post_and_settle(r, ASK_PROBABILITY, &why) != FW_OK) return (double)NAN;
    return r->said.probability;
}

/* Everything of the statement is copied; what it means is for prediction.c to check. */
static void copy_statement(const struct cache_remote *r, const struct channel_slot *slot,
                           fw_prediction *prediction) {
    const uint32_t V = r->channel.vocabulary;
    const uint32_t n = r->said.n < V ? r->said.n : V;
    prediction->form = r->said.form;
    prediction->n = r->said.n;
    prediction->lm_weight = r->said.lm_weight;
    prediction->probability = r->said.has_probability != 0 ? remote_probability : NULL;
    if (r->said.form == FW_PREDICT_MIX || r->said.form == FW_PREDICT_TILT) {
        memcpy(prediction->tokens, slot->tokens, n * sizeof *prediction->tokens);
        memcpy(prediction->values, slot->values, n * sizeof *prediction->values);
    } else if (r->said.form == FW_PREDICT_DENSE) {
        memcpy(prediction->dense, slot->dense, V * sizeof *prediction->dense);
    }
}

/* The row shown last stays where it is while the child is at work on what was told since. */
static fw_status remote_predict(void *self, const fw_row *row, fw_prediction *prediction,
                                fw_error *error) {
    struct cache_remote *r = self;
    const struct channel_slot *slot = NULL;
    const uint32_t next = r->posted + 1;
    if (next % CHANNEL_SLOTS == r->shown % CHANNEL_SLOTS) FW_TRY(settle(r, r->posted, error));
    FW_TRY(next_slot(r, &slot, error));
    r->shown = next;
    const uint32_t most = r->channel.context;
    const uint32_t n = row->n_context < most ? row->n_context : most;
    slot->ask->position = r->position = row->position;
    slot->ask->entropy = row->entropy;
    slot->ask->n_context = n;
    if (n > 0)
        memcpy(slot->context + (most - n), row->context + (row->n_context - n),
               n * sizeof *slot->context);
    memcpy(slot->row, row->probabilities, r->channel.vocabulary * sizeof *slot->row);
    FW_TRY(post_and_settle(r, ASK_PREDICT, error));
    copy_statement(r, slot, prediction);
    return FW_OK;
}

static fw_status remote_snapshot(void *self, void *state, size_t *bytes, fw_error *error) {
    struct cache_remote *r = self;
    const struct channel_slot *slot = NULL;
    FW_TRY(ask_plainly(r, ASK_SNAPSHOT, error));
    const uint64_t size = r->said.bytes;
    const bool fits = state != NULL && *bytes >= size;
    *bytes = size;
    if (!fits) return fw_fail(error, FW_E_BUFFER, "the state takes %" PRIu64 " bytes", size);
    for (uint64_t at = 0; at < size; at += CHANNEL_BULK_BYTES) {
        const uint64_t left = size - at;
        FW_TRY(next_slot(r, &slot, error));
        slot->ask->n = at;
        FW_TRY(post_and_settle(r, ASK_FETCH, error));
        memcpy((uint8_t *)state + at, slot->bulk_say,
               left < CHANNEL_BULK_BYTES ? left : CHANNEL_BULK_BYTES);
    }
    return FW_OK;
}

static fw_status remote_restore(void *self, const void *state, size_t bytes, fw_error *error) {
    const uint8_t *data = state;
    FW_TRY(send_parts(self, &data, &bytes, 0, error));
    return ask_plainly(self, ASK_RESTORE, error);
}

static uint64_t remote_memory(void *self) {
    struct cache_remote *r = self;
    fw_error why;
    why.struct_size = sizeof why;
    return ask_plainly(r, ASK_MEMORY, &why) == FW_OK ? r->said.bytes : 0;
}

static void remote_destroy(void *self) { cache_remote_destroy(self); }

static fw_cache make_table(const fw_cache *declared) {
    fw_cache table = {.struct_size = sizeof table,
                      .update_every = declared->update_every,
                      .needs_entropy = declared->needs_entropy,
                      .counts_only = declared->counts_only,
                      .unverified = declared->unverified,
                      .context_tokens = declared->context_tokens,
                      .destroy = remote_destroy,
                      .begin = remote_begin,
                      .predict = remote_predict,
                      .update = remote_update};
    if (FW_HAS(declared, prefill)) table.prefill = remote_prefill;
    if (FW_HAS(declared, snapshot)) table.snapshot = remote_snapshot;
    if (FW_HAS(declared, restore)) table.restore = remote_restore;
    if (FW_HAS(declared, memory_bytes)) table.memory_bytes = remote_memory;
    return table;
}

/* ---- life ---- */

static fw_status start_process(struct cache_remote *r, uint32_t vocabulary, fw_error *error) {
    static const char *const arguments[] = {"serve", NULL};
    int descriptor = -1;
    FW_TRY(channel_create(vocabulary, r->table.context_tokens, &r->channel, &descriptor, error));
    const fw_status status = cache_process_start(arguments, descriptor, &r->process, error);
    (void)close(descriptor);
    return status;
}

static fw_status send_opening(struct cache_remote *r, const fw_cache_shape *shape,
                              fw_error *error) {
    const struct registry_entry *entry = r->choice->entry;
    struct bytes opening = {0};
    cache_opening_write(&opening, entry->path, entry->plugin, r->choice->values, shape,
                        r->choice->apart->seed, r->host->threads(r->host));
    const uint8_t *data = opening.data;
    size_t size = opening.size;
    fw_status status = FW_OK;
    if (opening.failed) status = fw_fail(error, FW_E_MEMORY, "no memory for the cache's opening");
    if (status == FW_OK) status = send_parts(r, &data, &size, 0, error);
    bytes_free(&opening);
    return status;
}

fw_status cache_remote_create(const struct plugin_choice *choice, const fw_host *host,
                              const fw_cache_shape *shape, struct cache_remote **remote,
                              fw_error *error) {
    struct cache_remote *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    made->choice = choice;
    made->host = host;
    made->table = make_table(choice->entry->plugin->vtable);
    fw_status status = start_process(made, shape->vocabulary, error);
    if (status == FW_OK) status = send_opening(made, shape, error);
    if (status == FW_OK) status = ask_plainly(made, ASK_CREATE, error);
    if (status == FW_OK) {
        *remote = made;
        return FW_OK;
    }
    made->broken = true;
    cache_remote_destroy(made);
    return status;
}

void cache_remote_destroy(struct cache_remote *r) {
    if (r == NULL) return;
    const struct channel_slot *slot = NULL;
    if (next_slot(r, &slot, NULL) == FW_OK) post(r, ASK_LEAVE, true);
    cache_process_stop(&r->process, r->broken ? 0 : FAREWELL);
    channel_unmap(&r->channel);
    free(r);
}

const fw_cache *cache_remote_table(const struct cache_remote *remote) { return &remote->table; }

fw_status cache_remote_check(struct cache_remote *r, fw_error *error) {
    if (r->broken) return fw_fail(error, r->failure.status, "%s", r->failure.message);
    return settle(r, r->posted, error);
}

struct cache_waiting cache_remote_waiting(const struct cache_remote *remote) {
    return remote->waiting;
}
