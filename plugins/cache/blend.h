/* From counts to a distribution: experts stacked on the language model.
 *
 * Expert e (each order's follower list, then the match on top) states F_e over the tokens it lists,
 *     F_e(v) = (count(v) - discount) / sum over listed tokens, or 1 at the match's token,
 *     P_e(v) = w_e F_e(v) + (1 - w_e) P_below(v), and below the lowest stands the model's row p;
 *     stated is 2^-20 p(v) + (1 - 2^-20) P_top(v).
 * Everything sums to one by construction: the row keeps the product of all (1 - w_e). An expert is
 * passed over when it lists nothing, has counted less than min_count tokens, or finds no more than
 * `stop` of the share left by those above it. A list states its max_followers most frequent tokens.
 *
 * Without learning (ngram_counts) weights follow from the counts, as in absolute discounting (Ney,
 * Essen and Kneser, 1994), with a factor for how little counts are to be trusted beside a model:
 *     list:   w_e = weight (1 - discount followers / total), all followers and tokens counted
 *     match:  w_e = weight length / (length + 10), of lengths up to match_length
 *
 * Learned weights (ngram) belong to a cell: order; tokens counted (1, 2, 4, 8, 16 or more);
 * followers (1, 2, 3, 5, 8, 32 or more); what the model gives the first follower (above 0.001,
 * 0.01, 0.05, 0.2, 0.5); whether this order's first follower was right when last asked. The match's
 * cells go by its length, the model's opinion, and whether the last match was right. Once token x
 * is scored, from the top expert down, with r = 1 at first and n = 0 in a new cell: posterior_e =
 * w_e F_e(x) / P_e(x) w_e += r max(2 / (n + 3), 1 / window) (posterior_e - w_e), kept within [1e-5,
 * 1 - 1e-4] n += r,  r *= 1 - posterior_e which is one online step of expectation maximisation: r
 * is the probability that the draw came past the experts above. An expert that is worse than what
 * lies below it loses its weight. */
#ifndef CACHE_BLEND_H
#define CACHE_BLEND_H

#include "contexts.h"

typedef struct blend_options {
    bool learn;
    uint32_t min_order;     /* shortest context that is asked */
    uint32_t min_count;     /* tokens counted in a context before it is asked */
    uint32_t max_followers; /* most frequent followers that an expert lists */
    uint32_t match_length;  /* longest match told apart from longer ones; 0: no match expert */
    double stop;            /* shorter contexts are not asked for less than this share */
    double discount;        /* taken off each count */
    double weight;          /* learn: where a weight starts; else: factor of every weight */
    double window;          /* learn: tokens over which a weight averages */
} blend_options;

/* A learned weight. */
typedef struct cell {
    double weight;
    double updates; /* tokens that reached its experts, as expected */
} cell;

/* One expert of the prediction that was stated last. */
typedef struct expert {
    uint32_t order; /* 0: the match */
    uint32_t listed;
    uint32_t end; /* entries of the prediction that it or an expert above it was first to list */
    double weight;
    double scale; /* 1 / sum of the listed counts after discount */
    cell *learned;
} expert;

typedef struct blend {
    const fw_host *host;
    blend_options options;
    uint32_t vocabulary;
    uint32_t max_order;
    uint32_t max_entries;
    cell *cells;       /* by order and bucket, when learning */
    const double *row; /* V: the model's row of the pending prediction, the host's */
    double *masses;    /* V: gathered for the prediction in the making, else all 0 */
    uint32_t *listed;  /* V + 1: its tokens, those of the expert on top first ... */
    uint32_t *counts;  /* V + 1: ... and how often the first expert to list each has counted it */
    uint32_t n_experts;
    bool pending; /* a prediction awaits its token */
    expert experts[MAX_ORDER + 1];
    bool right[MAX_ORDER + 1]; /* by order: was the first follower right the last time */
} blend;

/* E_MEMORY. */
fw_status blend_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                       blend_options options, blend *mixer, fw_error *error);
void blend_destroy(blend *mixer);
void blend_clear(blend *mixer);

void blend_predict(blend *mixer, const contexts *here, const fw_row *row,
                   fw_prediction *prediction);

/* Learn from the token that contexts_find looked up; call between find and advance. */
void blend_learn(blend *mixer, const contexts *here, uint32_t token);

uint64_t blend_bytes(const blend *mixer);

#endif
