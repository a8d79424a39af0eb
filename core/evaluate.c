#include "evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "cache_stream.h"
#include "clock.h"
#include "ledger.h"
#include "rows.h"
#include "windows.h"

enum { ROWS_AT_ONCE = 128 }; /* rows formed together: few enough to stay in the processor's cache */

struct evaluation {
    const struct evaluate_options *options;
    struct windows windows;
    int64_t batch; /* windows of one forward pass */
    uint16_t *tokens;
    int32_t *inputs;
    float *log_probabilities;
    struct rows rows;
    struct ledger *ledger, *cached_ledger;
    struct cache_stream *cache;
    double begin;
};

int64_t evaluate_window(const struct experiment *experiment) {
    return experiment->eval.window > 0 ? experiment->eval.window : experiment->data.sequence;
}

/* ---- scoring ---- */

static fw_status score_position(struct evaluation *e, int64_t row, const float *log_probabilities,
                                uint64_t position, fw_error *error) {
    const struct token_table *table = e->options->table;
    const uint32_t previous = e->tokens[position], target = e->tokens[position + 1];
    const uint32_t bytes = token_table_bytes(table, previous, target);
    const double excess = e->rows.log_normaliser[row] - (double)log_probabilities[target];
    const double nats = excess > 0 ? excess : 0; /* rounding can make a sure row's -1e-17 */
    FW_TRY(ledger_enter(e->ledger, position, nats, bytes, error));
    if (e->cache == NULL) return FW_OK;
    const fw_row given = {.struct_size = sizeof given,
                          .vocabulary = table->vocabulary,
                          .position = position,
                          .probabilities = e->rows.probabilities + row * (int64_t)table->vocabulary,
                          .entropy = e->rows.entropy[row]};
    double cached = 0;
    FW_TRY(cache_stream_score(e->cache, &given, target, &cached, error));
    return ledger_enter(e->cached_ledger, position, cached, bytes, error);
}

static fw_status score_rows(struct evaluation *e, uint64_t first_position, int64_t n,
                            const float *log_probabilities, fw_error *error) {
    const int with_entropy = e->cache != NULL && cache_stream_needs_entropy(e->cache);
    FW_TRY(rows_form(&e->rows, e->options->host, log_probabilities, n, with_entropy, error));
    for (int64_t i = 0; i < n; i++)
        FW_TRY(score_position(e, i, log_probabilities + i * (int64_t)e->options->table->vocabulary,
                              first_position + (uint64_t)i, error));
    return FW_OK;
}

/* Score the window that stands at `slot` of the batch just inferred. */
static fw_status score_window(struct evaluation *e, const struct window *window, int64_t slot,
                              fw_error *error) {
    const int64_t n = (int64_t)(window->n - window->first);
    const int64_t row = slot * (int64_t)e->windows.length + (int64_t)window->first;
    FW_TRY(model_log_probabilities(e->options->model, row, n, e->log_probabilities, error));
    for (int64_t i = 0; i < n; i += ROWS_AT_ONCE)
        FW_TRY(score_rows(e, window->start + window->first + (uint64_t)i,
                          n - i < ROWS_AT_ONCE ? n - i : ROWS_AT_ONCE,
                          e->log_probabilities + i * (int64_t)e->options->table->vocabulary,
                          error));
    return FW_OK;
}

/* Inputs of windows [first, first + batch), padded with token 0 to full windows and a full batch,
 * so that every pass has the same shape and a score never depends on where a batch ends. */
static void gather_inputs(struct evaluation *e, uint64_t first, uint64_t count) {
    const uint64_t length = e->windows.length;
    for (uint64_t slot = 0; slot < (uint64_t)e->batch; slot++) {
        struct window window = {0};
        if (first + slot < count) window = windows_get(&e->windows, first + slot);
        for (uint64_t i = 0; i < length; i++)
            e->inputs[slot * length + i] = i < window.n ? e->tokens[window.start + i] : 0;
    }
}

