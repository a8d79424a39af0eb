/* Two caches over one exact n-gram store (contexts.h):
 *   ngram         learns from the model's rows how far to trust each context (blend.h). On text
 *                 where the counts do not help it costs next to nothing.
 *   ngram_counts  trusts by a fixed formula of the counts. Weaker, but its state depends on the
 *                 tokens alone, so it can be warm-started anywhere in the stream. */
#include "../blend.h"

typedef struct ngram {
    const fw_host *host;
    uint32_t vocabulary;
    contexts here;
    blend mixer;
} ngram;

#define SHARED_PARAMS(min_order_, discount_)                                                       \
    FW_PARAM_RANGE(FW_PARAM_INT, "max_order", "0", 0, MAX_ORDER, "tokens",                         \
                   "longest context with counts; 0: 6 for vocabularies up to 512, else 4"),        \
        FW_PARAM_RANGE(FW_PARAM_INT, "min_order", min_order_, 1, MAX_ORDER, "tokens",              \
                       "shortest context that is asked"),                                          \
        FW_PARAM_RANGE(FW_PARAM_INT, "min_count", "1", 1, 1e9, "tokens",                           \
                       "a context is asked once it has counted this many"),                        \
        FW_PARAM_RANGE(FW_PARAM_FLOAT, "discount", discount_, 0, 0.99, "counts",                   \
                       "taken off each follower's count"),                                         \
        FW_PARAM_RANGE(FW_PARAM_INT, "max_followers", "64", 1, 65536, "tokens",                    \
                       "a context states its most frequent followers, at most so many"),           \
        FW_PARAM_RANGE(FW_PARAM_INT, "match_length", "32", 0, MAX_MATCH, "tokens",                 \
                       "repeats are told apart by length up to this; 0: ignore repeats"),          \
        FW_PARAM_RANGE(FW_PARAM_FLOAT, "stop", "0.01", 0, 1, "",                                   \
                       "shorter contexts are not asked once less than this share is left"),        \
        FW_PARAM_PLAIN(FW_PARAM_BOOL, "exclusion", "yes",                                          \
                       "count a token only down to the longest context that knew it"),             \
        FW_PARAM_RANGE(FW_PARAM_INT, "memory_mb", "2048", 4, 65536, "MiB",                         \
                       "no new contexts beyond this; known ones are still counted")

enum {
    PARAM_MAX_ORDER,
    PARAM_MIN_ORDER,
    PARAM_MIN_COUNT,
    PARAM_DISCOUNT,
    PARAM_MAX_FOLLOWERS,
    PARAM_MATCH_LENGTH,
    PARAM_STOP,
    PARAM_EXCLUSION,
    PARAM_MEMORY_MB,
    PARAM_WEIGHT,
    PARAM_WINDOW
};

static const fw_param ngram_params[] = {
    SHARED_PARAMS("1", "0.2"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight", "0.2", 1e-5, 0.99, "",
                   "where the learned weight of each kind of context starts"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "window", "64", 2, 1e9, "tokens",
                   "uses of a kind of context over which its weight averages"),
};

static const fw_param counts_params[] = {
    SHARED_PARAMS("2", "0.7"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight", "0.1", 1e-5, 0.99, "",
                   "trust in every context, times what discounting leaves to its followers"),
};

/* What is left of the memory for contexts must hold a few pages of the trie. */
static const uint64_t LEAST_CONTEXT_BYTES = UINT64_C(3) << 20;

static void destroy(void *self) {
    ngram *cache = self;
    if (cache == NULL) return;
    blend_destroy(&cache->mixer);
    contexts_destroy(&cache->here);
    cache->host->release(cache->host, cache);
}

static fw_status check_shape(const fw_cache_shape *shape, const fw_value *values,
                             uint32_t max_order, fw_error *error) {
    if (shape->vocabulary == 0 || shape->vocabulary > 65536)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the n-gram cache is made for 1 to 65536 tokens, not %u", shape->vocabulary);
    if (values[PARAM_MIN_ORDER].integer > max_order)
        return fw_fail(error, FW_E_CONFIG, "min_order %lld is above max_order %u",
                       (long long)values[PARAM_MIN_ORDER].integer, max_order);
    return FW_OK;
}

