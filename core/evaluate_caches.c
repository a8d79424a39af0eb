/* The caches of an evaluation: opened, asked and told block by block. */
#include <stdlib.h>

#include "evaluate_internal.h"

/* ---- scoring ---- */

/* The tokens before the target behind `position`. Where a wrap is asked for, an index before the
 * stream's beginning counts back from its end. */
static uint32_t gather_context(const struct evaluation *e, const struct scored_cache *cache,
                               uint64_t position) {
    const uint64_t wanted = cache_stream_context(cache->stream);
    const uint64_t stream = e->windows.targets + 1, most = cache->repeats ? stream : position + 1;
    const uint32_t n = (uint32_t)(wanted < most ? wanted : most);
    for (uint32_t i = 0; i < n; i++)
        cache->context[i] = e->told[(position + 1 + stream - n + i) % stream];
    return n;
}

/* Where a cache leaves the target's probability as it is, its score is the model's, bit for bit. */
static fw_status score_cache(struct evaluation *e, struct scored_cache *cache,
                             const struct block *block, int64_t i, double *own, fw_error *error) {
    const uint32_t vocabulary = e->options->table->vocabulary;
    const uint64_t position = block->piece.window.start + block->piece.first + (uint64_t)i;
    *own = NOT_ASKED;
    if (position < cache->next && !cache->repeats) return FW_OK;
    cache->next = position + 1;
    const bool entropy = cache_stream_needs_entropy(cache->stream);
    const fw_row row = {.struct_size = sizeof row,
                        .vocabulary = vocabulary,
                        .position = position,
                        .probabilities = block->rows.probabilities + i * (int64_t)vocabulary,
                        .entropy = entropy ? block->rows.entropy[i] : -1,
                        .context = cache->context,
                        .n_context = gather_context(e, cache, position)};
    double nats = 0;
    FW_TRY(
        cache_audit_score(cache->audit, cache->stream, &row, e->told[position + 1], &nats, error));
    *own = cache_stream_left_alone(cache->stream) ? block->nats[i] : nats;
    return FW_OK;
}

/* Rows [from, to) of a piece, of one window as caches know windows. */
struct span {
    int64_t from, to;
    uint64_t window;
    bool begins, ends; /* the window */
};

/* A piece is of one window; one of a stream, of a run or several. */
static struct span span_from(const struct evaluation *e, const struct piece *piece, int64_t from) {
    const struct window *window = &piece->window;
    if (!e->reads_on)
        return (struct span){0, piece->n, piece->index, piece->first == window->first,
                             piece->first + (uint64_t)piece->n == window->n};
    const uint64_t run = e->runs.length, begin = window->start + piece->first + (uint64_t)from;
    const uint64_t left = run - begin % run, there = (uint64_t)(piece->n - from);
    const uint64_t n = left < there ? left : there, end = begin + n;
    return (struct span){from, from + (int64_t)n, begin / run, begin % run == 0,
                         end % run == 0 || end == e->runs.targets};
}

/* Scored caches begin cold with each part, or warm: after the tokens before it, as a rank would
 * that scores this part alone. */
static fw_status begin_part(struct evaluation *e, struct scored_cache *cache, uint64_t position,
                            fw_error *error) {
    FW_TRY(cache_audit_begin(cache->audit, cache->stream, error));
    return cache->warm ? cache_stream_learn(cache->stream, e->told + 1, position, error) : FW_OK;
}

