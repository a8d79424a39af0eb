#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "isolation.h"
#include "params.h"
#include "text.h"

static const char *const phase_names[PHASES] = {
    [PHASE_LOAD] = "load",         [PHASE_PRIME] = "prime",           [PHASE_TRAIN] = "train",
    [PHASE_VALIDATE] = "validate", [PHASE_CHECKPOINT] = "checkpoint", [PHASE_AVERAGE] = "average",
    [PHASE_PACK] = "pack",         [PHASE_LADDER] = "ladder",         [PHASE_RELOAD] = "reload",
    [PHASE_EVALUATE] = "evaluate", [PHASE_COMPARE] = "compare",
};

/* ---- totals and effects ---- */

struct report_totals report_training_seconds(const struct report *report) {
    struct report_totals totals = {.customary = report->seconds[PHASE_TRAIN]};
    for (int i = PHASE_LOAD; i <= PHASE_PACK; i++) totals.strict += report->seconds[i];
    return totals;
}

struct report_totals report_evaluation_seconds(const struct report *report) {
    const double evaluate = report->seconds[PHASE_EVALUATE];
    return (struct report_totals){report->seconds[PHASE_RELOAD] + evaluate, evaluate};
}

void report_add_effect(struct report *report, const char *name, double size) {
    size_t i = 0;
    while (i < report->n_effects && strcmp(report->effects[i].name, name) != 0) i++;
    if (i == REPORT_EFFECTS) return;
    if (i == report->n_effects) report->n_effects++;
    (void)snprintf(report->effects[i].name, sizeof report->effects[i].name, "%s", name);
    report->effects[i].size = size;
}

/* All of them, those that the report knows by itself included. */
static void each_effect(const struct report *report,
                        void (*visit)(void *argument, const char *name, double size),
                        void *argument) {
    if (report->average_on)
        visit(argument, "average_relative_distance", report->training.average_effect);
    visit(argument, "packing_bpb", report->packed.model.bpb - report->averaged.model.bpb);
    if (report->cache_on) {
        visit(argument, "cache_changed_positions", (double)report->final.cache_changed);
        visit(argument, "cache_memory_bytes", (double)report->final.cache_memory);
    }
    for (size_t i = 0; i < report->n_effects; i++)
        visit(argument, report->effects[i].name, report->effects[i].size);
}

/* ---- the table ---- */

void report_print_score_header(void) {
    (void)printf("%-34s %10s %10s\n", "bits per byte, counting bytes of", "tokens", "raw text");
}

void report_print_score(const char *label, const struct score *score, const char *remark) {
    char raw[16] = "-"; /* unknown, as for a part of the tokens */
    if (score->raw_bpb > 0) (void)snprintf(raw, sizeof raw, "%.4f", score->raw_bpb);
    (void)printf("  %-32s %10.4f %10s%s%s\n", label, score->bpb, raw,
                 remark[0] != '\0' ? "   " : "", remark);
}

static void print_xz(const char *label, size_t packed, size_t text) {
    if (packed == 0 || text == 0) return;
    (void)printf("  %-32s %10s %10.4f\n", label, "", 8.0 * (double)packed / (double)text);
}

/* The probe that speaks against a score. What fails for the model fails for all that rests on it.
 */
static const struct probe *failed_probe(const struct evaluate_result *result,
                                        const struct score *score) {
    const struct probe *failed = verdicts_failed(&result->verdicts, "model");
    if (failed == NULL && score == &result->cached)
        failed = verdicts_failed(&result->verdicts, "cache");
    if (failed == NULL && score == &result->counterpart)
        failed = verdicts_failed(&result->verdicts, "counterpart");
    return failed;
}

