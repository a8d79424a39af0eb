/* RUN/receipt.json: everything that the closing table says and what it rests on. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "isolation.h"
#include "params.h"
#include "report.h"

/* Said of every score with a cache; of the others, where they are INVALID. */
static void add_validity(cJSON *object, const struct evaluate_result *result,
                         const struct score *score) {
    char why[REPORT_WHY_BYTES];
    const bool cached = score == &result->cached;
    const bool invalid = report_is_invalid(result, score, why);
    if (invalid || cached) (void)cJSON_AddBoolToObject(object, "valid", !invalid);
    if (cached && result->invalid) {
        (void)cJSON_AddNumberToObject(object, "mean_sum", result->mean_sum);
        (void)cJSON_AddNumberToObject(object, "largest_sum", result->largest_sum);
    }
    if (invalid) (void)cJSON_AddStringToObject(object, "why", why);
}

static cJSON *score_object(const struct evaluate_result *result, const struct score *score) {
    cJSON *object = cJSON_CreateObject();
    (void)cJSON_AddNumberToObject(object, "bpb", score->bpb);
    (void)cJSON_AddNumberToObject(object, "nats", score->nats);
    (void)cJSON_AddNumberToObject(object, "targets", (double)score->targets);
    (void)cJSON_AddNumberToObject(object, "bytes", (double)score->bytes);
    if (!score->fair) (void)cJSON_AddBoolToObject(object, "fair", false);
    if (score->raw_bpb > 0) {
        (void)cJSON_AddNumberToObject(object, "raw_bpb", score->raw_bpb);
        (void)cJSON_AddNumberToObject(object, "raw_bytes", (double)result->raw_bytes);
    }
    add_validity(object, result, score);
    return object;
}

static void add_stream_check(cJSON *scores, const struct evaluate_result *result) {
    const struct stream_check *check = &result->check;
    cJSON *object = cJSON_AddObjectToObject(scores, "stream_check");
    (void)cJSON_AddNumberToObject(object, "targets", (double)check->stream.targets);
    (void)cJSON_AddNumberToObject(object, "stream_bpb", check->stream.bpb);
    (void)cJSON_AddNumberToObject(object, "sliding_bpb", check->sliding.bpb);
    (void)cJSON_AddNumberToObject(object, "seconds", check->seconds);
    add_validity(object, result, &result->model);
}

static void add_scores(cJSON *receipt, const struct session *session, const struct report *report) {
    cJSON *scores = cJSON_AddObjectToObject(receipt, "scores");
    (void)cJSON_AddItemToObject(scores, "raw", score_object(&report->raw, &report->raw.model));
    if (report->average_on)
        (void)cJSON_AddItemToObject(scores, "averaged",
                                    score_object(&report->averaged, &report->averaged.model));
    (void)cJSON_AddItemToObject(scores, "packed",
                                score_object(&report->packed, &report->packed.model));
    static const char *const modes[] = {
        [EVAL_PLAIN] = "plain", [EVAL_SLIDING] = "sliding", [EVAL_STREAM] = "stream"};
    (void)cJSON_AddItemToObject(scores, modes[session->experiment->eval.mode],
                                score_object(&report->final, &report->final.model));
    if (report->final.check.made) add_stream_check(scores, &report->final);
    if (!report->final.model.fair)
        (void)cJSON_AddItemToObject(scores, "sliding_fair",
                                    score_object(&report->final, &report->final.fair_model));
    if (report->cache_on)
        (void)cJSON_AddItemToObject(scores, "cached",
                                    score_object(&report->final, &report->final.cached));
    if (report->final.has_counterpart)
        (void)cJSON_AddItemToObject(scores, "counterpart",
                                    score_object(&report->final, &report->final.counterpart));
    if (report->validation_xz > 0) {
        const double text = (double)report->validation_text;
        (void)cJSON_AddNumberToObject(scores, "xz_bpb", 8.0 * (double)report->validation_xz / text);
        if (report->prefixed_xz > 0)
            (void)cJSON_AddNumberToObject(scores, "xz_given_training_bpb",
                                          8.0 * (double)report->prefixed_xz / text);
    }
}

static void add_plugin(void *argument, const struct plugin_choice *choice) {
    const fw_plugin *plugin = choice->entry->plugin;
    char hash[65];
    sha256_hex(choice->entry->sha256, hash);
    cJSON *object = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(object, "kind", kind_name(plugin->kind));
    (void)cJSON_AddStringToObject(object, "section", choice->section);
    (void)cJSON_AddStringToObject(object, "id", plugin->id);
    (void)cJSON_AddStringToObject(object, "version", plugin->version);
    (void)cJSON_AddStringToObject(object, "path", choice->entry->path);
    (void)cJSON_AddStringToObject(object, "sha256", hash);
    cJSON *parameters = cJSON_AddObjectToObject(object, "parameters");
    for (uint32_t i = 0; choice->values != NULL && i < plugin->n_params; i++) {
        char text[512];
        const fw_param *param = param_at(plugin->params, i);
        (void)param_format(param, &choice->values[i], text, sizeof text);
        (void)cJSON_AddStringToObject(parameters, param->key, text);
    }
    (void)cJSON_AddItemToArray(argument, object);
}

