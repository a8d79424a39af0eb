/* An exact store of n-grams, plain on purpose: a trie whose edges lie in one hash table with full
 * keys, so that no two n-grams ever share a count. A node is an n-gram: as an event it was seen
 * `count` times, as a context it has followers, its children. */
#ifndef PEERS_NGRAMS_H
#define PEERS_NGRAMS_H

#include <stdbool.h>
#include <stdint.h>

enum { NGRAMS_NONE = 0, NGRAMS_ROOT = 1, NGRAMS_MOST_ORDER = 8 };

struct ngrams_node {
    uint32_t count;
    uint32_t token;       /* its last */
    uint32_t first, next; /* its first follower; the next follower of the same context */
};

struct ngrams {
    struct ngrams_node *nodes; /* by id */
    uint32_t n_nodes, room;
    uint64_t *keys; /* context << 16 | token; 0: free */
    uint32_t *ids;
    uint64_t n_slots;
    uint32_t order;
    /* By length: the node of the last tokens, NGRAMS_NONE until so many were seen. */
    uint32_t contexts[NGRAMS_MOST_ORDER];
    /* By length: the node of the n-gram that the last token completed. */
    uint32_t events[NGRAMS_MOST_ORDER + 1];
};

/* N-grams of 1 to `order` tokens; NULL without memory. */
struct ngrams *ngrams_create(uint32_t order);
void ngrams_destroy(struct ngrams *store); /* NULL is fine */

/* The n-gram of a context and the token behind it, or NGRAMS_NONE. */
uint32_t ngrams_find(const struct ngrams *store, uint32_t context, uint32_t token);

/* Count the next token of the stream in every context that it has; `events` and `contexts` follow.
 * False without memory. */
bool ngrams_advance(struct ngrams *store, uint32_t token);

uint64_t ngrams_bytes(const struct ngrams *store);

#endif
