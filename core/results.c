/* What follows from results: the scores that count, the table of all runs, results.json. */
#include "results.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "statistics.h"

bool score_counts(const struct run_score *score) { return score->valid && score->fair; }

static const struct run_score *find_score(const struct run_result *run, const char *name) {
    for (size_t i = 0; i < run->n_scores; i++)
        if (strcmp(run->scores[i].name, name) == 0) return &run->scores[i];
    return NULL;
}

const struct run_score *results_score(const struct results *results, size_t index,
                                      const char *name) {
    static const char *const model[] = {"sliding_fair", "sliding", "stream", "plain"};
    const struct run_result *run = &results->runs[index];
    if (strcmp(name, "model") != 0) return find_score(run, name);
    const struct run_score *score = NULL;
    for (size_t i = 0; score == NULL && i < sizeof model / sizeof model[0]; i++)
        score = find_score(run, model[i]);
    return score;
}

const struct run_score *results_honest(const struct results *results, size_t index) {
    static const char *const names[] = {"cached", "counterpart", "model"};
    const struct run_score *best = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct run_score *score = results_score(results, index, names[i]);
        if (score == NULL || !score_counts(score)) continue;
        if (best == NULL || score->bpb < best->bpb) best = score;
    }
    return best;
}

/* ---- means over the runs ---- */

struct summary {
    double bpb, bpb_deviation, nats, nats_deviation;
    bool counts; /* valid, and each target once, in every run */
};

/* False when a run lacks the score. */
static bool summarize(const struct results *results, const char *name, struct summary *summary) {
    double bpb[MAX_RUNS], nats[MAX_RUNS];
    bool counts = true;
    for (size_t i = 0; i < results->n; i++) {
        const struct run_score *score = results_score(results, i, name);
        if (score == NULL) return false;
        bpb[i] = score->bpb;
        nats[i] = score->nats_per_token;
        counts = counts && score_counts(score);
    }
    *summary = (struct summary){
        statistics_mean(bpb, results->n), statistics_deviation(bpb, results->n),
        statistics_mean(nats, results->n), statistics_deviation(nats, results->n), counts};
    return true;
}

/* ---- the table ---- */

static void print_row_start(const char *label) { (void)printf("  %-16s %8s", label, ""); }

static void print_heads(const struct run_result *first) {
    (void)printf("\nbits per byte of each run\n  %-16s %8s", "seed", "steps");
    for (size_t i = 0; i < first->n_scores; i++) (void)printf(" %11.11s", first->scores[i].name);
    (void)printf(" %12s\n", "bytes");
}

static void print_run(const struct results *results, size_t index) {
    const struct run_result *run = &results->runs[index], *first = &results->runs[0];
    (void)printf("  %-16" PRId64 " %8" PRId64, run->seed, run->steps);
    for (size_t i = 0; i < first->n_scores; i++) {
        const struct run_score *score = results_score(results, index, first->scores[i].name);
        if (score == NULL)
            (void)printf(" %11s", "-");
        else
            (void)printf(" %10.6f%s", score->bpb, score_counts(score) ? " " : "!");
    }
    (void)printf(" %12.0f\n", run->total_bytes);
}

static void print_summary(const struct results *results, bool deviation) {
    const struct run_result *first = &results->runs[0];
    print_row_start(deviation ? "deviation" : "mean");
    for (size_t i = 0; i < first->n_scores; i++) {
        struct summary s;
        const bool known = summarize(results, first->scores[i].name, &s);
        const double value = !known ? NAN : deviation ? s.bpb_deviation : s.bpb;
        if (isnan(value))
            (void)printf(" %11s", "-");
        else
            (void)printf(" %10.6f%s", value, s.counts ? " " : "!");
    }
    (void)printf("\n");
}

/* What the marks mean, once for each kind of score. */
static void print_marks(const struct results *results) {
    const struct run_result *first = &results->runs[0];
    for (size_t i = 0; i < first->n_scores; i++) {
        const struct run_score *bad = NULL;
        for (size_t run = 0; run < results->n && bad == NULL; run++) {
            const struct run_score *score = results_score(results, run, first->scores[i].name);
            if (score != NULL && !score_counts(score)) bad = score;
        }
        if (bad != NULL)
            (void)printf("  ! %s %s%s\n", bad->name,
                         bad->valid ? "counts some targets several times; it is no score"
                                    : "is INVALID: ",
                         bad->valid            ? ""
                         : bad->why[0] != '\0' ? bad->why
                                               : "not a probability distribution");
    }
}

