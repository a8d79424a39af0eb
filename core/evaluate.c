#include "evaluate.h"

#include <inttypes.h>
#include <stdlib.h>

#include "clock.h"
#include "evaluate_internal.h"

/* Rows formed together. Waking the threads for it takes as long as forming several hundred rows;
 * rows that a cache then looks at should still be in the processor's caches. */
enum { ROWS_AT_ONCE = 128, ROWS_OF_A_THREAD = 32, VALUES_MEASURED_AT_ONCE = 1 << 22 };

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

/* ---- opening and closing ---- */

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
                                          .consume = evaluate_score_caches,
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
    if (options->with_cache) FW_TRY(evaluate_open_caches(e, error));
    return open_blocks(e, error);
}

static void evaluation_close(struct evaluation *e) {
    relay_destroy(e->relay);
    for (uint32_t i = 0; i < e->n_blocks; i++) free_block(&e->blocks[i]);
    evaluate_leave_cache(&e->cache);
    evaluate_leave_cache(&e->second);
    evaluate_leave_cache(&e->counterpart);
    ledger_destroy(e->ledger);
    ledger_destroy(e->fair_ledger);
    ledger_destroy(e->beginning);
    if (e->told != e->tokens) free(e->told);
    free(e->tokens);
}

/* ---- the whole ---- */

/* Beside the scores, what the probes say of them; or why there is none. */
static fw_status audit(struct evaluation *e, fw_error *error) {
    const double begin = clock_seconds();
    const struct windows *windows = e->reads_on ? &e->chunks : &e->windows;
    FW_TRY(
        evaluate_audit_model(e->options, windows, e->tokens, e->audit_seed, &e->verdicts, error));
    e->audit_seconds = clock_seconds() - begin;
    return evaluate_judge(e->options, &e->verdicts, error);
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
    if (status == FW_OK) status = evaluate_summarise(&evaluation, &made, error);
    evaluation_close(&evaluation);
    if (status == FW_OK && made.check.made) status = check_stream(options, &made, error);
    if (status == FW_OK) *result = made;
    return status;
}
