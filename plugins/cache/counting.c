#include "counting.h"

/* What is left of the memory for contexts must hold a few pages of the trie. */
static const uint64_t LEAST_CONTEXT_BYTES = UINT64_C(3) << 20;

fw_status counting_order(const char *name, const fw_value *values, const fw_cache_shape *shape,
                         uint32_t *max_order, fw_error *error) {
    uint32_t order = (uint32_t)values[COUNTING_MAX_ORDER].integer;
    if (order == 0) order = shape->vocabulary <= 512 ? 6 : 4;
    if (shape->vocabulary == 0 || shape->vocabulary > 65536)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the %s cache is made for 1 to 65536 tokens, not %u", name,
                       shape->vocabulary);
    if (values[COUNTING_MIN_ORDER].integer > order)
        return fw_fail(error, FW_E_CONFIG, "min_order %lld is above max_order %u",
                       (long long)values[COUNTING_MIN_ORDER].integer, order);
    *max_order = order;
    return FW_OK;
}

blend_options counting_blend(const fw_value *values, bool learn) {
    return (blend_options){.learn = learn,
                           .min_order = (uint32_t)values[COUNTING_MIN_ORDER].integer,
                           .min_count = (uint32_t)values[COUNTING_MIN_COUNT].integer,
                           .max_followers = (uint32_t)values[COUNTING_MAX_FOLLOWERS].integer,
                           .match_length = (uint32_t)values[COUNTING_MATCH_LENGTH].integer,
                           .stop = values[COUNTING_STOP].real,
                           .discount = values[COUNTING_DISCOUNT].real,
                           .weight = values[COUNTING_WEIGHT].real,
                           .window = learn ? values[COUNTING_WINDOW].real : 0.0};
}

uint64_t counting_memory(const fw_value *values) {
    return (uint64_t)values[COUNTING_MEMORY_MB].integer << 20;
}

/* In MiB. With N bytes more of memory at most N / 8 more of it are taken, and no more than `most`
 * in all. */
static uint64_t enough_memory(uint64_t taken, uint64_t most) {
    const uint64_t always = most + LEAST_CONTEXT_BYTES;
    const uint64_t growing = (taken + LEAST_CONTEXT_BYTES) / 7 * 8 + 8;
    const uint64_t bytes = growing < always ? growing : always, mib = UINT64_C(1) << 20;
    return (bytes + mib - 1) / mib;
}

fw_status counting_contexts(const fw_host *host, const fw_value *values,
                            const fw_cache_shape *shape, uint32_t max_order, counting_taken taken,
                            contexts *here, fw_error *error) {
    const uint64_t memory = counting_memory(values);
    if (memory < taken.bytes + LEAST_CONTEXT_BYTES)
        return fw_fail(error, FW_E_CONFIG,
                       "memory_mb = %lld leaves no room for contexts; %llu will do",
                       (long long)values[COUNTING_MEMORY_MB].integer,
                       (unsigned long long)enough_memory(taken.bytes, taken.most));
    return contexts_create(host, shape, max_order, values[COUNTING_EXCLUSION].integer != 0,
                           memory - taken.bytes, here, error);
}
