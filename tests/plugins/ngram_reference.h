/* The n-gram caches once more, as slowly and plainly as possible: dictionaries searched from end to
 * end, distributions over the whole vocabulary, no sparse lists and no carried state. */
#ifndef NGRAM_REFERENCE_H
#define NGRAM_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct reference_options {
    bool learn, exclusion;
    uint32_t vocabulary, max_order, min_order, min_count, max_followers, match_length;
    double discount, stop, weight, window;
} reference_options;

struct reference;

struct reference *reference_create(reference_options options, uint32_t max_tokens);
void reference_destroy(struct reference *r);

/* The distribution of the next token (V values) above the model's row. */
void reference_predict(struct reference *r, const double *model, double *probabilities);

/* What reference_predict stated last is share p(v) + mass(v) for the model's p: the share, and the
 * mass of one token. */
double reference_share(const struct reference *r);
double reference_mass(const struct reference *r, uint32_t token);

/* The longest context that listed `token` in the last statement (0: the match), and how often it
 * was counted there (1 for the match). False when none did. */
bool reference_listed(struct reference *r, uint32_t token, uint32_t *order, uint32_t *count);

/* Tokens that agree before the place that the match follows; 0: there is none. */
uint32_t reference_match(const struct reference *r);

/* The next token, after reference_predict or without it. */
void reference_update(struct reference *r, uint32_t token);

#endif