static fw_status score_span(struct evaluation *e, struct scored_cache *cache,
                            const struct block *block, const struct span *span, double *own,
                            fw_error *error) {
    const uint64_t ranks = (uint64_t)e->options->experiment->eval.ranks;
    const uint64_t position = block->piece.window.start + block->piece.first;
    if (span->begins && span->window > 0 &&
        windows_begin_part(e->reads_on ? &e->runs : &e->windows, ranks, span->window))
        FW_TRY(begin_part(e, cache, position + (uint64_t)span->from, error));
    if (own == NULL) { /* another instance scores these */
        const uint64_t n = (uint64_t)(span->to - span->from);
        return cache_stream_learn(cache->stream, e->told + position + span->from + 1, n, error);
    }
    for (int64_t i = span->from; i < span->to; i++)
        FW_TRY(score_cache(e, cache, block, i, &own[i], error));
    return span->ends ? cache_audit_end_window(cache->audit, cache->stream, error) : FW_OK;
}

static fw_status score_block(struct evaluation *e, struct scored_cache *cache,
                             const struct block *block, double *own, fw_error *error) {
    if (cache->stream == NULL) return FW_OK;
    for (int64_t from = 0; from < block->piece.n;) {
        const struct span span = span_from(e, &block->piece, from);
        FW_TRY(score_span(e, cache, block, &span, own, error));
        from = span.to;
    }
    return FW_OK;
}

/* The counterpart's is the score that counts. It comes first, so that nobody who could pass it on
 * was told what it is asked about. */
fw_status evaluate_score_caches(void *self, uint32_t consumer, uint32_t slot, fw_error *error) {
    struct evaluation *e = self;
    struct block *block = &e->blocks[slot];
    const bool ours = e->second.stream == NULL || block->number % 2 == consumer;
    double *own = ours ? block->own[CACHE] : NULL;
    if (consumer == 1) return score_block(e, &e->second, block, own, error);
    FW_TRY(score_block(e, &e->counterpart, block, block->own[COUNTERPART], error));
    return score_block(e, &e->cache, block, own, error);
}

/* ---- opening and closing ---- */

/* A counterpart is the honest one of the two, so only an unverified cache has one. */
static bool wants_counterpart(const struct experiment *experiment) {
    return choice_is_unverified(&experiment->cache) && experiment->counterpart.entry != NULL &&
           choice_is_on(&experiment->counterpart);
}

static fw_status check_counterpart(const struct experiment *experiment, fw_error *error) {
    if (!choice_is_unverified(&experiment->counterpart)) return FW_OK;
    return choice_fail(&experiment->counterpart, FW_E_CONFIG,
                       "it is unverified itself; the counterpart of an unverified cache must state "
                       "distributions, as ngram does (or none)",
                       error);
}

static fw_status open_cache(const struct experiment *experiment, const fw_host *host,
                            const struct token_table *table, uint64_t targets,
                            struct cache_stream **cache, fw_error *error) {
    const bool allowed = experiment->eval.on_violation == EVAL_VIOLATION_REPORT;
    return cache_stream_open(&experiment->cache, host, table, targets, allowed, cache, error);
}

static fw_status open_counterpart(const struct experiment *experiment, const fw_host *host,
                                  const struct token_table *table, uint64_t targets,
                                  struct cache_stream **cache, fw_error *error) {
    FW_TRY(check_counterpart(experiment, error));
    return cache_stream_open(&experiment->counterpart, host, table, targets, false, cache, error);
}

static bool counts_only(const struct plugin_choice *choice) {
    const fw_cache *cache = choice->entry->plugin->vtable;
    return cache->counts_only != 0 && FW_HAS(cache, prefill);
}

/* What learns from rows learns in stream order, from one consumer. */
static fw_status check_warm_start(const struct experiment *experiment,
                                  const struct plugin_choice *choice, fw_error *error) {
    if (!experiment->eval.warm_start || experiment->eval.ranks == 1 || counts_only(choice))
        return FW_OK;
    return choice_fail(choice, FW_E_CONFIG,
                       "its state does not depend on the tokens alone, so that no part of the "
                       "stream can begin warm; eval.warm_start = no begins each of eval.ranks "
                       "cold, eval.ranks = 1 has one part, and ngram_counts can begin warm",
                       error);
}

