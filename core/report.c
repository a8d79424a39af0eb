#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "isolation.h"
#include "text.h"

const char *const report_phase_names[PHASES] = {
    [PHASE_LOAD] = "load",
    [PHASE_PRIME] = "prime",
    [PHASE_TRAIN] = "train",
    [PHASE_VALIDATE] = "validate",
    [PHASE_CHECKPOINT] = "checkpoint",
    [PHASE_AVERAGE] = "average",
    [PHASE_CALIBRATE] = "calibrate",
    [PHASE_PACK] = "pack",
    [PHASE_LADDER] = "ladder",
    [PHASE_RELOAD] = "reload",
    [PHASE_EVALUATE] = "evaluate",
    [PHASE_COMPARE] = "compare",
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

void report_each_effect(const struct report *report,
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

void report_mark_model(struct report *report) {
    const struct probe *failed = verdicts_failed(&report->final.verdicts, "model");
    struct evaluate_result *const stages[] = {&report->raw, &report->averaged, &report->packed};
    if (failed == NULL) return;
    const struct verdicts all = {.probes = {*failed}, .n = 1};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        verdicts_merge(&stages[i]->verdicts, &all);
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
                               const struct evaluate_result *result) {
    const struct stream_check *check = &result->check;
    const char *mark = report_is_invalid(result, &result->model, NULL) ? "INVALID; " : "";
    char label[LABEL_BYTES], mode[LABEL_BYTES], count[TEXT_COMMAS_BYTES], remark[96];
    (void)snprintf(remark, sizeof remark, "%son the first %s tokens", mark,
                   text_with_commas(check->stream.targets + 1, count));
    mode_label(experiment, EVAL_STREAM, mode);
    (void)snprintf(label, sizeof label, "  %.40s", mode);
    report_print_score(label, &check->stream, remark);
    mode_label(experiment, EVAL_SLIDING, mode);
    (void)snprintf(label, sizeof label, "  %.40s", mode);
    (void)snprintf(remark, sizeof remark, "%son the same; %+.4f (%.1f s)", mark,
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
    if (result->check.made) print_stream_check(experiment, result);
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
    char label[128], invalid[REMARK_BYTES], count[TEXT_COMMAS_BYTES];
    char remark[REMARK_BYTES + 64] = "";
    if (report->packed.targets < report->final.fair_model.targets)
        (void)snprintf(remark, sizeof remark, "on the first %s tokens",
                       text_with_commas(report->packed.targets + 1, count));
    if (report_is_invalid(&report->packed, &report->packed.model, NULL))
        (void)snprintf(remark + strlen(remark), sizeof remark - strlen(remark), "%s%s",
                       remark[0] != '\0' ? "; " : "",
                       remark_of(&report->packed, &report->packed.model, invalid));
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
        if (report->seconds[i] > 0)
            (void)printf(" %s %.1f ", report_phase_names[i], report->seconds[i]);
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
    report_each_effect(report, print_effect, NULL);
    print_seconds(report);
    (void)printf("\n%s holds the artifact, the log, the resolved INI and the receipt.\n",
                 session->experiment->run.output);
    (void)fflush(stdout);
}
