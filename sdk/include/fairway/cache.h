/* Eval-time caches: a model of the text already scored, mixed into the language model's prediction.
 *
 * For every position t, in stream order, the host
 *   1. forms the language model's row p over the whole vocabulary in float64,
 *   2. calls predict(row): the cache states a distribution without knowing the target,
 *   3. validates it, looks up the target x_t and adds its code length to the ledger,
 *   4. calls update(x_t).
 * The prediction is in one of four forms; the host computes the final probability from it:
 *   mix        p'(v) = lm_weight * p(v) + mass(v), with lm_weight + sum of masses = 1 (within 1e-6,
 *              then divided by the exact sum). A mass may be negative as long as every resulting
 *              probability stays >= 1e-12; lm_weight lies in [0, 1000].
 *   tilt       p'(v) = p(v) * gain(v) / Z, gain = 1 for tokens not listed; the host computes Z and
 *              refuses Z < 1e-6.
 *   dense      p'(v) = probabilities[v], all V of them, summing to 1 within 1e-6.
 *   unverified prob(v), evaluated by the host at the target; its score is always marked INVALID.
 * Tokens are unique and < V; numbers are finite. A violation is E_PROTOCOL and ends the run. */
#ifndef FAIRWAY_CACHE_H
#define FAIRWAY_CACHE_H

#include "host.h"

FW_BEGIN_DECLS

typedef enum fw_prediction_form {
    FW_PREDICT_MIX = 1,
    FW_PREDICT_TILT = 2,
    FW_PREDICT_DENSE = 3,
    FW_PREDICT_UNVERIFIED = 4
} fw_prediction_form;

typedef struct fw_cache_shape {
    uint32_t struct_size;
    uint32_t vocabulary;  /* V */
    uint32_t max_entries; /* pairs that one prediction may hold: at most V */
    uint32_t reserved;
    uint64_t stream_tokens; /* tokens that will be scored, as a hint for memory; 0: unknown */
    /* Bytes of each token by the tokenizer's rule (V entries; NULL when unknown) and whether a
     * token starts a document. Both live as long as the instance. */
    const uint8_t *token_bytes;
    const uint8_t *token_is_boundary;
} fw_cache_shape;

/* fw_cache.update_every: one block for each evaluation window's scored positions; in a stream
 * ([eval] mode = stream) for each run of [eval] stride positions. Under [eval] faithful = yes the
 * windows at the end of the stream overlap: a cache that declares itself unverified is asked and
 * told there about the same positions several times; others never are. */
#define FW_UPDATE_EVERY_WINDOW 0xffffffffu

/* The language model's row for one position. What it points to stays as it is until the next call
 * of predict() or begin(), so that a cache which hears of each token by itself (update_every 1) may
 * learn from the row without copying it. */
typedef struct fw_row {
    uint32_t struct_size;
    uint32_t vocabulary;
    /* 0 for the first scored token of the stream; where [eval] ranks splits it, the parts after the
     * first begin at higher positions. */
    uint64_t position;
    const double *probabilities; /* V, float64, sums to 1 within 1e-12 */
    double entropy; /* nats; computed only when the cache sets needs_entropy, else -1 */
    /* The tokens right before this position, in stream order: the last fw_cache.context_tokens of
     * them, fewer at the beginning of the stream. They include what a pending block will tell, and
     * the stream's first token, which is never scored. Under [eval] faithful = yes, for caches that
     * declare themselves unverified, an index before the beginning wraps around to the end of the
     * stream, as in record 993: a look-ahead. */
    const uint32_t *context;
    uint32_t n_context;
    uint32_t reserved;
} fw_row;

/* Written by predict(). The host provides `tokens` and `values` with room for max_entries and
 * `dense` with room for V; the cache sets the form and n. */
typedef struct fw_prediction {
    uint32_t struct_size;
    uint32_t form; /* fw_prediction_form */
    uint32_t n;    /* pairs used, for mix and tilt */
    uint32_t reserved;
    double lm_weight; /* mix */
    uint32_t *tokens; /* host's buffer: n tokens */
    double *values;   /* host's buffer: n masses (mix) or gains (tilt) */
    double *dense;    /* host's buffer: V probabilities */
    /* unverified: the "probability" of v now; valid until the next update. */
    double (*probability)(void *self, const fw_row *row, uint32_t token);
} fw_prediction;

typedef struct fw_cache {
    uint32_t struct_size;
    /* 1: update() receives every token by itself. n > 1: the host delivers updates in blocks of n
     * after the whole block is scored; part of the config hash. 0 counts as 1. */
    uint32_t update_every;
    uint32_t needs_entropy; /* 1: the host fills fw_row.entropy */
    uint32_t counts_only;   /* 1: state depends on tokens alone, so prefill may warm-start it */

    fw_status (*create)(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error);
    void (*destroy)(void *self);

    /* Forget everything and begin a new stream. */
    fw_status (*begin)(void *self, fw_error *error);

    /* counts_only caches: learn `n` tokens that come next in the stream and that this instance is
     * not asked about: those before the first scored one, or those that another instance is asked
     * about. Must leave the same state as n calls of update. */
    fw_status (*prefill)(void *self, const uint32_t *tokens, uint64_t n, fw_error *error);

    /* State a distribution for the next token, by what was told and what the row says alone: the
     * host may ask again for the same position, another instance, or with other values behind all
     * that it hands over, and compares the answers bit for bit (`fairway check`). [no-alloc] but
     * for growth of the cache's own memory. */
    fw_status (*predict)(void *self, const fw_row *row, fw_prediction *prediction, fw_error *error);

    /* The next `n` tokens of the stream, all scored already. */
    fw_status (*update)(void *self, const uint32_t *tokens, uint64_t n, fw_error *error);

    /* Optional: copy of the state. `bytes` in: capacity, out: used (or needed, with E_BUFFER). */
    fw_status (*snapshot)(void *self, void *state, size_t *bytes, fw_error *error);
    fw_status (*restore)(void *self, const void *state, size_t bytes, fw_error *error);

    /* Optional: bytes of memory now held. */
    uint64_t (*memory_bytes)(void *self);

    /* 1: its predictions are of the unverified form; refused before any work is done unless
     * [eval] on_violation = report. Its score is INVALID whatever form it states in the end. */
    uint32_t unverified;
    uint32_t context_tokens; /* what fw_row.context shall hold, at most 256; 0: nothing */
} fw_cache;

FW_END_DECLS

#endif
