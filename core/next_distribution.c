#include "next_distribution.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache_stream.h"
#include "decoder.h"
#include "evaluate.h"
#include "rows.h"
#include "windows.h"

struct distribution_state {
    struct distribution_options options;
    struct windows windows; /* as caches know them */
    bool reads_on;          /* EVAL_STREAM: what was read is kept when a window begins */
    uint64_t window_index;
    struct window window;
    struct decoder *decoder; /* NULL: windows are read anew */
    int32_t *inputs;         /* of one window */
    float *log_probabilities;
    struct rows rows; /* one */
    struct cache_stream *cache;
    uint32_t *context;
    double *probabilities;
    uint16_t *tokens; /* told so far */
    uint64_t told;
    bool has_row;
};

/* ---- opening ---- */

static fw_status allocate(struct distribution_state *s, fw_error *error) {
    const uint32_t vocabulary = s->options.table->vocabulary;
    s->inputs = calloc((size_t)evaluate_window(s->options.experiment), sizeof *s->inputs);
    s->log_probabilities = calloc(vocabulary, sizeof *s->log_probabilities);
    s->probabilities = calloc(vocabulary, sizeof *s->probabilities);
    s->context = calloc(cache_stream_context(s->cache) + 1u, sizeof *s->context);
    s->tokens = calloc(s->options.tokens, sizeof *s->tokens);
    if (s->inputs == NULL || s->log_probabilities == NULL || s->probabilities == NULL ||
        s->context == NULL || s->tokens == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a stream of %" PRIu64 " tokens",
                       s->options.tokens);
    return rows_create(1, vocabulary, &s->rows, error);
}

fw_status distribution_check_cache(const struct plugin_choice *cache, fw_error *error) {
    if (!choice_is_unverified(cache)) return FW_OK;
    return choice_fail(cache, FW_E_PROTOCOL,
                       "it states no distribution that sums to one over the vocabulary, and "
                       "without one there is nothing to decode with; use another cache",
                       error);
}

static fw_status open_cache(struct distribution_state *s, fw_error *error) {
    const struct plugin_choice *choice = &s->options.experiment->cache;
    FW_TRY(distribution_check_cache(choice, error));
    return cache_stream_open(choice, s->options.host, s->options.table, s->windows.targets, false,
                             &s->cache, error);
}

static fw_status open_state(struct distribution_state *s, fw_error *error) {
    const struct experiment *experiment = s->options.experiment;
    const uint64_t length = (uint64_t)evaluate_window(experiment);
    s->reads_on = experiment->eval.mode == EVAL_STREAM;
    s->windows = evaluate_windows(experiment, s->options.tokens - 1);
    FW_TRY(open_cache(s, error));
    FW_TRY(allocate(s, error));
    if (!s->reads_on && decoder_check(s->options.model, NULL) != FW_OK) return FW_OK;
    const struct decoder_options options = {
        .model = s->options.model, .most = (int64_t)length, .window = (int64_t)length};
    return decoder_create(&options, &s->decoder, error);
}

fw_status distribution_open(const struct distribution_options *options,
                            struct distribution_state **state, fw_error *error) {
    struct distribution_state *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a stream");
    made->options = *options;
    const fw_status status = open_state(made, error);
    if (status == FW_OK)
        *state = made;
    else
        distribution_close(made);
    return status;
}

void distribution_close(struct distribution_state *state) {
    if (state == NULL) return;
    decoder_destroy(state->decoder);
    cache_stream_close(state->cache);
    rows_free(&state->rows);
    free(state->inputs);
    free(state->log_probabilities);
    free(state->probabilities);
    free(state->context);
    free(state->tokens);
    free(state);
}

fw_status distribution_begin(struct distribution_state *s, fw_error *error) {
    s->told = 0;
    s->has_row = false;
    s->window_index = 0;
    s->window = windows_get(&s->windows, 0);
    return cache_stream_begin(s->cache, error);
}

/* ---- the language model's row ---- */

/* The window that scores `position`; whether it begins there. */
static bool enter_window(struct distribution_state *s, uint64_t position) {
    if (position >= s->window.start + s->window.n)
        s->window = windows_get(&s->windows, ++s->window_index);
    return position == s->window.start + s->window.first;
}

/* What was read of the window before is forgotten, and its context comes first; a stream just goes
 * on. */
