/* fairway run: the whole story. Train, average, pack, reload the artifact from disk, score, report.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "commands.h"
#include "compare.h"
#include "dry_run.h"
#include "files.h"
#include "pipeline.h"
#include "scorer.h"
#include "seeds.h"

static const char help[] =
    "usage: fairway run FILE.ini [--resume] [--dry-run] [--reference FILE]\n"
    "                   [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n\n"
    "Trains as FILE.ini says, averages and packs the weights, reloads the artifact from disk,\n"
    "scores it on the validation data and prints a table. The run directory (run.output) then\n"
    "holds resolved.ini, log.jsonl, weights.fw, model.fairway and receipt.json; running that\n"
    "resolved.ini again gives the same run.\n\n"
    "With several seeds (run.seeds = 1337, 42, 2024) it makes a whole run for each in\n"
    "run.output/seed-N, then prints means and deviations and writes results.json.\n\n"
    "  --dry-run         only say what the run would be: parameters, steps, plugins; needs no "
    "data\n"
    "  --resume          go on from the run directory's checkpoint (run.checkpoint_every)\n"
    "  --reference FILE  end with the comparison that `fairway compare --help` explains\n\n"
    "examples\n"
    "  fairway run configs/quickstart.ini\n"
    "  fairway run configs/quickstart.ini --set attention.plugin=xsa --set run.name=xsa\n"
    "  fairway run mine.ini --set run.seeds=1,2,3 --reference configs/reference-pr993.json\n"
    "  fairway run mine.ini --set run.steps=50 --set run.output=/tmp/try --plugin-dir ~/plugins\n";

/* Scoring from the file takes from this run what belongs to the machine: device and its keys,
 * threads, seed, and where plugins lie that are named by path. */
struct overrides {
    char *text; /* lines "key = value" of [device], cut into overrides */
    char run[3][512];
    char device[32][512];
};

static fw_status machine_overrides(const struct session *session, const struct arguments *arguments,
                                   struct arguments *again, struct overrides *overrides,
                                   fw_error *error) {
    static const char *const sections[] = {"device", NULL};
    const struct run_keys *run = &session->experiment->run;
    *again = *arguments;
    FW_TRY(config_text(session->config, sections, &overrides->text, error));
    (void)snprintf(overrides->run[0], 512, "run.device=%s", run->device);
    (void)snprintf(overrides->run[1], 512, "run.threads=%lld", (long long)run->threads);
    (void)snprintf(overrides->run[2], 512, "run.seed=%lld", (long long)run->seed);
    size_t n = 0, n_device = 0;
    for (; n < 3; n++) again->overrides[n] = overrides->run[n];
    for (char *line = strtok(overrides->text, "\n"); line != NULL && n_device < 32;
         line = strtok(NULL, "\n")) {
        char key[64], value[400];
        if (sscanf(line, "%63[a-z0-9_] = %399[^\n]", key, value) != 2) continue;
        (void)snprintf(overrides->device[n_device], 512, "device.%s=%s", key, value);
        again->overrides[n++] = overrides->device[n_device++];
    }
    again->n_overrides = n;
    return config_plugin_overrides(session->config, again->overrides, &again->n_overrides,
                                   MAX_ARGUMENTS, error);
}

/* Score the artifact that was just written, from the file alone. */
static fw_status score_artifact(struct pipeline *pipeline, const struct arguments *arguments,
                                const char *path, fw_error *error) {
    const struct experiment *experiment = pipeline->session.experiment;
    const struct corpus *corpus = pipeline->session.validation;
    struct arguments again;
    struct overrides overrides = {.text = NULL};
    const double begin = clock_seconds();
    struct scorer scorer;
    fw_status status = machine_overrides(&pipeline->session, arguments, &again, &overrides, error);
    if (status == FW_OK) status = scorer_open(&again, path, &scorer, error);
    free(overrides.text);
    FW_TRY(status);
    struct report *report = &pipeline->report;
    report->seconds[PHASE_RELOAD] += clock_seconds() - begin;
    report->cache_on = choice_is_on(&experiment->cache);
    status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus, EVAL_PLAIN,
                          (uint64_t)experiment->eval.ladder_tokens, false, "packed",
                          &report->packed, error);
    if (status == FW_OK)
        status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus,
                              experiment->eval.mode, 0, true, "evaluate", &report->final, error);
    if (status == FW_OK) report_mark_model(report);
    report->seconds[PHASE_LADDER] += report->packed.seconds;
    report->seconds[PHASE_EVALUATE] += report->final.seconds;
    report->seconds[PHASE_COMPARE] += report->final.coin.seconds;
    pipeline_note_effects(pipeline, scorer.session.host);
    scorer_close(&scorer);
    return status;
}

