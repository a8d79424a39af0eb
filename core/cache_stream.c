#include "cache_stream.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache_seat.h"
#include "elementary.h"
#include "prediction.h"
#include "random.h"

enum {
    AUDIT_EVERY = 1024, /* unverified predictions from one measured sum to the next */
    MOST_CONTEXT = 256, /* tokens that a row shows, as fairway/cache.h says */
    FIRST_BLOCK = 64,   /* room for pending tokens at first, where windows decide how many */
    DECOYS = 64         /* values behind what a cache is handed */
};

/* What a cache is handed of a row: a copy, in an allocation of its own. A cache that casts away the
 * const spoils nothing but this, and behind it lies no row of a later position. */
struct shown {
    fw_row row;
    double probabilities[];
};

struct cache_stream {
    const struct plugin_choice *choice;
    const fw_cache *cache; /* what it declares */
    struct cache_seat seat;
    struct prediction_buffers *buffers;
    uint8_t *token_bytes, *token_is_boundary;
    struct shown *shown;
    uint32_t *context;     /* the row's tokens that are shown, a copy as well */
    double *probabilities; /* V, for audits */
    uint32_t *pending;     /* scored tokens that the cache has not been told yet */
    uint32_t *told;        /* the block handed to update(), which may keep the pointer */
    uint32_t n_pending, room, update_every;
    bool unverified; /* declared, whatever it states */
    bool left_alone; /* the last target's probability is the model's own */
    uint64_t last_position;
    uint64_t n_unverified, n_audits;
    double sum_of_sums;
    struct cache_summary summary;
    const struct cache_watcher *watcher; /* NULL: nobody */
    struct cache_conditions conditions;
};

uint32_t cache_stream_context(const struct cache_stream *stream) {
    return FW_COVERS(stream->cache, context_tokens) ? stream->cache->context_tokens : 0;
}

/* ---- who is at fault ---- */

/* An empty error without zeros over its whole message: that would be 1 KiB, thrice a token. */
static void clear(fw_error *error) {
    error->struct_size = sizeof *error;
    error->status = FW_OK;
    error->message[0] = '\0';
}

/* A cache that fails is at fault, whatever it calls that; memory alone may really lack. */
static fw_status blamed(fw_status status) {
    switch (status) {
#define KEEP_STATUS(name, value, text)                                                             \
    case FW_##name: break;
        FW_STATUS_MAP(KEEP_STATUS)
#undef KEEP_STATUS
    default: return FW_E_PROTOCOL;
    }
    const bool ours =
        status == FW_E_DEVICE || status == FW_E_INTERNAL || status == FW_E_INTERRUPTED;
    return ours ? FW_E_PROTOCOL : status;
}

/* What the cache itself reports of a call. `where`: "" or "position 5: ". */
static fw_status called(fw_status status, const char *where, const char *call, const fw_error *why,
                        fw_error *error) {
    if (status == FW_OK) return FW_OK;
    if (why->message[0] != '\0')
        return fw_fail(error, blamed(status), "%s%s: %.900s", where, call, why->message);
    return fw_fail(error, blamed(status), "%s%s: failed with status %d, without a reason", where,
                   call, (int)status);
}

/* With the position; what validation says has it already. */
static fw_status located(fw_status status, uint64_t position, const char *call, const fw_error *why,
                         fw_error *error) {
    if (status == FW_OK) return FW_OK;
    char where[40];
    (void)snprintf(where, sizeof where, "position %" PRIu64 ": ", position);
    return called(status, where, call, why, error);
}

static fw_status begin(struct cache_stream *s, fw_error *error) {
    fw_error why;
    clear(&why);
    return called(s->seat.cache->begin(s->seat.self, &why), "", "begin", &why, error);
}

/* ---- opening and closing ---- */