static fw_status build(ngram *cache, const fw_value *values, const fw_cache_shape *shape,
                       uint32_t max_order, blend_options options, fw_error *error) {
    FW_TRY(blend_create(cache->host, shape, max_order, options, &cache->mixer, error));
    const uint64_t memory = (uint64_t)values[PARAM_MEMORY_MB].integer << 20;
    const uint64_t taken = sizeof *cache + blend_bytes(&cache->mixer);
    if (memory < taken + LEAST_CONTEXT_BYTES)
        return fw_fail(error, FW_E_CONFIG,
                       "memory_mb = %lld leaves no room for contexts; %llu will do",
                       (long long)values[PARAM_MEMORY_MB].integer,
                       (unsigned long long)((taken + LEAST_CONTEXT_BYTES) >> 20) + 1);
    return contexts_create(cache->host, shape, max_order, values[PARAM_EXCLUSION].integer != 0,
                           memory - taken, &cache->here, error);
}

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        bool learn, void **self, fw_error *error) {
    uint32_t max_order = (uint32_t)values[PARAM_MAX_ORDER].integer;
    if (max_order == 0) max_order = shape->vocabulary <= 512 ? 6 : 4;
    FW_TRY(check_shape(shape, values, max_order, error));
    ngram *cache = host->allocate(host, sizeof *cache);
    if (cache == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for an n-gram cache");
    *cache = (ngram){.host = host, .vocabulary = shape->vocabulary};
    const blend_options options = {.learn = learn,
                                   .min_order = (uint32_t)values[PARAM_MIN_ORDER].integer,
                                   .min_count = (uint32_t)values[PARAM_MIN_COUNT].integer,
                                   .max_followers = (uint32_t)values[PARAM_MAX_FOLLOWERS].integer,
                                   .match_length = (uint32_t)values[PARAM_MATCH_LENGTH].integer,
                                   .stop = values[PARAM_STOP].real,
                                   .discount = values[PARAM_DISCOUNT].real,
                                   .weight = values[PARAM_WEIGHT].real,
                                   .window = learn ? values[PARAM_WINDOW].real : 0.0};
    const fw_status status = build(cache, values, shape, max_order, options, error);
    if (status != FW_OK) {
        destroy(cache);
        return status;
    }
    *self = cache;
    return FW_OK;
}

static fw_status create_learning(const fw_host *host, const fw_value *values,
                                 const fw_cache_shape *shape, void **self, fw_error *error) {
    return create(host, values, shape, true, self, error);
}

static fw_status create_counting(const fw_host *host, const fw_value *values,
                                 const fw_cache_shape *shape, void **self, fw_error *error) {
    return create(host, values, shape, false, self, error);
}

static fw_status begin(void *self, fw_error *error) {
    (void)error;
    ngram *cache = self;
    contexts_clear(&cache->here);
    blend_clear(&cache->mixer);
    return FW_OK;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    ngram *cache = self;
    if (row->vocabulary != cache->vocabulary)
        return fw_fail(error, FW_E_SHAPE, "the row at position %llu has %u tokens instead of %u",
                       (unsigned long long)row->position, row->vocabulary, cache->vocabulary);
    blend_predict(&cache->mixer, &cache->here, row, prediction);
    return FW_OK;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    ngram *cache = self;
    for (uint64_t i = 0; i < n; i++)
        if (tokens[i] >= cache->vocabulary)
            return fw_fail(error, FW_E_RANGE, "token %u, number %llu of an update, is not below %u",
                           tokens[i], (unsigned long long)i, cache->vocabulary);
    for (uint64_t i = 0; i < n; i++) {
        contexts_find(&cache->here, tokens[i]);
        blend_learn(&cache->mixer, &cache->here, tokens[i]);
        contexts_advance(&cache->here, tokens[i]);
    }
    return FW_OK;
}

static uint64_t memory_bytes(void *self) {
    const ngram *cache = self;
    return sizeof *cache + blend_bytes(&cache->mixer) + contexts_bytes(&cache->here);
}

static const fw_cache ngram_cache = {.struct_size = sizeof ngram_cache,
                                     .update_every = 1,
                                     .create = create_learning,
                                     .destroy = destroy,
                                     .begin = begin,
                                     .prefill = update,
                                     .predict = predict,
                                     .update = update,
                                     .memory_bytes = memory_bytes};

static const fw_cache counts_cache = {.struct_size = sizeof counts_cache,
                                      .update_every = 1,
                                      .counts_only = 1,
                                      .create = create_counting,
                                      .destroy = destroy,
                                      .begin = begin,
                                      .prefill = update,
                                      .predict = predict,
                                      .update = update,
                                      .memory_bytes = memory_bytes};

static const fw_plugin ngram_plugin = {
    .struct_size = sizeof ngram_plugin,
    .kind = FW_CACHE,
    .id = "ngram",
    .version = "1.0.0",
    .summary = "exact n-gram counts and repeats, trusted as far as they have beaten the model",
    .vendor = "Fairway",
    .license = "MIT",
    .devices = FW_CPU,
    .n_params = sizeof ngram_params / sizeof *ngram_params,
    .params = ngram_params,
    .vtable = &ngram_cache};

static const fw_plugin counts_plugin = {
    .struct_size = sizeof counts_plugin,
    .kind = FW_CACHE,
    .id = "ngram_counts",
    .version = "1.0.0",
    .summary = "exact n-gram counts and repeats with fixed trust; can be warm-started",
    .vendor = "Fairway",
    .license = "MIT",
    .devices = FW_CPU,
    .n_params = sizeof counts_params / sizeof *counts_params,
    .params = counts_params,
    .vtable = &counts_cache};

FW_DEFINE_MODULE(&ngram_plugin, &counts_plugin);
