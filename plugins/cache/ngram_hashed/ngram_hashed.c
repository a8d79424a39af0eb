/* The hashed n-gram cache of record 993 (pull request 993 of openai/parameter-golf), kept to
 * reproduce that record and to show why it is void. Where an order matches,
 *     p(token) = (1 - a) p_model(token) + a min(pair / context, 1),
 * pair and context being hashed counts (tables.h). Summed over the vocabulary that is not 1 but
 * hundreds: every token collides with something. So it states the unverified form, and its score
 * carries the mark INVALID. The share `a` grows with the model's entropy H:
 *     sigmoid_raw_entropy  base + range / (1 + exp(-scale (H - center)))
 *     linear               base + range * min(H / ln V, 1)
 *     fixed                alpha_fixed
 * Counts are added after each window's scored positions. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "../given.h"
#include "tables.h"

enum { SIGMOID, LINEAR, FIXED };
enum {
    PARAM_MIN_ORDER,
    PARAM_MAX_ORDER,
    PARAM_TABLE_SIZE,
    PARAM_MIN_COUNT,
    PARAM_ALPHA,
    PARAM_BASE,
    PARAM_RANGE,
    PARAM_CENTER,
    PARAM_SCALE,
    PARAM_FIXED
};

static const char *const alphas[] = {"sigmoid_raw_entropy", "linear", "fixed", NULL};

static const fw_param params[] = {
    FW_PARAM_RANGE(FW_PARAM_INT, "min_order", "2", LEAST_ORDER, MOST_ORDER, "tokens",
                   "shortest n-grams, the predicted token included"),
    FW_PARAM_RANGE(FW_PARAM_INT, "max_order", "7", LEAST_ORDER, MOST_ORDER, "tokens",
                   "longest n-grams; the longest that matches decides"),
    FW_PARAM_RANGE(FW_PARAM_INT, "table_size", "4194304", 2, 1 << 26, "buckets",
                   "of the two tables of each order, 4 bytes each; a power of two"),
    FW_PARAM_RANGE(FW_PARAM_INT, "min_count", "2", 1, 1 << 30, "tokens",
                   "counted in a context's bucket before it matches"),
    FW_PARAM_CHOICE("alpha", "sigmoid_raw_entropy", alphas,
                    "how the share of the counts follows the model's entropy"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "alpha_base", "0.05", 0, 1, "",
                   "sigmoid_raw_entropy, linear: the share where the model is sure"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "alpha_range", "0.55", 0, 1, "",
                   "sigmoid_raw_entropy, linear: what entropy can add to it"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "entropy_center", "4", 0, 100, "nats",
                   "sigmoid_raw_entropy: where half of it is added"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "entropy_scale", "2", 0, 1000, "",
                   "sigmoid_raw_entropy: how steeply it is added"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "alpha_fixed", "0.4", 0, 1, "", "fixed: the share"),
};

typedef struct hashed {
    const fw_host *host;
    uint32_t vocabulary, min_count;
    int64_t alpha;
    double base, range, center, scale, fixed;
    tables counts;
    place *block; /* of the predictions that await their tokens */
    uint64_t n_block, room, last_position;
    uint32_t recent[MOST_CONTEXT], n_recent; /* tokens before the block */
    uint32_t order, count; /* of the prediction that was stated last: what matched, 0 if nothing */
    double share;
} hashed;

static void destroy(void *self) {
    hashed *cache = self;
    if (cache == NULL) return;
    tables_destroy(&cache->counts);
    if (cache->block != NULL) cache->host->release(cache->host, cache->block);
    cache->host->release(cache->host, cache);
}

static fw_status check(const fw_value *values, const fw_cache_shape *shape, fw_error *error) {
    const long long low = values[PARAM_MIN_ORDER].integer, high = values[PARAM_MAX_ORDER].integer;
    const long long size = values[PARAM_TABLE_SIZE].integer;
    const double most = values[PARAM_BASE].real + values[PARAM_RANGE].real;
    if (shape->vocabulary == 0)
        return fw_fail(error, FW_E_UNSUPPORTED, "a vocabulary of 0 tokens cannot be predicted");
    if (low > high)
        return fw_fail(error, FW_E_CONFIG, "min_order %lld is above max_order %lld", low, high);
    if ((size & (size - 1)) != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "table_size = %lld is not a power of two, as 4194304 = 2^22 is", size);
    if (most > 1)
        return fw_fail(error, FW_E_CONFIG,
                       "alpha_base + alpha_range = %g; a share of more than 1 cannot be mixed",
                       most);
    return FW_OK;
}