static void add_bytes(cJSON *receipt, const struct session *session, const struct report *report) {
    cJSON *bytes = cJSON_AddObjectToObject(receipt, "bytes");
    (void)cJSON_AddNumberToObject(bytes, "model", (double)report->artifact_bytes);
    char hash[65];
    sha256_hex(report->artifact_hash, hash);
    (void)cJSON_AddStringToObject(bytes, "model_sha256", hash);
    (void)cJSON_AddNumberToObject(bytes, "code_sources", (double)report->code.sources);
    sha256_hex(report->code.hash, hash);
    (void)cJSON_AddStringToObject(bytes, "code_sources_sha256", hash);
    (void)cJSON_AddNumberToObject(bytes, "code_binaries", (double)report->code.binaries);
    (void)cJSON_AddNumberToObject(bytes, "total",
                                  (double)(report->artifact_bytes + report->code.counted));
    (void)cJSON_AddNumberToObject(bytes, "limit", (double)session->experiment->run.size_limit);
    if (report->pack.rate >= 1) return;
    cJSON *fit = cJSON_AddObjectToObject(bytes, "fit");
    (void)cJSON_AddNumberToObject(fit, "rate", report->pack.rate);
    (void)cJSON_AddNumberToObject(fit, "encodes", report->pack.encodes);
    (void)cJSON_AddNumberToObject(fit, "model_at_rate_1", (double)report->pack.full_bytes);
    if (report->pruned_weights > 0)
        (void)cJSON_AddNumberToObject(fit, "pruned_weights", report->pruned_weights);
}

static void add_effect(void *argument, const char *name, double size) {
    (void)cJSON_AddNumberToObject(argument, name, size);
}

static void add_seconds(cJSON *receipt, const struct report *report) {
    const struct report_totals training = report_training_seconds(report);
    const struct report_totals evaluation = report_evaluation_seconds(report);
    cJSON *seconds = cJSON_AddObjectToObject(receipt, "seconds");
    for (int i = 0; i < PHASES; i++)
        (void)cJSON_AddNumberToObject(seconds, report_phase_names[i], report->seconds[i]);
    (void)cJSON_AddNumberToObject(seconds, "training_strict", training.strict);
    (void)cJSON_AddNumberToObject(seconds, "training_customary", training.customary);
    (void)cJSON_AddNumberToObject(seconds, "evaluation_strict", evaluation.strict);
    (void)cJSON_AddNumberToObject(seconds, "evaluation_customary", evaluation.customary);
    (void)cJSON_AddNumberToObject(seconds, "limit", REPORT_LIMIT_SECONDS);
}

static cJSON *make_receipt(const struct session *session, const struct report *report) {
    const struct experiment *experiment = session->experiment;
    cJSON *receipt = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(receipt, "fairway", FAIRWAY_VERSION);
    (void)cJSON_AddStringToObject(receipt, "name", experiment->run.name);
    if (report->failure[0] != '\0')
        (void)cJSON_AddStringToObject(receipt, "failure", report->failure);
    (void)cJSON_AddStringToObject(receipt, "config_sha256", experiment->hash);
    (void)cJSON_AddStringToObject(receipt, "experiment_sha256", experiment->seedless_hash);
    (void)cJSON_AddNumberToObject(receipt, "seed", (double)experiment->run.seed);
    (void)cJSON_AddBoolToObject(receipt, "deterministic", experiment->run.deterministic);
    (void)cJSON_AddNumberToObject(receipt, "parameters", (double)report->parameters);
    (void)cJSON_AddNumberToObject(receipt, "steps", (double)report->training.steps);
    (void)cJSON_AddNumberToObject(receipt, "training_tokens", (double)report->training.tokens);
    experiment_each_plugin(experiment, add_plugin, cJSON_AddArrayToObject(receipt, "plugins"));
    add_seconds(receipt, report);
    add_bytes(receipt, session, report);
    add_scores(receipt, session, report);
    report_each_effect(report, add_effect, cJSON_AddObjectToObject(receipt, "effects"));
    cJSON *isolation = isolation_json(&report->final);
    if (isolation != NULL) (void)cJSON_AddItemToObject(receipt, "isolation", isolation);
    cJSON *coin = coin_json(&report->final.coin);
    if (coin != NULL) (void)cJSON_AddItemToObject(receipt, "coin", coin);
    if (report->final.verdicts.n > 0) {
        (void)cJSON_AddNumberToObject(receipt, "audit_seed", (double)report->final.audit_seed);
        (void)cJSON_AddItemToObject(receipt, "audit", verdicts_json(&report->final.verdicts));
    }
    return receipt;
}

fw_status report_write_receipt(const struct session *session, const struct report *report,
                               fw_error *error) {
    cJSON *receipt = make_receipt(session, report);
    char *text = cJSON_Print(receipt);
    cJSON_Delete(receipt);
    if (text == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the receipt");
    const fw_status status =
        file_write(session_path(session, "receipt.json"), text, strlen(text), error);
    cJSON_free(text);
    return status;
}
