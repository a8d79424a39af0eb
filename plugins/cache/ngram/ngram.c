/* Two caches over one exact n-gram store (contexts.h):
 *   ngram         learns from the model's rows how far to trust each context (blend.h). On text
 *                 where the counts do not help it costs next to nothing.
 *   ngram_counts  trusts by a fixed formula of the counts. Weaker, but its state depends on the
 *                 tokens alone, so it can be warm-started anywhere in the stream. */
#include "../counting.h"
#include "../given.h"

typedef struct ngram {
    const fw_host *host;
    uint32_t vocabulary;
    contexts here;
    blend mixer;
} ngram;

static const fw_param ngram_params[] = {
    COUNTING_PARAMS("1", "0.2", "64"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight", "0.2", 1e-5, 0.99, "",
                   "where the learned weight of each kind of context starts"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "window", "64", 2, 1e9, "tokens",
                   "uses of a kind of context over which its weight averages"),
};

static const fw_param counts_params[] = {
    COUNTING_PARAMS("2", "0.7", "64"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight", "0.1", 1e-5, 0.99, "",
                   "trust in every context, times what discounting leaves to its followers"),
};

static void destroy(void *self) {
    ngram *cache = self;
    if (cache == NULL) return;
    blend_destroy(&cache->mixer);
    contexts_destroy(&cache->here);
    cache->host->release(cache->host, cache);
}

static fw_status build(ngram *cache, const fw_value *values, const fw_cache_shape *shape,
                       uint32_t max_order, bool learn, fw_error *error) {
    const blend_options options = counting_blend(values, learn);
    FW_TRY(blend_create(cache->host, shape, max_order, options, &cache->mixer, error));
    const uint64_t bytes = sizeof *cache + blend_bytes(&cache->mixer);
    return counting_contexts(cache->host, values, shape, max_order, (counting_taken){bytes, bytes},
                             &cache->here, error);
}

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        bool learn, void **self, fw_error *error) {
    uint32_t max_order = 0;
    FW_TRY(counting_order("n-gram", values, shape, &max_order, error));
    ngram *cache = host->allocate(host, sizeof *cache);
    if (cache == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for an n-gram cache");
    *cache = (ngram){.host = host, .vocabulary = shape->vocabulary};
    const fw_status status = build(cache, values, shape, max_order, learn, error);
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
    FW_TRY(given_row(row, cache->vocabulary, error));
    blend_predict(&cache->mixer, &cache->here, row, prediction);
    return FW_OK;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    ngram *cache = self;
    FW_TRY(given_tokens(tokens, n, cache->vocabulary, error));
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