bool report_is_invalid(const struct evaluate_result *result, const struct score *score,
                       char why[REPORT_WHY_BYTES]) {
    const struct probe *failed = failed_probe(result, score);
    const bool unverified = score == &result->cached && result->invalid;
    if (why != NULL && unverified)
        (void)snprintf(why, REPORT_WHY_BYTES, "the distribution sums to %.4g (largest %.4g)",
                       result->mean_sum, result->largest_sum);
    else if (why != NULL && failed != NULL)
        (void)snprintf(why, REPORT_WHY_BYTES, "the probe %s fails: %s", failed->name,
                       failed->words);
    return unverified || failed != NULL;
}

/* What must stand beside a score that cannot be compared. */
enum { REMARK_BYTES = REPORT_WHY_BYTES + 96 };

static const char *remark_of(const struct evaluate_result *result, const struct score *score,
                             char out[REMARK_BYTES]) {
    const char *unfair = score->fair ? "" : "not a fair score: counts final targets several times";
    char why[REPORT_WHY_BYTES];
    if (!report_is_invalid(result, score, why)) return unfair;
    (void)snprintf(out, REMARK_BYTES, "INVALID: %s%s%s", why, score->fair ? "" : "; ", unfair);
    return out;
}

void report_print_audit(const struct experiment *experiment, const struct evaluate_result *result) {
    const struct verdicts *verdicts = &result->verdicts;
    if (result->coin.seconds > 0) (void)putchar('\n');
    coin_print(&result->coin, experiment);
    if (verdicts->n == 0) return;
    (void)printf("\naudit: probe, verdict, positions (seed %" PRIu64
                 ", %.1f s after the scoring)\n",
                 result->audit_seed, result->audit_seconds);
    verdicts_print(verdicts);
}

enum { LABEL_BYTES = 64 };

static void mode_label(const struct experiment *experiment, int64_t mode, char label[LABEL_BYTES]) {
    const long long window = (long long)evaluate_window(experiment);
    if (mode == EVAL_SLIDING)
        (void)snprintf(label, LABEL_BYTES, "sliding %lld/%lld", window,
                       (long long)experiment->eval.stride);
    else if (mode == EVAL_STREAM)
        (void)snprintf(label, LABEL_BYTES, "stream %lld", window);
    else
        (void)snprintf(label, LABEL_BYTES, "plain");
}

/* A stream is another score than sliding windows give: how far apart they are, on some tokens. */
static void print_stream_check(const struct experiment *experiment,
                               const struct stream_check *check) {
    char label[LABEL_BYTES], mode[LABEL_BYTES], count[TEXT_COMMAS_BYTES], remark[96];
    (void)snprintf(remark, sizeof remark, "on the first %s tokens",
                   text_with_commas(check->stream.targets + 1, count));
    mode_label(experiment, EVAL_STREAM, mode);
    (void)snprintf(label, sizeof label, "  %.40s", mode);
    report_print_score(label, &check->stream, remark);
    mode_label(experiment, EVAL_SLIDING, mode);
    (void)snprintf(label, sizeof label, "  %.40s", mode);
    (void)snprintf(remark, sizeof remark, "on the same; %+.4f (%.1f s)",
                   check->sliding.bpb - check->stream.bpb, check->seconds);
    report_print_score(label, &check->sliding, remark);
}

void report_print_model(const struct experiment *experiment, const struct evaluate_result *result) {
    char label[LABEL_BYTES], faithful[LABEL_BYTES + 32], remark[REMARK_BYTES];
    mode_label(experiment, experiment->eval.mode, label);
    if (!result->model.fair) {
        (void)snprintf(faithful, sizeof faithful, "%s, faithful", label);
        report_print_score(faithful, &result->model, remark_of(result, &result->model, remark));
    }
    report_print_score(label, &result->fair_model, remark_of(result, &result->fair_model, remark));
    if (result->check.made) print_stream_check(experiment, &result->check);
}