/* What xz makes of the validation text alone, and of what it adds to the training text. */
static void compare_with_xz(struct pipeline *pipeline) {
    struct session *session = &pipeline->session;
    size_t n_training = 0, n_validation = 0;
    const uint8_t *training = corpus_text(session->training, &n_training);
    const uint8_t *validation = corpus_text(session->validation, &n_validation);
    if (training == NULL || validation == NULL) return;
    uint8_t *both = malloc(n_training + n_validation);
    if (both == NULL) return;
    memcpy(both, training, n_training);
    memcpy(both + n_training, validation, n_validation);
    struct report *report = &pipeline->report;
    report->validation_text = n_validation;
    const size_t prefix = xz_size(training, n_training);
    const size_t whole = xz_size(both, n_training + n_validation);
    report->validation_xz = xz_size(validation, n_validation);
    report->prefixed_xz = prefix > 0 && whole > prefix ? whole - prefix : 0;
    free(both);
}

static fw_status score_trained(struct pipeline *pipeline, fw_error *error) {
    struct report *report = &pipeline->report;
    FW_TRY(pipeline_score_weights(pipeline, pipeline->raw, "raw", &report->raw, error));
    report->averaged = report->raw;
    if (!report->average_on) return FW_OK;
    free(pipeline->raw); /* saved and scored; packing has uses for the memory */
    pipeline->raw = NULL;
    return pipeline_score_weights(pipeline, pipeline->averaged, "averaged", &report->averaged,
                                  error);
}

static fw_status log_final(struct pipeline *pipeline, fw_error *error) {
    const struct evaluate_result *packed = &pipeline->report.packed;
    const struct evaluate_result *final = &pipeline->report.final;
    const struct {
        const char *what;
        bool on;
        const struct evaluate_result *result;
        const struct score *score;
    } scores[] = {{"packed", true, packed, &packed->model},
                  {"final", true, final, &final->model},
                  {"final_fair", !final->model.fair, final, &final->fair_model},
                  {"cached", pipeline->report.cache_on, final, &final->cached},
                  {"counterpart", final->has_counterpart, final, &final->counterpart}};
    for (size_t i = 0; i < sizeof scores / sizeof scores[0]; i++)
        if (scores[i].on)
            FW_TRY(pipeline_log_score(pipeline, scores[i].what, pipeline->report.training.steps,
                                      scores[i].result, scores[i].score, error));
    return FW_OK;
}

static fw_status compare(struct pipeline *pipeline, fw_error *error) {
    FW_TRY(pipeline_measure_code(pipeline, error));
    const double begin = clock_seconds();
    compare_with_xz(pipeline);
    pipeline->report.seconds[PHASE_COMPARE] += clock_seconds() - begin;
    return FW_OK;
}

/* The receipt says what the run says at its end. */
static fw_status close_report(struct pipeline *pipeline, fw_error *error) {
    fw_error why = {.struct_size = sizeof why};
    const fw_status effects = pipeline_check_effects(pipeline, &why);
    struct report *report = &pipeline->report;
    (void)snprintf(report->failure, sizeof report->failure, "%s", why.message);
    FW_TRY(report_write_receipt(&pipeline->session, report, error));
    report_print(&pipeline->session, report);
    return effects == FW_OK ? FW_OK : fw_fail(error, effects, "%s", why.message);
}

/* Whatever fails, what was made before it is on disk. */
static fw_status run(struct pipeline *pipeline, const struct arguments *arguments,
                     fw_error *error) {
    char path[4096];
    FW_TRY(pipeline_train(pipeline, "log.jsonl", error));
    FW_TRY(pipeline_save_weights(pipeline, error));
    FW_TRY(score_trained(pipeline, error));
    (void)snprintf(path, sizeof path, "%s", session_path(&pipeline->session, "model.fairway"));
    FW_TRY(pipeline_pack(pipeline, pipeline->session.table, pipeline->averaged, path, error));
    FW_TRY(score_artifact(pipeline, arguments, path, error));
    FW_TRY(log_final(pipeline, error));
    FW_TRY(compare(pipeline, error));
    return close_report(pipeline, error);
}

static fw_status run_once(const struct arguments *arguments, bool resume, fw_error *error) {
    struct pipeline pipeline;
    FW_TRY(pipeline_open(arguments, true, &pipeline, error));
    pipeline.resume = resume;
    pipeline.keep_sources = true;
    const fw_status status = run(&pipeline, arguments, error);
    progress_end(&pipeline.session.progress);
    pipeline_close(&pipeline);
    return status;
}

/* ---- several seeds, and the comparison ---- */

struct plan {
    bool resume;
    const char *reference; /* a result to compare with, or NULL */
    int64_t seeds[MAX_SEEDS];
    size_t n_seeds; /* 0: one run, of run.seed */
    char output[PATH_MAX - 64];
};

static fw_status fill_plan(struct config *config, struct registry *registry, struct plan *plan,
                           fw_error *error) {
    const struct experiment *experiment = NULL;
    FW_TRY(config_resolve(config, registry, 0, &experiment, error));
    const struct run_keys *run = &experiment->run;
    FW_TRY(seeds_parse(run->seeds, config_where(config, "run", "seeds"), plan->seeds,
                       &plan->n_seeds, error));
    const int n = snprintf(plan->output, sizeof plan->output, "%s", run->output);
    if (n < (int)sizeof plan->output) return FW_OK;
    return fw_fail(error, FW_E_LIMIT, "%s: run.output is longer than %zu bytes",
                   config_where(config, "run", "output"), sizeof plan->output - 1);
}

