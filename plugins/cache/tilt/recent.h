/* What the document at hand has said so far: where and how often each token came, and which token
 * followed each context the last time. Words come again in the text that used them, and the counts
 * of the whole stream do not know where a text begins.
 *
 * Contexts have 2^slot_bits places. They are numbered from 1 as they first stand in the stream, at
 * one position the longest first; number k has place floor(2^slot_bits / 2^32 (k 0x9e3779b1 mod
 * 2^32)), where the last one that a token followed stays, of those at one position the longest. */
#ifndef TILT_RECENT_H
#define TILT_RECENT_H

#include "../contexts.h"

enum {
    RECENT_DISTANCES = 6, /* below 8, 32, 128, 512, 2048 tokens ago, or more */
    RECENT_COUNTS = 5,    /* 1, 2, 4, 8 or 20 times at least */
    RECENT_EARLIER = RECENT_DISTANCES * RECENT_COUNTS, /* an earlier document had the token */
    RECENT_NEVER,
    RECENT_CLASSES
};

/* A token's last place in the stream, and how often the last document with it had it. */
typedef struct token_use {
    uint32_t after; /* 1 + its position; 0: never seen */
    uint16_t count; /* up to 2^16 - 1 */
    uint16_t level; /* of the count, below RECENT_COUNTS */
} token_use;

typedef struct context_use {
    uint32_t node;  /* the context, as the trie names it */
    uint32_t after; /* 1 + position of the token that followed it */
    uint32_t token;
} context_use;

typedef struct recent {
    const fw_host *host;
    uint32_t vocabulary;
    const uint8_t *boundary; /* V: does the token start a document; NULL: none does */
    token_use *tokens;       /* V */
    context_use *contexts;   /* one place for all contexts of the same hash: the last one stays */
    uint32_t slot_bits;      /* there are 2^slot_bits such places */
    uint32_t position;       /* tokens seen, modulo 2^32 */
    uint32_t last;           /* the last token seen; 0 before the first */
    uint32_t begin;          /* position of the document's first token */
} recent;

/* Remembers 2^slot_bits contexts at most. E_MEMORY. */
fw_status recent_create(const fw_host *host, const fw_cache_shape *shape, uint32_t slot_bits,
                        recent *here, fw_error *error);
void recent_destroy(recent *here);
void recent_clear(recent *here);

/* Which of RECENT_CLASSES each of n tokens belongs to. */
void recent_classes(const recent *here, const uint32_t *tokens, uint32_t n, uint32_t *classes);

/* For the contexts in which `now` stands: the tokens that followed them the last time in this
 * document, and the orders of those contexts, from the shortest. Both have room for MAX_ORDER.
 * Returns how many are known. */
uint32_t recent_followers(const recent *here, const contexts *now, uint32_t *tokens,
                          uint32_t *orders);

/* `token` comes now, after the contexts in which `now` stands. */
void recent_advance(recent *here, const contexts *now, uint32_t token);

uint64_t recent_bytes(const recent *here);

#endif
