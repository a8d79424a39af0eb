/* A cache of the project, through the host's own cache_stream, as an evaluation plays it. */
#include <stdlib.h>
#include <string.h>

#include "cache_stream.h"
#include "contender.h"

struct cache {
    const char *text;
    char *overrides; /* the text as overrides of [cache] */
    struct session session;
    struct cache_stream *stream;
    uint32_t *context; /* what fw_row.context shows */
    uint64_t window;   /* index of the window at work */
};

static void close_cache(void *self) {
    struct cache *cache = self;
    if (cache == NULL) return;
    cache_stream_close(cache->stream);
    session_close(&cache->session);
    free(cache->overrides);
    free(cache->context);
    free(cache);
}

/* ID:KEY=VALUE,... as "cache.plugin=ID" "cache.KEY=VALUE"... */
static fw_status cache_arguments(struct cache *cache, const struct arguments *given,
                                 struct arguments *arguments, fw_error *error) {
    const size_t size = strlen(cache->text);
    cache->overrides = calloc(2, 8 * size + 64);
    if (cache->overrides == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the cache %s", cache->text);
    char *copy = cache->overrides, *out = cache->overrides + size + 1;
    memcpy(copy, cache->text, size + 1);
    *arguments = *given;
    const char *prefix = "plugin=";
    for (char *part = strtok(copy, ":"); part != NULL; part = strtok(NULL, ",")) {
        if (arguments->n_overrides == MAX_ARGUMENTS)
            return fw_fail(error, FW_E_LIMIT, "%.64s...: too many keys", cache->text);
        arguments->overrides[arguments->n_overrides++] = out;
        out += sprintf(out, "cache.%s%s", prefix, part) + 1;
        prefix = "";
    }
    return FW_OK;
}

static fw_status open_all(struct cache *cache, const struct rows_header *header,
                          const struct arguments *given, fw_error *error) {
    struct arguments arguments;
    const uint32_t kinds = CONFIG_BIND(FW_CACHE) | CONFIG_BIND(FW_DEVICE);
    FW_TRY(cache_arguments(cache, given, &arguments, error));
    FW_TRY(session_open(&arguments, "command line", "", kinds, &cache->session, error));
    FW_TRY(cache_stream_open(&cache->session.experiment->cache, cache->session.services,
                             header->table, header->windows.targets, true, &cache->stream, error));
    cache->context = calloc(cache_stream_context(cache->stream) + 1, sizeof *cache->context);
    if (cache->context != NULL) return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory for the context of %s", cache->text);
}

static fw_status open_cache(const char *text, const struct rows_header *header,
                            const struct arguments *arguments, void **self, fw_error *error) {
    struct cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the cache %s", text);
    cache->text = text;
    const fw_status status = open_all(cache, header, arguments, error);
    if (status == FW_OK)
        *self = cache;
    else
        close_cache(cache);
    return status;
}

static bool needs_entropy(const void *self) {
    const struct cache *cache = self;
    return cache_stream_needs_entropy(cache->stream);
}

static void gather_context(const struct cache *cache, const uint16_t *tokens, fw_row *row) {
    const uint64_t wanted = cache_stream_context(cache->stream), most = row->position + 1;
    row->n_context = (uint32_t)(wanted < most ? wanted : most);
    for (uint32_t i = 0; i < row->n_context; i++)
        cache->context[i] = tokens[row->position + 1 - row->n_context + i];
    row->context = cache->context;
}

static fw_status end_window(struct cache *cache, const struct windows *windows, uint64_t position,
                            fw_error *error) {
    const struct window window = windows_get(windows, cache->window);
    if (position + 1 < window.start + window.n) return FW_OK;
    cache->window++;
    return cache_stream_end_window(cache->stream, error);
}

static fw_status play(void *self, const struct block *block, double *nats, fw_error *error) {
    struct cache *cache = self;
    const uint32_t V = block->rows->vocabulary;
    const uint16_t *tokens = block->header->tokens;
    const bool with_entropy = cache_stream_needs_entropy(cache->stream);
    for (uint64_t i = 0; i < block->n; i++) {
        fw_row row = {.struct_size = sizeof row,
                      .vocabulary = V,
                      .position = block->first + i,
                      .probabilities = block->rows->probabilities + i * V,
                      .entropy = with_entropy ? block->rows->entropy[i] : -1};
        gather_context(cache, tokens, &row);
        FW_TRY(cache_stream_score(cache->stream, &row, tokens[row.position + 1], &nats[i], error));
        FW_TRY(end_window(cache, &block->header->windows, row.position, error));
    }
    return FW_OK;
}

static fw_status finish(void *self, const double *model, double *nats,
                        struct contender_result *result, fw_error *error) {
    (void)model;
    (void)nats;
    (void)error;
    const struct cache *cache = self;
    struct cache_summary summary;
    cache_stream_summary(cache->stream, &summary);
    *result = (struct contender_result){.memory = summary.memory_bytes,
                                        .changed = summary.changed,
                                        .invalid = summary.invalid,
                                        .mean_sum = summary.mean_sum};
    return FW_OK;
}

const struct contender_type cache_contender = {.open = open_cache,
                                               .close = close_cache,
                                               .needs_entropy = needs_entropy,
                                               .play = play,
                                               .finish = finish};
