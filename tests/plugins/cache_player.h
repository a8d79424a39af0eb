/* A cache at work in a test: the host's side of the protocol, and streams to play to it. */
#ifndef CACHE_PLAYER_H
#define CACHE_PLAYER_H

#include "prediction.h"
#include "support.h"

typedef struct player {
    const fw_cache *cache;
    void *self;
    uint32_t vocabulary;
    uint64_t position;
    uint8_t *boundary; /* token 0 begins a document */
    double *model;     /* the row */
    double *full;      /* what was stated last, over the whole vocabulary */
    struct prediction_buffers *buffers;
    fw_prediction stated;
    uint32_t *past; /* tokens that rows can show: all told so far, and those of player_show */
    uint64_t n_past, room, n_shown;
} player;

/* A new instance that has begun a stream. Fails the test when the cache refuses. */
player player_open(const fw_cache *cache, const fw_host *host, const fw_value *values,
                   uint32_t vocabulary, uint32_t max_entries);
void player_close(player *p);
void player_begin(player *p);

/* A row that depends on the position alone: some positions are sure, some are not. */
void player_form_row(player *p);

/* Ask for a prediction, refuse what breaks the protocol, and write it out to p->full. */
void player_predict(player *p);

/* Score one token: the probability of `token`, without telling the cache. */
double player_score(player *p, uint32_t token);

void player_update(player *p, const uint32_t *tokens, uint64_t n);

/* Within a block: rows show `token` from now on; the player_update to come tells it first. */
void player_show(player *p, uint32_t token);

/* Bits that the cache `id` with its defaults adds to those of a model that knows nothing, on n
 * tokens; where second_half is not NULL, also on the second half of them. */
double player_added_bits(const char *id, const uint32_t *tokens, uint32_t n, uint32_t vocabulary,
                         double *second_half);

/* The cache `id` must refuse to be made of these parameters (NULL-terminated, or NULL) for this
 * vocabulary, with this status and these words. */
void player_refused(const char *id, const char *const *overrides, uint32_t vocabulary,
                    fw_status expected, const char *words);

/* With memory_mb = 4 beside these parameters the cache `id` must refuse, and name a number that
 * does. An eighth less does not. */
void player_names_enough_memory(const char *id, const char *const *overrides, uint32_t vocabulary);

/* Text of a kind: words of a small lexicon, with long repeats now and then. */
void player_text(uint32_t *tokens, uint64_t n, uint32_t vocabulary, uint64_t seed);

/* Uniformly random tokens. */
void player_coin(uint32_t *tokens, uint64_t n, uint32_t vocabulary, uint64_t seed);

#endif
