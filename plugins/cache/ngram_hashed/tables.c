/* Every lookup is a cache miss in tables of this size. So the contexts' buckets of a position are
 * fetched together, and while a block is counted those of tokens further on are on their way. */
#include "tables.h"

#include <string.h>

#include "../prefetch.h"

static const uint32_t primes[MOST_ORDER] = {36313, 27191, 51647, 81929, 131071, 196613, 262147};

enum { AHEAD = 6 }; /* tokens whose buckets are fetched ahead: 12 buckets each */

fw_status tables_create(const fw_host *host, uint32_t min_order, uint32_t max_order, uint32_t size,
                        tables *t, fw_error *error) {
    const size_t n = (size_t)2 * (max_order - min_order + 1) * size;
    *t = (tables){.host = host,
                  .min_order = min_order,
                  .max_order = max_order,
                  .mask = size - 1,
                  .bytes = n * sizeof *t->counts};
    t->counts = host->allocate(host, n * sizeof *t->counts);
    if (t->counts == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %llu MiB of hashed counts",
                       (unsigned long long)(t->bytes >> 20));
    uint32_t *next = t->counts;
    for (uint32_t order = min_order; order <= max_order; order++, next += 2 * (size_t)size) {
        t->contexts[order - LEAST_ORDER] = next;
        t->pairs[order - LEAST_ORDER] = next + size;
    }
    tables_clear(t);
    return FW_OK;
}

void tables_destroy(tables *t) {
    if (t->counts != NULL) t->host->release(t->host, t->counts);
    t->counts = NULL;
}

void tables_clear(tables *t) { memset(t->counts, 0, (size_t)t->bytes); }

place tables_place(const tables *t, const uint32_t *context, uint32_t n) {
    place made = {.n_context = n};
    for (uint32_t order = t->min_order; order <= t->max_order && order - 1 <= n; order++) {
        const uint32_t width = order - 1;
        uint32_t hash = 0;
        for (uint32_t k = 0; k < width; k++) hash ^= context[n - width + k] * primes[k];
        made.hash[order - LEAST_ORDER] = hash;
    }
    return made;
}

static uint32_t highest(const tables *t, const place *at) {
    return at->n_context + 1 < t->max_order ? at->n_context + 1 : t->max_order;
}

uint32_t tables_match(const tables *t, const place *at, uint32_t least, uint32_t *count) {
    uint32_t counts[MOST_ORDERS] = {0};
    for (uint32_t order = t->min_order; order <= highest(t, at); order++) {
        const uint32_t i = order - LEAST_ORDER;
        counts[i] = t->contexts[i][at->hash[i] & t->mask];
    }
    for (uint32_t order = highest(t, at); order >= t->min_order; order--) {
        *count = counts[order - LEAST_ORDER];
        if (*count >= least) return order;
    }
    return 0;
}

static uint32_t *pair_of(const tables *t, const place *at, uint32_t order, uint32_t token) {
    const uint32_t i = order - LEAST_ORDER;
    return &t->pairs[i][(at->hash[i] ^ token * primes[order - 1]) & t->mask];
}

uint32_t tables_pair(const tables *t, const place *at, uint32_t order, uint32_t token) {
    return *pair_of(t, at, order, token);
}

static void fetch(const tables *t, const place *at, uint32_t token) {
    for (uint32_t order = t->min_order; order <= highest(t, at); order++) {
        const uint32_t i = order - LEAST_ORDER;
        prefetch(&t->contexts[i][at->hash[i] & t->mask]);
        prefetch(pair_of(t, at, order, token));
    }
}

void tables_count(tables *t, const place *at, const uint32_t *tokens, uint64_t n) {
    for (uint64_t i = 0; i < n && i < AHEAD; i++) fetch(t, &at[i], tokens[i]);
    for (uint64_t i = 0; i < n; i++) {
        if (i + AHEAD < n) fetch(t, &at[i + AHEAD], tokens[i + AHEAD]);
        for (uint32_t order = t->min_order; order <= highest(t, &at[i]); order++) {
            const uint32_t table = order - LEAST_ORDER;
            t->contexts[table][at[i].hash[table] & t->mask]++;
            (*pair_of(t, &at[i], order, tokens[i]))++;
        }
    }
}
