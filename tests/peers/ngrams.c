#include "ngrams.h"

#include <stdlib.h>

struct ngrams *ngrams_create(uint32_t order) {
    struct ngrams *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    *store = (struct ngrams){.n_nodes = NGRAMS_ROOT + 1, .room = 1024, .n_slots = 4096};
    store->order = order;
    store->contexts[0] = NGRAMS_ROOT;
    store->nodes = calloc(store->room, sizeof *store->nodes);
    store->keys = calloc(store->n_slots, sizeof *store->keys);
    store->ids = calloc(store->n_slots, sizeof *store->ids);
    if (store->nodes != NULL && store->keys != NULL && store->ids != NULL) return store;
    ngrams_destroy(store);
    return NULL;
}

void ngrams_destroy(struct ngrams *store) {
    if (store == NULL) return;
    free(store->nodes);
    free(store->keys);
    free(store->ids);
    free(store);
}

static uint64_t key_of(uint32_t context, uint32_t token) { return (uint64_t)context << 16 | token; }

/* The key's slot, or the free one where it belongs. */
static uint64_t slot_of(const uint64_t *keys, uint64_t n_slots, uint64_t key) {
    uint64_t slot = (key * UINT64_C(0x9e3779b97f4a7c15)) >> 20 & (n_slots - 1);
    while (keys[slot] != 0 && keys[slot] != key) slot = (slot + 1) & (n_slots - 1);
    return slot;
}

uint32_t ngrams_find(const struct ngrams *store, uint32_t context, uint32_t token) {
    return store->ids[slot_of(store->keys, store->n_slots, key_of(context, token))];
}

static bool grow_table(struct ngrams *store) {
    const uint64_t n_slots = 2 * store->n_slots;
    uint64_t *keys = calloc(n_slots, sizeof *keys);
    uint32_t *ids = calloc(n_slots, sizeof *ids);
    if (keys == NULL || ids == NULL) {
        free(keys);
        free(ids);
        return false;
    }
    for (uint64_t i = 0; i < store->n_slots; i++) {
        if (store->keys[i] == 0) continue;
        const uint64_t slot = slot_of(keys, n_slots, store->keys[i]);
        keys[slot] = store->keys[i];
        ids[slot] = store->ids[i];
    }
    free(store->keys);
    free(store->ids);
    store->keys = keys;
    store->ids = ids;
    store->n_slots = n_slots;
    return true;
}

static bool grow_nodes(struct ngrams *store) {
    struct ngrams_node *nodes = realloc(store->nodes, 2 * (size_t)store->room * sizeof *nodes);
    if (nodes == NULL || store->room > UINT32_MAX / 2) return false;
    store->nodes = nodes;
    store->room *= 2;
    return true;
}

/* The follower, added where it is new. */
static uint32_t follower(struct ngrams *store, uint32_t context, uint32_t token) {
    if (2 * (uint64_t)store->n_nodes >= store->n_slots && !grow_table(store)) return NGRAMS_NONE;
    if (store->n_nodes == store->room && !grow_nodes(store)) return NGRAMS_NONE;
    const uint64_t key = key_of(context, token), slot = slot_of(store->keys, store->n_slots, key);
    if (store->keys[slot] != 0) return store->ids[slot];
    const uint32_t id = store->n_nodes++;
    store->keys[slot] = key;
    store->ids[slot] = id;
    store->nodes[id] = (struct ngrams_node){.token = token, .next = store->nodes[context].first};
    store->nodes[context].first = id;
    return id;
}

bool ngrams_advance(struct ngrams *store, uint32_t token) {
    for (uint32_t o = 1; o <= store->order; o++) {
        store->events[o] = NGRAMS_NONE;
        if (store->contexts[o - 1] == NGRAMS_NONE) continue;
        store->events[o] = follower(store, store->contexts[o - 1], token);
        if (store->events[o] == NGRAMS_NONE) return false;
        store->nodes[store->events[o]].count++;
    }
    for (uint32_t o = 1; o < store->order; o++) store->contexts[o] = store->events[o];
    return true;
}

uint64_t ngrams_bytes(const struct ngrams *store) {
    return store->room * sizeof *store->nodes +
           store->n_slots * (sizeof *store->keys + sizeof *store->ids);
}
