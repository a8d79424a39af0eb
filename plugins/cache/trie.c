/* Nodes of 16 bytes and follower lists in pages of 1 MiB that never move. Pages are cut from
 * chunks, which grow with the store: large ones lie on few large pages of the system's memory, and
 * a lookup then seldom waits for an address to be translated.
 *
 * Most contexts have one follower, which lives inside the node. Longer lists are blocks of tokens,
 * counts and children side by side (so that a search reads tokens only), with a capacity that is a
 * power of two; an outgrown block goes to the free list of its size. */
#include "trie.h"

#include <string.h>

#include "prefetch.h"

enum {
    PAGE_BYTES = 1 << 20,
    NODE_SHIFT = 16, /* nodes in a page: 65,536 of 16 bytes */
    WORD_SHIFT = 18, /* words in a page: 262,144 of 4 bytes */
    SIZES = 17,      /* blocks of 2^1 .. 2^16 followers */
    MOST_CHUNKS = 64 /* enough for 2^17 pages */
};

typedef struct node {
    uint32_t total;
    uint32_t distinct;
    uint32_t first;  /* distinct == 1: the token; more: the block's first word */
    uint32_t second; /* distinct == 1: the child; more: log2 of the block's capacity */
} node;

/* Pages of one sort; `table` is sized for the bound once. */
typedef struct pages {
    void **table;
    uint32_t n;
    uint32_t used; /* entries handed out, counting skipped page ends */
} pages;

typedef struct chunk {
    char *memory;
    uint32_t n_pages;
} chunk;

struct trie {
    const fw_host *host;
    uint32_t max_pages; /* of both sorts together */
    uint32_t n_pages;   /* in all chunks */
    chunk chunks[MOST_CHUNKS];
    uint32_t n_chunks;
    uint32_t at_chunk, at_page; /* the next page that is not in use */
    pages nodes;
    pages words;
    uint32_t free_blocks[SIZES]; /* first word of a free block by log2 of capacity, or 0 */
};

static node *node_at(const trie *store, uint32_t id) {
    return (node *)store->nodes.table[id >> NODE_SHIFT] + (id & ((1u << NODE_SHIFT) - 1));
}

static uint32_t *words_at(const trie *store, uint32_t word) {
    return (uint32_t *)store->words.table[word >> WORD_SHIFT] + (word & ((1u << WORD_SHIFT) - 1));
}

/* Pages of the next chunk: one at first, later a quarter of those that are there, so that few
 * chunks make any size; no more than the bound leaves. */
static uint32_t next_chunk(const trie *store) {
    const uint32_t left = store->max_pages - store->n_pages;
    const uint32_t n = store->n_pages < 4 ? 1 : store->n_pages / 4 + 1;
    return n < left ? n : left;
}

/* Where memory is short a smaller chunk may still be had. */
static bool take_chunk(trie *store) {
    if (store->n_chunks == MOST_CHUNKS) return false;
    for (uint32_t n = next_chunk(store); n > 0; n /= 2) {
        void *memory = store->host->allocate(store->host, (size_t)n * PAGE_BYTES);
        if (memory == NULL) continue;
        store->chunks[store->n_chunks++] = (chunk){memory, n};
        store->n_pages += n;
        return true;
    }
    return false;
}

static void *take_page(trie *store) {
    if (store->at_chunk == store->n_chunks && !take_chunk(store)) return NULL;
    const chunk *from = &store->chunks[store->at_chunk];
    void *page = from->memory + (size_t)store->at_page * PAGE_BYTES;
    if (++store->at_page == from->n_pages) {
        store->at_page = 0;
        store->at_chunk++;
    }
    return page;
}

/* Hand out `n` consecutive entries that share a page of 2^shift entries; 0 when full. */
static uint32_t take(trie *store, pages *from, uint32_t n, unsigned shift) {
    const uint32_t size = 1u << shift;
    uint32_t at = from->used;
    if ((at & (size - 1)) + n > size) at = (at | (size - 1)) + 1;
    if (at > UINT32_MAX - n) return 0;
    if (at >> shift >= from->n) {
        void *page = take_page(store);
        if (page == NULL) return 0;
        from->table[from->n++] = page;
    }
    from->used = at + n;
    return at;
}

trie *trie_create(const fw_host *host, uint64_t bound) {
    trie *store = host->allocate(host, sizeof *store);
    if (store == NULL) return NULL;
    const uint64_t most = UINT64_C(1) << 17; /* 32-bit indices end there */
    uint64_t n_pages = bound / PAGE_BYTES;
    if (n_pages < 2) n_pages = 2;
    if (n_pages > most) n_pages = most;
    *store = (trie){.host = host, .max_pages = (uint32_t)n_pages};
    store->nodes.table = host->allocate(host, n_pages * sizeof(void *));
    store->words.table = host->allocate(host, n_pages * sizeof(void *));
    if (store->nodes.table == NULL || store->words.table == NULL) {
        trie_destroy(store);
        return NULL;
    }
    trie_clear(store);
    return store;
}

void trie_destroy(trie *store) {
    if (store == NULL) return;
    const fw_host *host = store->host;
    for (uint32_t i = 0; i < store->n_chunks; i++) host->release(host, store->chunks[i].memory);
    if (store->nodes.table != NULL) host->release(host, store->nodes.table);
    if (store->words.table != NULL) host->release(host, store->words.table);
    host->release(host, store);
}

void trie_clear(trie *store) {
    store->nodes.n = store->words.n = 0; /* so that room is shared out as in a new store */
    store->at_chunk = store->at_page = 0;
    store->nodes.used = 1; /* entry 0 stands for none */
    store->words.used = 1;
    for (uint32_t i = 0; i < SIZES; i++) store->free_blocks[i] = 0;
}

