/* The order in which counts grow is that of PPM with update exclusion: from the longest context
 * down to the first that already knew the token. Shorter contexts then count in how many different
 * longer ones a token appeared, which predicts better than raw frequency (Moffat 1990). */
#include "contexts.h"

#include <string.h>

/* Tokens that the ring holds: the whole stream when its length is known, within an eighth of the
 * memory. */
static uint32_t ring_tokens(uint64_t stream_tokens, uint64_t memory) {
    const uint64_t wanted = stream_tokens != 0 ? stream_tokens : UINT64_C(1) << 22;
    const uint64_t most = memory / 8 / sizeof(uint32_t);
    uint32_t size = 1024;
    while (size < wanted && 2 * (uint64_t)size <= most && size < UINT32_C(1) << 30) size *= 2;
    return size;
}

fw_status contexts_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                          bool exclusion, uint64_t memory, contexts *here, fw_error *error) {
    *here = (contexts){.host = host,
                       .vocabulary = shape->vocabulary,
                       .max_order = max_order,
                       .exclusion = exclusion,
                       .ring_size = ring_tokens(shape->stream_tokens, memory)};
    const size_t ring_bytes = here->ring_size * sizeof *here->ring;
    const size_t root_bytes = here->vocabulary * sizeof *here->roots;
    here->ring = host->allocate(host, ring_bytes);
    here->roots = host->allocate(host, root_bytes);
    const uint64_t rest = memory > ring_bytes + root_bytes ? memory - ring_bytes - root_bytes : 0;
    here->store = trie_create(host, rest);
    if (here->ring == NULL || here->roots == NULL || here->store == NULL) {
        contexts_destroy(here);
        return fw_fail(error, FW_E_MEMORY,
                       "no memory for the history of %u tokens of the n-gram "
                       "cache; lower memory_mb",
                       here->ring_size);
    }
    contexts_clear(here);
    return FW_OK;
}

void contexts_destroy(contexts *here) {
    if (here->ring != NULL) here->host->release(here->host, here->ring);
    if (here->roots != NULL) here->host->release(here->host, here->roots);
    trie_destroy(here->store);
    *here = (contexts){.host = here->host};
}

void contexts_clear(contexts *here) {
    trie_clear(here->store);
    memset(here->roots, 0, here->vocabulary * sizeof *here->roots);
    memset(here->active, 0, sizeof here->active);
    here->position = 0;
    here->match_length = 0;
    for (uint32_t o = 0; o <= MAX_ORDER + 1; o++) here->found[o] = (trie_place){TRIE_ABSENT, 0};
}

static uint32_t token_at(const contexts *here, uint32_t position) {
    return here->ring[position & (here->ring_size - 1)];
}

uint32_t contexts_match_token(const contexts *here) { return token_at(here, here->match); }

void contexts_find(contexts *here, uint32_t token) {
    for (uint32_t o = 1; o <= here->max_order; o++)
        here->found[o] = here->active[o] != TRIE_NONE
                             ? trie_find(here->store, here->active[o], token)
                             : (trie_place){TRIE_ABSENT, 0};
}

/* Count at one order; returns the follower's child slot or NULL when the memory is full. */
static uint32_t *visit(contexts *here, uint32_t order, uint32_t token, bool *known) {
    const trie_place place = here->found[order];
    if (place.rank != TRIE_ABSENT && *known && here->exclusion)
        return trie_child(here->store, here->active[order], place.rank);
    if (place.rank != TRIE_ABSENT) *known = true;
    return trie_count(here->store, here->active[order], token, place);
}

/* Extend the match by the token, or take `candidate`: the position after the last place where the
 * longest context was followed by this token (0: none). */
static void follow_match(contexts *here, uint32_t token, uint32_t candidate) {
    const bool right = here->match_length != 0 && contexts_match_token(here) == token;
    here->ring[here->position & (here->ring_size - 1)] = token;
    here->position++;
    if (right) {
        here->match++;
        if (here->match_length < MAX_MATCH) here->match_length++;
    } else {
        here->match = candidate;
        here->match_length = 0;
        const uint32_t reach = here->ring_size - 1 - MAX_MATCH;
        if (candidate == 0 || here->position - candidate > reach) return;
        while (here->match_length < MAX_MATCH && here->match_length < candidate &&
               token_at(here, candidate - 1 - here->match_length) ==
                   token_at(here, here->position - 1 - here->match_length))
            here->match_length++;
    }
    /* Never follow a match into tokens that the ring is about to overwrite. */
    if (here->position - here->match >= here->ring_size - 1) here->match_length = 0;
}

void contexts_advance(contexts *here, uint32_t token) {
    uint32_t candidate = 0;
    bool known = false;
    const uint32_t top = here->max_order;
    for (uint32_t o = top; o >= 1; o--) {
        uint32_t *slot = NULL;
        if (here->active[o] != TRIE_NONE) slot = visit(here, o, token, &known);
        if (o == top) {
            if (slot != NULL) {
                candidate = *slot;
                *slot = here->position + 1;
            }
            continue;
        }
        if (slot != NULL && *slot == TRIE_NONE) *slot = trie_add(here->store);
        here->active[o + 1] = slot != NULL ? *slot : TRIE_NONE;
        trie_prefetch_node(here->store, here->active[o + 1]);
    }
    if (here->roots[token] == TRIE_NONE) here->roots[token] = trie_add(here->store);
    here->active[1] = here->roots[token];
    trie_prefetch_node(here->store, here->active[1]);
    follow_match(here, token, candidate);
}

uint64_t contexts_bytes(const contexts *here) {
    return trie_bytes(here->store) + here->ring_size * sizeof *here->ring +
           here->vocabulary * sizeof *here->roots;
}
