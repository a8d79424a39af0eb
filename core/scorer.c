#include "scorer.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "decoder.h"
#include "evaluate_coin.h"
#include "pack.h"

fw_status scorer_config_text(const struct session *session, char **text, fw_error *error) {
    return config_artifact_text(session->config, text, error);
}

static struct model_options scoring_options(const struct session *session, uint32_t vocabulary) {
    const int64_t window = evaluate_window(session->experiment);
    const int64_t chunk = evaluate_chunk(session->experiment),
                  feed = chunk > window ? chunk : window;
    return (struct model_options){.experiment = session->experiment,
                                  .host = session->services,
                                  .vocabulary = vocabulary,
                                  .batch = session->experiment->eval.batch,
                                  .tokens = window,
                                  .feed = feed};
}

fw_status scoring_model(const struct session *session, uint32_t vocabulary, struct model **model,
                        fw_error *error) {
    const struct model_options options = scoring_options(session, vocabulary);
    struct model *made = NULL;
    FW_TRY(model_create(&options, &made, error));
    if (session->experiment->eval.mode == EVAL_STREAM) {
        const fw_status status = decoder_check(made, error);
        if (status != FW_OK) model_destroy(made);
        FW_TRY(status);
    }
    *model = made;
    return FW_OK;
}

/* What reads a stream; its memory counts as part of the evaluation. */
static fw_status open_decoder(const struct session *session, struct model *model,
                              struct decoder **decoder, fw_error *error) {
    const struct decoder_options options = {.model = model,
                                            .most = evaluate_chunk(session->experiment),
                                            .window = evaluate_window(session->experiment)};
    return decoder_create(&options, decoder, error);
}

/* What the coin shows is known before the long work, and said of its score. */
static fw_status score_after_coin(const struct evaluate_options *options,
                                  struct evaluate_result *result, fw_error *error) {
    struct coin_result coin;
    FW_TRY(evaluate_coin(options, &coin, error));
    FW_TRY(evaluate(options, result, error));
    result->coin = coin;
    coin_add_verdicts(&coin, &result->verdicts);
    return FW_OK;
}

fw_status score_corpus(struct session *session, struct model *model,
                       const struct token_table *table, const struct corpus *corpus, int64_t mode,
                       uint64_t max_tokens, bool final, const char *label,
                       struct evaluate_result *result, fw_error *error) {
    const struct experiment *experiment = session->experiment;
    const bool with_cache = final && choice_is_on(&experiment->cache);
    const uint64_t check = final ? (uint64_t)experiment->eval.stream_check_tokens : 0;
    const double begin = clock_seconds();
    struct decoder *decoder = NULL;
    if (mode == EVAL_STREAM) FW_TRY(open_decoder(session, model, &decoder, error));
    const double opened = clock_seconds() - begin;
    const struct evaluate_options options = {
        .experiment = experiment,
        .host = session->services,
        .model = decoder != NULL ? language_model_with(model, decoder) : language_model_of(model),
        .corpus = corpus,
        .table = table,
        .mode = mode,
        .max_tokens = max_tokens,
        .check_tokens = check,
        .with_cache = with_cache,
        .audited = final ? EVALUATE_AUDIT_ALL : 0,
        .label = label,
        .progress = &session->progress};
    const fw_status status =
        final ? score_after_coin(&options, result, error) : evaluate(&options, result, error);
    if (status == FW_OK) result->seconds += opened;
    decoder_destroy(decoder);
    return status;
}

/* ---- opening an artifact ---- */

