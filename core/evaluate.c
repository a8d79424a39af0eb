#include "evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "evaluate_audit.h"
#include "ledger.h"
#include "reading.h"
#include "relay.h"
#include "rows.h"
#include "windows.h"

/* Rows formed together. Waking the threads for it takes as long as forming several hundred rows;
 * rows that a cache then looks at should still be in the processor's caches. */
enum { ROWS_AT_ONCE = 128, ROWS_OF_A_THREAD = 32, VALUES_MEASURED_AT_ONCE = 1 << 22 };

/* A cache that is being scored, with a ledger of its own. */
struct scored_cache {
    struct cache_stream *stream; /* NULL: none */
    struct cache_audit *audit;   /* NULL: none */
    struct ledger *ledger;
    bool repeats;      /* asked again about targets that come again */
    bool warm;         /* parts begin after all tokens before them, as eval.warm_start says */
    uint64_t next;     /* first position that it was never asked about */
    uint32_t *context; /* what fw_row.context shows of the stream */
};

enum { CACHE, COUNTERPART, MOST_CACHES, MOST_BLOCKS = 4 };

/* A piece on its way: read, formed and scored for the model, then scored for the caches, then
 * entered in their ledgers. */
struct block {
    struct piece piece; /* its log-probabilities are gone when caches come */
    uint64_t number;
    struct rows rows;
    double *nats;             /* the model's */
    double *own[MOST_CACHES]; /* those of caches, or NOT_ASKED */
    uint32_t *bytes;
};

static const double NOT_ASKED = -1;

struct evaluation {
    const struct evaluate_options *options;
    struct windows windows; /* a stream's, where it is read in windows for comparison */
    int64_t batch;          /* windows of one forward pass */
    bool reads_on;          /* EVAL_STREAM: */
    struct windows chunks;  /* how it is read */
    struct windows runs;    /* what caches know as windows */
    bool alone;             /* no cache is scored */
    uint16_t *tokens;       /* that the model reads */
    uint16_t *told; /* that are scored and the caches learn: the same, or drawn as it goes on */
    struct block blocks[MOST_BLOCKS];
    uint32_t n_blocks;
    uint64_t n_filled;
    struct relay *relay;
    struct ledger *ledger;
    struct ledger *fair_ledger; /* of the model when `ledger` counts targets several times */
    uint64_t fair_next;
    struct ledger *beginning; /* of the first `check_targets`, where there are any */
    uint64_t check_targets;
    struct scored_cache cache, counterpart;
    struct scored_cache second; /* of the same cache: see open_second */
    int with_entropy;
    double begin, audit_seconds;
    uint64_t audit_seed;
    struct verdicts verdicts;
};

int64_t evaluate_window(const struct experiment *experiment) {
    return experiment->eval.window > 0 ? experiment->eval.window : experiment->data.sequence;
}

int64_t evaluate_chunk(const struct experiment *experiment) {
    const int64_t chunk = experiment->eval.chunk;
    return chunk > 0 ? chunk : experiment->eval.batch * evaluate_window(experiment);
}

struct windows evaluate_windows(const struct experiment *experiment, uint64_t targets) {
    const uint64_t length = (uint64_t)evaluate_window(experiment);
    const uint64_t stride = (uint64_t)experiment->eval.stride;
    switch (experiment->eval.mode) {
    case EVAL_SLIDING: return (struct windows){targets, length, stride, false};
    case EVAL_STREAM: return (struct windows){targets, stride, stride, false};
    default: return (struct windows){targets, length, length, false};
    }
}

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

static fw_status score_model(struct evaluation *e, uint64_t position, double nats, uint32_t bytes,
                             fw_error *error) {
    FW_TRY(ledger_enter(e->ledger, position, nats, bytes, error));
    if (position < e->check_targets)
        FW_TRY(ledger_enter(e->beginning, position, nats, bytes, error));
    if (e->fair_ledger == NULL || position < e->fair_next) return FW_OK;
    e->fair_next = position + 1;
    return ledger_enter(e->fair_ledger, position, nats, bytes, error);
}

/* The target behind `position`: what the caches are told is what is scored. */
static uint32_t take_target(struct evaluation *e, const double *row, uint64_t position) {
    if (e->options->draw != NULL)
        e->told[position + 1] =
            (uint16_t)random_pick(e->options->draw, row, e->options->table->vocabulary);
    return e->told[position + 1];
}

