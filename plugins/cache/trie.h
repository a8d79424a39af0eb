/* An exact store of contexts: a trie over the token stream in which every node is one context (the
 * tokens on its path, oldest first) and holds the exact number of times each token followed it.
 *
 * A follower list is searched by token and kept sorted by count, so the most frequent followers are
 * its beginning. Nothing is hashed: two contexts never share a count. Memory grows up to a bound;
 * beyond it known followers are still counted and new ones are not. */
#ifndef CACHE_TRIE_H
#define CACHE_TRIE_H

#include <stdbool.h>

#include <fairway/fairway.h>

/* No child: also what a fresh child slot holds. */
#define TRIE_NONE UINT32_C(0)

typedef struct trie trie;

/* The followers of a node, most frequent first; ties in the order that counting left them. Valid
 * until the next trie_count. */
typedef struct trie_followers {
    uint32_t n;
    uint32_t total; /* sum of all n counts */
    const uint32_t *tokens;
    const uint32_t *counts;
} trie_followers;

/* Where a token stands in a node's follower list. */
typedef struct trie_place {
    uint32_t rank;  /* 0 is the most frequent follower; TRIE_ABSENT when it never followed */
    uint32_t count; /* 0 when absent */
} trie_place;

#define TRIE_ABSENT UINT32_MAX

/* A trie that holds at most about `bound` bytes; NULL without memory. */
trie *trie_create(const fw_host *host, uint64_t bound);
void trie_destroy(trie *store);

/* Forget every node but keep the memory. */
void trie_clear(trie *store);

/* A node without followers, or TRIE_NONE when the memory is full. */
uint32_t trie_add(trie *store);

trie_followers trie_look(const trie *store, uint32_t node);

trie_place trie_find(const trie *store, uint32_t node, uint32_t token);

/* Count the follower at `place`, as trie_find just gave it for `token`, once more, or add it when
 * it is absent. Returns its child slot, a word kept for the caller that a later addition to the
 * same node may move; NULL when it is new and the memory is full. A follower whose count grows
 * changes places with the first one that had the same count, so the list stays sorted. */
uint32_t *trie_count(trie *store, uint32_t node, uint32_t token, trie_place place);

/* The child slot of the follower at `rank`, without counting. */
uint32_t *trie_child(trie *store, uint32_t node, uint32_t rank);

/* Ask the processor to bring the node (TRIE_NONE: nothing), or its first n followers, into its
 * caches. */
void trie_prefetch_node(const trie *store, uint32_t node);
void trie_prefetch_list(const trie *store, uint32_t node, uint32_t n);

uint64_t trie_bytes(const trie *store);

#endif
