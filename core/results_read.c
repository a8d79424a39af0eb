/* Reading results: receipts, result files and references; see results.h for their forms. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "results.h"

enum { LARGEST_FILE = 16 << 20 };

fw_status results_create(struct results **results, fw_error *error) {
    struct results *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for results");
    *results = made;
    return FW_OK;
}

static void drop_runs(struct results *results, size_t from) {
    for (size_t i = from; i < results->n; i++) free(results->runs[i].place);
    results->n = from;
}

void results_destroy(struct results *results) {
    if (results == NULL) return;
    drop_runs(results, 0);
    free(results);
}

/* ---- fields ---- */

static const cJSON *item(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static double number_or(const cJSON *object, const char *key, double otherwise) {
    const cJSON *found = item(object, key);
    return cJSON_IsNumber(found) && isfinite(found->valuedouble) ? found->valuedouble : otherwise;
}

static void copy_text(const cJSON *object, const char *key, char *out, size_t size) {
    const cJSON *found = item(object, key);
    (void)snprintf(out, size, "%s", cJSON_IsString(found) ? found->valuestring : "");
}

/* True where nothing is said; anything but `true` speaks against a score. */
static bool flag(const cJSON *object, const char *key) {
    const cJSON *found = item(object, key);
    return found == NULL || cJSON_IsTrue(found);
}

/* A whole number from 0 on, as seeds and steps are; -1 when it is none. */
static int64_t whole_number(const cJSON *value) {
    if (!cJSON_IsNumber(value)) return -1;
    const double real = value->valuedouble;
    if (!(real >= 0 && real <= 9007199254740991.0) || real != floor(real)) return -1;
    return (int64_t)real;
}

static bool is_score(double bpb) { return isfinite(bpb) && bpb > 0 && bpb < 1e6; }

/* ---- runs of Fairway ---- */

static void explain(const cJSON *object, struct run_score *score) {
    copy_text(object, "why", score->why, sizeof score->why);
    const double mean = number_or(object, "mean_sum", 0),
                 most = number_or(object, "largest_sum", 0);
    if (!score->valid && score->why[0] == '\0' && mean > 0)
        (void)snprintf(score->why, sizeof score->why,
                       "the distribution sums to %.4g (largest %.4g)", mean, most);
}

static void add_score(const cJSON *object, struct run_result *run) {
    if (!cJSON_IsObject(object) || !is_score(number_or(object, "bpb", NAN))) return;
    if (run->n_scores == MAX_SCORES || strlen(object->string) >= sizeof run->scores[0].name) return;
    struct run_score *score = &run->scores[run->n_scores++];
    (void)snprintf(score->name, sizeof score->name, "%s", object->string);
    score->bpb = number_or(object, "bpb", NAN);
    score->targets = number_or(object, "targets", 0);
    score->bytes = number_or(object, "bytes", 0);
    const double nats = number_or(object, "nats", NAN);
    score->nats_per_token =
        number_or(object, "nats_per_token", score->targets > 0 ? nats / score->targets : NAN);
    score->valid = flag(object, "valid");
    score->fair = flag(object, "fair");
    explain(object, score);
}

static fw_status missing(const char *path, const char *key, fw_error *error) {
    return fw_fail(error, FW_E_FORMAT,
                   "%s: a run has no valid \"%s\"; `fairway run` writes receipts and results that "
                   "have",
                   path, key);
}

/* A receipt is written even then, so that what was made is accounted for. */
static fw_status check_failure(const cJSON *object, const char *path, fw_error *error) {
    const cJSON *failure = item(object, "failure");
    if (failure == NULL) return FW_OK;
    return fw_fail(error, FW_E_CONFIG, "%s: this run failed, so its scores are no result: %.500s",
                   path, cJSON_IsString(failure) ? failure->valuestring : "it does not say why");
}

/* The same form in a receipt and in the list of results.json. */
static fw_status read_run(const cJSON *object, const char *path, struct run_result *run,
                          fw_error *error) {
    FW_TRY(check_failure(object, path, error));
    const cJSON *scores = item(object, "scores"), *bytes = item(object, "bytes");
    const cJSON *seconds = item(object, "seconds");
    run->seed = whole_number(item(object, "seed"));
    run->steps = whole_number(item(object, "steps"));
    copy_text(object, "experiment_sha256", run->experiment, sizeof run->experiment);
    copy_text(object, "config_sha256", run->config, sizeof run->config);
    copy_text(cJSON_IsObject(bytes) ? bytes : object, "model_sha256", run->model_sha256,
              sizeof run->model_sha256);
    if (run->model_sha256[0] == '\0')
        copy_text(object, "model_sha256", run->model_sha256, sizeof run->model_sha256);
    copy_text(bytes, "code_sources_sha256", run->code_sha256, sizeof run->code_sha256);
    run->model_bytes = number_or(bytes, "model", 0);
    run->total_bytes = number_or(bytes, "total", 0);
    run->train_seconds = number_or(seconds, "train", 0);
    run->evaluate_seconds = number_or(seconds, "evaluate", 0);
    if (run->seed < 0) return missing(path, "seed", error);
    if (strlen(run->experiment) != 64) return missing(path, "experiment_sha256", error);
    for (const cJSON *s = cJSON_IsObject(scores) ? scores->child : NULL; s != NULL; s = s->next)
        add_score(s, run);
    return run->n_scores > 0 ? FW_OK : missing(path, "scores", error);
}

/* ---- references written by hand ---- */

static fw_status reference_error(const char *path, const char *key, const char *what,
                                 fw_error *error) {
    return fw_fail(error, FW_E_FORMAT, "%s: \"%s\" %s", path, key, what);
}

/* Scores of one kind, one for each run. */
static fw_status read_list(const cJSON *reference, const char *kind, const char *path,
                           struct results *results, size_t from, fw_error *error) {
    const cJSON *object = item(reference, kind), *bpb = item(object, "bpb");
    const cJSON *nats = item(object, "nats_per_token");
    const double bytes_per_token = number_or(reference, "bytes_per_token", NAN);
    if (object == NULL) return FW_OK;
    if (!cJSON_IsArray(bpb) || cJSON_GetArraySize(bpb) != (int)(results->n - from))
        return reference_error(path, kind, "needs \"bpb\": a list with one score for each run",
                               error);
    if (nats != NULL && cJSON_GetArraySize(nats) != cJSON_GetArraySize(bpb))
        return reference_error(path, kind,
                               "has a \"nats_per_token\" of another length than \"bpb\"", error);
    char mode[24];
    copy_text(object, "mode", mode, sizeof mode);
    for (size_t i = from; i < results->n; i++) {
        const cJSON *one = cJSON_GetArrayItem(bpb, (int)(i - from));
        const cJSON *other = cJSON_GetArrayItem(nats, (int)(i - from));
        if (!cJSON_IsNumber(one) || !is_score(one->valuedouble))
            return reference_error(path, kind, "has a \"bpb\" that is no positive number", error);
        struct run_result *run = &results->runs[i];
        struct run_score *score = &run->scores[run->n_scores++];
        const char *name = strcmp(kind, "cached") == 0 ? kind : mode[0] != '\0' ? mode : "plain";
        (void)snprintf(score->name, sizeof score->name, "%s", name);
        score->bpb = one->valuedouble;
        score->nats_per_token =
            cJSON_IsNumber(other) ? other->valuedouble : score->bpb * log(2.0) * bytes_per_token;
        score->valid = flag(object, "valid");
        score->fair = flag(object, "fair");
        explain(object, score);
    }
    return FW_OK;
}

static fw_status check_mode(const cJSON *model, const char *path, fw_error *error) {
    char mode[24];
    copy_text(model, "mode", mode, sizeof mode);
    static const char *const modes[] = {"", "sliding", "stream", "plain"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(mode, modes[i]) == 0) return FW_OK;
    return reference_error(path, "mode", "is neither sliding, stream nor plain", error);
}

static fw_status read_reference(const cJSON *reference, const char *path, struct results *results,
                                fw_error *error) {
    const size_t from = results->n;
    const cJSON *model = item(reference, "model"), *seeds = item(reference, "seeds");
    const cJSON *bpb = item(model != NULL ? model : item(reference, "cached"), "bpb");
    const int n = cJSON_GetArraySize(bpb);
    if (n < 1 || (size_t)n > MAX_RUNS - from)
        return fw_fail(error, FW_E_FORMAT, "%s: holds %d scores; 1 to %zu are possible", path, n,
                       MAX_RUNS - from);
    if (seeds != NULL && cJSON_GetArraySize(seeds) != n)
        return reference_error(path, "seeds", "has another length than the list of scores", error);
    for (int i = 0; i < n; i++) {
        struct run_result *run = &results->runs[results->n];
        *run = (struct run_result){.seed = whole_number(cJSON_GetArrayItem(seeds, i)), .steps = -1};
        results->n++;
        if (seeds != NULL && run->seed < 0)
            return reference_error(path, "seeds", "holds what is no whole number", error);
    }
    FW_TRY(check_mode(model, path, error));
    FW_TRY(read_list(reference, "model", path, results, from, error));
    return read_list(reference, "cached", path, results, from, error);
}

/* ---- a file ---- */

/* An experiment's hash knows its data by name; other text shows in what was scored. */
static fw_status check_text(const struct run_result *first, const struct run_result *run,
                            fw_error *error) {
    for (size_t i = 0; i < first->n_scores; i++)
        for (size_t j = 0; j < run->n_scores; j++) {
            const struct run_score *a = &first->scores[i], *b = &run->scores[j];
            if (strcmp(a->name, b->name) != 0 || a->bytes == 0 || b->bytes == 0 ||
                (a->bytes == b->bytes && a->targets == b->targets))
                continue;
            return fw_fail(
                error, FW_E_CONFIG,
                "%s scored \"%s\" on %.0f bytes in %.0f tokens, %s on %.0f in %.0f: runs "
                "on other text are not aggregated",
                first->place, a->name, a->bytes, a->targets, run->place, b->bytes, b->targets);
        }
    return FW_OK;
}

/* Equal experiments on equal text only, and no run twice. */
static fw_status check_new(const struct results *results, size_t from, fw_error *error) {
    for (size_t i = from; i < results->n; i++) {
        const struct run_result *run = &results->runs[i], *first = &results->runs[0];
        if (strcmp(run->experiment, first->experiment) != 0)
            return fw_fail(error, FW_E_CONFIG,
                           "%s is of experiment %.64s, %s of experiment %.64s: only runs that "
                           "differ in nothing but the seed are aggregated",
                           first->place, first->experiment[0] != '\0' ? first->experiment : "-",
                           run->place, run->experiment[0] != '\0' ? run->experiment : "-");
        FW_TRY(check_text(first, run, error));
        for (size_t j = 0; j < i; j++)
            if (run->seed >= 0 && results->runs[j].seed == run->seed)
                return fw_fail(error, FW_E_CONFIG,
                               "%s and %s both hold seed %" PRId64
                               ": a repeated run is no second measurement",
                               results->runs[j].place, run->place, run->seed);
    }
    return FW_OK;
}

static fw_status next_run(struct results *results, const char *path, struct run_result **run,
                          fw_error *error) {
    if (results->n == MAX_RUNS)
        return fw_fail(error, FW_E_LIMIT, "%s: more than %d runs", path, MAX_RUNS);
    *run = &results->runs[results->n++];
    **run = (struct run_result){.seed = -1, .steps = -1};
    return FW_OK;
}

static fw_status read_json(const cJSON *json, const char *path, struct results *results,
                           fw_error *error) {
    const cJSON *runs = item(json, "runs");
    struct run_result *run = NULL;
    if (cJSON_IsArray(runs)) {
        for (const cJSON *one = runs->child; one != NULL; one = one->next) {
            FW_TRY(next_run(results, path, &run, error));
            FW_TRY(read_run(one, path, run, error));
        }
        return runs->child != NULL ? FW_OK : missing(path, "runs", error);
    }
    if (cJSON_IsObject(item(json, "scores"))) {
        FW_TRY(next_run(results, path, &run, error));
        return read_run(json, path, run, error);
    }
    if (cJSON_IsObject(item(json, "model")) || cJSON_IsObject(item(json, "cached")))
        return read_reference(json, path, results, error);
    return fw_fail(error, FW_E_FORMAT,
                   "%s: is neither a receipt nor results nor a reference: it has none of \"runs\", "
                   "\"scores\" and \"model\"",
                   path);
}

static fw_status add_file(const cJSON *json, const char *path, struct results *results,
                          fw_error *error) {
    const size_t from = results->n;
    fw_status status = read_json(json, path, results, error);
    for (size_t i = from; i < results->n; i++) {
        results->runs[i].place = strdup(path);
        if (results->runs[i].place == NULL && status == FW_OK)
            status = fw_fail(error, FW_E_MEMORY, "%s: no memory for its name", path);
    }
    if (status == FW_OK) status = check_new(results, from, error);
    if (status != FW_OK)
        drop_runs(results, from);
    else if (results->name[0] == '\0')
        copy_text(json, "name", results->name, sizeof results->name);
    return status;
}

/* The file that stands for a run directory. */
static fw_status find_file(const char *path, char *file, size_t size, fw_error *error) {
    struct stat info;
    (void)snprintf(file, size, "%s", path);
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) return FW_OK;
    (void)snprintf(file, size, "%s/results.json", path);
    if (stat(file, &info) == 0) return FW_OK;
    (void)snprintf(file, size, "%s/receipt.json", path);
    if (stat(file, &info) == 0) return FW_OK;
    return fw_fail(error, FW_E_NOT_FOUND,
                   "%s: holds neither results.json nor receipt.json: it is no finished run", path);
}

fw_status results_read(const char *path, struct results *results, fw_error *error) {
    char file[4096];
    uint8_t *text = NULL;
    size_t size = 0;
    FW_TRY(find_file(path, file, sizeof file, error));
    FW_TRY(file_read(file, LARGEST_FILE, &text, &size, error));
    cJSON *json = cJSON_ParseWithLength((const char *)text, size);
    free(text);
    if (json == NULL || !cJSON_IsObject(json)) {
        cJSON_Delete(json);
        return fw_fail(error, FW_E_FORMAT, "%s: is no JSON object", file);
    }
    const fw_status status = add_file(json, file, results, error);
    cJSON_Delete(json);
    return status;
}
