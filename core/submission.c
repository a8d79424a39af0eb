/* Making the folder: check the run, collect, write, count what was written. */
#include "submission.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

enum { PATH_BYTES = 4096, LARGEST_LOG = 1 << 30 };

void submission_free(struct submission *submission) {
    results_destroy(submission->results);
    free(submission->ini);
    submission->results = NULL;
    submission->ini = NULL;
}

/* FOLDER/NAME; empty, and so no file, when it does not fit. */
static const char *join(const char *folder, const char *name, char path[PATH_BYTES]) {
    if (snprintf(path, PATH_BYTES, "%s/%s", folder, name) >= PATH_BYTES) path[0] = '\0';
    return path;
}

static void run_directory(const struct submission *submission, size_t index,
                          char path[PATH_BYTES]) {
    const char *place = submission->results->runs[index].place;
    const char *slash = strrchr(place, '/');
    (void)snprintf(path, PATH_BYTES, "%.*s", slash != NULL ? (int)(slash - place) : 1,
                   slash != NULL ? place : ".");
}

/* ---- checks ---- */

static fw_status need_file(const char *path, fw_error *error) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) return FW_OK;
    return fw_fail(error, FW_E_NOT_FOUND,
                   "%s: there is no such file; a record needs a run that `fairway run` finished",
                   path);
}

static fw_status check_hash(const char *path, const char *expected, fw_error *error) {
    uint8_t hash[32];
    char hex[65];
    FW_TRY(need_file(path, error));
    FW_TRY(sha256_file(path, hash, error));
    sha256_hex(hash, hex);
    if (strcmp(hex, expected) == 0) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s: its SHA-256 is %s, but the receipt says %s: it is not what the run made",
                   path, hex, expected[0] != '\0' ? expected : "nothing");
}

/* Receipts of the seeds, not what results.json says of them. */
static fw_status read_seeds(struct submission *submission, const struct results *listed,
                            fw_error *error) {
    char path[PATH_BYTES];
    for (size_t i = 0; i < listed->n; i++) {
        (void)snprintf(path, sizeof path, "%s/seed-%" PRId64 "/receipt.json", submission->run,
                       listed->runs[i].seed);
        FW_TRY(need_file(path, error));
        FW_TRY(results_read(path, submission->results, error));
        const struct run_result *run = &submission->results->runs[i];
        if (run->seed != listed->runs[i].seed || strcmp(run->config, listed->runs[i].config) != 0)
            return fw_fail(error, FW_E_FORMAT,
                           "%s: is of another run than results.json lists: seed %" PRId64
                           ", config %.12s",
                           path, run->seed, run->config);
    }
    return FW_OK;
}

static fw_status read_run(struct submission *submission, fw_error *error) {
    char path[PATH_BYTES];
    struct stat info;
    FW_TRY(results_create(&submission->results, error));
    if (stat(join(submission->run, "results.json", path), &info) != 0) {
        FW_TRY(need_file(join(submission->run, "receipt.json", path), error));
        return results_read(path, submission->results, error);
    }
    struct results *listed = NULL;
    FW_TRY(results_create(&listed, error));
    fw_status status = results_read(path, listed, error);
    if (status == FW_OK) status = read_seeds(submission, listed, error);
    results_destroy(listed);
    return status;
}

static fw_status check_files(struct submission *submission, fw_error *error) {
    char folder[PATH_BYTES], path[PATH_BYTES];
    for (size_t i = 0; i < submission->results->n; i++) {
        const struct run_result *run = &submission->results->runs[i];
        const struct run_result *first = &submission->results->runs[0];
        run_directory(submission, i, folder);
        FW_TRY(check_hash(join(folder, "model.fairway", path), run->model_sha256, error));
        FW_TRY(check_hash(join(folder, "code.tar.xz", path), run->code_sha256, error));
        FW_TRY(need_file(join(folder, "log.jsonl", path), error));
        FW_TRY(need_file(join(folder, "resolved.ini", path), error));
        if (strcmp(run->code_sha256, first->code_sha256) != 0)
            return fw_fail(error, FW_E_CONFIG,
                           "%s and %s were made by programs with other sources: run them again",
                           first->place, run->place);
        if ((size_t)run->model_bytes > submission->model_bytes)
            submission->model_bytes = (size_t)run->model_bytes;
    }
    (void)snprintf(submission->code_sha256, sizeof submission->code_sha256, "%s",
                   submission->results->runs[0].code_sha256);
    return FW_OK;
}

/* A score that takes fewer tokens than another of its run is a sample: never the record's. */
static bool covers_all(const struct run_result *run, const struct run_score *score) {
    for (size_t i = 0; i < run->n_scores; i++)
        if (score->targets < run->scores[i].targets && run->scores[i].fair) return false;
    return true;
}

static bool counts_in_all(const struct results *results, const char *name) {
    for (size_t i = 0; i < results->n; i++) {
        const struct run_score *score = results_score(results, i, name);
        if (score == NULL || !score_counts(score) || !covers_all(&results->runs[i], score))
            return false;
    }
    return true;
}

/* The best honest score of the first run that all runs have; what the packed weights score in
 * plain windows only for want of any other. */
static fw_status choose_score(struct submission *submission, fw_error *error) {
    static const char *const names[] = {"cached", "counterpart", "sliding_fair", "sliding",
                                        "stream", "plain",       "packed"};
    const struct results *results = submission->results;
    const struct run_score *best = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!counts_in_all(results, names[i])) continue;
        if (best != NULL && strcmp(names[i], "packed") == 0) continue;
        const struct run_score *score = results_score(results, 0, names[i]);
        if (best == NULL || score->bpb < best->bpb) best = score;
    }
    if (best == NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "%s: no score of this run counts: each is INVALID, counts targets several "
                       "times, or is about a part of the tokens",
                       results->runs[0].place);
    submission->score = best->name;
    submission->tokens = best->targets;
    return FW_OK;
}

