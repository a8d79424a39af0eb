/* Made-up text and a made-up language model, by which caches can be probed without either: text
 * that a cache can learn from, and rows that depend on the last two tokens of a window, some sure,
 * some not. All of it follows from a seed, so that two processes make the same. */
#ifndef FAIRWAY_SYNTHETIC_H
#define FAIRWAY_SYNTHETIC_H

#include <stdbool.h>

#include "language_model.h"
#include "token_table.h"

/* A table of `vocabulary` tokens, of which token 0 begins a document. E_MEMORY. */
fw_status synthetic_table(uint32_t vocabulary, struct token_table **table, fw_error *error);

/* `n` tokens of documents from a small lexicon, which repeat themselves now and then. The stream
 * begins with what is rare in text: a document of nothing and some of one token. */
void synthetic_text(const struct token_table *table, uint64_t seed, uint64_t n, uint16_t *tokens);

struct synthetic_rows {
    uint32_t vocabulary;
    uint64_t seed;
    /* Rows of most tokens follow from this instead of from `seed`; those of the tokens that
     * synthetic_keeps_row() names do not. 0: all follow from `seed`. */
    uint64_t other_seed;
    bool uniform;   /* each token 1/V, whatever comes */
    int64_t length; /* of a window */
    const int32_t *inputs;
};

bool synthetic_keeps_row(uint32_t token);

/* The model; `rows` stays the caller's. It keeps a copy of nothing: what infer is handed must stay
 * until the rows are fetched. */
struct language_model synthetic_model(struct synthetic_rows *rows);

/* The log-probabilities behind `token`, which follows `previous` (-1: nothing). */
void synthetic_row(const struct synthetic_rows *rows, int32_t previous, int32_t token,
                   float *log_probabilities);

#endif