static fw_status score_stream(struct evaluation *e, fw_error *error) {
    const uint64_t count = windows_count(&e->windows);
    for (uint64_t first = 0; first < count; first += (uint64_t)e->batch) {
        gather_inputs(e, first, count);
        FW_TRY(
            model_infer(e->options->model, e->inputs, e->batch, (int64_t)e->windows.length, error));
        uint64_t done = 0;
        for (uint64_t i = first; i < count && i < first + (uint64_t)e->batch; i++) {
            const struct window window = windows_get(&e->windows, i);
            FW_TRY(score_window(e, &window, (int64_t)(i - first), error));
            done = window.start + window.n;
        }
        progress_work(e->options->progress, e->options->label, (double)done,
                      (double)e->windows.targets, "tokens", e->begin);
    }
    return FW_OK;
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

static fw_status evaluation_open(struct evaluation *e, fw_error *error) {
    const struct evaluate_options *options = e->options;
    const struct eval_keys *keys = &options->experiment->eval;
    uint64_t n = corpus_tokens(options->corpus);
    if (options->max_tokens > 0 && n > options->max_tokens) n = options->max_tokens;
    if (n < 2)
        return fw_fail(error, FW_E_SHAPE, "%llu tokens cannot be scored: 2 are the least",
                       (unsigned long long)n);
    const uint64_t length = (uint64_t)evaluate_window(options->experiment);
    const bool sliding = options->mode == EVAL_SLIDING;
    e->windows = (struct windows){n - 1, length, sliding ? (uint64_t)keys->stride : length};
    e->batch = keys->batch;
    const uint32_t vocabulary = options->table->vocabulary;
    e->tokens = malloc(n * sizeof *e->tokens);
    e->inputs = malloc((size_t)e->batch * length * sizeof *e->inputs);
    e->log_probabilities = malloc(length * vocabulary * sizeof *e->log_probabilities);
    if (e->tokens == NULL || e->inputs == NULL || e->log_probabilities == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to score %" PRIu64 " tokens", n);
    corpus_read(options->corpus, 0, n, e->tokens);
    FW_TRY(check_tokens(e, error));
    FW_TRY(rows_create(ROWS_AT_ONCE, vocabulary, &e->rows, error));
    FW_TRY(ledger_create(n - 1, &e->ledger, error));
    if (!options->with_cache) return FW_OK;
    FW_TRY(ledger_create(n - 1, &e->cached_ledger, error));
    return cache_stream_open(&options->experiment->cache, options->host, options->table, n - 1,
                             keys->on_violation == EVAL_VIOLATION_REPORT, &e->cache, error);
}

static void evaluation_close(struct evaluation *e) {
    cache_stream_close(e->cache);
    ledger_destroy(e->ledger);
    ledger_destroy(e->cached_ledger);
    rows_free(&e->rows);
    free(e->log_probabilities);
    free(e->inputs);
    free(e->tokens);
}

static struct score make_score(double nats, uint64_t bytes, uint64_t raw_bytes) {
    const double bits = nats / log(2.0);
    return (struct score){.nats = nats,
                          .bpb = bytes > 0 ? bits / (double)bytes : 0,
                          .raw_bpb = raw_bytes > 0 ? bits / (double)raw_bytes : 0};
}

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

static fw_status summarise(const struct evaluation *e, struct evaluate_result *result,
                           fw_error *error) {
    struct ledger_total total, cached;
    FW_TRY(ledger_close(e->ledger, &total, error));
    struct evaluate_result made = {
        .targets = total.targets, .bytes = total.bytes, .raw_bytes = scored_raw_bytes(e)};
    made.model = make_score(total.nats, total.bytes, made.raw_bytes);
    if (e->cache != NULL) {
        FW_TRY(ledger_close(e->cached_ledger, &cached, error));
        struct cache_summary summary;
        cache_stream_summary(e->cache, &summary);
        made.cached = make_score(cached.nats, cached.bytes, made.raw_bytes);
        made.cache_changed = summary.changed;
        made.cache_memory = summary.memory_bytes;
        made.invalid = summary.invalid;
        made.mean_sum = summary.mean_sum;
        made.largest_sum = summary.largest_sum;
    }
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
    if (status == FW_OK) status = summarise(&evaluation, result, error);
    evaluation_close(&evaluation);
    return status;
}