static fw_status score_position(struct evaluation *e, struct block *block, int64_t i,
                                fw_error *error) {
    const struct token_table *table = e->options->table;
    const int64_t at = i * (int64_t)table->vocabulary;
    const uint64_t position = block->piece.window.start + block->piece.first + (uint64_t)i;
    const uint32_t target = take_target(e, block->rows.probabilities + at, position);
    const float taken =
        e->alone ? block->rows.taken[i] : block->piece.log_probabilities[at + target];
    const double excess = block->rows.log_normaliser[i] - (double)taken;
    block->bytes[i] = token_table_bytes(table, e->told[position], target);
    block->nats[i] = excess > 0 ? excess : 0; /* rounding can make a sure row's -1e-17 */
    return score_model(e, position, block->nats[i], block->bytes[i], error);
}

static fw_status form_rows(struct evaluation *e, struct block *block, fw_error *error) {
    const fw_host *host = e->options->host;
    const struct piece *piece = &block->piece;
    const float *l = piece->log_probabilities;
    const uint16_t *targets = e->tokens + piece->window.start + piece->first + 1;
    if (e->alone) return rows_measure(&block->rows, host, l, targets, piece->n, error);
    return rows_form(&block->rows, host, l, piece->n, e->with_entropy, error);
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

/* The relay's: the first consumer has the cache, alone or every other block of it, and the
 * counterpart; the second one has the cache's other blocks. */
static fw_status score_caches(void *self, uint32_t consumer, uint32_t slot, fw_error *error) {
    struct evaluation *e = self;
    struct block *block = &e->blocks[slot];
    const bool ours = e->second.stream == NULL || block->number % 2 == consumer;
    double *own = ours ? block->own[CACHE] : NULL;
    if (consumer == 1) return score_block(e, &e->second, block, own, error);
    FW_TRY(score_block(e, &e->cache, block, own, error));
    return score_block(e, &e->counterpart, block, block->own[COUNTERPART], error);
}

static fw_status enter_cache(struct ledger *ledger, const struct block *block, const double *own,
                             fw_error *error) {
    const uint64_t position = block->piece.window.start + block->piece.first;
    for (int64_t i = 0; ledger != NULL && i < block->piece.n; i++)
        if (own[i] != NOT_ASKED)
            FW_TRY(ledger_enter(ledger, position + (uint64_t)i, own[i], block->bytes[i], error));
    return FW_OK;
}

/* What the caches made of a block, which is free then. */
static fw_status empty_block(struct evaluation *e, struct block *block, fw_error *error) {
    FW_TRY(enter_cache(e->cache.ledger, block, block->own[CACHE], error));
    FW_TRY(enter_cache(e->counterpart.ledger, block, block->own[COUNTERPART], error));
    block->piece.n = 0;
    return FW_OK;
}

static fw_status score_piece(struct evaluation *e, const struct piece *piece, fw_error *error) {
    uint32_t slot = 0;
    FW_TRY(relay_slot(e->relay, &slot, error));
    struct block *block = &e->blocks[slot];
    FW_TRY(empty_block(e, block, error));
    block->piece = *piece;
    block->number = e->n_filled++;
    FW_TRY(form_rows(e, block, error));
    for (int64_t i = 0; i < piece->n; i++) FW_TRY(score_position(e, block, i, error));
    return relay_post(e->relay, error);
}

/* All that was posted; errors of earlier blocks come before `status` of what came later. */
static fw_status finish_pieces(struct evaluation *e, fw_status status, fw_error *error) {
    FW_TRY(relay_finish(e->relay, error));
    for (uint64_t i = 0; i < e->n_blocks && status == FW_OK; i++)
        status = empty_block(e, &e->blocks[(e->n_filled + i) % e->n_blocks], error);
    return status;
}

static int64_t rows_at_once(const struct evaluation *e) {
    const int64_t measured = VALUES_MEASURED_AT_ONCE / (int64_t)e->options->table->vocabulary;
    const int64_t kept = ROWS_OF_A_THREAD * (int64_t)e->options->host->threads(e->options->host);
    const int64_t rows = e->alone ? measured : kept;
    return rows > ROWS_AT_ONCE ? rows : ROWS_AT_ONCE;
}

static void show_progress(const struct evaluation *e, const struct piece *piece) {
    const uint64_t done = piece->index + 1, batch = (uint64_t)e->batch;
    if (piece->first + (uint64_t)piece->n < piece->window.n) return;
    if (!e->reads_on && done % batch != 0 && done < windows_count(&e->windows)) return;
    progress_work(e->options->progress, e->options->label,
                  (double)(piece->window.start + piece->window.n), (double)e->windows.targets,
                  "tokens", e->begin);
}

static fw_status score_pieces(struct evaluation *e, struct reading *reading, fw_error *error) {
    struct piece piece;
    for (;;) {
        FW_TRY(reading_next(reading, &piece, error));
        if (piece.n == 0) return FW_OK;
        FW_TRY(score_piece(e, &piece, error));
        show_progress(e, &piece);
    }
}

static fw_status score_stream(struct evaluation *e, fw_error *error) {
    const struct reading_options options = {.host = e->options->host,
                                            .model = &e->options->model,
                                            .windows = e->reads_on ? &e->chunks : &e->windows,
                                            .tokens = e->tokens,
                                            .batch = e->reads_on ? 1 : e->batch,
                                            .reads_on = e->reads_on,
                                            .vocabulary = e->options->table->vocabulary,
                                            .most = rows_at_once(e)};
    struct reading *reading = NULL;
    FW_TRY(reading_create(&options, &reading, error));
    const fw_status status = score_pieces(e, reading, error);
    reading_destroy(reading);
    return finish_pieces(e, status, error);
}

/* ---- the whole ---- */

static fw_status check_tokens(const struct evaluation *e, fw_error *error) {
    const uint32_t vocabulary = e->options->table->vocabulary;
    for (uint64_t i = 0; i <= e->windows.targets; i++)
        if (e->tokens[i] >= vocabulary)
            return fw_fail(error, FW_E_RANGE,
                           "token %u at position %" PRIu64
                           " is outside the model's vocabulary of %u",
                           (unsigned)e->tokens[i], i, vocabulary);
    return FW_OK;
}

/* ---- caches ---- */

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
 * for bit. Not where somebody watches, or where updates come in blocks, which begin elsewhere then.
 */
static fw_status open_second(struct evaluation *e, fw_error *error) {
    enum { THREADS = 4 }; /* reading and forming rows need some, too */
    const struct evaluate_options *options = e->options;
    const struct plugin_choice *choice = &options->experiment->cache;
    const fw_cache *cache = choice->entry->plugin->vtable;
    if (options->host->threads(options->host) < THREADS || options->watcher != NULL ||
        e->cache.audit != NULL || e->windows.faithful || !counts_only(choice) ||
        !choice_is_on(choice) || cache->update_every > 1)
        return FW_OK;
    const uint32_t context = cache_stream_context(e->cache.stream);
    e->second.warm = e->cache.warm;
    e->second.context = calloc(context + 1, sizeof *e->second.context);
    if (e->second.context == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a context of %u tokens", context);
    return open_cache(options->experiment, options->host, options->table, e->windows.targets,
                      &e->second.stream, error);
}

static fw_status open_caches(struct evaluation *e, fw_error *error) {
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

static void leave(struct scored_cache *cache) {
    cache_audit_close(cache->audit);
    cache_stream_close(cache->stream);
    ledger_destroy(cache->ledger);
    free(cache->context);
}

/* ---- opening and closing ---- */

static fw_status open_block(struct block *block, int64_t rows, uint32_t vocabulary,
                            fw_error *error) {
    const size_t n = (size_t)rows;
    FW_TRY(rows_create(rows, vocabulary, &block->rows, error));
    block->nats = calloc(n, sizeof *block->nats);
    block->bytes = calloc(n, sizeof *block->bytes);
    for (int k = 0; k < MOST_CACHES; k++) block->own[k] = calloc(n, sizeof *block->own[k]);
    if (block->nats != NULL && block->bytes != NULL && block->own[CACHE] != NULL &&
        block->own[COUNTERPART] != NULL)
        return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory for the scores of %zu rows", n);
}

static void free_block(struct block *block) {
    rows_free(&block->rows);
    free(block->nats);
    free(block->bytes);
    for (int k = 0; k < MOST_CACHES; k++) free(block->own[k]);
}

/* With two threads or more, the caches work on one block while the next ones are read and formed.
 */
static fw_status open_blocks(struct evaluation *e, fw_error *error) {
    const struct evaluate_options *o = e->options;
    const bool caches = e->cache.stream != NULL;
    const bool threads = caches && o->host->threads(o->host) > 1;
    e->n_blocks = threads ? MOST_BLOCKS : 1;
    for (uint32_t i = 0; i < e->n_blocks; i++)
        FW_TRY(open_block(&e->blocks[i], rows_at_once(e), o->table->vocabulary, error));
    const struct relay_options options = {.slots = e->n_blocks,
                                          .consumers = e->second.stream != NULL ? 2 : caches,
                                          .threads = threads,
                                          .consume = score_caches,
                                          .self = e};
    return relay_create(&options, &e->relay, error);
}

static fw_status open_told(struct evaluation *e, uint64_t n, fw_error *error) {
    e->told = e->tokens;
    if (e->options->draw == NULL) return FW_OK;
    e->told = calloc(n, sizeof *e->told);
    if (e->told == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to draw %" PRIu64 " tokens", n);
    e->told[0] = e->tokens[0];
    return FW_OK;
}

static fw_status open_stream(struct evaluation *e, uint64_t n, fw_error *error) {
    const struct evaluate_options *options = e->options;
    const uint64_t chunk = (uint64_t)evaluate_chunk(options->experiment);
    const uint64_t run = (uint64_t)options->experiment->eval.stride;
    if (options->model.read_on == NULL || (int64_t)chunk > options->model.most_read)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the model cannot read a stream %" PRIu64 " tokens at a time (eval.mode = "
                       "stream)",
                       chunk);
    e->reads_on = true;
    e->chunks = (struct windows){n - 1, chunk, chunk, false};
    e->runs = (struct windows){n - 1, run, run, false};
    const uint64_t check = options->check_tokens < n ? options->check_tokens : n;
    if (check < 2) return FW_OK;
    e->check_targets = check - 1;
    return ledger_create(check - 1, false, &e->beginning, error);
}

static fw_status evaluation_open(struct evaluation *e, fw_error *error) {
    const struct evaluate_options *options = e->options;
    const struct eval_keys *keys = &options->experiment->eval;
    uint64_t n = corpus_tokens(options->corpus);
    if (options->max_tokens > 0 && n > options->max_tokens) n = options->max_tokens;
    if (n < 2)
        return fw_fail(error, FW_E_SHAPE, "%llu tokens cannot be scored: 2 are the least",
                       (unsigned long long)n);
    const uint64_t length = (uint64_t)evaluate_window(options->experiment);
    const bool sliding = options->mode == EVAL_SLIDING, faithful = sliding && keys->faithful;
    e->windows =
        (struct windows){n - 1, length, sliding ? (uint64_t)keys->stride : length, faithful};
    e->batch = keys->batch;
    e->alone = !options->with_cache && options->draw == NULL;
    if (options->mode == EVAL_STREAM) FW_TRY(open_stream(e, n, error));
    e->tokens = malloc(n * sizeof *e->tokens);
    if (e->tokens == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to score %" PRIu64 " tokens", n);
    corpus_read(options->corpus, 0, n, e->tokens);
    FW_TRY(check_tokens(e, error));
    FW_TRY(open_told(e, n, error));
    FW_TRY(ledger_create(n - 1, faithful, &e->ledger, error));
    if (faithful) FW_TRY(ledger_create(n - 1, false, &e->fair_ledger, error));
    FW_TRY(evaluate_audit_seed(options, &e->audit_seed, error));
    if (options->with_cache) FW_TRY(open_caches(e, error));
    return open_blocks(e, error);
}

static void evaluation_close(struct evaluation *e) {
    relay_destroy(e->relay);
    for (uint32_t i = 0; i < e->n_blocks; i++) free_block(&e->blocks[i]);
    leave(&e->cache);
    leave(&e->second);
    leave(&e->counterpart);
    ledger_destroy(e->ledger);
    ledger_destroy(e->fair_ledger);
    ledger_destroy(e->beginning);
    if (e->told != e->tokens) free(e->told);
    free(e->tokens);
}

/* ---- the result ---- */

/* Raw bytes of what was scored, so that both scores speak of the same text: the stream's first
 * token is never a target. It is a begin token, which stands for none, or its own bytes count off.
 */
static uint64_t scored_raw_bytes(const struct evaluation *e) {
    const struct corpus *corpus = e->options->corpus;
    if (e->windows.targets + 1 != corpus_tokens(corpus)) return 0;
    const uint64_t all = corpus_raw_bytes(corpus);
    const uint64_t first = e->options->table->tokens[e->tokens[0]].base_bytes;
    return all > first ? all - first : 0;
}

/* Raw bytes are those of the whole text, once: they say nothing about repeats. */
static fw_status close_ledger(const struct ledger *ledger, uint64_t raw_bytes, bool fair,
                              struct score *score, fw_error *error) {
    struct ledger_total total;
    FW_TRY(ledger_close(ledger, &total, error));
    const double bits = total.nats / log(2.0);
    *score = (struct score){.nats = total.nats,
                            .bpb = total.bytes > 0 ? bits / (double)total.bytes : 0,
                            .raw_bpb = raw_bytes > 0 && fair ? bits / (double)raw_bytes : 0,
                            .targets = total.targets,
                            .bytes = total.bytes,
                            .fair = fair};
    return FW_OK;
}

/* What each cache was told last has arrived, and what it took to have them elsewhere. */
static fw_status summarise_isolation(struct cache_stream *stream, struct evaluate_result *made,
                                     fw_error *error) {
    struct cache_summary summary;
    FW_TRY(cache_stream_end(stream, error));
    cache_stream_summary(stream, &summary);
    made->isolated = summary.isolated;
    made->isolation.seconds += summary.waiting.seconds;
    made->isolation.answers += summary.waiting.answers;
    return FW_OK;
}

static fw_status summarise_caches(const struct evaluation *e, struct evaluate_result *made,
                                  fw_error *error) {
    FW_TRY(summarise_isolation(e->cache.stream, made, error));
    FW_TRY(close_ledger(e->cache.ledger, made->raw_bytes, !e->cache.repeats, &made->cached, error));
    struct cache_summary summary;
    cache_stream_summary(e->cache.stream, &summary);
    made->cache_changed = summary.changed;
    made->cache_memory = summary.memory_bytes;
    made->invalid = summary.invalid;
    made->mean_sum = summary.mean_sum;
    made->largest_sum = summary.largest_sum;
    if (e->second.stream != NULL) {
        FW_TRY(summarise_isolation(e->second.stream, made, error));
        cache_stream_summary(e->second.stream, &summary);
        made->cache_changed += summary.changed;
        made->cache_memory += summary.memory_bytes;
    }
    made->has_counterpart = e->counterpart.stream != NULL;
    if (!made->has_counterpart) return FW_OK;
    FW_TRY(summarise_isolation(e->counterpart.stream, made, error));
    return close_ledger(e->counterpart.ledger, made->raw_bytes, true, &made->counterpart, error);
}

/* Beside the scores, what the probes say of them; or why there is none. */
static fw_status audit(struct evaluation *e, fw_error *error) {
    const double begin = clock_seconds();
    const struct windows *windows = e->reads_on ? &e->chunks : &e->windows;
    FW_TRY(
        evaluate_audit_model(e->options, windows, e->tokens, e->audit_seed, &e->verdicts, error));
    e->audit_seconds = clock_seconds() - begin;
    return evaluate_judge(e->options, &e->verdicts, error);
}

static fw_status summarise(const struct evaluation *e, struct evaluate_result *result,
                           fw_error *error) {
    struct evaluate_result made = {.raw_bytes = scored_raw_bytes(e)};
    const bool fair = e->fair_ledger == NULL;
    FW_TRY(close_ledger(e->ledger, made.raw_bytes, fair, &made.model, error));
    made.fair_model = made.model;
    if (!fair) FW_TRY(close_ledger(e->fair_ledger, made.raw_bytes, true, &made.fair_model, error));
    made.check.made = e->beginning != NULL;
    if (made.check.made) FW_TRY(close_ledger(e->beginning, 0, true, &made.check.stream, error));
    made.targets = made.model.targets;
    made.bytes = made.model.bytes;
    if (e->cache.stream != NULL) FW_TRY(summarise_caches(e, &made, error));
    made.verdicts = e->verdicts;
    made.audit_seconds = e->audit_seconds;
    made.audit_seed = e->audit_seed;
    made.seconds = clock_seconds() - e->begin;
    *result = made;
    return FW_OK;
}

/* The same tokens in sliding windows, with the model alone. */
static fw_status check_stream(const struct evaluate_options *options,
                              struct evaluate_result *result, fw_error *error) {
    struct evaluate_options sliding = *options;
    struct evaluate_result exact;
    sliding.mode = EVAL_SLIDING;
    sliding.max_tokens = result->check.stream.targets + 1;
    sliding.with_cache = false;
    sliding.audited = 0;
    sliding.label = "compare with sliding";
    FW_TRY(evaluate(&sliding, &exact, error));
    result->check.sliding = exact.fair_model;
    result->check.seconds = exact.seconds;
    return FW_OK;
}

fw_status evaluate(const struct evaluate_options *options, struct evaluate_result *result,
                   fw_error *error) {
    struct evaluation evaluation = {.options = options, .begin = clock_seconds()};
    fw_status status = evaluation_open(&evaluation, error);
    if (status == FW_OK) status = score_stream(&evaluation, error);
    progress_end(options->progress);
    if (status == FW_OK) status = audit(&evaluation, error);
    struct evaluate_result made;
    if (status == FW_OK) status = summarise(&evaluation, &made, error);
    evaluation_close(&evaluation);
    if (status == FW_OK && made.check.made) status = check_stream(options, &made, error);
    if (status == FW_OK) *result = made;
    return status;
}
