/* The tilt: how much more or less likely than the language model says a token is, learned online.
 *
 *     p_tilt(v) = p(v) e^s(v) / Z,   Z = sum over the vocabulary of p(v) e^s(v).
 *
 * With share p(v) + mass(v) for the n-gram cache's own statement, s is, in the simplest case,
 *     s(v) = log(1 + mass(v) / (share p(v))),
 * which makes p_tilt that statement, and 0 for tokens that it does not list. For candidates it is
 *     s(v) = trust[entropy of the row, length of the match] log(1 + mass(v) / (share p(v)))
 *          + said[how lately and how often the document had v][p(v)]
 *          + counted[longest context that lists v, its count there][p(v)]
 *          + own[v] + pair[token before v, v]
 *          + sum over orders o of followed[o][p(v)] where v came last time in this document,
 * kept within [-6, 20], and not below 0 where p(v) < 2^-20. Candidates are the tokens that the
 * model gives more than `likely`, and those of the n-gram cache with p(v) + mass(v) / share above
 * it. [p(v)] stands for the power of two below it. trust begins with 1 and all else with 0. Where
 * fewer than V^2 weights of pairs are allowed there are P, the largest power of two that is, and
 * pair[u, v] is number floor(P / 2^32 ((u V + v) 0x9e3779b1 mod 2^32)), shared with other pairs.
 *
 * After the token x is scored, every weight w moves down the gradient g of -log p_tilt(x), which is
 * p_tilt(v) - [v = x] times what the weight multiplies. Those of candidates keep a pace that is 1
 * at first and shrinks about like the root of the sum of squared gradients grows (AdaGrad; Duchi,
 * Hazan, Singer 2011), without a root:
 *     w <- w - rate pace g,   pace <- max(pace - pace^3 g^2 / 2, 0.02).
 * trust takes the root: w <- w - trust_rate g / sqrt(1 + sum of all g^2 so far, this one included).
 * Mixing predictions in the logarithmic domain, with weights selected by small contexts, comes from
 * PAQ (Mahoney 2005). */
#ifndef TILT_GAINS_H
#define TILT_GAINS_H

#include "../blend.h"
#include "curves.h"
#include "recent.h"

typedef struct gains_options {
    double likely;       /* a candidate is above this */
    double trust_rate;   /* size of steps of trust */
    double rate;         /* size of steps of all other weights */
    uint32_t most_pairs; /* weights of pairs at most; fewer than V^2 are shared by hash; 0: none */
} gains_options;

/* A learned weight. */
typedef struct weight {
    double value;
    double pace; /* from 1 down; of trust, 1 / sqrt(1 + sum of squared gradients) */
} weight;

/* The weights that every candidate uses one of. */
enum { SAID, COUNTED, OWN, PAIR, TABLES };

/* One array for each thing that is known of a candidate. */
typedef struct candidates {
    uint32_t n;
    uint32_t *tokens;
    double *p;              /* in the model's row */
    double *mass;           /* of the n-gram cache */
    double *ratio;          /* log(1 + mass / (share p)) */
    double *score;          /* s */
    double *gain;           /* e^s */
    double *slope;          /* of the loss, by s */
    uint32_t *level;        /* -log2 p */
    uint32_t *used[TABLES]; /* which weights ... */
    double *pace[TABLES];   /* ... and their pace before any of them moves */
} candidates;

/* What else the n-gram cache lists. */
typedef struct others {
    uint32_t n;
    uint32_t *tokens;
    double *mass;
} others;

typedef struct gains {
    const fw_host *host;
    const curves *curves;
    gains_options options;
    uint32_t vocabulary;
    uint32_t max_order;
    uint32_t n_pairs;
    weight *weights; /* trust, followed and the tables in a row */
    weight *trust, *followed, *tables[TABLES];
    uint32_t n_tables; /* PAIR when there are none of these, else TABLES */
    uint32_t *entry;   /* V: a candidate's index; stale for others */
    candidates list;
    others rest;
    double share;      /* of the n-gram cache's statement */
    double normaliser; /* Z */
    weight *trusted;   /* the trust in use */
    struct {
        weight *weight;
        uint32_t candidate;
    } follows[MAX_ORDER];
    uint32_t n_follows;
} gains;

/* `shape` and the largest order decide about the sizes. E_MEMORY. */
fw_status gains_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                       gains_options options, gains *g, fw_error *error);
void gains_destroy(gains *g);
void gains_clear(gains *g);

/* Gather the candidates of a row, given what the n-gram cache (`mixer`) states of it in `stated`, a
 * mix; at most `most` tokens in all. Fills list, rest, share and normaliser. */
void gains_state(gains *g, const blend *mixer, const contexts *here, const recent *document,
                 const fw_row *row, const fw_prediction *stated, uint32_t most);

/* What n-gram cache and tilt give `token`, which has p in the model's row. */
typedef struct given {
    uint32_t entry; /* among the candidates, or their number */
    double ngram, tilt;
} given;
given gains_given(const gains *g, uint32_t token, double p);

/* Learn from the token that came, for which gains_given gave `entry`. */
void gains_learn(gains *g, uint32_t entry);

uint64_t gains_bytes(const gains *g);

#endif
