#include "recent.h"

#include <string.h>

enum { SLOT_BITS = 13, SLOTS = 1 << SLOT_BITS };

fw_status recent_create(const fw_host *host, const fw_cache_shape *shape, recent *here,
                        fw_error *error) {
    *here = (recent){
        .host = host, .vocabulary = shape->vocabulary, .boundary = shape->token_is_boundary};
    here->tokens = host->allocate(host, here->vocabulary * sizeof *here->tokens);
    here->contexts = host->allocate(host, SLOTS * sizeof *here->contexts);
    if (here->tokens == NULL || here->contexts == NULL) {
        recent_destroy(here);
        return fw_fail(error, FW_E_MEMORY, "no memory for the document of the tilt cache");
    }
    recent_clear(here);
    return FW_OK;
}

void recent_destroy(recent *here) {
    if (here->tokens != NULL) here->host->release(here->host, here->tokens);
    if (here->contexts != NULL) here->host->release(here->host, here->contexts);
    *here = (recent){.host = here->host};
}

void recent_clear(recent *here) {
    memset(here->tokens, 0, here->vocabulary * sizeof *here->tokens);
    memset(here->contexts, 0, SLOTS * sizeof *here->contexts);
    here->position = here->begin = 0;
}

static bool in_document(const recent *here, uint32_t after) { return after > here->begin; }

static uint32_t distance_level(uint32_t distance) {
    uint32_t level = 0;
    while (level + 1 < RECENT_DISTANCES && distance >= 8u << 2 * level) level++;
    return level;
}

static uint32_t count_level(uint32_t count) {
    static const uint32_t steps[RECENT_COUNTS - 1] = {2, 4, 8, 20};
    uint32_t level = 0;
    for (uint32_t i = 0; i < RECENT_COUNTS - 1; i++) level += count >= steps[i];
    return level;
}

uint32_t recent_class(const recent *here, uint32_t token) {
    const token_use use = here->tokens[token];
    if (use.after == 0) return RECENT_NEVER;
    if (!in_document(here, use.after)) return RECENT_EARLIER;
    const uint32_t distance = here->position - use.after + 1;
    return distance_level(distance) * RECENT_COUNTS + count_level(use.count);
}

static uint32_t slot_of(uint32_t node) { return node * UINT32_C(0x9e3779b1) >> (32 - SLOT_BITS); }

bool recent_follower(const recent *here, uint32_t node, uint32_t *token) {
    const context_use *use = &here->contexts[slot_of(node)];
    if (use->node != node || !in_document(here, use->after)) return false;
    *token = use->token;
    return true;
}

void recent_advance(recent *here, const contexts *now, uint32_t token) {
    const uint32_t after = here->position + 1;
    for (uint32_t o = 1; o <= now->max_order; o++)
        if (now->active[o] != TRIE_NONE)
            here->contexts[slot_of(now->active[o])] = (context_use){now->active[o], after, token};
    token_use *use = &here->tokens[token];
    use->count = in_document(here, use->after) ? use->count + 1 : 1;
    use->after = after;
    if (here->boundary != NULL && here->boundary[token]) here->begin = here->position;
    here->position = after;
}

uint64_t recent_bytes(const recent *here) {
    return here->vocabulary * sizeof *here->tokens + SLOTS * sizeof *here->contexts;
}
