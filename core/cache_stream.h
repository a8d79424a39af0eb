/* A cache at work on one stream: the protocol of fairway/cache.h, step by step.
 *
 * What holds: through what it is handed (row, buffers for its statement, tokens, tables) a cache
 * reaches no token before that one is scored and no row before its position, except that an
 * unverified form is asked about the target. The row that the host validates and scores from is
 * never handed out: the cache gets a copy, tokens are copied at delivery, and the statement's head
 * is copied when predict() returns.
 * What does not, as long as the cache sits in the host's process: a plugin that reads or writes
 * memory it was not handed can find the text or the ledger, and one with a thread of its own can
 * rewrite its lists between check and use. In a process of its own (eval.isolate, cache_seat.h) it
 * finds neither, and its lists are copied before they are checked.
 */
#ifndef FAIRWAY_CACHE_STREAM_H
#define FAIRWAY_CACHE_STREAM_H

#include <fairway/cache.h>
#include <stdbool.h>

#include "cache_seat.h"
#include "config.h"
#include "token_table.h"

struct cache_stream;

/* `invalid`: the cache declares itself unverified, or once stated that form. mean_sum and
 * largest_sum are asked of the cache itself, so they describe a careless cache, not a dishonest
 * one. */
struct cache_summary {
    uint64_t changed;      /* positions whose probability differs from the model's */
    uint64_t memory_bytes; /* 0 when the cache does not say */
    bool invalid;
    double mean_sum, largest_sum; /* of samples of what is invalid */
    bool isolated;                /* it sits in a process of its own */
    struct cache_waiting waiting; /* for that process */
};

/* `targets`: how many positions will be scored. `allow_unverified`: eval.on_violation = report;
 * without it a cache that declares itself unverified is refused here, E_PROTOCOL. */
fw_status cache_stream_open(const struct plugin_choice *choice, const fw_host *host,
                            const struct token_table *table, uint64_t targets,
                            bool allow_unverified, struct cache_stream **stream, fw_error *error);
void cache_stream_close(struct cache_stream *stream); /* NULL is fine */

bool cache_stream_needs_entropy(const struct cache_stream *stream);

/* How many tokens of fw_row.context the cache wants to see. */
uint32_t cache_stream_context(const struct cache_stream *stream);

/* Ask the cache for its prediction, validate it, look up `target`, tell the cache (every
 * update_every-th time). `nats` gets the code length. Errors carry plugin and position. */
fw_status cache_stream_score(struct cache_stream *stream, const fw_row *row, uint32_t target,
                             double *nats, fw_error *error);

/* Whether the target scored last has the probability that the model's row gives it. */
bool cache_stream_left_alone(const struct cache_stream *stream);

/* The two halves of cache_stream_score for whoever learns the target in between: the whole
 * distribution (V probabilities), bit for bit what is scored of each target, E_PROTOCOL for the
 * unverified form; then the token that came. */
fw_status cache_stream_distribution(struct cache_stream *stream, const fw_row *row,
                                    double *probabilities, fw_error *error);
fw_status cache_stream_tell(struct cache_stream *stream, uint64_t position, uint32_t token,
                            fw_error *error);

/* All of a window's positions are scored: what FW_UPDATE_EVERY_WINDOW waits for. */
fw_status cache_stream_end_window(struct cache_stream *stream, fw_error *error);

/* Go on with a cold cache: what is pending is dropped, and everything told is forgotten. */
fw_status cache_stream_begin(struct cache_stream *stream, fw_error *error);

/* A cache that counts only learns `n` tokens without being asked about them: those before the next
 * position, of which it was told nothing yet. */
fw_status cache_stream_learn(struct cache_stream *stream, const uint16_t *tokens, uint64_t n,
                             fw_error *error);

/* All is scored: hear of what the cache was told last. An isolated one may have died of it. */
fw_status cache_stream_end(struct cache_stream *stream, fw_error *error);

void cache_stream_summary(const struct cache_stream *stream, struct cache_summary *summary);

/* ---- probes ---- */

struct prediction_buffers;

/* What a cache stated for one position, checked by the host. */
struct cache_statement {
    const fw_row *row; /* the host's own */
    const fw_prediction *prediction;
    struct prediction_buffers *buffers;
    uint32_t target;
    double probability; /* of the target */
};

/* Who watches a cache at work; what they return other than FW_OK ends the scoring. */
struct cache_watcher {
    void *self;
    /* A statement was checked; the cache does not know the target yet. */
    fw_status (*stated)(void *self, const struct cache_statement *statement, fw_error *error);
    /* The cache was told the target, or the target waits in its block. The same statement, but the
     * buffers have whatever the cache left in them. */
    fw_status (*told)(void *self, const struct cache_statement *statement, fw_error *error);
};

/* NULL: nobody. The watcher stays the caller's. */
void cache_stream_watch(struct cache_stream *stream, const struct cache_watcher *watcher);

/* What an honest cache does not notice. Behind all that a cache is handed lie DECOYS values that
 * are not part of it: zeros, or those of `decoys`, a seed. */
struct cache_conditions {
    bool asked_twice; /* predict() comes twice for each position, and the second answer counts */
    uint64_t decoys;
};
void cache_stream_set_conditions(struct cache_stream *stream,
                                 const struct cache_conditions *conditions);

#endif
