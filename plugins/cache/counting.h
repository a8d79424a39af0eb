/* The parameters of every cache over the n-gram store: what its contexts count, and how its n-gram
 * experts are blended (blend.h). */
#ifndef CACHE_COUNTING_H
#define CACHE_COUNTING_H

#include "blend.h"

/* A plugin's table begins with these, in this order. */
enum {
    COUNTING_MAX_ORDER,
    COUNTING_MIN_ORDER,
    COUNTING_MIN_COUNT,
    COUNTING_DISCOUNT,
    COUNTING_MAX_FOLLOWERS,
    COUNTING_MATCH_LENGTH,
    COUNTING_STOP,
    COUNTING_EXCLUSION,
    COUNTING_MEMORY_MB,
    COUNTING_WEIGHT, /* a parameter of the plugin's own words, as is the next */
    COUNTING_WINDOW, /* where weights are learned */
    COUNTING_PARAMS_END
};

#define COUNTING_PARAMS(min_order_, discount_, max_followers_)                                     \
    FW_PARAM_RANGE(FW_PARAM_INT, "max_order", "0", 0, MAX_ORDER, "tokens",                         \
                   "longest context with counts; 0: 6 for vocabularies up to 512, else 4"),        \
        FW_PARAM_RANGE(FW_PARAM_INT, "min_order", min_order_, 1, MAX_ORDER, "tokens",              \
                       "shortest context that is asked"),                                          \
        FW_PARAM_RANGE(FW_PARAM_INT, "min_count", "1", 1, 1e9, "tokens",                           \
                       "a context is asked once it has counted this many"),                        \
        FW_PARAM_RANGE(FW_PARAM_FLOAT, "discount", discount_, 0, 0.99, "counts",                   \
                       "taken off each follower's count"),                                         \
        FW_PARAM_RANGE(FW_PARAM_INT, "max_followers", max_followers_, 1, 65536, "tokens",          \
                       "a context states its most frequent followers, at most so many"),           \
        FW_PARAM_RANGE(FW_PARAM_INT, "match_length", "32", 0, MAX_MATCH, "tokens",                 \
                       "repeats are told apart by length up to this; 0: ignore repeats"),          \
        FW_PARAM_RANGE(FW_PARAM_FLOAT, "stop", "0.01", 0, 1, "",                                   \
                       "shorter contexts are not asked once less than this share is left"),        \
        FW_PARAM_PLAIN(FW_PARAM_BOOL, "exclusion", "yes",                                          \
                       "count a token only down to the longest context that knew it"),             \
        FW_PARAM_RANGE(FW_PARAM_INT, "memory_mb", "2048", 4, 65536, "MiB",                         \
                       "no new contexts beyond this; known ones are still counted")

/* The longest context, 0 resolved. Errors: E_UNSUPPORTED, a vocabulary that `name` is not made for;
 * E_CONFIG, min_order above it. */
fw_status counting_order(const char *name, const fw_value *values, const fw_cache_shape *shape,
                         uint32_t *max_order, fw_error *error);

blend_options counting_blend(const fw_value *values, bool learn);

uint64_t counting_memory(const fw_value *values); /* memory_mb, in bytes */

/* What all else has of the memory, in bytes; and what it would have if memory_mb were larger, which
 * is no more than an eighth of what is added. */
typedef struct counting_taken {
    uint64_t bytes, most;
} counting_taken;

/* The contexts, in what is left of memory_mb. Errors: E_CONFIG when that is too little, with a
 * number that is enough; E_MEMORY. */
fw_status counting_contexts(const fw_host *host, const fw_value *values,
                            const fw_cache_shape *shape, uint32_t max_order, counting_taken taken,
                            contexts *here, fw_error *error);

#endif