void report_print_caches(const struct experiment *experiment,
                         const struct evaluate_result *result) {
    char label[64], remark[REMARK_BYTES];
    (void)snprintf(label, sizeof label, "with cache (%.16s)", experiment->cache.entry->plugin->id);
    report_print_score(label, &result->cached, remark_of(result, &result->cached, remark));
    if (result->has_counterpart) {
        (void)snprintf(label, sizeof label, "counterpart (%.16s)",
                       experiment->counterpart.entry->plugin->id);
        report_print_score(label, &result->counterpart,
                           remark_of(result, &result->counterpart, remark));
    }
    isolation_print(result);
}

/* The same weights at each stage, scored plainly, on the same tokens. */
static void print_stages(const struct experiment *experiment, const struct report *report) {
    char label[128], remark[128] = "", count[TEXT_COMMAS_BYTES];
    if (report->packed.targets < report->final.fair_model.targets)
        (void)snprintf(remark, sizeof remark, "on the first %s tokens",
                       text_with_commas(report->packed.targets + 1, count));
    report_print_score("raw weights, plain", &report->raw.model, remark);
    if (report->average_on) {
        (void)snprintf(label, sizeof label, "averaged (%.16s), plain",
                       experiment->average.entry->plugin->id);
        report_print_score(label, &report->averaged.model, remark);
    }
    (void)snprintf(label, sizeof label, "packed (%.10s, %.8s), plain",
                   experiment->quantize.entry->plugin->id, experiment->compress.entry->plugin->id);
    report_print_score(label, &report->packed.model, remark);
}

static void print_scores(const struct session *session, const struct report *report) {
    const struct experiment *experiment = session->experiment;
    report_print_score_header();
    print_stages(experiment, report);
    if (experiment->eval.mode != EVAL_PLAIN) report_print_model(experiment, &report->final);
    if (report->cache_on) report_print_caches(experiment, &report->final);
    print_xz("xz -9e of the validation text", report->validation_xz, report->validation_text);
    print_xz("xz -9e given the training text", report->prefixed_xz, report->validation_text);
    report_print_audit(experiment, &report->final);
}

void report_print_fit(const struct report *report) {
    const struct pack_result *pack = &report->pack;
    char pruned[TEXT_COMMAS_BYTES], full[TEXT_COMMAS_BYTES];
    if (pack->rate >= 1) return;
    if (report->pruned_weights > 0)
        (void)printf("  pruned %s weights to fit",
                     text_with_commas((uint64_t)report->pruned_weights, pruned));
    else
        (void)printf("  quantized more coarsely to fit");
    (void)printf(" (rate %.4g, %d encodes; %s bytes at rate 1)\n", pack->rate, pack->encodes,
                 text_with_commas(pack->full_bytes, full));
}

static void print_bytes(const struct session *session, const struct report *report) {
    char model[32], code[32], total[32], limit[32], other[32];
    const uint64_t sum = report->artifact_bytes + report->code.counted;
    const bool sources = report->code.sources >= report->code.binaries;
    const uint64_t most = (uint64_t)session->experiment->run.size_limit;
    (void)printf("\nbytes\n  model %s + code %s = %s of %s%s\n",
                 text_with_commas(report->artifact_bytes, model),
                 text_with_commas(report->code.counted, code), text_with_commas(sum, total),
                 text_with_commas(most, limit), sum > most ? "  OVER THE LIMIT" : "");
    (void)printf("  code counts as its packed %s (its %s: %s)\n", sources ? "sources" : "binaries",
                 sources ? "binaries" : "sources",
                 text_with_commas(sources ? report->code.binaries : report->code.sources, other));
    report_print_fit(report);
}

static void print_totals(const char *label, struct report_totals totals) {
    const double limit = REPORT_LIMIT_SECONDS;
    (void)printf("  %-12s strict %.1f  customary %.1f  of %.0f%s\n", label, totals.strict,
                 totals.customary, limit,
                 totals.customary > limit ? "  OVER THE LIMIT"
                 : totals.strict > limit  ? "  over the limit if counted strictly"
                                          : "");
}