static fw_status load_weights(struct scorer *scorer, fw_error *error) {
    struct model *model = scorer->model;
    float *weights = calloc((size_t)model_arena_count(model), sizeof *weights);
    if (weights == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for its weights");
    fw_status status = unpack_weights(scorer->session.experiment, scorer->session.services, model,
                                      &scorer->artifact, weights, error);
    if (status == FW_OK) status = model_set_weights(model, weights, error);
    free(weights);
    return status;
}

/* A parameter takes a 64th of a byte at least, and no compressor makes more of a byte than these:
 * what claims more would only make us allocate memory for it. */
enum { PARAMETERS_PER_BYTE = 64, BYTES_PER_PACKED_BYTE = 65536, PACKED_BYTES_FREE = 4096 };

/* The model that the configuration declares against what the file holds. */
static fw_status check_model(const struct scorer *scorer, double bytes, fw_error *error) {
    const struct model_options options =
        scoring_options(&scorer->session, scorer->artifact.table->vocabulary);
    int64_t parameters = 0;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = model_count(&options, &parameters, &why);
    if (status != FW_OK) /* larger than any model: no better than larger than this file */
        return fw_fail(error, status == FW_E_LIMIT ? FW_E_FORMAT : status, "%s", why.message);
    if ((double)parameters <= PARAMETERS_PER_BYTE * bytes) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "its configuration declares a model of %lld parameters, but its streams hold "
                   "%.0f bytes",
                   (long long)parameters, bytes);
}

static fw_status check_size(const struct scorer *scorer, fw_error *error) {
    const struct artifact *artifact = &scorer->artifact;
    double bytes = 0;
    for (uint32_t i = 0; i < artifact->n_streams; i++) {
        const fw_stream *stream = &artifact->streams[i];
        bytes +=
            (double)stream->rows * (double)stream->columns * (double)fw_dtype_size(stream->dtype);
    }
    if (bytes > BYTES_PER_PACKED_BYTE * ((double)artifact->payload_bytes + PACKED_BYTES_FREE))
        return fw_fail(error, FW_E_FORMAT,
                       "its payload of %zu bytes cannot hold the %.0f bytes of its streams",
                       artifact->payload_bytes, bytes);
    return check_model(scorer, bytes, error);
}

static fw_status rebuild(struct scorer *scorer, fw_error *error) {
    FW_TRY(check_size(scorer, error));
    FW_TRY(
        scoring_model(&scorer->session, scorer->artifact.table->vocabulary, &scorer->model, error));
    return load_weights(scorer, error);
}

static fw_status bind(const struct arguments *arguments, const char *path, struct scorer *scorer,
                      fw_error *error) {
    FW_TRY(artifact_read(path, &scorer->artifact, error));
    FW_TRY(config_check_artifact(path, scorer->artifact.config, error));
    FW_TRY(session_bind(arguments, path, scorer->artifact.config, SCORER_KINDS, &scorer->session,
                        error));
    return config_check_artifact_paths(scorer->session.config, error);
}

fw_status scorer_bind(const struct arguments *arguments, const char *path, struct scorer *scorer,
                      fw_error *error) {
    *scorer = (struct scorer){0};
    const fw_status status = bind(arguments, path, scorer, error);
    if (status != FW_OK) scorer_close(scorer);
    return status;
}

fw_status scorer_build(const char *path, struct scorer *scorer, fw_error *error) {
    FW_TRY(session_start(&scorer->session, error));
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = rebuild(scorer, &why);
    if (status == FW_OK) return FW_OK;
    const bool placed = strncmp(why.message, path, strlen(path)) == 0;
    return fw_fail(error, status, "%s%s%s", placed ? "" : path, placed ? "" : ": ", why.message);
}

fw_status scorer_open(const struct arguments *arguments, const char *path, struct scorer *scorer,
                      fw_error *error) {
    FW_TRY(scorer_bind(arguments, path, scorer, error));
    const fw_status status = scorer_build(path, scorer, error);
    if (status != FW_OK) scorer_close(scorer);
    return status;
}

void scorer_close(struct scorer *scorer) {
    model_destroy(scorer->model);
    artifact_free(&scorer->artifact);
    session_close(&scorer->session);
    *scorer = (struct scorer){0};
}
