/* Evaluation: every target of a token stream is scored exactly once, left to right.
 *
 * Modes: plain, non-overlapping windows; sliding, windows `stride` apart, of which each but the
 * first scores its last `stride` positions; stream, where a decoder (decoder.h) reads the tokens
 * once, eval.chunk at a time, and attention sees the last `window` positions. A stream sees through
 * its layers further back than a window does, and keys from before the window that formed them: it
 * is another score, not the sliding one sooner. So the first eval.stream_check_tokens are scored in
 * sliding windows as well, and both scores of them are reported. The chunks are no part of what is
 * computed and move scores by float32's rounding alone; what caches know as windows are then the
 * stream's runs of `stride` positions, and parts begin with one.
 *
 * In windows every forward pass has the shape [eval.batch, window],
 * padded if need be; another eval.batch adds up matrix products in another order, which moves
 * scores by the rounding of float32 and no more. The language model's row for a position is formed
 * once, in float64: p(v) = exp(l(v)) / sum of exp(l), l the device's float32 log-probabilities,
 * summed in sixteen lanes of fixed order (rows.c). Where a cache takes part it follows the protocol
 * of fairway/cache.h: it predicts, the host validates and looks up the target, and only then is the
 * cache told (cache_stream.h says what that can promise). The model alone and the model with cache
 * are scored in the same pass, each in its own ledger.
 *
 * eval.ranks splits the windows into contiguous parts; each begins with a cold cache, or with
 * eval.warm_start after all tokens before it, as a rank would that scores that part alone: then the
 * score is that of one part, bit for bit. Caches that learn from rows cannot begin warm.
 *
 * With two threads or more, caches are scored on a thread of their own while the next rows are read
 * and formed (relay.h); with four, and without an audit, one whose state depends on the tokens alone
 * on two, by two instances that take turns. No score depends on that.
 *
 * eval.faithful with sliding windows counts as record 993 does (windows.h): targets near the end
 * count several times, for the model and for a cache that declares itself unverified. Such a score
 * is not fair, and `fair` says so. Whatever else is scored in that pass, `fair_model`, a cache of a
 * verified form, the counterpart, counts each target once.
 *
 * A cache that declares itself unverified has a counterpart: the cache of [counterpart], scored
 * beside it on the same rows.
 *
 * With eval.audit, probes of the caches ride along, and probes of the model follow. One that fails
 * makes the scores that rest on it INVALID. */
#ifndef FAIRWAY_EVALUATE_H
#define FAIRWAY_EVALUATE_H

#include "cache_remote.h"
#include "coin_result.h"
#include "config.h"
#include "corpus.h"
#include "language_model.h"
#include "progress.h"
#include "random.h"
#include "token_table.h"
#include "verdicts.h"
#include "windows.h"

/* What eval.audit is about: audit.h, probe_model.h. */
enum evaluate_audited {
    EVALUATE_AUDIT_CACHES = 1,
    EVALUATE_AUDIT_MODEL = 2,
    EVALUATE_AUDIT_ALL = 3
};

struct evaluate_options {
    const struct experiment *experiment; /* [eval] [cache] [counterpart] */
    const fw_host *host;
    struct language_model model; /* for passes of eval.batch windows of evaluate_window tokens;
                                    EVAL_STREAM: that reads on, for that window */
    const struct corpus *corpus;
    const struct token_table *table;
    int64_t mode;          /* enum eval_mode; eval.faithful matters to EVAL_SLIDING alone */
    uint64_t max_tokens;   /* of the corpus; 0: all */
    uint64_t check_tokens; /* EVAL_STREAM: of the comparison with sliding windows; 0: none */
    bool with_cache;
    unsigned audited;    /* of enum evaluate_audited, as eval.audit says */
    struct random *draw; /* not NULL: targets are drawn from the model's rows (coin_test.h) */
    const struct cache_watcher *watcher; /* of a cache that is not audited; NULL: nobody */
    const char *label;                   /* for the progress line */
    struct progress *progress;
};

struct score {
    double nats;    /* sum over targets */
    double bpb;     /* bits per byte by the tokenizer's byte counts */
    double raw_bpb; /* by raw_bytes; 0 when unknown */
    uint64_t targets, bytes;
    bool fair; /* each target counts once */
};

/* The model's score of the first tokens of a stream, and in sliding windows. */
struct stream_check {
    bool made;
    struct score stream, sliding;
    double seconds; /* that the sliding windows took, not counted elsewhere */
};

struct evaluate_result {
    uint64_t targets, bytes; /* those of `model` */
    uint64_t raw_bytes;      /* of the text scored: all but the first token's; 0 when unknown */
    struct score model;
    struct score fair_model;  /* equal to `model` unless that is not fair */
    struct score cached;      /* with_cache only */
    struct score counterpart; /* has_counterpart only */
    struct stream_check check;
    bool has_counterpart;
    uint64_t cache_changed;         /* positions whose probability the cache changed */
    uint64_t cache_memory;          /* bytes, 0 when the cache does not say */
    bool isolated;                  /* caches sat in processes of their own */
    struct cache_waiting isolation; /* what that took, all caches together */
    bool invalid;                   /* a prediction was not verifiably a distribution */
    double mean_sum, largest_sum;   /* of sampled unverified predictions over the vocabulary */
    struct verdicts verdicts;       /* of audit and coin, on "cache", "counterpart" and "model" */
    struct coin_result coin;        /* set by who had the coin test made before: evaluate_coin.h */
    double audit_seconds;           /* of those after the scoring; in `seconds` too */
    uint64_t audit_seed;            /* which positions were sampled */
    double seconds;
};

/* Errors: E_UNSUPPORTED for a stream that the model cannot read; E_PROTOCOL names cache, position
 * and value, or a probe that failed (unless on_violation = report); E_SHAPE when the corpus has
 * fewer than 2 tokens; E_RANGE for a token outside the table; those of evaluate_check. */
fw_status evaluate(const struct evaluate_options *options, struct evaluate_result *result,
                   fw_error *error);

/* What can be refused about [cache] and [counterpart] before any work is done; both are created
 * and closed again. E_PROTOCOL: unverified without on_violation = report; E_CONFIG: a counterpart
 * that is unverified as well, a warm start for one that learns from rows; what create() says. */
fw_status evaluate_check(const struct experiment *experiment, const fw_host *host,
                         const struct token_table *table, fw_error *error);

/* The windows that score a stream's targets, each once, as eval.mode and the keys beside it say; of
 * EVAL_STREAM those that caches know. */
struct windows evaluate_windows(const struct experiment *experiment, uint64_t targets);

/* Tokens of a window: eval.window, or data.sequence when that is 0. Of a stream's chunk:
 * eval.chunk, or those of eval.batch windows. */
int64_t evaluate_window(const struct experiment *experiment);
int64_t evaluate_chunk(const struct experiment *experiment);

#endif
