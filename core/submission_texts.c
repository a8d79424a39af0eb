/* The texts of a record folder: submission.json, README.md, train_gpt.py. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "statistics.h"
#include "submission.h"
#include "text.h"

static double value_of(const struct submission *submission, size_t index, bool nats) {
    const struct run_score *score = results_score(submission->results, index, submission->score);
    return nats ? score->nats_per_token : score->bpb;
}

static void summarize(const struct submission *submission, bool nats, double *mean,
                      double *deviation) {
    double values[MAX_RUNS];
    const size_t n = submission->results->n;
    for (size_t i = 0; i < n; i++) values[i] = value_of(submission, i, nats);
    *mean = statistics_mean(values, n);
    *deviation = statistics_deviation(values, n);
}

/* What the score is, in words. */
static const char *score_words(const char *name) {
    static const char *const words[][2] = {
        {"sliding_fair", "the model alone, sliding window"},
        {"sliding", "the model alone, sliding window"},
        {"stream", "the model alone, one stream with a sliding attention window"},
        {"plain", "the model alone, windows side by side"},
        {"cached", "the model with its cache"},
        {"packed", "the model alone, windows side by side"},
        {"counterpart", "the model with the honest counterpart of its cache"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i][0], name) == 0) return words[i][1];
    return name;
}

/* ---- submission.json ---- */

static void add_number(cJSON *object, const char *key, double value) {
    if (isfinite(value)) (void)cJSON_AddNumberToObject(object, key, value);
}

static cJSON *seed_object(const struct submission *submission, size_t index) {
    const struct run_result *run = &submission->results->runs[index];
    cJSON *object = cJSON_CreateObject();
    add_number(object, "val_loss", value_of(submission, index, true));
    add_number(object, "val_bpb", value_of(submission, index, false));
    add_number(object, "artifact_bytes", run->model_bytes);
    add_number(object, "steps", (double)run->steps);
    add_number(object, "train_time_s", run->train_seconds);
    add_number(object, "eval_time_s", run->evaluate_seconds);
    return object;
}

static void add_seeds(cJSON *json, const struct submission *submission) {
    cJSON *seeds = cJSON_AddArrayToObject(json, "seeds");
    cJSON *each = cJSON_AddObjectToObject(json, "seed_results");
    for (size_t i = 0; i < submission->results->n; i++) {
        const int64_t seed = submission->results->runs[i].seed;
        char text[32];
        (void)snprintf(text, sizeof text, "%" PRId64, seed);
        (void)cJSON_AddItemToArray(seeds, cJSON_CreateNumber((double)seed));
        (void)cJSON_AddItemToObject(each, text, seed_object(submission, i));
    }
}

