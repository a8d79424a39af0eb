/* The tilt cache: a hedge over three experts,
 *     p'(v) = h_model p(v) + h_ngram p_ngram(v) + h_tilt p_tilt(v),
 * the language model, the n-gram cache's statement (blend.h) and the tilt (gains.h), stated as a
 * mix whose masses may be negative. After each token x the weights h are those of fixed share
 * (Herbster and Warmuth 1998): h_k <- (1 - switching) h_k p_k(x) / p'(x) + switching / 3, so over
 * any stream the cost exceeds that of the best expert by at most about log2(3) bits plus 1.44
 * switching bits a token. */
#include <string.h>

#include "../counting.h"
#include "../given.h"
#include "gains.h"

enum { EXPERTS = 3 };

typedef struct tilt {
    const fw_host *host;
    uint32_t vocabulary;
    uint32_t max_entries;
    double switching;
    contexts here;
    recent document;
    blend mixer;
    gains tilted;
    double hedge[EXPERTS]; /* model, n-gram cache, tilt */
    double ngram_share; /* what the n-gram cache leaves to the model, in the pending prediction */
    bool pending;       /* a prediction awaits its token */
} tilt;

enum {
    PARAM_LIKELY = COUNTING_PARAMS_END,
    PARAM_RECENT_BITS,
    PARAM_PAIRS,
    PARAM_TRUST_RATE,
    PARAM_RATE,
    PARAM_SWITCHING
};

static const fw_param tilt_params[] = {
    COUNTING_PARAMS("1", "0.2", "16"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight", "0.2", 1e-5, 0.99, "",
                   "where the n-gram cache's weight of each kind of context starts"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "window", "64", 2, 1e9, "tokens",
                   "uses of a kind of context over which such a weight averages"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "likely", "0.016", 0, 1, "",
                   "tokens that model or n-gram cache give more than this get gains of their own"),
    FW_PARAM_RANGE(FW_PARAM_INT, "recent_bits", "13", 1, 24, "bits",
                   "2 to this many contexts of a document are known with what followed them last"),
    FW_PARAM_RANGE(FW_PARAM_INT, "pairs", "65536", 0, 1e9, "weights",
                   "gains of pairs of tokens, within an eighth of the memory; 0: none"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "trust_rate", "0.05", 0, 10, "",
                   "learning rate of the trust in the n-gram cache"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "rate", "0.05", 0, 10, "", "learning rate of all other gains"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "switching", "1e-4", 1e-5, 0.5, "",
                   "share of the hedge's weight that is spread evenly after each token"),
};

/* ---- making ---- */

static void destroy(void *self) {
    tilt *cache = self;
    if (cache == NULL) return;
    gains_destroy(&cache->tilted);
    blend_destroy(&cache->mixer);
    recent_destroy(&cache->document);
    contexts_destroy(&cache->here);
    cache->host->release(cache->host, cache);
}

static uint64_t bytes_without_contexts(const tilt *cache) {
    return sizeof *cache + recent_bytes(&cache->document) + blend_bytes(&cache->mixer) +
           gains_bytes(&cache->tilted);
}

static uint32_t most_pairs(const fw_value *values) {
    const uint64_t wanted = (uint64_t)values[PARAM_PAIRS].integer;
    const uint64_t most = counting_memory(values) / 8 / sizeof(weight);
    return (uint32_t)(wanted < most ? wanted : most);
}

/* With more memory there may be more weights of pairs. */
static counting_taken taken_without_contexts(const tilt *cache, const fw_value *values) {
    const uint64_t all = (uint64_t)cache->vocabulary * cache->vocabulary;
    const uint64_t wanted = (uint64_t)values[PARAM_PAIRS].integer;
    const uint64_t most = wanted < all ? wanted : all, pairs = cache->tilted.n_pairs;
    const uint64_t bytes = bytes_without_contexts(cache);
    return (counting_taken){bytes, bytes + (most - pairs) * sizeof(weight)};
}

static fw_status build(tilt *cache, const fw_value *values, const fw_cache_shape *shape,
                       uint32_t max_order, fw_error *error) {
    const fw_host *host = cache->host;
    const blend_options blending = counting_blend(values, true);
    const gains_options gaining = {.likely = values[PARAM_LIKELY].real,
                                   .trust_rate = values[PARAM_TRUST_RATE].real,
                                   .rate = values[PARAM_RATE].real,
                                   .most_pairs = most_pairs(values)};
    FW_TRY(recent_create(host, shape, (uint32_t)values[PARAM_RECENT_BITS].integer, &cache->document,
                         error));
    FW_TRY(blend_create(host, shape, max_order, blending, &cache->mixer, error));
    FW_TRY(gains_create(host, shape, max_order, gaining, &cache->tilted, error));
    return counting_contexts(host, values, shape, max_order, taken_without_contexts(cache, values),
                             &cache->here, error);
}

