/* Evaluation: every target of a token stream is scored exactly once, left to right.
 *
 * Modes: plain, non-overlapping windows; sliding, windows `stride` apart, of which each but the
 * first scores its last `stride` positions. Every forward pass has the shape [eval.batch, window],
 * padded if need be; another eval.batch adds up matrix products in another order, which moves
 * scores by the rounding of float32 and no more. The language model's row for a position is formed
 * once, in float64: p(v) = exp(l(v)) / sum of exp(l), l the device's float32 log-probabilities,
 * summed in order of v. Where a cache takes part it follows the protocol of fairway/cache.h: it
 * predicts, the host validates and looks up the target, and only then is the cache told
 * (cache_stream.h says what that can promise). The model alone and the model with cache are scored
 * in the same pass, each in its own ledger. */
#ifndef FAIRWAY_EVALUATE_H
#define FAIRWAY_EVALUATE_H

#include "corpus.h"
#include "model.h"
#include "progress.h"
#include "token_table.h"

struct evaluate_options {
    const struct experiment *experiment; /* [eval] */
    const fw_host *host;
    struct model *model; /* for inference, T = window and B = eval.batch, with its weights set */
    const struct corpus *corpus;
    const struct token_table *table;
    int64_t mode;        /* enum eval_mode */
    uint64_t max_tokens; /* of the corpus; 0: all */
    bool with_cache;
    const char *label; /* for the progress line */
    struct progress *progress;
};

struct score {
    double nats;    /* sum over targets */
    double bpb;     /* bits per byte by the tokenizer's byte counts */
    double raw_bpb; /* by raw_bytes; 0 when unknown */
};

struct evaluate_result {
    uint64_t targets, bytes;
    uint64_t raw_bytes; /* of the text scored: all but the first token's; 0 when unknown */
    struct score model;
    struct score cached;          /* with_cache only */
    uint64_t cache_changed;       /* positions whose probability the cache changed */
    uint64_t cache_memory;        /* bytes, 0 when the cache does not say */
    bool invalid;                 /* a prediction was not verifiably a distribution */
    double mean_sum, largest_sum; /* of sampled unverified predictions over the vocabulary */
    double seconds;
};

/* Errors: E_PROTOCOL names cache, position and value; E_SHAPE when the corpus has fewer than 2
 * tokens; E_RANGE for a token outside the table. */
fw_status evaluate(const struct evaluate_options *options, struct evaluate_result *result,
                   fw_error *error);

/* Tokens of a window: eval.window, or data.sequence when that is 0. */
int64_t evaluate_window(const struct experiment *experiment);

#endif
