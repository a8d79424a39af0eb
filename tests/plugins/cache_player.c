#include "cache_player.h"

#include <math.h>

static void ok(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("status %d: %s", status, error->message);
}

player player_open(const fw_cache *cache, const fw_host *host, const fw_value *values,
                   uint32_t vocabulary, uint32_t max_entries) {
    player p = {.cache = cache,
                .vocabulary = vocabulary,
                .boundary = calloc(vocabulary, 1),
                .model = calloc(vocabulary, sizeof *p.model),
                .full = calloc(vocabulary, sizeof *p.full),
                .buffers = prediction_buffers_create(vocabulary)};
    assert_non_null(p.boundary);
    assert_non_null(p.model);
    assert_non_null(p.full);
    assert_non_null(p.buffers);
    p.boundary[0] = 1;
    const fw_cache_shape shape = {.struct_size = sizeof shape,
                                  .vocabulary = vocabulary,
                                  .max_entries = max_entries,
                                  .token_is_boundary = p.boundary};
    fw_error error = {.struct_size = sizeof error};
    ok(cache->create(host, values, &shape, &p.self, &error), &error);
    p.buffers->allow_unverified = true;
    p.buffers->cache = p.self;
    player_begin(&p);
    return p;
}

void player_close(player *p) {
    p->cache->destroy(p->self);
    prediction_buffers_destroy(p->buffers);
    free(p->boundary);
    free(p->model);
    free(p->full);
    free(p->past);
}

void player_begin(player *p) {
    fw_error error = {.struct_size = sizeof error};
    ok(p->cache->begin(p->self, &error), &error);
    p->position = p->n_past = p->n_shown = 0;
}

static void append(player *p, uint32_t token) {
    if (p->n_past == p->room) {
        p->room = p->room > 0 ? 2 * p->room : 1024;
        p->past = realloc(p->past, p->room * sizeof *p->past);
        assert_non_null(p->past);
    }
    p->past[p->n_past++] = token;
}

void player_show(player *p, uint32_t token) {
    append(p, token);
    p->n_shown++;
}

void player_form_row(player *p) {
    test_random random = {p->position};
    double sum = 0;
    const double heat = 1 + (double)(p->position % 5);
    for (uint32_t v = 0; v < p->vocabulary; v++)
        sum += p->model[v] = exp(heat * test_uniform(&random));
    for (uint32_t v = 0; v < p->vocabulary; v++) p->model[v] /= sum;
}

static fw_row row_of(const player *p) {
    double entropy = 0;
    for (uint32_t v = 0; v < p->vocabulary; v++)
        if (p->model[v] > 0) entropy -= p->model[v] * log(p->model[v]);
    const uint64_t wanted = FW_COVERS(p->cache, context_tokens) ? p->cache->context_tokens : 0;
    const uint64_t n = wanted < p->n_past ? wanted : p->n_past;
    return (fw_row){.struct_size = sizeof(fw_row),
                    .vocabulary = p->vocabulary,
                    .position = p->position,
                    .probabilities = p->model,
                    .entropy = p->cache->needs_entropy ? entropy : -1,
                    .context = n > 0 ? p->past + (p->n_past - n) : NULL,
                    .n_context = (uint32_t)n};
}

static fw_row ask(player *p) {
    fw_error error = {.struct_size = sizeof error};
    const fw_row row = row_of(p);
    prediction_prepare(p->buffers, &p->stated);
    ok(p->cache->predict(p->self, &row, &p->stated, &error), &error);
    return row;
}

void player_predict(player *p) {
    fw_error error = {.struct_size = sizeof error};
    const fw_row row = ask(p);
    ok(prediction_full(p->buffers, &row, &p->stated, p->full, &error), &error);
}

double player_score(player *p, uint32_t token) {
    fw_error error = {.struct_size = sizeof error};
    const fw_row row = ask(p);
    double probability = 0;
    ok(prediction_probability(p->buffers, &row, &p->stated, token, &probability, &error), &error);
    return probability;
}

void player_update(player *p, const uint32_t *tokens, uint64_t n) {
    fw_error error = {.struct_size = sizeof error};
    ok(p->cache->update(p->self, tokens, n, &error), &error);
    p->position += n;
    for (uint64_t i = p->n_shown; i < n; i++) append(p, tokens[i]);
    if (n > 0) p->n_shown = 0;
}

