#include "check_play.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "cache_seat.h"
#include "prediction.h"

enum { MOST_CONTEXT = 256, WINDOW = 64 /* what FW_UPDATE_EVERY_WINDOW waits for here */ };

struct player {
    const struct check_play *play;
    struct cache_seat seat;
    struct prediction_buffers *buffers;
    float *log_probabilities;
    double *row, *scratch;
    uint32_t context[MOST_CONTEXT]; /* stays until the next row, as the row does */
    uint64_t told;  /* tokens of the stream that the cache knows, but for its first */
    uint64_t at;    /* position that is scored next */
    uint64_t begin; /* position that was scored first */
};

static const fw_cache *cache_of(const struct player *p) { return p->seat.cache; }

static void player_close(struct player *p) {
    cache_seat_close(&p->seat);
    prediction_buffers_destroy(p->buffers);
    free(p->log_probabilities);
    free(p->row);
    free(p->scratch);
}

static fw_status player_open(struct player *p, const struct check_play *play, fw_error *error) {
    const uint32_t V = play->rows->vocabulary;
    *p = (struct player){.play = play,
                         .buffers = prediction_buffers_create(V),
                         .log_probabilities = calloc(V, sizeof(float)),
                         .row = calloc(V, sizeof(double)),
                         .scratch = calloc(V, sizeof(double))};
    if (p->buffers == NULL || p->log_probabilities == NULL || p->row == NULL || p->scratch == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to play a cache");
    const fw_cache_shape shape = {.struct_size = sizeof shape,
                                  .vocabulary = V,
                                  .max_entries = V,
                                  .stream_tokens = play->n - 1};
    FW_TRY(cache_seat_open(play->choice, play->host, &shape, &p->seat, error));
    p->buffers->cache = p->seat.self;
    p->buffers->allow_unverified = true;
    return cache_of(p)->begin(p->seat.self, error);
}

/* ---- scoring ---- */

static double form_row(struct player *p) {
    const struct check_play *play = p->play;
    const uint32_t V = play->rows->vocabulary;
    const int32_t previous = p->at > 0 ? play->tokens[p->at - 1] : -1;
    double sum = 0, entropy = 0;
    synthetic_row(play->rows, previous, play->tokens[p->at], p->log_probabilities);
    for (uint32_t v = 0; v < V; v++) sum += p->row[v] = exp((double)p->log_probabilities[v]);
    for (uint32_t v = 0; v < V; v++) {
        p->row[v] /= sum;
        entropy -= p->row[v] * log(p->row[v]);
    }
    return entropy;
}

static fw_status state(struct player *p, uint64_t *digest, fw_error *error) {
    const fw_cache *cache = cache_of(p);
    const double entropy = form_row(p);
    uint64_t n = FW_COVERS(cache, context_tokens) ? cache->context_tokens : 0;
    n = n > MOST_CONTEXT ? MOST_CONTEXT : n;
    n = n > p->at + 1 ? p->at + 1 : n;
    for (uint64_t i = 0; i < n; i++) p->context[i] = p->play->tokens[p->at + 1 - n + i];
    const fw_row row = {.struct_size = sizeof row,
                        .vocabulary = p->play->rows->vocabulary,
                        .position = p->at,
                        .probabilities = p->row,
                        .entropy = cache->needs_entropy ? entropy : -1,
                        .context = p->context,
                        .n_context = (uint32_t)n};
    fw_prediction stated;
    prediction_prepare(p->buffers, &stated);
    FW_TRY(cache->predict(p->seat.self, &row, &stated, error));
    FW_TRY(prediction_full(p->buffers, &row, &stated, p->scratch, error));
    const struct cache_statement statement = {
        .row = &row, .prediction = &stated, .buffers = p->buffers};
    return statement_digest(&statement, p->scratch, digest, error);
}

static fw_status deliver(struct player *p,
                         fw_status (*by)(void *self, const uint32_t *tokens, uint64_t n,
                                         fw_error *error),
                         uint64_t n, fw_error *error) {
    uint32_t *tokens = malloc(n * sizeof *tokens);
    if (tokens == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %llu tokens", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) tokens[i] = p->play->tokens[p->told + 1 + i];
    const fw_status status = by(p->seat.self, tokens, n, error);
    free(tokens);
    p->told += n;
    return status;
}

static fw_status score(struct player *p, uint64_t n, uint64_t *digests, fw_error *error) {
    const uint32_t every = cache_of(p)->update_every;
    const uint64_t block = every == FW_UPDATE_EVERY_WINDOW ? WINDOW : every > 1 ? every : 1;
    for (uint64_t i = 0; i < n; i++) {
        FW_TRY(state(p, &digests[i], error));
        p->at++;
        if ((p->at - p->begin) % block == 0)
            FW_TRY(deliver(p, cache_of(p)->update, p->at - p->told, error));
    }
    return FW_OK;
}

/* ---- delivery ---- */

/* Pieces of so many tokens; 0: by update(), one by one. */
static fw_status play_delivery(const struct check_play *play, uint64_t piece, uint64_t *digests,
                               fw_error *error) {
    struct player p;
    const uint64_t warm = play->n / 2;
    fw_status status = player_open(&p, play, error);
    while (status == FW_OK && p.told < warm) {
        uint64_t n = piece > 0 ? piece : 1;
        if (n > warm - p.told) n = warm - p.told;
        status = deliver(&p, piece > 0 ? cache_of(&p)->prefill : cache_of(&p)->update, n, error);
    }
    p.at = p.begin = p.told;
    if (status == FW_OK) status = score(&p, play->n / 4, digests, error);
    player_close(&p);
    return status;
}

static fw_status compare_deliveries(const struct check_play *play, uint64_t *base, uint64_t *other,
                                    struct probe *probe, fw_error *error) {
    const uint64_t pieces[] = {1, 7, play->n / 2};
    const uint64_t n = play->n / 4;
    FW_TRY(play_delivery(play, 0, base, error));
    for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
        FW_TRY(play_delivery(play, pieces[k], other, error));
        probe->positions += n;
        for (uint64_t i = 0; i < n; i++)
            if (base[i] != other[i])
                probe_fail(probe,
                           "position %llu: after tokens delivered %llu at a time the cache states "
                           "something else than after the same, updated one by one",
                           (unsigned long long)(play->n / 2 + i), (unsigned long long)pieces[k]);
    }
    return FW_OK;
}

static fw_status with_room(const struct check_play *play,
                           fw_status (*act)(const struct check_play *play, uint64_t *base,
                                            uint64_t *other, struct probe *probe, fw_error *error),
                           struct probe *probe, fw_error *error) {
    uint64_t *base = calloc(play->n, sizeof *base), *other = calloc(play->n, sizeof *other);
    fw_status status = FW_OK;
    if (base == NULL || other == NULL)
        status = fw_fail(error, FW_E_MEMORY, "no memory to compare statements");
    else
        status = act(play, base, other, probe, error);
    free(base);
    free(other);
    return status;
}

fw_status check_delivery(const struct check_play *play, struct probe *probe, fw_error *error) {
    return with_room(play, compare_deliveries, probe, error);
}

/* ---- snapshots ---- */

static fw_status hand_over(struct player *from, struct player *to, fw_error *error) {
    const fw_cache *cache = cache_of(from);
    size_t bytes = 0;
    fw_status status = cache->snapshot(from->seat.self, NULL, &bytes, error);
    if (status != FW_OK && status != FW_E_BUFFER) return status;
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a state");
    status = cache->snapshot(from->seat.self, memory, &bytes, error);
    if (status == FW_OK) status = cache->restore(to->seat.self, memory, bytes, error);
    free(memory);
    to->at = from->at;
    to->told = from->told;
    to->begin = from->begin;
    return status;
}

static fw_status play_snapshot(struct player *first, struct player *second, uint64_t *base,
                               uint64_t *other, struct probe *probe, fw_error *error) {
    const uint64_t n = first->play->n / 2;
    FW_TRY(score(first, n, base, error));
    FW_TRY(hand_over(first, second, error));
    const uint64_t begin = first->at, left = first->play->n - 1 - begin;
    FW_TRY(score(first, left, base, error));
    FW_TRY(score(second, left, other, error));
    probe->positions += left;
    for (uint64_t i = 0; i < left; i++)
        if (base[i] != other[i])
            probe_fail(probe,
                       "position %llu: a fresh instance, given the state of position %llu, states "
                       "something else",
                       (unsigned long long)(begin + i), (unsigned long long)begin);
    return FW_OK;
}

static fw_status compare_snapshot(const struct check_play *play, uint64_t *base, uint64_t *other,
                                  struct probe *probe, fw_error *error) {
    struct player first, second = {0};
    fw_status status = player_open(&first, play, error);
    if (status == FW_OK) status = player_open(&second, play, error);
    if (status == FW_OK) status = play_snapshot(&first, &second, base, other, probe, error);
    player_close(&first);
    player_close(&second);
    return status;
}

fw_status check_snapshot(const struct check_play *play, struct probe *probe, fw_error *error) {
    return with_room(play, compare_snapshot, probe, error);
}