static void print_seconds(const struct report *report) {
    double total = 0;
    (void)printf("\nseconds\n ");
    for (int i = 0; i < PHASES; i++) {
        total += report->seconds[i];
        if (report->seconds[i] > 0) (void)printf(" %s %.1f ", phase_names[i], report->seconds[i]);
    }
    (void)printf(" total %.1f\n", total);
    print_totals("training", report_training_seconds(report));
    print_totals("evaluation", report_evaluation_seconds(report));
}

/* Counts as counts, shares and distances with four digits. */
static void print_effect(void *argument, const char *name, double size) {
    (void)argument;
    char text[TEXT_COMMAS_BYTES];
    if (size >= 1 && size < 1e15 && size == floor(size))
        (void)text_with_commas((uint64_t)size, text);
    else
        (void)snprintf(text, sizeof text, "%.4g", size);
    (void)printf("  %-30s %s\n", name, text);
}

static double per_second(double amount, double seconds) {
    return seconds > 0 ? amount / seconds : 0;
}

static void print_training(const struct report *report) {
    const struct train_result *t = &report->training;
    char parameters[32], steps[32], tokens[32];
    (void)printf("%s parameters; %s steps, %s tokens, %.0f tokens/s, %.1f GFLOP/s; loss %.4f\n\n",
                 text_with_commas((uint64_t)report->parameters, parameters),
                 text_with_commas((uint64_t)t->steps, steps), text_with_commas(t->tokens, tokens),
                 per_second((double)t->tokens, t->seconds),
                 per_second(report->forward_backward_flops, t->seconds) / 1e9, t->loss);
}

void report_print(const struct session *session, const struct report *report) {
    (void)printf("\n%s: ", session->experiment->run.name);
    print_training(report);
    print_scores(session, report);
    print_bytes(session, report);
    (void)printf("\neffects\n");
    each_effect(report, print_effect, NULL);
    print_seconds(report);
    (void)printf("\n%s holds the artifact, the log, the resolved INI and the receipt.\n",
                 session->experiment->run.output);
    (void)fflush(stdout);
}

/* ---- the receipt ---- */

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

/* The model that fails a probe is that of every score. */
static void mark_all(cJSON *scores, const struct probe *failed) {
    for (cJSON *score = scores->child; score != NULL && failed != NULL; score = score->next) {
        if (!cJSON_IsObject(score) || cJSON_GetObjectItem(score, "valid") != NULL) continue;
        (void)cJSON_AddBoolToObject(score, "valid", false);
        (void)cJSON_AddStringToObject(score, "why", failed->words);
    }
}

static void add_stream_check(cJSON *scores, const struct stream_check *check) {
    cJSON *object = cJSON_AddObjectToObject(scores, "stream_check");
    (void)cJSON_AddNumberToObject(object, "targets", (double)check->stream.targets);
    (void)cJSON_AddNumberToObject(object, "stream_bpb", check->stream.bpb);
    (void)cJSON_AddNumberToObject(object, "sliding_bpb", check->sliding.bpb);
    (void)cJSON_AddNumberToObject(object, "seconds", check->seconds);
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
    if (report->final.check.made) add_stream_check(scores, &report->final.check);
    if (!report->final.model.fair)
        (void)cJSON_AddItemToObject(scores, "sliding_fair",
                                    score_object(&report->final, &report->final.fair_model));
    if (report->cache_on)
        (void)cJSON_AddItemToObject(scores, "cached",
                                    score_object(&report->final, &report->final.cached));
    if (report->final.has_counterpart)
        (void)cJSON_AddItemToObject(scores, "counterpart",
                                    score_object(&report->final, &report->final.counterpart));
    mark_all(scores, verdicts_failed(&report->final.verdicts, "model"));
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
        (void)cJSON_AddNumberToObject(seconds, phase_names[i], report->seconds[i]);
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
    each_effect(report, add_effect, cJSON_AddObjectToObject(receipt, "effects"));
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