static void add_texts(cJSON *json, const struct submission *submission) {
    const char *const pairs[][2] = {{"author", submission->author},
                                    {"github_id", submission->github},
                                    {"name", submission->name},
                                    {"blurb", submission->blurb},
                                    {"date", submission->date},
                                    {"track", submission->track},
                                    {"val_bpb_method", score_words(submission->score)}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        (void)cJSON_AddStringToObject(json, pairs[i][0], pairs[i][1]);
}

static fw_status print_json(cJSON *json, char **text, fw_error *error) {
    char *printed = cJSON_Print(json);
    cJSON_Delete(json);
    char *copy = printed != NULL ? strdup(printed) : NULL;
    cJSON_free(printed);
    if (copy == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the record's texts");
    *text = copy;
    return FW_OK;
}

fw_status submission_json(const struct submission *submission, char **text, fw_error *error) {
    double bpb, bpb_deviation, nats, nats_deviation;
    const size_t code = submission->bundle_bytes + submission->script_bytes;
    summarize(submission, false, &bpb, &bpb_deviation);
    summarize(submission, true, &nats, &nats_deviation);
    cJSON *json = cJSON_CreateObject();
    add_texts(json, submission);
    add_number(json, "val_loss", nats);
    add_number(json, "val_bpb", bpb);
    add_number(json, "val_loss_std", nats_deviation);
    add_number(json, "val_bpb_std", bpb_deviation);
    if (submission->tokens > 0) add_number(json, "val_tokens", submission->tokens);
    add_seeds(json, submission);
    add_number(json, "bytes_total", (double)(submission->model_bytes + code));
    add_number(json, "bytes_model", (double)submission->model_bytes);
    add_number(json, "bytes_code", (double)code);
    return print_json(json, text, error);
}

/* ---- train_gpt.py ---- */

static cJSON *part(const char *file, const char *sha256, double bytes) {
    cJSON *object = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(object, "file", file);
    (void)cJSON_AddStringToObject(object, "sha256", sha256);
    (void)cJSON_AddNumberToObject(object, "bytes", bytes);
    return object;
}

/* JSON of texts, numbers and lists is Python too. */
static fw_status record_text(const struct submission *submission, char **text, fw_error *error) {
    const struct run_result *run = &submission->results->runs[0];
    cJSON *json = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(json, "name", submission->name);
    cJSON *seeds = cJSON_AddArrayToObject(json, "seeds");
    for (size_t i = 0; i < submission->results->n; i++)
        (void)cJSON_AddItemToArray(seeds,
                                   cJSON_CreateNumber((double)submission->results->runs[i].seed));
    (void)cJSON_AddItemToObject(
        json, "code",
        part("fairway.tar.xz", submission->code_sha256, (double)submission->bundle_bytes));
    (void)cJSON_AddItemToObject(json, "model",
                                part("model.fairway", run->model_sha256, run->model_bytes));
    (void)cJSON_AddStringToObject(json, "ini", submission->ini);
    return print_json(json, text, error);
}

fw_status submission_script(const struct submission *submission, char **text, fw_error *error) {
    static const char mark[] = "RECORD = {}";
    const char *at = strstr(train_gpt_script, mark);
    if (at == NULL) return fw_fail(error, FW_E_INTERNAL, "train_gpt.py has no place for a record");
    char *record = NULL;
    FW_TRY(record_text(submission, &record, error));
    const char *rest = at + strcspn(at, "\n");
    struct text script = {0};
    text_put(&script, "%.*sRECORD = %s%s", (int)(at - train_gpt_script), train_gpt_script, record,
             rest);
    free(record);
    const fw_status status = text_finish(&script, text, error);
    free(script.bytes);
    return status;
}

/* ---- README.md ---- */

static void put_scores(struct text *text, const struct submission *submission) {
    const struct results *results = submission->results;
    const struct run_result *first = &results->runs[0];
    text_put(text, "| seed | steps |");
    for (size_t i = 0; i < first->n_scores; i++) text_put(text, " %s |", first->scores[i].name);
    text_put(text, " model bytes |\n| --- | ---: |");
    for (size_t i = 0; i <= first->n_scores; i++) text_put(text, " ---: |");
    for (size_t r = 0; r < results->n; r++) {
        const struct run_result *run = &results->runs[r];
        text_put(text, "\n| %" PRId64 " | %" PRId64 " |", run->seed, run->steps);
        for (size_t i = 0; i < first->n_scores; i++) {
            const struct run_score *score = results_score(results, r, first->scores[i].name);
            if (score == NULL)
                text_put(text, " |");
            else
                text_put(text, score_counts(score) ? " %.6f |" : " (%.6f) |", score->bpb);
        }
        text_put(text, " %.0f |", run->model_bytes);
    }
    text_put(text, "\n\n");
}

/* Scores that stand in the table but do not count. */
static void put_remarks(struct text *text, const struct submission *submission) {
    const struct run_result *run = &submission->results->runs[0];
    for (size_t i = 0; i < run->n_scores; i++) {
        const struct run_score *score = &run->scores[i];
        if (!score->valid)
            text_put(text, "The score \"%s\" is **INVALID** and counts nowhere: %s.\n\n",
                     score->name,
                     score->why[0] != '\0' ? score->why : "it is no probability distribution");
        else if (!score->fair)
            text_put(text,
                     "The score \"%s\" counts some targets several times, for comparison with an "
                     "older record, and stands for nothing else.\n\n",
                     score->name);
    }
}

static void put_result(struct text *text, const struct submission *submission) {
    double bpb, bpb_deviation, nats, nats_deviation;
    summarize(submission, false, &bpb, &bpb_deviation);
    summarize(submission, true, &nats, &nats_deviation);
    text_put(text, "**val_bpb %.6f** (%.6f nats per token): %s", bpb, nats,
             score_words(submission->score));
    if (submission->results->n > 1)
        text_put(text, "; mean of %zu seeds, standard deviation %.6f (%.6f nats)",
                 submission->results->n, bpb_deviation, nats_deviation);
    if (submission->tokens > 0)
        text_put(text, "; %.0f validation tokens, each scored once", submission->tokens);
    text_put(text, ".\n\nBits per byte of the stages of each run:\n\n");
    put_scores(text, submission);
    put_remarks(text, submission);
}

static void put_files(struct text *text, const struct submission *submission) {
    const size_t code = submission->bundle_bytes + submission->script_bytes;
    text_put(text,
             "## Bytes\n\n"
             "| what | bytes |\n| --- | ---: |\n"
             "| model.fairway, the largest of all seeds | %zu |\n"
             "| fairway.tar.xz, the sources of the program and of its plugins | %zu |\n"
             "| train_gpt.py | %zu |\n| together, of %d | %zu |\n\n"
             "model.fairway is the artifact of seed %" PRId64
             "; a log of each seed lies beside it. "
             "Each line of a log is a JSON object.\n\n",
             submission->model_bytes, submission->bundle_bytes, submission->script_bytes,
             SUBMISSION_LIMIT, submission->model_bytes + code, submission->results->runs[0].seed);
}

static void put_usage(struct text *text, const struct submission *submission) {
    const bool tokenizer = strstr(submission->ini, "@TOKENIZER@") != NULL;
    text_put(
        text,
        "## Run it\n\n```sh\n"
        "apt-get install build-essential cmake ninja-build pkg-config libopenblas-dev "
        "libinih-dev \\\n  liblzma-dev libcjson-dev libmd-dev libseccomp-dev libsentencepiece-dev\n"
        "python3 train_gpt.py --dry-run    # check the files\n"
        "python3 train_gpt.py --data DIR%s --seed %" PRId64 "\n```\n\n"
        "train_gpt.py unpacks the sources into build/, builds them there and makes the run "
        "below; `--data` (or DATA_PATH) is the directory that `@DATA@` stands for%s. `--eval` "
        "scores model.fairway instead of training. Nothing is downloaded; build/ is no part of "
        "the record.\n\n",
        tokenizer ? " --tokenizer FILE" : "", submission->results->runs[0].seed,
        tokenizer ? ", `--tokenizer` (or TOKENIZER_PATH) the file for `@TOKENIZER@`" : "");
}

fw_status submission_readme(const struct submission *submission, char **result, fw_error *error) {
    struct text text = {0};
    text_put(&text, "# %s\n\n", submission->name);
    if (submission->blurb[0] != '\0') text_put(&text, "%s\n\n", submission->blurb);
    put_result(&text, submission);
    put_usage(&text, submission);
    put_files(&text, submission);
    text_put(&text, "## The experiment\n\nEvery key of the run:\n\n```ini\n%s```\n",
             submission->ini);
    const fw_status status = text_finish(&text, result, error);
    free(text.bytes);
    return status;
}
