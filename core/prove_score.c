#include "prove_score.h"

#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "decoder.h"
#include "proof_code.h"
#include "reading.h"

enum { ROWS_AT_ONCE = 128 };

/* ---- opening ---- */

fw_status prove_scoring_open(struct prove_scoring *s, fw_error *error) {
    const struct experiment *experiment = s->scorer->session.experiment;
    const struct windows windows = evaluate_windows(experiment, s->spans->span_tokens - 1);
    const int64_t most = (int64_t)windows_count(&windows);
    s->experiment = *experiment;
    if (s->experiment.eval.batch > most) s->experiment.eval.batch = most > 0 ? most : 1;
    s->bulk = language_model_of(s->scorer->model);
    if (experiment->eval.mode != EVAL_STREAM) return FW_OK;
    const struct decoder_options options = {.model = s->scorer->model,
                                            .most = evaluate_chunk(experiment),
                                            .window = evaluate_window(experiment)};
    FW_TRY(decoder_create(&options, &s->decoder, error));
    s->bulk = language_model_with(s->scorer->model, s->decoder);
    return FW_OK;
}

void prove_scoring_close(struct prove_scoring *scoring) { decoder_destroy(scoring->decoder); }

/* ---- the claim: what the scorer says of the same tokens ---- */

static fw_status score_span(struct prove_scoring *s, const uint16_t *tokens, double *nats,
                            uint64_t *bytes, fw_error *error) {
    struct corpus *corpus = NULL;
    FW_TRY(corpus_of_tokens(tokens, s->spans->span_tokens, &corpus, error));
    const struct experiment *experiment = &s->experiment;
    const struct evaluate_options options = {.experiment = experiment,
                                             .host = s->scorer->session.services,
                                             .model = s->bulk,
                                             .corpus = corpus,
                                             .table = s->scorer->artifact.table,
                                             .mode = experiment->eval.mode,
                                             .with_cache = choice_is_on(&experiment->cache),
                                             .label = "score",
                                             .progress = s->progress};
    struct evaluate_result result;
    const fw_status status = evaluate(&options, &result, error);
    corpus_close(corpus);
    if (status != FW_OK) return status;
    const struct score *score = options.with_cache ? &result.cached : &result.fair_model;
    *nats += score->nats;
    *bytes += score->bytes;
    return FW_OK;
}

fw_status prove_score(struct prove_scoring *s, fw_error *error) {
    double nats = 0;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < s->spans->spans; i++)
        FW_TRY(score_span(s, s->spans->tokens + i * s->spans->span_tokens, &nats, &bytes, error));
    s->result->rule_bytes = bytes;
    s->result->claimed_bpb = bytes > 0 ? nats / log(2.0) / (double)bytes : 0;
    return FW_OK;
}

/* ---- the path, and how it differs from the scorer's rows ---- */

/* Reads each span as the scorer does, with the scorer's model, while the path goes along. */
struct comparison {
    struct prove_scoring *scoring;
    struct distribution_state *state;
    struct windows windows; /* or the chunks of a stream */
    bool reads_on;
    int64_t batch;
    struct reading *reading;
    struct piece piece;
    int64_t at; /* rows of the piece that were compared */
    double begin;
};

static fw_status begin_span(struct comparison *c, uint64_t span, fw_error *error) {
    const struct prove_spans *spans = c->scoring->spans;
    const struct reading_options options = {.host = c->scoring->scorer->session.services,
                                            .model = &c->scoring->bulk,
                                            .windows = &c->windows,
                                            .tokens = spans->tokens + span * spans->span_tokens,
                                            .batch = c->batch,
                                            .reads_on = c->reads_on,
                                            .vocabulary =
                                                c->scoring->scorer->artifact.table->vocabulary,
                                            .most = ROWS_AT_ONCE};
    reading_destroy(c->reading);
    c->reading = NULL;
    c->piece = (struct piece){0};
    c->at = 0;
    return c->windows.targets > 0 ? reading_create(&options, &c->reading, error) : FW_OK;
}

static double log_sum(const float *row, uint32_t n) {
    double sum = 0;
    for (uint32_t v = 0; v < n; v++) sum += exp((double)row[v]);
    return log(sum);
}

