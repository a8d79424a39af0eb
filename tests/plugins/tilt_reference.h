/* The tilt cache once more, as slowly and plainly as possible: over ngram_reference, with
 * distributions over the whole vocabulary and the document searched from end to end. */
#ifndef TILT_REFERENCE_H
#define TILT_REFERENCE_H

#include "ngram_reference.h"

typedef struct tilt_options {
    reference_options ngram;
    double likely, trust_rate, rate, switching;
    uint32_t pairs;       /* weights of pairs at most */
    uint32_t boundary;    /* the token that begins a document */
    uint32_t recent_bits; /* of places for contexts; 0: each has its own */
} tilt_options;

struct tilt_reference;

struct tilt_reference *tilt_reference_create(tilt_options options, uint32_t max_tokens);
void tilt_reference_destroy(struct tilt_reference *r);

/* The distribution of the next token (V values) above the model's row. */
void tilt_reference_predict(struct tilt_reference *r, const double *model, double *probabilities);

/* The next token, after tilt_reference_predict or without it. */
void tilt_reference_update(struct tilt_reference *r, uint32_t token);

#endif