void results_print(const struct results *results) {
    if (results->n == 0) return;
    print_heads(&results->runs[0]);
    for (size_t i = 0; i < results->n; i++) print_run(results, i);
    print_summary(results, false);
    if (results->n > 1) print_summary(results, true);
    print_marks(results);
    (void)fflush(stdout);
}

/* ---- results.json ---- */

static void add_number(cJSON *object, const char *key, double value) {
    if (isfinite(value)) (void)cJSON_AddNumberToObject(object, key, value);
}

static cJSON *score_object(const struct run_score *score) {
    cJSON *object = cJSON_CreateObject();
    add_number(object, "bpb", score->bpb);
    add_number(object, "nats_per_token", score->nats_per_token);
    add_number(object, "nats_per_byte", score->bpb * log(2.0));
    if (score->targets > 0) add_number(object, "targets", score->targets);
    if (score->bytes > 0) add_number(object, "bytes", score->bytes);
    (void)cJSON_AddBoolToObject(object, "valid", score->valid);
    if (!score->fair) (void)cJSON_AddBoolToObject(object, "fair", false);
    if (score->why[0] != '\0') (void)cJSON_AddStringToObject(object, "why", score->why);
    return object;
}

/* The directory that holds the run's receipt, seen from `path`. */
static void add_directory(cJSON *object, const struct run_result *run, const char *path) {
    const char *slash = strrchr(path, '/'), *end = strrchr(run->place, '/');
    const size_t base = slash != NULL ? (size_t)(slash - path) + 1 : 0;
    const bool below = strncmp(run->place, path, base) == 0;
    const char *from = run->place + (below ? base : 0);
    const int length = end != NULL && end > from ? (int)(end - from) : 0;
    char directory[4096];
    (void)snprintf(directory, sizeof directory, "%.*s", length, from);
    (void)cJSON_AddStringToObject(object, "directory", length > 0 ? directory : ".");
}

static cJSON *run_object(const struct run_result *run, const char *path) {
    cJSON *object = cJSON_CreateObject();
    add_number(object, "seed", (double)run->seed);
    add_directory(object, run, path);
    add_number(object, "steps", (double)run->steps);
    (void)cJSON_AddStringToObject(object, "config_sha256", run->config);
    (void)cJSON_AddStringToObject(object, "experiment_sha256", run->experiment);
    (void)cJSON_AddStringToObject(object, "model_sha256", run->model_sha256);
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes");
    add_number(bytes, "model", run->model_bytes);
    add_number(bytes, "total", run->total_bytes);
    cJSON *seconds = cJSON_AddObjectToObject(object, "seconds");
    add_number(seconds, "train", run->train_seconds);
    add_number(seconds, "evaluate", run->evaluate_seconds);
    cJSON *scores = cJSON_AddObjectToObject(object, "scores");
    for (size_t i = 0; i < run->n_scores; i++)
        (void)cJSON_AddItemToObject(scores, run->scores[i].name, score_object(&run->scores[i]));
    return object;
}

static void add_summaries(cJSON *json, const struct results *results) {
    cJSON *means = cJSON_AddObjectToObject(json, "mean");
    cJSON *deviations = cJSON_AddObjectToObject(json, "deviation");
    const struct run_result *first = &results->runs[0];
    for (size_t i = 0; i < first->n_scores; i++) {
        struct summary s;
        const char *name = first->scores[i].name;
        if (!summarize(results, name, &s)) continue;
        cJSON *mean = cJSON_AddObjectToObject(means, name);
        add_number(mean, "bpb", s.bpb);
        add_number(mean, "nats_per_token", s.nats);
        (void)cJSON_AddBoolToObject(mean, "valid", s.counts);
        cJSON *deviation = cJSON_AddObjectToObject(deviations, name);
        add_number(deviation, "bpb", s.bpb_deviation);
        add_number(deviation, "nats_per_token", s.nats_deviation);
    }
}

fw_status results_write(const struct results *results, const char *path, fw_error *error) {
    cJSON *json = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(json, "fairway", FAIRWAY_VERSION);
    (void)cJSON_AddStringToObject(json, "name", results->name);
    (void)cJSON_AddStringToObject(json, "experiment_sha256",
                                  results->n > 0 ? results->runs[0].experiment : "");
    cJSON *runs = cJSON_AddArrayToObject(json, "runs");
    for (size_t i = 0; i < results->n; i++)
        (void)cJSON_AddItemToArray(runs, run_object(&results->runs[i], path));
    if (results->n > 0) add_summaries(json, results);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (text == NULL) return fw_fail(error, FW_E_MEMORY, "%s: no memory to write it", path);
    const fw_status status = file_write(path, text, strlen(text), error);
    cJSON_free(text);
    return status;
}