/* How many runs, and where, before anything is opened for the first. */
static fw_status read_plan(const struct arguments *arguments, struct plan *plan, fw_error *error) {
    struct registry *registry = NULL;
    struct config *config = NULL;
    FW_TRY(pipeline_need_ini(arguments, error));
    fw_status status = registry_create(arguments->plugin_directories,
                                       arguments->n_plugin_directories, &registry, error);
    if (status == FW_OK)
        status = config_load(arguments->input, NULL, arguments->overrides, arguments->n_overrides,
                             &config, error);
    if (status == FW_OK) status = fill_plan(config, registry, plan, error);
    config_destroy(config);
    registry_destroy(registry);
    return status;
}

static bool has_checkpoint(const struct plan *plan, int64_t seed) {
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/seed-%" PRId64 "/" CHECKPOINT_NAME, plan->output, seed);
    return access(path, F_OK) == 0;
}

/* Seeds that were not begun start now; if none was, there is nothing to resume. */
static bool resumes_seed(const struct plan *plan, int64_t seed) {
    bool any = false;
    for (size_t i = 0; i < plan->n_seeds; i++) any = any || has_checkpoint(plan, plan->seeds[i]);
    return plan->resume && (!any || has_checkpoint(plan, seed));
}

/* The run of one seed: exactly that of an INI with this run.seed, in a directory of its own. */
static fw_status run_seed(const struct arguments *arguments, const struct plan *plan, int64_t seed,
                          struct results *results, fw_error *error) {
    struct arguments again = *arguments;
    char text[2][PATH_MAX];
    (void)snprintf(text[0], sizeof text[0], "run.seed=%" PRId64, seed);
    (void)snprintf(text[1], sizeof text[1], "run.output=%s/seed-%" PRId64, plan->output, seed);
    if (again.n_overrides + 3 > MAX_ARGUMENTS)
        return fw_fail(error, FW_E_LIMIT, "more than %d --set", MAX_ARGUMENTS - 3);
    again.overrides[again.n_overrides++] = "run.seeds=";
    again.overrides[again.n_overrides++] = text[0];
    again.overrides[again.n_overrides++] = text[1];
    FW_TRY(run_once(&again, resumes_seed(plan, seed), error));
    return results_read(strchr(text[1], '=') + 1, results, error);
}

/* An earlier results.json goes when the first run is done, not before: a run that is refused
 * touches nothing. */
static fw_status run_seeds(const struct arguments *arguments, const struct plan *plan,
                           struct results *results, fw_error *error) {
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/results.json", plan->output);
    for (size_t i = 0; i < plan->n_seeds; i++) {
        (void)printf("%sseed %" PRId64 " (%zu of %zu)\n", i > 0 ? "\n" : "", plan->seeds[i], i + 1,
                     plan->n_seeds);
        FW_TRY(run_seed(arguments, plan, plan->seeds[i], results, error));
        if (i == 0) (void)remove(path);
    }
    results_print(results);
    FW_TRY(results_write(results, path, error));
    (void)printf("\n%s holds all of this.\n", path);
    return FW_OK;
}

static fw_status run_all(const struct arguments *arguments, struct plan *plan,
                         struct results *results, struct results *reference, fw_error *error) {
    FW_TRY(read_plan(arguments, plan, error));
    if (plan->reference != NULL) FW_TRY(results_read(plan->reference, reference, error));
    if (plan->n_seeds > 0) {
        FW_TRY(run_seeds(arguments, plan, results, error));
    } else {
        FW_TRY(run_once(arguments, plan->resume, error));
        if (plan->reference != NULL) FW_TRY(results_read(plan->output, results, error));
    }
    return plan->reference != NULL ? compare_print(results, reference, error) : FW_OK;
}

int cmd_run(int argc, char **argv) {
    bool dry = false;
    struct plan plan = {.resume = false};
    const struct option options[] = {{"--dry-run", NULL, &dry},
                                     {"--resume", NULL, &plan.resume},
                                     {"--reference", &plan.reference, NULL},
                                     {NULL, NULL, NULL}};
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct results *results = NULL, *reference = NULL;
    fw_status status = arguments_parse(argc, argv, options, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK && dry) {
        status = read_plan(&arguments, &plan, &error);
        if (status == FW_OK) status = dry_run(&arguments, &error);
        return report_failure(status, &error);
    }
    if (status == FW_OK) status = results_create(&results, &error);
    if (status == FW_OK) status = results_create(&reference, &error);
    if (status == FW_OK) status = run_all(&arguments, &plan, results, reference, &error);
    results_destroy(results);
    results_destroy(reference);
    return report_failure(status, &error);
}