fw_status evaluate_check(const struct experiment *experiment, const fw_host *host,
                         const struct token_table *table, fw_error *error) {
    struct cache_stream *stream = NULL;
    FW_TRY(check_warm_start(experiment, &experiment->cache, error));
    if (wants_counterpart(experiment))
        FW_TRY(check_warm_start(experiment, &experiment->counterpart, error));
    FW_TRY(open_cache(experiment, host, table, 0, &stream, error));
    cache_stream_close(stream);
    if (!wants_counterpart(experiment)) return FW_OK;
    FW_TRY(open_counterpart(experiment, host, table, 0, &stream, error));
    cache_stream_close(stream);
    return FW_OK;
}

/* The rest of a scored cache, once its stream is open. */
static fw_status enter(struct evaluation *e, const struct plugin_choice *choice,
                       struct scored_cache *cache, fw_error *error) {
    const uint32_t context = cache_stream_context(cache->stream);
    if (cache_stream_needs_entropy(cache->stream)) e->with_entropy = 1;
    cache->warm = e->options->experiment->eval.warm_start;
    cache->context = calloc(context + 1, sizeof *cache->context);
    if (cache->context == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a context of %u tokens", context);
    FW_TRY(evaluate_open_audit(e->options, choice, e->windows.targets, e->audit_seed, &e->verdicts,
                               &cache->audit, error));
    return ledger_create(e->windows.targets, cache->repeats, &cache->ledger, error);
}

/* Where a cache's state depends on the tokens alone, a second instance can take every other block
 * and be told of those that the first one takes, on a thread of its own; the score is the same, bit
 * for bit. Not where somebody watches, or where updates come in blocks, which begin elsewhere then;
 * nor in processes of their own, whose jails cannot keep one from signalling to the other, by
 * timing at the least, what it was told. */
static fw_status open_second(struct evaluation *e, fw_error *error) {
    enum { THREADS = 4 }; /* reading and forming rows need some, too */
    const struct evaluate_options *options = e->options;
    const struct plugin_choice *choice = &options->experiment->cache;
    const fw_cache *cache = choice->entry->plugin->vtable;
    if (options->host->threads(options->host) < THREADS || options->watcher != NULL ||
        choice->apart != NULL || e->cache.audit != NULL || e->windows.faithful ||
        !counts_only(choice) || !choice_is_on(choice) || cache->update_every > 1)
        return FW_OK;
    const uint32_t context = cache_stream_context(e->cache.stream);
    e->second.warm = e->cache.warm;
    e->second.context = calloc(context + 1, sizeof *e->second.context);
    if (e->second.context == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a context of %u tokens", context);
    return open_cache(options->experiment, options->host, options->table, e->windows.targets,
                      &e->second.stream, error);
}

fw_status evaluate_open_caches(struct evaluation *e, fw_error *error) {
    const struct evaluate_options *options = e->options;
    const struct experiment *experiment = options->experiment;
    const uint64_t targets = e->windows.targets;
    FW_TRY(check_warm_start(experiment, &experiment->cache, error));
    FW_TRY(open_cache(experiment, options->host, options->table, targets, &e->cache.stream, error));
    cache_stream_watch(e->cache.stream, options->watcher);
    e->cache.repeats = e->windows.faithful && choice_is_unverified(&experiment->cache);
    FW_TRY(enter(e, &experiment->cache, &e->cache, error));
    FW_TRY(open_second(e, error));
    if (!wants_counterpart(experiment)) return FW_OK;
    FW_TRY(check_warm_start(experiment, &experiment->counterpart, error));
    FW_TRY(open_counterpart(experiment, options->host, options->table, targets,
                            &e->counterpart.stream, error));
    return enter(e, &experiment->counterpart, &e->counterpart, error);
}

void evaluate_leave_cache(struct scored_cache *cache) {
    cache_audit_close(cache->audit);
    cache_stream_close(cache->stream);
    ledger_destroy(cache->ledger);
    free(cache->context);
}
