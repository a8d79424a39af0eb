/* The distribution of a stream's next token, from the tokens before it and nothing else: what an
 * encoder and a decoder must compute alike.
 *
 * The state is the language model's decoder, the cache and the host's checks. It is driven by one
 * token after the other, each told after its distribution was asked for, so a decoder that has just
 * found a token goes on exactly as the encoder did: the same calls with the same shapes in the same
 * order. What a position sees follows [eval] as in evaluate.h: the windows of mode, window and
 * stride, and the cold caches of ranks; the rows are those of the bulk scorer but for the rounding
 * of products of other shapes. An attention plugin that cannot decode has its window read anew for
 * each token, which takes longer; a stream (eval.mode) needs one that can. The first token of a
 * stream has nothing before it: its distribution is uniform. */
#ifndef FAIRWAY_NEXT_DISTRIBUTION_H
#define FAIRWAY_NEXT_DISTRIBUTION_H

#include "config.h"
#include "model.h"
#include "token_table.h"

struct distribution_options {
    const struct experiment *experiment; /* [eval] [cache] */
    const fw_host *host;
    struct model *model; /* for passes and feeds of evaluate_window tokens */
    const struct token_table *table;
    uint64_t tokens; /* of each stream, at least 1 */
};

struct distribution_state;

/* E_PROTOCOL: the cache declares that it states no distribution. */
fw_status distribution_check_cache(const struct plugin_choice *cache, fw_error *error);

/* What `options` points to must outlive the state. Errors: those of decoder_create and
 * cache_stream_open; E_PROTOCOL: a cache that states no distribution; E_MEMORY. */
fw_status distribution_open(const struct distribution_options *options,
                            struct distribution_state **state, fw_error *error);
void distribution_close(struct distribution_state *state); /* NULL is fine */

/* Begin a stream: model and cache know nothing. Comes before the first next_distribution. */
fw_status distribution_begin(struct distribution_state *state, fw_error *error);

/* The distribution of the token that will be told next: V probabilities, the state's own until its
 * next call. E_PROTOCOL names cache, position and value; E_NUMERIC; E_DEVICE; E_RANGE beyond the
 * stream's tokens. After an error the stream is over. */
fw_status next_distribution(struct distribution_state *state, const double **probabilities,
                            fw_error *error);

/* The token itself, < V. */
fw_status distribution_tell(struct distribution_state *state, uint32_t token, fw_error *error);

/* The language model's row behind the last distribution: V log-probabilities in float32; NULL for
 * the first token of a stream. */
const float *distribution_row(const struct distribution_state *state);

#endif
