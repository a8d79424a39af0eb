#include "scorer.h"

#include <stdlib.h>
#include <string.h>

#include "pack.h"

fw_status scorer_config_text(const struct session *session, char **text, fw_error *error) {
    static const char *const sections[] = {"model", "attention", "quantize", "compress",
                                           "eval",  "cache",     NULL};
    char *own = NULL;
    FW_TRY(config_text(session->config, sections, &own, error));
    char data[64];
    (void)snprintf(data, sizeof data, "\n[data]\nsequence = %lld\n",
                   (long long)session->experiment->data.sequence);
    char *whole = realloc(own, strlen(own) + strlen(data) + 1);
    if (whole == NULL) {
        free(own);
        return fw_fail(error, FW_E_MEMORY, "no memory for the artifact's configuration");
    }
    *text = strcat(whole, data);
    return FW_OK;
}

fw_status scoring_model(const struct session *session, uint32_t vocabulary, struct model **model,
                        fw_error *error) {
    const struct model_options options = {.experiment = session->experiment,
                                          .host = session->services,
                                          .vocabulary = vocabulary,
                                          .batch = session->experiment->eval.batch,
                                          .tokens = evaluate_window(session->experiment)};
    return model_create(&options, model, error);
}

fw_status score_corpus(struct session *session, struct model *model,
                       const struct token_table *table, const struct corpus *corpus, int64_t mode,
                       uint64_t max_tokens, bool with_cache, const char *label,
                       struct evaluate_result *result, fw_error *error) {
    const struct evaluate_options options = {.experiment = session->experiment,
                                             .host = session->services,
                                             .model = model,
                                             .corpus = corpus,
                                             .table = table,
                                             .mode = mode,
                                             .max_tokens = max_tokens,
                                             .with_cache = with_cache,
                                             .label = label,
                                             .progress = &session->progress};
    return evaluate(&options, result, error);
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

static fw_status open_artifact(const struct arguments *arguments, const char *path,
                               struct scorer *scorer, fw_error *error) {
    FW_TRY(artifact_read(path, &scorer->artifact, error));
    FW_TRY(session_open(arguments, path, scorer->artifact.config, SCORER_KINDS, &scorer->session,
                        error));
    fw_error why = {.struct_size = sizeof why};
    fw_status status =
        scoring_model(&scorer->session, scorer->artifact.table->vocabulary, &scorer->model, &why);
    if (status == FW_OK) status = load_weights(scorer, &why);
    if (status != FW_OK) return fw_fail(error, status, "%s: %s", path, why.message);
    return FW_OK;
}

fw_status scorer_open(const struct arguments *arguments, const char *path, struct scorer *scorer,
                      fw_error *error) {
    *scorer = (struct scorer){0};
    const fw_status status = open_artifact(arguments, path, scorer, error);
    if (status != FW_OK) scorer_close(scorer);
    return status;
}

void scorer_close(struct scorer *scorer) {
    model_destroy(scorer->model);
    artifact_free(&scorer->artifact);
    session_close(&scorer->session);
    *scorer = (struct scorer){0};
}