uint32_t trie_add(trie *store) {
    const uint32_t id = take(store, &store->nodes, 1, NODE_SHIFT);
    if (id != 0) *node_at(store, id) = (node){0, 0, 0, 0};
    return id;
}

static uint32_t take_block(trie *store, uint32_t size) {
    const uint32_t block = store->free_blocks[size];
    if (block == 0) return take(store, &store->words, 3u << size, WORD_SHIFT);
    store->free_blocks[size] = *words_at(store, block);
    return block;
}

static void give_block(trie *store, uint32_t block, uint32_t size) {
    *words_at(store, block) = store->free_blocks[size];
    store->free_blocks[size] = block;
}

trie_followers trie_look(const trie *store, uint32_t id) {
    const node *here = node_at(store, id);
    if (here->distinct <= 1)
        return (trie_followers){here->distinct, here->total, &here->first, &here->total};
    const uint32_t *tokens = words_at(store, here->first);
    return (trie_followers){here->distinct, here->total, tokens, tokens + (1u << here->second)};
}

/* Place of `token` among n tokens, or n. Groups of eight let the compiler compare in parallel. */
static uint32_t place_of(const uint32_t *tokens, uint32_t n, uint32_t token) {
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint32_t any = 0;
        for (uint32_t k = 0; k < 8; k++) any |= tokens[i + k] == token;
        if (any != 0) break;
    }
    while (i < n && tokens[i] != token) i++;
    return i;
}

/* First place in the descending `counts` that holds `count`, which stands at `place`. */
static uint32_t first_equal(const uint32_t *counts, uint32_t place, uint32_t count) {
    uint32_t low = 0, high = place;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (counts[middle] > count)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void swap(uint32_t *a, uint32_t *b) {
    const uint32_t kept = *a;
    *a = *b;
    *b = kept;
}

/* Move what a node holds into a block of 2^size followers. */
static bool move_to_block(trie *store, node *here, uint32_t size) {
    const uint32_t block = take_block(store, size);
    if (block == 0) return false;
    uint32_t *to = words_at(store, block);
    if (here->distinct == 1) {
        to[0] = here->first;
        to[1u << size] = here->total;
        to[2u << size] = here->second;
    } else {
        const uint32_t *from = words_at(store, here->first);
        for (uint32_t part = 0; part < 3; part++)
            memcpy(to + (part << size), from + (part << here->second), sizeof *to * here->distinct);
        give_block(store, here->first, here->second);
    }
    here->first = block;
    here->second = size;
    return true;
}

static uint32_t *add_follower(trie *store, node *here, uint32_t token) {
    if (here->distinct == 0) {
        *here = (node){1, 1, token, TRIE_NONE};
        return &here->second;
    }
    if (here->distinct == 1 && !move_to_block(store, here, 1)) return NULL;
    if (here->distinct > 1 && here->distinct == 1u << here->second &&
        !move_to_block(store, here, here->second + 1))
        return NULL;
    const uint32_t at = here->distinct++;
    uint32_t *tokens = words_at(store, here->first);
    tokens[at] = token;
    tokens[(1u << here->second) + at] = 1;
    tokens[(2u << here->second) + at] = TRIE_NONE;
    here->total++;
    return &tokens[(2u << here->second) + at];
}

trie_place trie_find(const trie *store, uint32_t id, uint32_t token) {
    const trie_place absent = {TRIE_ABSENT, 0};
    const node *here = node_at(store, id);
    if (here->distinct == 0) return absent;
    if (here->distinct == 1) return here->first == token ? (trie_place){0, here->total} : absent;
    const uint32_t *tokens = words_at(store, here->first);
    const uint32_t place = place_of(tokens, here->distinct, token);
    if (place == here->distinct) return absent;
    return (trie_place){place, tokens[(1u << here->second) + place]};
}

uint32_t *trie_count(trie *store, uint32_t id, uint32_t token, trie_place place) {
    node *here = node_at(store, id);
    if (place.rank == TRIE_ABSENT) return add_follower(store, here, token);
    here->total++;
    if (here->distinct == 1) return &here->second;
    uint32_t *tokens = words_at(store, here->first);
    uint32_t *counts = tokens + (1u << here->second), *children = tokens + (2u << here->second);
    const uint32_t front = first_equal(counts, place.rank, place.count);
    if (front != place.rank) {
        swap(&tokens[front], &tokens[place.rank]);
        swap(&children[front], &children[place.rank]);
    }
    counts[front]++;
    return &children[front];
}

uint32_t *trie_child(trie *store, uint32_t id, uint32_t rank) {
    node *here = node_at(store, id);
    if (here->distinct == 1) return &here->second;
    return words_at(store, here->first) + (2u << here->second) + rank;
}

void trie_prefetch_node(const trie *store, uint32_t id) {
    if (id != TRIE_NONE) prefetch(node_at(store, id));
}

void trie_prefetch_list(const trie *store, uint32_t id, uint32_t n) {
    const node *here = node_at(store, id);
    if (here->distinct <= 1) return;
    const uint32_t *tokens = words_at(store, here->first);
    const uint32_t most = here->distinct < n ? here->distinct : n;
    const uint32_t words_per_line = 16;
    for (uint32_t i = 0; i < most; i += words_per_line) {
        prefetch(tokens + i);
        prefetch(tokens + (1u << here->second) + i);
    }
}

uint64_t trie_bytes(const trie *store) {
    const uint64_t in_pages = (uint64_t)store->n_pages * PAGE_BYTES;
    return in_pages + 2 * sizeof(void *) * (uint64_t)store->max_pages + sizeof *store;
}