static fw_status make_room(hashed *cache, fw_error *error) {
    if (cache->n_block < cache->room) return FW_OK;
    const uint64_t room = cache->room > 0 ? 2 * cache->room : 64;
    place *block = cache->host->allocate(cache->host, room * sizeof *block);
    if (block == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a block of %llu positions",
                       (unsigned long long)room);
    if (cache->block != NULL) {
        memcpy(block, cache->block, cache->n_block * sizeof *block);
        cache->host->release(cache->host, cache->block);
    }
    cache->block = block;
    cache->room = room;
    return FW_OK;
}

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    FW_TRY(check(values, shape, error));
    hashed *cache = host->allocate(host, sizeof *cache);
    if (cache == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a hashed n-gram cache");
    *cache = (hashed){.host = host,
                      .vocabulary = shape->vocabulary,
                      .min_count = (uint32_t)values[PARAM_MIN_COUNT].integer,
                      .alpha = values[PARAM_ALPHA].integer,
                      .base = values[PARAM_BASE].real,
                      .range = values[PARAM_RANGE].real,
                      .center = values[PARAM_CENTER].real,
                      .scale = values[PARAM_SCALE].real,
                      .fixed = values[PARAM_FIXED].real};
    fw_status status = tables_create(
        host, (uint32_t)values[PARAM_MIN_ORDER].integer, (uint32_t)values[PARAM_MAX_ORDER].integer,
        (uint32_t)values[PARAM_TABLE_SIZE].integer, &cache->counts, error);
    if (status == FW_OK) status = make_room(cache, error);
    if (status != FW_OK) {
        destroy(cache);
        return status;
    }
    *self = cache;
    return FW_OK;
}

static fw_status begin(void *self, fw_error *error) {
    (void)error;
    hashed *cache = self;
    tables_clear(&cache->counts);
    cache->n_block = 0;
    cache->n_recent = 0;
    return FW_OK;
}

static double share_of(const hashed *cache, const fw_row *row) {
    if (cache->alpha == FIXED) return cache->fixed;
    if (cache->alpha == SIGMOID)
        return cache->base +
               cache->range / (1 + exp(-cache->scale * (row->entropy - cache->center)));
    const double part = cache->vocabulary > 1 ? row->entropy / log(cache->vocabulary) : 0;
    return cache->base + cache->range * fmin(fmax(part, 0), 1);
}

static double probability(void *self, const fw_row *row, uint32_t token) {
    const hashed *cache = self;
    const double model = row->probabilities[token];
    if (cache->order == 0) return model;
    const place *at = &cache->block[cache->n_block - 1];
    const double pair = tables_pair(&cache->counts, at, cache->order, token);
    return (1 - cache->share) * model + cache->share * fmin(pair / cache->count, 1);
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    hashed *cache = self;
    FW_TRY(given_row(row, cache->vocabulary, error));
    const bool shown = FW_COVERS(row, n_context);
    const uint32_t n = shown ? row->n_context : 0, most = n < MOST_CONTEXT ? n : MOST_CONTEXT;
    if (cache->n_block == 0 && most > 0) {
        memcpy(cache->recent, row->context + (n - most), most * sizeof *cache->recent);
        cache->n_recent = most;
    }
    const bool again = cache->n_block > 0 && cache->last_position == row->position;
    if (!again) FW_TRY(make_room(cache, error));
    cache->n_block += !again;
    cache->last_position = row->position;
    place *at = &cache->block[cache->n_block - 1];
    *at = tables_place(&cache->counts, shown ? row->context + (n - most) : NULL, most);
    cache->order = tables_match(&cache->counts, at, cache->min_count, &cache->count);
    cache->share = share_of(cache, row);
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = probability;
    return FW_OK;
}

static void remember(hashed *cache, uint32_t token) {
    if (cache->n_recent == MOST_CONTEXT)
        memmove(cache->recent, cache->recent + 1, (MOST_CONTEXT - 1) * sizeof token);
    else
        cache->n_recent++;
    cache->recent[cache->n_recent - 1] = token;
}

/* Tokens that were predicted are counted where their row showed them, others behind the tokens
 * before them. */
static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    hashed *cache = self;
    FW_TRY(given_tokens(tokens, n, cache->vocabulary, error));
    const uint64_t predicted = n < cache->n_block ? n : cache->n_block;
    tables_count(&cache->counts, cache->block, tokens, predicted);
    for (uint64_t i = 0; i < n; i++) {
        if (i >= predicted) {
            const place at = tables_place(&cache->counts, cache->recent, cache->n_recent);
            tables_count(&cache->counts, &at, &tokens[i], 1);
        }
        remember(cache, tokens[i]);
    }
    if (n > 0) cache->n_block = 0;
    return FW_OK;
}

static uint64_t memory_bytes(void *self) {
    const hashed *cache = self;
    return sizeof *cache + cache->counts.bytes + cache->room * sizeof *cache->block;
}

static const fw_cache ngram_hashed = {.struct_size = sizeof ngram_hashed,
                                      .update_every = FW_UPDATE_EVERY_WINDOW,
                                      .needs_entropy = 1,
                                      .create = create,
                                      .destroy = destroy,
                                      .begin = begin,
                                      .predict = predict,
                                      .update = update,
                                      .memory_bytes = memory_bytes,
                                      .unverified = 1,
                                      .context_tokens = MOST_CONTEXT};

static const fw_plugin plugin = {
    .struct_size = sizeof plugin,
    .kind = FW_CACHE,
    .id = "ngram_hashed",
    .version = "1.0.0",
    .summary = "the hashed cache of record 993; no distribution, so its score is INVALID",
    .vendor = "Fairway",
    .license = "MIT",
    .devices = FW_CPU,
    .n_params = sizeof params / sizeof *params,
    .params = params,
    .vtable = &ngram_hashed};

FW_DEFINE_MODULE(&plugin);