static fw_status feed(struct distribution_state *s, uint64_t position, bool begins,
                      fw_error *error) {
    const bool anew = begins && (!s->reads_on || position == 0);
    const uint64_t from = anew ? s->window.start : position, n = position + 1 - from;
    for (uint64_t i = 0; i < n; i++) s->inputs[i] = s->tokens[from + i];
    if (anew) FW_TRY(decoder_reset(s->decoder, error));
    FW_TRY(decoder_read(s->decoder, s->inputs, (int64_t)n, error));
    return model_log_probabilities(s->options.model, (int64_t)n - 1, 1, s->log_probabilities,
                                   error);
}

static fw_status read_window(struct distribution_state *s, uint64_t position, fw_error *error) {
    const uint64_t n = position + 1 - s->window.start, length = s->windows.length;
    memset(s->inputs, 0, length * sizeof *s->inputs);
    for (uint64_t i = 0; i < n; i++) s->inputs[i] = s->tokens[s->window.start + i];
    FW_TRY(model_infer(s->options.model, s->inputs, 1, (int64_t)length, error));
    return model_log_probabilities(s->options.model, (int64_t)n - 1, 1, s->log_probabilities,
                                   error);
}

static fw_status form_row(struct distribution_state *s, uint64_t position, bool begins,
                          fw_error *error) {
    if (s->decoder != NULL)
        FW_TRY(feed(s, position, begins, error));
    else
        FW_TRY(read_window(s, position, error));
    s->has_row = true;
    return rows_form(&s->rows, s->options.host, s->log_probabilities, 1,
                     cache_stream_needs_entropy(s->cache), error);
}

/* ---- the distribution ---- */

static fw_row row_at(struct distribution_state *s, uint64_t position) {
    const uint64_t wanted = cache_stream_context(s->cache);
    const uint32_t n = (uint32_t)(wanted < position + 1 ? wanted : position + 1);
    for (uint32_t i = 0; i < n; i++) s->context[i] = s->tokens[position + 1 - n + i];
    return (fw_row){.struct_size = sizeof(fw_row),
                    .vocabulary = s->options.table->vocabulary,
                    .position = position,
                    .probabilities = s->rows.probabilities,
                    .entropy = s->rows.entropy[0],
                    .context = s->context,
                    .n_context = n};
}

static fw_status begin_part(struct distribution_state *s, uint64_t position, fw_error *error) {
    FW_TRY(cache_stream_begin(s->cache, error));
    if (!s->options.experiment->eval.warm_start) return FW_OK;
    return cache_stream_learn(s->cache, s->tokens + 1, position, error);
}

fw_status next_distribution(struct distribution_state *s, const double **probabilities,
                            fw_error *error) {
    const uint32_t vocabulary = s->options.table->vocabulary;
    *probabilities = s->probabilities;
    if (s->told == s->options.tokens)
        return fw_fail(error, FW_E_RANGE, "the stream has no more than %" PRIu64 " tokens",
                       s->told);
    if (s->told == 0) {
        for (uint32_t v = 0; v < vocabulary; v++) s->probabilities[v] = 1.0 / vocabulary;
        return FW_OK;
    }
    const uint64_t position = s->told - 1;
    const bool begins = enter_window(s, position);
    if (begins && position > 0 &&
        windows_begin_part(&s->windows, (uint64_t)s->options.experiment->eval.ranks,
                           s->window_index))
        FW_TRY(begin_part(s, position, error));
    FW_TRY(form_row(s, position, begins, error));
    const fw_row row = row_at(s, position);
    return cache_stream_distribution(s->cache, &row, s->probabilities, error);
}

fw_status distribution_tell(struct distribution_state *s, uint32_t token, fw_error *error) {
    if (s->told == s->options.tokens || token >= s->options.table->vocabulary)
        return fw_fail(error, FW_E_RANGE, "token %u is outside the stream or its vocabulary",
                       token);
    s->tokens[s->told++] = (uint16_t)token;
    if (s->told == 1) return FW_OK;
    const uint64_t position = s->told - 2;
    FW_TRY(cache_stream_tell(s->cache, position, token, error));
    if (position + 1 < s->window.start + s->window.n) return FW_OK;
    return cache_stream_end_window(s->cache, error);
}

const float *distribution_row(const struct distribution_state *state) {
    return state->told > 0 && state->has_row ? state->log_probabilities : NULL;
}
