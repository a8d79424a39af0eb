#include "recent.h"

#include <string.h>

static size_t slot_bytes(const recent *here) { return sizeof *here->contexts << here->slot_bits; }

fw_status recent_create(const fw_host *host, const fw_cache_shape *shape, uint32_t slot_bits,
                        recent *here, fw_error *error) {
    *here = (recent){.host = host,
                     .vocabulary = shape->vocabulary,
                     .boundary = shape->token_is_boundary,
                     .slot_bits = slot_bits};
    here->tokens = host->allocate(host, here->vocabulary * sizeof *here->tokens);
    here->contexts = host->allocate(host, slot_bytes(here));
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
    memset(here->contexts, 0, slot_bytes(here));
    here->position = here->begin = here->last = 0;
}

static bool in_document(const recent *here, uint32_t after) { return after > here->begin; }

/* How many of the ascending `steps` the number reaches, without a branch. */
static uint32_t level_among(const uint32_t *steps, uint32_t n, uint32_t number) {
    uint32_t level = 0;
    for (uint32_t i = 0; i < n; i++) level += number >= steps[i];
    return level;
}

static uint32_t distance_level(uint32_t distance) {
    static const uint32_t steps[RECENT_DISTANCES - 1] = {8, 32, 128, 512, 2048};
    return level_among(steps, RECENT_DISTANCES - 1, distance);
}

static uint32_t count_level(uint32_t count) {
    static const uint32_t steps[RECENT_COUNTS - 1] = {2, 4, 8, 20};
    return level_among(steps, RECENT_COUNTS - 1, count);
}

static uint32_t class_of(const recent *here, token_use use) {
    const uint32_t distance = here->position - use.after + 1;
    const uint32_t lately = distance_level(distance) * RECENT_COUNTS + use.level;
    const uint32_t elsewhere = use.after == 0 ? RECENT_NEVER : RECENT_EARLIER;
    return in_document(here, use.after) ? lately : elsewhere;
}

void recent_classes(const recent *here, const uint32_t *tokens, uint32_t n, uint32_t *classes) {
    for (uint32_t i = 0; i < n; i++) classes[i] = class_of(here, here->tokens[tokens[i]]);
}

/* Fibonacci hashing (Knuth): nodes are numbered in a row, and so they spread evenly. */
static uint32_t slot_of(const recent *here, uint32_t node) {
    return node * UINT32_C(0x9e3779b1) >> (32 - here->slot_bits);
}

uint32_t recent_followers(const recent *here, const contexts *now, uint32_t *tokens,
                          uint32_t *orders) {
    uint32_t n = 0;
    for (uint32_t o = 1; o <= now->max_order; o++) {
        const uint32_t node = now->active[o];
        const context_use *use = &here->contexts[slot_of(here, node)];
        tokens[n] = use->token;
        orders[n] = o;
        n += (node != TRIE_NONE) & (use->node == node) & in_document(here, use->after);
    }
    return n;
}

void recent_advance(recent *here, const contexts *now, uint32_t token) {
    const uint32_t after = here->position + 1;
    for (uint32_t o = 1; o <= now->max_order; o++)
        if (now->active[o] != TRIE_NONE)
            here->contexts[slot_of(here, now->active[o])] =
                (context_use){now->active[o], after, token};
    if (here->boundary != NULL && here->boundary[token]) here->begin = here->position;
    token_use *use = &here->tokens[token];
    const uint32_t count = in_document(here, use->after) ? use->count + 1u : 1u;
    *use = (token_use){after, (uint16_t)(count < UINT16_MAX ? count : UINT16_MAX),
                       (uint16_t)count_level(count)};
    here->position = after;
    here->last = token;
}

uint64_t recent_bytes(const recent *here) {
    return here->vocabulary * sizeof *here->tokens + slot_bytes(here);
}