static void compare_rows(struct comparison *c, const float *ours, const float *theirs,
                         uint32_t token) {
    struct prove_result *result = c->scoring->result;
    const uint32_t n = c->scoring->scorer->artifact.table->vocabulary;
    const double a = log_sum(ours, n), b = log_sum(theirs, n);
    for (uint32_t v = 0; v < n; v++) {
        const double difference = fabs(exp((double)ours[v] - a) - exp((double)theirs[v] - b));
        if (!(difference <= result->largest_row)) result->largest_row = difference;
    }
    const double bits = fabs(((double)ours[token] - a) - ((double)theirs[token] - b)) / log(2.0);
    if (!(bits <= result->largest_bits)) result->largest_bits = bits;
}

static fw_status compare_next(struct comparison *c, uint32_t token, fw_error *error) {
    if (c->at == c->piece.n) {
        FW_TRY(reading_next(c->reading, &c->piece, error));
        c->at = 0;
        if (c->piece.n == 0)
            return fw_fail(error, FW_E_INTERNAL, "the scorer reads fewer rows than there are");
    }
    const int64_t n = (int64_t)c->scoring->scorer->artifact.table->vocabulary;
    compare_rows(c, distribution_row(c->state), c->piece.log_probabilities + c->at++ * n, token);
    return FW_OK;
}

static fw_status compare_token(void *self, uint64_t span, uint64_t index, uint32_t token,
                               double probability, fw_error *error) {
    struct comparison *c = self;
    const struct prove_spans *spans = c->scoring->spans;
    (void)probability;
    if (index == 0)
        FW_TRY(begin_span(c, span, error));
    else
        FW_TRY(compare_next(c, token, error));
    progress_work(c->scoring->progress, "encode", (double)(span * spans->span_tokens + index + 1),
                  (double)(spans->spans * spans->span_tokens), "tokens", c->begin);
    return FW_OK;
}

static fw_status encode_with(struct prove_scoring *s, struct model *model, struct bytes *coded,
                             fw_error *error) {
    const struct experiment *experiment = s->scorer->session.experiment;
    const uint64_t chunk = (uint64_t)evaluate_chunk(experiment);
    const uint64_t targets = s->spans->span_tokens - 1;
    const bool reads_on = experiment->eval.mode == EVAL_STREAM;
    const struct distribution_options options = {.experiment = experiment,
                                                 .host = s->scorer->session.services,
                                                 .model = model,
                                                 .table = s->scorer->artifact.table,
                                                 .tokens = s->spans->span_tokens};
    struct comparison c = {.scoring = s,
                           .windows = reads_on ? (struct windows){targets, chunk, chunk, false}
                                               : evaluate_windows(experiment, targets),
                           .reads_on = reads_on,
                           .batch = reads_on ? 1 : s->experiment.eval.batch,
                           .begin = clock_seconds()};
    FW_TRY(distribution_open(&options, &c.state, error));
    const struct proof_listener listener = {.self = &c, .coded = compare_token};
    double nats = 0;
    const fw_status status =
        proof_encode(c.state, s->scorer->artifact.table->vocabulary, s->spans->tokens,
                     s->spans->spans, s->spans->span_tokens, &listener, coded, &nats, error);
    progress_end(s->progress);
    reading_destroy(c.reading);
    distribution_close(c.state);
    s->result->path_bits = nats / log(2.0);
    return status;
}

/* The path has a model of its own, as the decoder has: the scorer's reads ahead meanwhile. */
fw_status prove_encode(struct prove_scoring *s, struct bytes *coded, fw_error *error) {
    struct model *model = NULL, *from = s->scorer->model;
    FW_TRY(
        scoring_model(&s->scorer->session, s->scorer->artifact.table->vocabulary, &model, error));
    float *weights = calloc((size_t)model_arena_count(from), sizeof *weights);
    fw_status status = weights != NULL
                           ? model_download(from, model_masters(from), weights, error)
                           : fw_fail(error, FW_E_MEMORY, "no memory for a copy of the weights");
    if (status == FW_OK) status = model_set_weights(model, weights, error);
    free(weights);
    if (status == FW_OK) status = encode_with(s, model, coded, error);
    model_destroy(model);
    return status;
}
