/* What a cache stated, checked against the contract of fairway/cache.h, and the probability that
 * follows from it. Every violation is E_PROTOCOL with position, token and value.
 *
 * Of what predict() wrote, only form, n, lm_weight, `probability` and the host's own buffers are
 * read, never through its pointers. That holds as long as nobody else writes to buffers, row and
 * prediction meanwhile; giving the cache a row that is not the one checked is the caller's part
 * (cache_stream.c), and a thread of a plugin could still write to the buffers.
 *
 * Where the contract leaves room:
 *   - a mix whose lm_weight and masses are not negative is valid whatever their size; a negative
 *     mass must leave its token 1e-12 (PREDICTION_FLOOR) or more of probability;
 *   - lm_weight lies in [0, 1000]: beyond, masses that cancel it could hide more than the tolerance
 *     in the rounding of their sum; at 0 the unlisted tokens have probability 0 and the listed
 *     ones must reach the floor;
 *   - a distribution may give tokens probability 0, but scoring such a token is a violation,
 *     because its code would be infinitely long. */
#ifndef FAIRWAY_PREDICTION_H
#define FAIRWAY_PREDICTION_H

#include <fairway/cache.h>
#include <stdbool.h>

#define PREDICTION_FLOOR 1e-12

/* The host's side of fw_prediction, for caches over one vocabulary. */
struct prediction_buffers {
    uint32_t vocabulary;
    bool allow_unverified; /* set by the caller: on_violation = report; false at first */
    void *cache;           /* set by the caller: the instance that unverified forms are asked of */
    const fw_row *shown; /* set by the caller: the row they are asked with; NULL: the one checked */
    uint32_t *tokens;    /* V */
    double *values;      /* V */
    double *dense;       /* V */
    uint32_t *stamps;    /* V: the check that saw the token last */
    uint32_t stamp;
};

/* NULL without memory, or when the vocabulary is 0. */
struct prediction_buffers *prediction_buffers_create(uint32_t vocabulary);
void prediction_buffers_destroy(struct prediction_buffers *buffers); /* NULL is fine */

/* Point an empty prediction at the buffers, before each call of predict(). */
void prediction_prepare(struct prediction_buffers *buffers, fw_prediction *prediction);

/* The probability of `target` < V under what predict() wrote. O(n) for mix and tilt, O(V) for
 * dense. An unverified value is clipped to [1e-12, 1]. Errors: E_PROTOCOL, E_RANGE (target). */
fw_status prediction_probability(struct prediction_buffers *buffers, const fw_row *row,
                                 const fw_prediction *prediction, uint32_t target,
                                 double *probability, fw_error *error);

/* The whole distribution (V values), bit for bit what prediction_probability says of each token;
 * zeros are reported, not refused. Errors: E_PROTOCOL. */
fw_status prediction_full(struct prediction_buffers *buffers, const fw_row *row,
                          const fw_prediction *prediction, double *probabilities, fw_error *error);

#endif
