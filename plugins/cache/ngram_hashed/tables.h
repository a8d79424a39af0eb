/* Hashed counts of contexts and of contexts with their token, as record 993 keeps them (pull
 * request 993 of openai/parameter-golf): for each order o two tables of one size, addressed by
 *     context = XOR of token[k] * prime[k] over the o - 1 tokens before,
 *     pair    = context XOR token * prime[o - 1],
 * both cut to the table's size. Context and pair fall into unrelated buckets, so what they count
 * is not a part and its whole: the ratio of the two is no probability. */
#ifndef HASHED_TABLES_H
#define HASHED_TABLES_H

#include <fairway/fairway.h>

enum { LEAST_ORDER = 2, MOST_ORDER = 7, MOST_CONTEXT = MOST_ORDER - 1, MOST_ORDERS = MOST_CONTEXT };

/* Contexts of one position, hashed: hash[o - LEAST_ORDER] for orders whose context exists. */
typedef struct place {
    uint32_t n_context; /* tokens before it, as far as orders ask */
    uint32_t hash[MOST_ORDERS];
} place;

typedef struct tables {
    const fw_host *host;
    uint32_t min_order, max_order, mask;
    uint64_t bytes;
    uint32_t *contexts[MOST_ORDERS], *pairs[MOST_ORDERS]; /* by order - LEAST_ORDER */
    uint32_t *counts;                                     /* all of them */
} tables;

/* `size` is a power of two. E_MEMORY. */
fw_status tables_create(const fw_host *host, uint32_t min_order, uint32_t max_order, uint32_t size,
                        tables *t, fw_error *error);
void tables_destroy(tables *t);
void tables_clear(tables *t);

/* Hash the last tokens of `context`, n of them. */
place tables_place(const tables *t, const uint32_t *context, uint32_t n);

/* The highest order whose context was counted `least` times or more, with that count; 0: none. */
uint32_t tables_match(const tables *t, const place *at, uint32_t least, uint32_t *count);

/* What the pair of that context and `token` was counted, collisions included. */
uint32_t tables_pair(const tables *t, const place *at, uint32_t order, uint32_t token);

/* Count `n` tokens, each at its place. */
void tables_count(tables *t, const place *at, const uint32_t *tokens, uint64_t n);

#endif
