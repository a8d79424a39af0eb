#include "evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "evaluate_audit.h"
#include "ledger.h"
#include "reading.h"
#include "rows.h"
#include "windows.h"

enum { ROWS_AT_ONCE = 128 }; /* rows formed together: few enough to stay in the processor's cache */

/* A cache that is being scored, with a ledger of its own. */
struct scored_cache {
    struct cache_stream *stream; /* NULL: none */
    struct cache_audit *audit;   /* NULL: none */
    struct ledger *ledger;
    bool repeats;      /* asked again about targets that come again */
    uint64_t next;     /* first position that it was never asked about */
    uint32_t *context; /* what fw_row.context shows of the stream */
};

struct evaluation {
    const struct evaluate_options *options;
    struct windows windows;
    int64_t batch;    /* windows of one forward pass */
    uint16_t *tokens; /* that the model reads */
    uint16_t *told;   /* that are scored and the caches learn: the same, or drawn as it goes on */
    struct rows rows;
    struct ledger *ledger;
    struct ledger *fair_ledger; /* of the model when `ledger` counts targets several times */
    uint64_t fair_next;
    struct scored_cache cache, counterpart;
    int with_entropy;
    double begin, audit_seconds;
    struct verdicts verdicts;
};

int64_t evaluate_window(const struct experiment *experiment) {
    return experiment->eval.window > 0 ? experiment->eval.window : experiment->data.sequence;
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
static fw_status score_cache(struct evaluation *e, struct scored_cache *cache, fw_row row,
                             uint32_t target, double nats, uint32_t bytes, fw_error *error) {
    if (cache->stream == NULL || (row.position < cache->next && !cache->repeats)) return FW_OK;
    cache->next = row.position + 1;
    row.context = cache->context;
    row.n_context = gather_context(e, cache, row.position);
    if (!cache_stream_needs_entropy(cache->stream)) row.entropy = -1;
    double own = 0;
    FW_TRY(cache_audit_score(cache->audit, cache->stream, &row, target, &own, error));
    if (!cache_stream_left_alone(cache->stream)) nats = own;
    return ledger_enter(cache->ledger, row.position, nats, bytes, error);
}

static fw_status score_model(struct evaluation *e, uint64_t position, double nats, uint32_t bytes,
                             fw_error *error) {
    FW_TRY(ledger_enter(e->ledger, position, nats, bytes, error));
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

static fw_status score_position(struct evaluation *e, int64_t row, const float *log_probabilities,
                                uint64_t position, fw_error *error) {
    const struct token_table *table = e->options->table;
    const double *probabilities = e->rows.probabilities + row * (int64_t)table->vocabulary;
    const uint32_t target = take_target(e, probabilities, position);
    const uint32_t bytes = token_table_bytes(table, e->told[position], target);
    const double excess = e->rows.log_normaliser[row] - (double)log_probabilities[target];
    const double nats = excess > 0 ? excess : 0; /* rounding can make a sure row's -1e-17 */
    FW_TRY(score_model(e, position, nats, bytes, error));
    const fw_row given = {.struct_size = sizeof given,
                          .vocabulary = table->vocabulary,
                          .position = position,
                          .probabilities = probabilities,
                          .entropy = e->rows.entropy[row]};
    FW_TRY(score_cache(e, &e->cache, given, target, nats, bytes, error));
    return score_cache(e, &e->counterpart, given, target, nats, bytes, error);
}

static fw_status score_rows(struct evaluation *e, uint64_t first_position, int64_t n,
                            const float *log_probabilities, fw_error *error) {
    FW_TRY(rows_form(&e->rows, e->options->host, log_probabilities, n, e->with_entropy, error));
    for (int64_t i = 0; i < n; i++)
        FW_TRY(score_position(e, i, log_probabilities + i * (int64_t)e->options->table->vocabulary,
                              first_position + (uint64_t)i, error));
    return FW_OK;
}

/* Scored caches begin cold with each part, and learn of a window's end. */
static fw_status each_cache(struct evaluation *e,
                            fw_status (*act)(struct cache_audit *audit, struct cache_stream *stream,
                                             fw_error *error),
                            fw_error *error) {
    const struct scored_cache *c = &e->cache, *other = &e->counterpart;
    if (c->stream != NULL) FW_TRY(act(c->audit, c->stream, error));
    return other->stream != NULL ? act(other->audit, other->stream, error) : FW_OK;
}

/* A window ends when its last position was scored. */
static fw_status score_piece(struct evaluation *e, const struct piece *piece, fw_error *error) {
    const uint64_t ranks = (uint64_t)e->options->experiment->eval.ranks;
    const struct window *window = &piece->window;
    if (piece->first == window->first && piece->index > 0 &&
        windows_begin_part(&e->windows, ranks, piece->index))
        FW_TRY(each_cache(e, cache_audit_begin, error));
    FW_TRY(score_rows(e, window->start + piece->first, piece->n, piece->log_probabilities, error));
    if (piece->first + (uint64_t)piece->n < window->n) return FW_OK;
    return each_cache(e, cache_audit_end_window, error);
}

static void show_progress(const struct evaluation *e, const struct piece *piece) {
    const uint64_t done = piece->index + 1, batch = (uint64_t)e->batch;
    if (piece->first + (uint64_t)piece->n < piece->window.n) return;
    if (done % batch != 0 && done < windows_count(&e->windows)) return;
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
                                            .windows = &e->windows,
                                            .tokens = e->tokens,
                                            .batch = e->batch,
                                            .vocabulary = e->options->table->vocabulary,
                                            .most = ROWS_AT_ONCE};
    struct reading *reading = NULL;
    FW_TRY(reading_create(&options, &reading, error));
    const fw_status status = score_pieces(e, reading, error);
    reading_destroy(reading);
    return status;
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

fw_status evaluate_check(const struct experiment *experiment, const fw_host *host,
                         const struct token_table *table, fw_error *error) {
    struct cache_stream *stream = NULL;
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
    cache->context = calloc(context + 1, sizeof *cache->context);
    if (cache->context == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a context of %u tokens", context);
    FW_TRY(evaluate_open_audit(e->options, choice, e->windows.targets, &e->verdicts, &cache->audit,
                               error));
    return ledger_create(e->windows.targets, cache->repeats, &cache->ledger, error);
}

static fw_status open_caches(struct evaluation *e, fw_error *error) {
    const struct evaluate_options *options = e->options;
    const struct experiment *experiment = options->experiment;
    const uint64_t targets = e->windows.targets;
    FW_TRY(open_cache(experiment, options->host, options->table, targets, &e->cache.stream, error));
    cache_stream_watch(e->cache.stream, options->watcher);
    e->cache.repeats = e->windows.faithful && choice_is_unverified(&experiment->cache);
    FW_TRY(enter(e, &experiment->cache, &e->cache, error));
    if (!wants_counterpart(experiment)) return FW_OK;
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

static fw_status open_told(struct evaluation *e, uint64_t n, fw_error *error) {
    e->told = e->tokens;
    if (e->options->draw == NULL) return FW_OK;
    e->told = calloc(n, sizeof *e->told);
    if (e->told == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to draw %" PRIu64 " tokens", n);
    e->told[0] = e->tokens[0];
    return FW_OK;
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
    e->tokens = malloc(n * sizeof *e->tokens);
    if (e->tokens == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to score %" PRIu64 " tokens", n);
    corpus_read(options->corpus, 0, n, e->tokens);
    FW_TRY(check_tokens(e, error));
    FW_TRY(open_told(e, n, error));
    FW_TRY(rows_create(ROWS_AT_ONCE, options->table->vocabulary, &e->rows, error));
    FW_TRY(ledger_create(n - 1, faithful, &e->ledger, error));
    if (faithful) FW_TRY(ledger_create(n - 1, false, &e->fair_ledger, error));
    return options->with_cache ? open_caches(e, error) : FW_OK;
}

static void evaluation_close(struct evaluation *e) {
    leave(&e->cache);
    leave(&e->counterpart);
    ledger_destroy(e->ledger);
    ledger_destroy(e->fair_ledger);
    rows_free(&e->rows);
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

static fw_status summarise_caches(const struct evaluation *e, struct evaluate_result *made,
                                  fw_error *error) {
    FW_TRY(close_ledger(e->cache.ledger, made->raw_bytes, !e->cache.repeats, &made->cached, error));
    struct cache_summary summary;
    cache_stream_summary(e->cache.stream, &summary);
    made->cache_changed = summary.changed;
    made->cache_memory = summary.memory_bytes;
    made->invalid = summary.invalid;
    made->mean_sum = summary.mean_sum;
    made->largest_sum = summary.largest_sum;
    made->has_counterpart = e->counterpart.stream != NULL;
    if (!made->has_counterpart) return FW_OK;
    return close_ledger(e->counterpart.ledger, made->raw_bytes, true, &made->counterpart, error);
}

/* Beside the scores, what the probes say of them; or why there is none. */
static fw_status audit(struct evaluation *e, fw_error *error) {
    const double begin = clock_seconds();
    FW_TRY(evaluate_audit_model(e->options, &e->windows, e->tokens, &e->verdicts, error));
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
    made.targets = made.model.targets;
    made.bytes = made.model.bytes;
    if (e->cache.stream != NULL) FW_TRY(summarise_caches(e, &made, error));
    made.verdicts = e->verdicts;
    made.audit_seconds = e->audit_seconds;
    made.seconds = clock_seconds() - e->begin;
    *result = made;
    return FW_OK;
}

fw_status evaluate(const struct evaluate_options *options, struct evaluate_result *result,
                   fw_error *error) {
    struct evaluation evaluation = {.options = options, .begin = clock_seconds()};
    fw_status status = evaluation_open(&evaluation, error);
    if (status == FW_OK) status = score_stream(&evaluation, error);
    progress_end(options->progress);
    if (status == FW_OK) status = audit(&evaluation, error);
    if (status == FW_OK) status = summarise(&evaluation, result, error);
    evaluation_close(&evaluation);
    return status;
}