static fw_status check_output(const char *output, fw_error *error) {
    DIR *directory = opendir(output);
    if (directory == NULL && errno == ENOENT) return FW_OK;
    if (directory == NULL)
        return fw_fail(error, FW_E_CONFIG, "--output %s: cannot be used as a directory: %s", output,
                       strerror(errno));
    size_t n = 0;
    while (readdir(directory) != NULL) n++;
    (void)closedir(directory);
    if (n <= 2) return FW_OK; /* . and .. */
    return fw_fail(error, FW_E_CONFIG,
                   "--output %s: is not empty; a record is written to a new or an empty directory",
                   output);
}

/* ---- writing ---- */

static fw_status copy_file(const char *from, const char *to, fw_error *error) {
    uint8_t *data = NULL;
    size_t size = 0;
    FW_TRY(file_read(from, LARGEST_LOG, &data, &size, error));
    const fw_status status = file_write(to, data, size, error);
    free(data);
    return status;
}

static fw_status copy_from(const struct submission *submission, size_t index, const char *name,
                           const char *as, fw_error *error) {
    char folder[PATH_BYTES], from[PATH_BYTES], to[PATH_BYTES];
    run_directory(submission, index, folder);
    return copy_file(join(folder, name, from), join(submission->output, as, to), error);
}

static void log_name(const struct submission *submission, size_t index, char name[64]) {
    (void)snprintf(name, 64, "train_seed%" PRId64 ".log", submission->results->runs[index].seed);
}

typedef fw_status (*compose)(const struct submission *submission, char **text, fw_error *error);

static fw_status write_text(const struct submission *submission, const char *name, compose composer,
                            fw_error *error) {
    char path[PATH_BYTES], *text = NULL;
    FW_TRY(composer(submission, &text, error));
    const fw_status status =
        file_write(join(submission->output, name, path), text, strlen(text), error);
    free(text);
    return status;
}

static fw_status measure(const struct submission *submission, const char *name, size_t *bytes,
                         fw_error *error) {
    char path[PATH_BYTES];
    struct stat info;
    if (stat(join(submission->output, name, path), &info) != 0)
        return fw_fail(error, FW_E_IO, "%s: cannot be measured: %s", path, strerror(errno));
    *bytes = (size_t)info.st_size;
    return FW_OK;
}

/* What counts, from the files as they lie on the disk. */
static fw_status count_bytes(struct submission *submission, fw_error *error) {
    size_t model = 0;
    FW_TRY(measure(submission, "model.fairway", &model, error));
    FW_TRY(measure(submission, "fairway.tar.xz", &submission->bundle_bytes, error));
    FW_TRY(measure(submission, "train_gpt.py", &submission->script_bytes, error));
    if (model > submission->model_bytes) submission->model_bytes = model;
    const size_t code = submission->bundle_bytes + submission->script_bytes;
    if (submission->model_bytes + code <= SUBMISSION_LIMIT) return FW_OK;
    return fw_fail(error, FW_E_LIMIT,
                   "%s: model of %zu bytes and code of %zu together are %zu, over the limit of %d",
                   submission->run, submission->model_bytes, code, submission->model_bytes + code,
                   SUBMISSION_LIMIT);
}

static fw_status write_folder(struct submission *submission, fw_error *error) {
    char name[64];
    FW_TRY(copy_from(submission, 0, "model.fairway", "model.fairway", error));
    FW_TRY(copy_from(submission, 0, "code.tar.xz", "fairway.tar.xz", error));
    FW_TRY(measure(submission, "fairway.tar.xz", &submission->bundle_bytes, error));
    FW_TRY(write_text(submission, "train_gpt.py", submission_script, error));
    FW_TRY(count_bytes(submission, error));
    for (size_t i = 0; i < submission->results->n; i++) {
        log_name(submission, i, name);
        FW_TRY(copy_from(submission, i, "log.jsonl", name, error));
    }
    FW_TRY(write_text(submission, "submission.json", submission_json, error));
    return write_text(submission, "README.md", submission_readme, error);
}

/* Leave nothing of a record that could not be finished. */
static void remove_folder(const struct submission *submission) {
    static const char *const names[] = {"model.fairway", "fairway.tar.xz", "train_gpt.py",
                                        "submission.json", "README.md"};
    char path[PATH_BYTES], name[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)remove(join(submission->output, names[i], path));
    for (size_t i = 0; i < submission->results->n; i++) {
        log_name(submission, i, name);
        (void)remove(join(submission->output, name, path));
    }
    (void)rmdir(submission->output);
}

fw_status submission_make(struct submission *submission, fw_error *error) {
    char folder[PATH_BYTES], path[PATH_BYTES];
    FW_TRY(check_output(submission->output, error));
    FW_TRY(read_run(submission, error));
    FW_TRY(check_files(submission, error));
    FW_TRY(choose_score(submission, error));
    run_directory(submission, 0, folder);
    FW_TRY(submission_ini(join(folder, "resolved.ini", path), &submission->ini, error));
    if (submission->name[0] == '\0') submission->name = submission->results->name;
    FW_TRY(file_make_directories(submission->output, error));
    const fw_status status = write_folder(submission, error);
    if (status != FW_OK) remove_folder(submission);
    return status;
}
