/* Template of an eval-time cache: what stood among the last `window` tokens is likely to come
 * again. It states a mixture: (1 - weight) of the language model, and the rest shared out by count.
 *
 *     cc -shared -fPIC -O2 -fvisibility=hidden $(pkg-config --cflags fairway) cache.c \
 *        -o cache-template.so
 *
 * In the INI:  [cache]  plugin = /path/to/cache-template.so
 *
 * The protocol (fairway/cache.h): predict() never sees the target; the host looks it up afterwards,
 * scores it, and only then calls update() with it. */
#include <fairway/fairway.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW, WEIGHT, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [WINDOW] = FW_PARAM_RANGE(FW_PARAM_INT, "window", "512", 1, 65536, "tokens",
                              "tokens that are remembered"),
    [WEIGHT] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight", "0.02", 0, 0.99, "",
                              "share of the cache in the mixture"),
};

typedef struct recent_tokens {
    double weight;
    uint32_t vocabulary, window;
    uint32_t n_distinct;
    uint64_t n_seen;    /* since begin() */
    uint32_t *ring;     /* window: the last tokens */
    uint32_t *counts;   /* vocabulary: how often each stands in the ring */
    uint32_t *distinct; /* window: the tokens with a count */
    uint32_t *place;    /* vocabulary: their index in `distinct` */
} recent_tokens;

static void destroy(void *self) {
    recent_tokens *cache = self;
    if (cache == NULL) return;
    free(cache->ring);
    free(cache->counts);
    free(cache->distinct);
    free(cache->place);
    free(cache);
}

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    (void)host;
    recent_tokens *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the cache");
    cache->weight = values[WEIGHT].real;
    cache->vocabulary = shape->vocabulary;
    /* A prediction may list max_entries tokens; a window of as many never holds more. */
    cache->window = (uint32_t)values[WINDOW].integer;
    if (cache->window > shape->max_entries) cache->window = shape->max_entries;
    cache->ring = calloc(cache->window + 1u, sizeof *cache->ring);
    cache->distinct = calloc(cache->window + 1u, sizeof *cache->distinct);
    cache->counts = calloc(cache->vocabulary, sizeof *cache->counts);
    cache->place = calloc(cache->vocabulary, sizeof *cache->place);
    if (cache->ring == NULL || cache->distinct == NULL || cache->counts == NULL ||
        cache->place == NULL) {
        destroy(cache);
        return fw_fail(error, FW_E_MEMORY, "no memory for a cache of %u tokens", shape->vocabulary);
    }
    *self = cache;
    return FW_OK;
}

static fw_status begin(void *self, fw_error *error) {
    recent_tokens *cache = self;
    (void)error;
    memset(cache->counts, 0, cache->vocabulary * sizeof *cache->counts);
    cache->n_distinct = 0;
    cache->n_seen = 0;
    return FW_OK;
}

/* mix: p'(v) = lm_weight * p(v) + mass(v). Weight and masses sum to one. */
static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const recent_tokens *cache = self;
    (void)row, (void)error;
    const double filled =
        cache->n_seen < cache->window ? (double)cache->n_seen : (double)cache->window;
    prediction->form = FW_PREDICT_MIX;
    prediction->n = cache->n_distinct;
    prediction->lm_weight = cache->n_distinct > 0 ? 1 - cache->weight : 1;
    for (uint32_t i = 0; i < cache->n_distinct; i++) {
        const uint32_t token = cache->distinct[i];
        prediction->tokens[i] = token;
        prediction->values[i] = cache->weight * (double)cache->counts[token] / filled;
    }
    return FW_OK;
}

/* The last of the list moves into the gap. */
static void forget(recent_tokens *cache, uint32_t token) {
    if (--cache->counts[token] > 0) return;
    const uint32_t last = cache->distinct[--cache->n_distinct];
    cache->distinct[cache->place[token]] = last;
    cache->place[last] = cache->place[token];
}

static void learn(recent_tokens *cache, uint32_t token) {
    if (cache->window == 0) return; /* max_entries may be 0 */
    uint32_t *slot = &cache->ring[cache->n_seen % cache->window];
    if (cache->n_seen >= cache->window) forget(cache, *slot);
    *slot = token;
    cache->n_seen++;
    if (cache->counts[token]++ > 0) return;
    cache->place[token] = cache->n_distinct;
    cache->distinct[cache->n_distinct++] = token;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    recent_tokens *cache = self;
    for (uint64_t i = 0; i < n; i++)
        if (tokens[i] >= cache->vocabulary)
            return fw_fail(error, FW_E_RANGE, "token %u is not below the vocabulary of %u",
                           tokens[i], cache->vocabulary);
    for (uint64_t i = 0; i < n; i++) learn(cache, tokens[i]);
    return FW_OK;
}

static uint64_t memory_bytes(void *self) {
    const recent_tokens *cache = self;
    return sizeof *cache + 8ull * cache->window + 8ull * cache->vocabulary;
}

/* counts_only: the state follows from the tokens alone, so the host may warm it up with prefill. */
static const fw_cache vtable = {.struct_size = sizeof vtable,
                                .counts_only = 1,
                                .create = create,
                                .destroy = destroy,
                                .begin = begin,
                                .prefill = update,
                                .predict = predict,
                                .update = update,
                                .memory_bytes = memory_bytes};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_CACHE,
                                 .id = "template",
                                 .version = "1.0.0",
                                 .summary = "counts of the most recent tokens",
                                 .vendor = "yours",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