static fw_status allocate(struct cache_stream *s, const struct token_table *table,
                          fw_error *error) {
    const uint32_t n = table->vocabulary;
    s->update_every = s->cache->update_every > 0 ? s->cache->update_every : 1;
    s->room = s->update_every == FW_UPDATE_EVERY_WINDOW ? FIRST_BLOCK : s->update_every;
    s->buffers = prediction_buffers_create(n);
    s->token_bytes = calloc(n, 1);
    s->token_is_boundary = calloc(n, 1);
    s->probabilities = calloc(n, sizeof *s->probabilities);
    s->shown = calloc(1, sizeof *s->shown + (n + DECOYS) * sizeof *s->shown->probabilities);
    s->context = calloc(cache_stream_context(s) + DECOYS, sizeof *s->context);
    s->pending = calloc(s->room, sizeof *s->pending);
    s->told = calloc(s->room + DECOYS, sizeof *s->told);
    if (s->context == NULL || s->buffers == NULL || s->token_bytes == NULL ||
        s->token_is_boundary == NULL || s->probabilities == NULL || s->shown == NULL ||
        s->pending == NULL || s->told == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a cache over %u tokens", n);
    s->buffers->shown = &s->shown->row;
    for (uint32_t i = 0; i < n; i++) {
        const uint16_t bytes = table->tokens[i].base_bytes;
        s->token_bytes[i] = (uint8_t)(bytes < 255 ? bytes : 255);
        s->token_is_boundary[i] = table->tokens[i].boundary;
    }
    return FW_OK;
}

/* What can be refused by its description alone. */
static fw_status check_declared(const struct cache_stream *s, bool allow_unverified,
                                fw_error *error) {
    if (s->unverified && !allow_unverified)
        return fw_fail(
            error, FW_E_PROTOCOL,
            "it states no distribution that sums to one over the vocabulary, so that its "
            "score means nothing; use another cache, or eval.on_violation = report for "
            "a score marked INVALID");
    if (cache_stream_context(s) > MOST_CONTEXT)
        return fw_fail(error, FW_E_PROTOCOL,
                       "it asks for a context of %u tokens; a row shows at most %d",
                       cache_stream_context(s), MOST_CONTEXT);
    return FW_OK;
}

static fw_status start(struct cache_stream *s, const fw_host *host, uint32_t vocabulary,
                       uint64_t targets, fw_error *error) {
    const fw_cache_shape shape = {.struct_size = sizeof shape,
                                  .vocabulary = vocabulary,
                                  .max_entries = vocabulary,
                                  .stream_tokens = targets,
                                  .token_bytes = s->token_bytes,
                                  .token_is_boundary = s->token_is_boundary};
    fw_error why;
    clear(&why);
    FW_TRY(called(cache_seat_open(s->choice, host, &shape, &s->seat, &why), "", "create", &why,
                  error));
    s->buffers->cache = s->seat.self;
    return begin(s, error);
}

fw_status cache_stream_open(const struct plugin_choice *choice, const fw_host *host,
                            const struct token_table *table, uint64_t targets,
                            bool allow_unverified, struct cache_stream **stream, fw_error *error) {
    struct cache_stream *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a cache");
    made->choice = choice;
    made->cache = choice->entry->plugin->vtable;
    made->unverified = made->summary.invalid = choice_is_unverified(choice);
    fw_error why = {.struct_size = sizeof why};
    fw_status status = check_declared(made, allow_unverified, &why);
    if (status == FW_OK) status = allocate(made, table, &why);
    if (status == FW_OK) {
        made->buffers->allow_unverified = allow_unverified;
        status = start(made, host, table->vocabulary, targets, &why);
    }
    if (status != FW_OK) (void)choice_fail(choice, status, why.message, error);
    if (status == FW_OK)
        *stream = made;
    else
        cache_stream_close(made);
    return status;
}

void cache_stream_close(struct cache_stream *stream) {
    if (stream == NULL) return;
    cache_seat_close(&stream->seat);
    prediction_buffers_destroy(stream->buffers);
    free(stream->token_bytes);
    free(stream->token_is_boundary);
    free(stream->probabilities);
    free(stream->shown);
    free(stream->context);
    free(stream->pending);
    free(stream->told);
    free(stream);
}

bool cache_stream_needs_entropy(const struct cache_stream *stream) {
    return stream->cache->needs_entropy != 0;
}

/* An unverified prediction cannot be trusted: mark the score, and measure what it sums to. */
static fw_status audit_unverified(struct cache_stream *s, const fw_row *row,
                                  const fw_prediction *prediction, fw_error *error) {
    s->summary.invalid = true;
    if (s->n_unverified++ % AUDIT_EVERY != 0) return FW_OK;
    FW_TRY(prediction_full(s->buffers, row, prediction, s->probabilities, error));
    double sum = 0;
    for (uint32_t v = 0; v < row->vocabulary; v++) sum += s->probabilities[v];
    s->n_audits++;
    s->sum_of_sums += sum;
    if (sum > s->summary.largest_sum) s->summary.largest_sum = sum;
    return FW_OK;
}

/* Whoever reads behind what it was handed finds these. */
static void put_decoys(struct cache_stream *s) {
    if (s->conditions.decoys == 0) return;
    const uint32_t vocabulary = s->buffers->vocabulary;
    struct random random = random_seeded(s->conditions.decoys);
    for (uint32_t i = 0; i < DECOYS; i++) {
        s->told[s->room + i] = (uint32_t)random_below(&random, vocabulary);
        s->context[cache_stream_context(s) + i] = (uint32_t)random_below(&random, vocabulary);
        s->shown->probabilities[vocabulary + i] = 1.0 / (double)(1 + random_below(&random, 64));
    }
}

static fw_status make_room(struct cache_stream *s, fw_error *error) {
    if (s->n_pending < s->room) return FW_OK;
    const uint32_t room = 2 * s->room;
    uint32_t *pending = realloc(s->pending, room * sizeof *pending);
    if (pending != NULL) s->pending = pending;
    uint32_t *told = pending != NULL ? calloc(room + DECOYS, sizeof *told) : NULL;
    if (told == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a block of %u tokens", room);
    free(s->told);
    s->told = told;
    s->room = room;
    put_decoys(s);
    return FW_OK;
}

static fw_status deliver(struct cache_stream *s, fw_error *error) {
    const uint32_t n = s->n_pending;
    s->n_pending = 0;
    memcpy(s->told, s->pending, n * sizeof *s->told);
    fw_error why;
    clear(&why);
    return located(s->seat.cache->update(s->seat.self, s->told, n, &why), s->last_position,
                   "update", &why, error);
}

static fw_status tell(struct cache_stream *s, uint64_t position, uint32_t token, fw_error *error) {
    FW_TRY(make_room(s, error));
    s->pending[s->n_pending++] = token;
    s->last_position = position;
    return s->n_pending < s->update_every ? FW_OK : deliver(s, error);
}

static void show(struct cache_stream *s, const fw_row *row) {
    const uint32_t wanted = cache_stream_context(s);
    const uint32_t n = row->n_context < wanted ? row->n_context : wanted;
    s->shown->row = (fw_row){.struct_size = sizeof s->shown->row,
                             .vocabulary = row->vocabulary,
                             .position = row->position,
                             .probabilities = s->shown->probabilities,
                             .entropy = row->entropy,
                             .context = s->context,
                             .n_context = n};
    if (n > 0) memcpy(s->context, row->context + (row->n_context - n), n * sizeof *s->context);
    memcpy(s->shown->probabilities, row->probabilities, row->vocabulary * sizeof(double));
}

/* The statement is copied when predict() returns: a cache that kept the pointer cannot change its
 * form afterwards, say from `unverified` once its `probability` has been asked. */
static fw_status ask(struct cache_stream *s, const fw_row *row, fw_prediction *stated,
                     fw_error *error) {
    fw_prediction handed;
    fw_error why;
    clear(&why);
    prediction_prepare(s->buffers, &handed);
    show(s, row);
    FW_TRY(located(s->seat.cache->predict(s->seat.self, &s->shown->row, &handed, &why),
                   row->position, "predict", &why, error));
    *stated = handed;
    return FW_OK;
}

static fw_status evaluate_statement(struct cache_stream *s, const fw_row *row,
                                    const fw_prediction *stated, uint32_t target,
                                    double *probability, fw_error *error) {
    FW_TRY(prediction_probability(s->buffers, row, stated, target, probability, error));
    const bool audited = s->unverified || stated->form == FW_PREDICT_UNVERIFIED;
    return audited ? audit_unverified(s, row, stated, error) : FW_OK;
}

/* An unverified form is asked again meanwhile; that its process is gone says more than that the
 * answer is no number. */
static fw_status predict(struct cache_stream *s, const fw_row *row, uint32_t target,
                         fw_prediction *stated, double *probability, fw_error *error) {
    if (s->conditions.asked_twice) FW_TRY(ask(s, row, stated, error));
    FW_TRY(ask(s, row, stated, error));
    const fw_status status = evaluate_statement(s, row, stated, target, probability, error);
    if (status == FW_OK) return FW_OK;
    fw_error why;
    clear(&why);
    const fw_status gone = cache_seat_check(&s->seat, &why);
    return gone != FW_OK ? located(gone, row->position, "probability", &why, error) : status;
}

/* Predict, be watched, tell, be watched again. */
static fw_status score_one(struct cache_stream *s, const fw_row *row, uint32_t target,
                           double *probability, fw_error *error) {
    fw_prediction stated;
    const struct cache_watcher *watcher = s->watcher;
    FW_TRY(predict(s, row, target, &stated, probability, error));
    if (watcher == NULL) return tell(s, row->position, target, error);
    const struct cache_statement statement = {row, &stated, s->buffers, target, *probability};
    FW_TRY(watcher->stated(watcher->self, &statement, error));
    FW_TRY(tell(s, row->position, target, error));
    return watcher->told(watcher->self, &statement, error);
}

static fw_status failed(const struct cache_stream *s, fw_status status, const fw_error *why,
                        fw_error *error) {
    if (status == FW_OK) return FW_OK;
    return fw_fail(error, status, "[%s] plugin %s: %s", s->choice->section, s->choice->name,
                   why->message);
}

fw_status cache_stream_score(struct cache_stream *s, const fw_row *row, uint32_t target,
                             double *nats, fw_error *error) {
    fw_error why;
    clear(&why);
    double probability = 0;
    const fw_status status = score_one(s, row, target, &probability, &why);
    FW_TRY(failed(s, status, &why, error));
    s->left_alone = probability == row->probabilities[target];
    if (!s->left_alone) s->summary.changed++;
    *nats = probability < 1 ? -elementary_log(probability) : 0;
    return FW_OK;
}

bool cache_stream_left_alone(const struct cache_stream *s) { return s->left_alone; }

static fw_status state_all(struct cache_stream *s, const fw_row *row, double *probabilities,
                           fw_error *error) {
    fw_prediction stated;
    FW_TRY(ask(s, row, &stated, error));
    if (stated.form == FW_PREDICT_UNVERIFIED)
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %" PRIu64 ": it states no distribution over the vocabulary",
                       row->position);
    return prediction_full(s->buffers, row, &stated, probabilities, error);
}

fw_status cache_stream_distribution(struct cache_stream *s, const fw_row *row,
                                    double *probabilities, fw_error *error) {
    fw_error why;
    clear(&why);
    const fw_status status = state_all(s, row, probabilities, &why);
    return failed(s, status, &why, error);
}

fw_status cache_stream_tell(struct cache_stream *s, uint64_t position, uint32_t token,
                            fw_error *error) {
    fw_error why;
    clear(&why);
    const fw_status status = tell(s, position, token, &why);
    return failed(s, status, &why, error);
}

fw_status cache_stream_end_window(struct cache_stream *s, fw_error *error) {
    if (s->update_every != FW_UPDATE_EVERY_WINDOW || s->n_pending == 0) return FW_OK;
    fw_error why;
    clear(&why);
    const fw_status status = deliver(s, &why);
    return failed(s, status, &why, error);
}

fw_status cache_stream_begin(struct cache_stream *s, fw_error *error) {
    s->n_pending = 0;
    fw_error why;
    clear(&why);
    const fw_status status = begin(s, &why);
    return failed(s, status, &why, error);
}

static fw_status learn(struct cache_stream *s, const uint16_t *tokens, uint64_t n,
                       fw_error *error) {
    enum { AT_ONCE = 1024 };
    if (!s->seat.cache->counts_only || !FW_HAS(s->seat.cache, prefill) || s->n_pending > 0)
        return fw_fail(error, FW_E_INTERNAL, "it cannot learn tokens that are not scored");
    uint32_t block[AT_ONCE];
    fw_error why;
    clear(&why);
    for (uint64_t done = 0; done < n;) {
        const uint64_t left = n - done, now = left < AT_ONCE ? left : AT_ONCE;
        for (uint64_t i = 0; i < now; i++) block[i] = tokens[done + i];
        FW_TRY(located(s->seat.cache->prefill(s->seat.self, block, now, &why), s->last_position,
                       "prefill", &why, error));
        done += now;
    }
    return FW_OK;
}

fw_status cache_stream_learn(struct cache_stream *s, const uint16_t *tokens, uint64_t n,
                             fw_error *error) {
    fw_error why;
    clear(&why);
    const fw_status status = learn(s, tokens, n, &why);
    return failed(s, status, &why, error);
}

fw_status cache_stream_end(struct cache_stream *s, fw_error *error) {
    fw_error why;
    clear(&why);
    const fw_status status = cache_seat_check(&s->seat, &why);
    return failed(s, status == FW_OK ? FW_OK : blamed(status), &why, error);
}

void cache_stream_summary(const struct cache_stream *s, struct cache_summary *summary) {
    *summary = s->summary;
    summary->isolated = s->seat.remote != NULL;
    if (summary->isolated) summary->waiting = cache_remote_waiting(s->seat.remote);
    if (s->n_audits > 0) summary->mean_sum = s->sum_of_sums / (double)s->n_audits;
    if (FW_HAS(s->seat.cache, memory_bytes))
        summary->memory_bytes = s->seat.cache->memory_bytes(s->seat.self);
}

/* ---- probes ---- */

void cache_stream_watch(struct cache_stream *s, const struct cache_watcher *watcher) {
    s->watcher = watcher;
}

void cache_stream_set_conditions(struct cache_stream *s,
                                 const struct cache_conditions *conditions) {
    s->conditions = *conditions;
    put_decoys(s);
}