static fw_status begin(void *self, fw_error *error) {
    (void)error;
    tilt *cache = self;
    contexts_clear(&cache->here);
    recent_clear(&cache->document);
    blend_clear(&cache->mixer);
    gains_clear(&cache->tilted);
    for (uint32_t k = 0; k < EXPERTS; k++) cache->hedge[k] = 1.0 / EXPERTS;
    cache->pending = false;
    return FW_OK;
}

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    uint32_t max_order = 0;
    FW_TRY(counting_order("tilt", values, shape, &max_order, error));
    tilt *cache = host->allocate(host, sizeof *cache);
    if (cache == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a tilt cache");
    *cache = (tilt){.host = host,
                    .vocabulary = shape->vocabulary,
                    .max_entries = shape->max_entries,
                    .switching = values[PARAM_SWITCHING].real,
                    .here = {.host = host},
                    .document = {.host = host},
                    .mixer = {.host = host},
                    .tilted = {.host = host}};
    fw_status status = build(cache, values, shape, max_order, error);
    if (status == FW_OK) status = begin(cache, error);
    if (status != FW_OK) {
        destroy(cache);
        return status;
    }
    *self = cache;
    return FW_OK;
}

/* ---- the protocol ---- */

/* Blend the three experts. */
static void state_hedge(const tilt *cache, fw_prediction *prediction) {
    const gains *g = &cache->tilted;
    const double model = cache->hedge[0], ngram = cache->hedge[1];
    const double tilted = cache->hedge[2] / g->normaliser;
    const double of_rest = ngram + tilted / g->share;
    uint32_t *restrict tokens = prediction->tokens;
    double *restrict values = prediction->values;
    memcpy(tokens, g->list.tokens, g->list.n * sizeof *tokens);
    memcpy(tokens + g->list.n, g->rest.tokens, g->rest.n * sizeof *tokens);
    for (uint32_t i = 0; i < g->list.n; i++)
        values[i] = ngram * g->list.mass[i] + tilted * g->list.p[i] * (g->list.gain[i] - 1);
    for (uint32_t i = 0; i < g->rest.n; i++) values[g->list.n + i] = of_rest * g->rest.mass[i];
    prediction->n = g->list.n + g->rest.n;
    prediction->lm_weight = model + ngram * g->share + tilted;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    tilt *cache = self;
    FW_TRY(given_row(row, cache->vocabulary, error));
    blend_predict(&cache->mixer, &cache->here, row, prediction);
    gains_state(&cache->tilted, &cache->mixer, &cache->here, &cache->document, row, prediction,
                cache->max_entries);
    state_hedge(cache, prediction);
    cache->pending = true;
    return FW_OK;
}

/* Weigh the experts by what each gave the token, and let the tilt learn. */
static void learn(tilt *cache, uint32_t token) {
    if (!cache->pending) return;
    cache->pending = false;
    const double p = cache->mixer.row[token];
    const given by_others = gains_given(&cache->tilted, token, p);
    const double stated[EXPERTS] = {p, by_others.ngram, by_others.tilt};
    double all = 0;
    for (uint32_t k = 0; k < EXPERTS; k++) all += cache->hedge[k] * stated[k];
    if (!(all > 0)) return;
    const double kept = (1 - cache->switching) / all, even = cache->switching / EXPERTS;
    for (uint32_t k = 0; k < EXPERTS; k++)
        cache->hedge[k] = cache->hedge[k] * stated[k] * kept + even;
    gains_learn(&cache->tilted, by_others.entry);
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    tilt *cache = self;
    FW_TRY(given_tokens(tokens, n, cache->vocabulary, error));
    for (uint64_t i = 0; i < n; i++) {
        learn(cache, tokens[i]);
        contexts_find(&cache->here, tokens[i]);
        blend_learn(&cache->mixer, &cache->here, tokens[i]);
        recent_advance(&cache->document, &cache->here, tokens[i]);
        contexts_advance(&cache->here, tokens[i]);
    }
    return FW_OK;
}

static uint64_t memory_bytes(void *self) {
    const tilt *cache = self;
    return bytes_without_contexts(cache) + contexts_bytes(&cache->here);
}

static const fw_cache tilt_cache = {.struct_size = sizeof tilt_cache,
                                    .update_every = 1,
                                    .needs_entropy = 1,
                                    .create = create,
                                    .destroy = destroy,
                                    .begin = begin,
                                    .predict = predict,
                                    .update = update,
                                    .memory_bytes = memory_bytes};

static const fw_plugin tilt_plugin = {
    .struct_size = sizeof tilt_plugin,
    .kind = FW_CACHE,
    .id = "tilt",
    .version = "1.0.0",
    .summary = "learned gains on repeats and what the document said, hedged with ngram and model",
    .vendor = "Fairway",
    .license = "MIT",
    .devices = FW_CPU,
    .n_params = sizeof tilt_params / sizeof *tilt_params,
    .params = tilt_params,
    .vtable = &tilt_cache};

FW_DEFINE_MODULE(&tilt_plugin);