void player_text(uint32_t *tokens, uint64_t n, uint32_t vocabulary, uint64_t seed) {
    test_random random = {seed};
    for (uint64_t t = 0; t < n;) {
        const bool repeat = t > 500 && test_uniform(&random) < 0.05;
        const uint64_t word = test_below(&random, 1 + test_below(&random, 400));
        const uint64_t from = repeat ? test_below(&random, t - 100) : 0;
        const uint64_t length = repeat ? 60 : 1 + word % 6;
        for (uint64_t i = 0; i < length && t < n; i++, t++)
            tokens[t] = repeat ? tokens[from + i] : (uint32_t)((word * 7919 + i * 31) % vocabulary);
    }
}

void player_coin(uint32_t *tokens, uint64_t n, uint32_t vocabulary, uint64_t seed) {
    test_random random = {seed};
    for (uint64_t t = 0; t < n; t++) tokens[t] = (uint32_t)test_below(&random, vocabulary);
}

double player_added_bits(const char *id, const uint32_t *tokens, uint32_t n, uint32_t vocabulary,
                         double *second_half) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    fw_value *values = test_values(plugin, NULL);
    player p = player_open(plugin->vtable, test_host(NULL), values, vocabulary, vocabulary);
    double added = 0, late = 0;
    for (uint32_t v = 0; v < vocabulary; v++) p.model[v] = 1.0 / vocabulary;
    for (uint32_t t = 0; t < n; t++) {
        const double bits = -log2(player_score(&p, tokens[t]) * vocabulary);
        added += bits;
        if (t >= n / 2) late += bits;
        player_update(&p, &tokens[t], 1);
    }
    player_close(&p);
    free(values);
    if (second_half != NULL) *second_half = late;
    return added;
}

/* What the cache `id` says to being made of these parameters, NULL-terminated, or NULL. */
static fw_status try_create(const char *id, const char *const *overrides, uint32_t vocabulary,
                            uint64_t *bytes, fw_error *error) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    const fw_cache *cache = plugin->vtable;
    fw_value *values = test_values(plugin, overrides);
    const fw_cache_shape shape = {
        .struct_size = sizeof shape, .vocabulary = vocabulary, .max_entries = vocabulary};
    void *self = NULL;
    const fw_status status = cache->create(test_host(NULL), values, &shape, &self, error);
    if (status != FW_OK) assert_null(self);
    if (status == FW_OK) *bytes = cache->memory_bytes(self);
    if (status == FW_OK) cache->destroy(self);
    free(values);
    return status;
}

void player_refused(const char *id, const char *const *overrides, uint32_t vocabulary,
                    fw_status expected, const char *words) {
    fw_error error = {.struct_size = sizeof error};
    uint64_t bytes = 0;
    assert_int_equal(try_create(id, overrides, vocabulary, &bytes, &error), expected);
    if (strstr(error.message, words) == NULL) fail_msg("does not say %s: %s", words, error.message);
}

void player_names_enough_memory(const char *id, const char *const *overrides, uint32_t vocabulary) {
    enum { MOST = 8 };
    const char *all[MOST] = {"memory_mb=4"};
    char memory[32];
    fw_error error = {.struct_size = sizeof error};
    uint64_t bytes = 0;
    unsigned long long enough = 0;
    for (size_t i = 0; overrides[i] != NULL && i + 2 < MOST; i++) all[i + 1] = overrides[i];
    assert_int_equal(try_create(id, all, vocabulary, &bytes, &error), FW_E_CONFIG);
    const char *named = strstr(error.message, "no room for contexts; ");
    if (named == NULL || sscanf(named, "no room for contexts; %llu will do", &enough) != 1)
        fail_msg("names no number: %s", error.message);
    all[0] = memory;
    (void)snprintf(memory, sizeof memory, "memory_mb=%llu", enough);
    if (try_create(id, all, vocabulary, &bytes, &error) != FW_OK)
        fail_msg("%s: %s", memory, error.message);
    assert_true(bytes <= enough << 20);
    const unsigned long long less = enough * 7 / 8 - 1;
    (void)snprintf(memory, sizeof memory, "memory_mb=%llu", less > 4 ? less : 4);
    assert_int_equal(try_create(id, all, vocabulary, &bytes, &error), FW_E_CONFIG);
}
