/* Where the stream stands: for every order o the trie node of the last o tokens, and the most
 * recent earlier place that continued like the present ("match"), for contexts longer than the
 * trie keeps. Nodes are carried along: the context of order o + 1 after token x is the child x of
 * the context of order o before it, so nothing is ever searched from the root. */
#ifndef CACHE_CONTEXTS_H
#define CACHE_CONTEXTS_H

#include "trie.h"

enum { MAX_ORDER = 32, MAX_MATCH = 64 };

typedef struct contexts {
    const fw_host *host;
    trie *store;
    uint32_t vocabulary;
    uint32_t max_order;
    bool exclusion;  /* count a token only down to the longest context that knew it */
    uint32_t *roots; /* V: node of each context of one token, or TRIE_NONE */
    uint32_t *ring;  /* the last `ring_size` tokens (a power of two) */
    uint32_t ring_size;
    uint32_t position;               /* tokens seen, modulo 2^32 */
    uint32_t active[MAX_ORDER + 2];  /* by order, from 1; TRIE_NONE where unknown */
    trie_place found[MAX_ORDER + 2]; /* by order: where the last token stood before it counted */
    uint32_t match;        /* position of the token that the match predicts; when match_length */
    uint32_t match_length; /* tokens before it that agree, up to MAX_MATCH; 0: no match */
} contexts;

/* `memory` bounds everything together, in bytes. E_MEMORY. */
fw_status contexts_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                          bool exclusion, uint64_t memory, contexts *here, fw_error *error);
void contexts_destroy(contexts *here);
void contexts_clear(contexts *here);

/* Look `token` up in every active context, filling `found`. */
void contexts_find(contexts *here, uint32_t token);

/* Count the token that contexts_find was called with, and move to the next position. */
void contexts_advance(contexts *here, uint32_t token);

/* The token that the match predicts; match_length must not be 0. */
uint32_t contexts_match_token(const contexts *here);

uint64_t contexts_bytes(const contexts *here);

#endif
