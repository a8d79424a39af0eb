/* Choosing a token from a row of log-probabilities: greedily, or at random from what temperature,
 * top-k and top-p leave of the row. In float64 and in a fixed order, so that a seed gives the same
 * tokens wherever it is given the same rows. */
#ifndef FAIRWAY_SAMPLING_H
#define FAIRWAY_SAMPLING_H

#include <fairway/error.h>

#include "random.h"

struct sampling_options {
    double temperature; /* of the row, > 0; 0: the most probable token, the first of several */
    uint32_t top_k;     /* only so many of the most probable; 0: all */
    double top_p;       /* only the fewest that hold so much of what is left, in (0, 1] */
    uint64_t seed;
};

struct sampler;

/* E_RANGE: a temperature below 0, top_p outside (0, 1]; E_MEMORY. */
fw_status sampler_create(const struct sampling_options *options, uint32_t vocabulary,
                         struct sampler **sampler, fw_error *error);
void sampler_destroy(struct sampler *sampler); /* NULL is fine */

/* The next token. E_NUMERIC: the row has a number that is none. */
fw_status sampler_take(struct sampler *sampler, const float *log_probabilities, uint32_t *token,
                       fw_error *error);

#endif
