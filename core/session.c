#include "session.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "files.h"
#include "tokenize.h"

static void write_log(void *argument, uint32_t level, const char *message) {
    struct session *session = argument;
    static const char *const names[] = {"debug", "info", "warning", "error"};
    const char *name = names[level <= FW_LOG_ERROR ? level : FW_LOG_ERROR];
    if (level >= FW_LOG_WARNING) {
        progress_end(&session->progress);
        (void)fprintf(stderr, "fairway: %s: %s\n", name, message);
    }
    cJSON *fields = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(fields, "level", name);
    (void)cJSON_AddStringToObject(fields, "message", message);
    (void)log_event(session->log, "message", fields, NULL);
}

static void show_progress(void *argument, const char *what, double done, double total) {
    struct session *session = argument;
    progress_update(&session->progress, "%s %3.0f%%", what, total > 0 ? 100 * done / total : 0.0);
}

static double seconds_left(void *argument) {
    const struct session *session = argument;
    return session->deadline > 0 ? session->deadline - clock_seconds() : INFINITY;
}

static void warn_of_device(struct session *session) {
    char message[1200];
    if (session->experiment->passed_over == NULL) return;
    (void)snprintf(message, sizeof message, "run.device = auto runs on the CPU: %s",
                   session->experiment->passed_over);
    write_log(session, FW_LOG_WARNING, message);
}

static fw_status open_host(struct session *session, fw_error *error) {
    const struct run_keys *run = &session->experiment->run;
    if (run->threads > 0) omp_set_num_threads((int)run->threads);
    const struct host_options options = {.registry = session->registry,
                                         .seed = (uint64_t)run->seed,
                                         .log = write_log,
                                         .progress = show_progress,
                                         .seconds_left = seconds_left,
                                         .argument = session};
    FW_TRY(host_create(&options, &session->host, error));
    FW_TRY(host_open_device(session->host, &session->experiment->device, error));
    session->services = host_table(session->host);
    warn_of_device(session);
    return FW_OK;
}

static fw_status bind_all(const struct arguments *arguments, const char *path, const char *text,
                          uint32_t bind, struct session *session, fw_error *error) {
    FW_TRY(registry_create(arguments->plugin_directories, arguments->n_plugin_directories,
                           &session->registry, error));
    FW_TRY(config_load(path, text, arguments->overrides, arguments->n_overrides, &session->config,
                       error));
    return config_resolve(session->config, session->registry, bind, &session->experiment, error);
}

fw_status session_bind(const struct arguments *arguments, const char *path, const char *text,
                       uint32_t bind, struct session *session, fw_error *error) {
    *session = (struct session){0};
    progress_begin(&session->progress);
    const fw_status status = bind_all(arguments, path, text, bind, session, error);
    if (status != FW_OK) session_close(session);
    return status;
}

fw_status session_start(struct session *session, fw_error *error) {
    return session->host == NULL ? open_host(session, error) : FW_OK;
}

fw_status session_open(const struct arguments *arguments, const char *path, const char *text,
                       uint32_t bind, struct session *session, fw_error *error) {
    FW_TRY(session_bind(arguments, path, text, bind, session, error));
    const fw_status status = session_start(session, error);
    if (status != FW_OK) session_close(session);
    return status;
}

void session_close(struct session *session) {
    corpus_close(session->training);
    corpus_close(session->validation);
    token_table_destroy(session->table);
    if (session->tokenizer_self != NULL)
        tokenizer_close(session->tokenizer, session->tokenizer_self);
    log_close(session->log);
    session->log = NULL;
    host_destroy(session->host);
    config_destroy(session->config);
    registry_destroy(session->registry);
    *session = (struct session){0};
}

static fw_status check_vocabulary(const struct session *session, fw_error *error) {
    const int64_t wanted = session->experiment->model.vocabulary;
    if (wanted == 0 || wanted == (int64_t)session->table->vocabulary) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: model.vocabulary = %lld, but the tokenizer %s has %u tokens (%s); name the "
                   "tokenizer that the data were made with, or set model.vocabulary = %u",
                   config_where(session->config, "model", "vocabulary"), (long long)wanted,
                   session->experiment->tokenizer.entry->plugin->id, session->table->vocabulary,
                   config_where(session->config, "tokenizer", "plugin"),
                   session->table->vocabulary);
}

fw_status session_open_tokenizer(struct session *session, fw_error *error) {
    FW_TRY(tokenizer_open(session->host, &session->experiment->tokenizer, &session->tokenizer,
                          &session->tokenizer_self, error));
    FW_TRY(token_table_from_tokenizer(session->tokenizer, session->tokenizer_self, &session->table,
                                      error));
    return check_vocabulary(session, error);
}

/* ---- corpora ---- */

static struct corpus_options base_options(const struct session *session) {
    const struct data_keys *data = &session->experiment->data;
    return (struct corpus_options){.seed = (uint64_t)session->experiment->run.seed,
                                   .every = (uint32_t)data->hold_out_every,
                                   .vocabulary =
                                       session->table != NULL ? session->table->vocabulary : 0,
                                   .keep_text = data->compare_xz,
                                   .table = session->table,
                                   .tokenizer = session->tokenizer,
                                   .tokenizer_self = session->tokenizer_self};
}

static fw_status check_corpus(const struct corpus *corpus, const char *where, const char *key,
                              fw_error *error) {
    if (corpus_tokens(corpus) >= 2) return FW_OK;
    return fw_fail(error, FW_E_FORMAT, "%s: %s holds %llu tokens; 2 are the least", where, key,
                   (unsigned long long)corpus_tokens(corpus));
}

fw_status session_open_training(struct session *session, fw_error *error) {
    const struct data_keys *data = &session->experiment->data;
    const char *where = config_where(session->config, "data", "train");
    if (data->train[0] == '\0')
        return fw_fail(error, FW_E_CONFIG,
                       "%s: data.train is empty; name shards (\"data/train_*.bin\") or text "
                       "(\"text:books/*.txt\")",
                       where);
    struct corpus_options options = base_options(session);
    options.source = data->train;
    options.where = where;
    options.shuffle = data->shuffle == SHUFFLE_DOCUMENTS;
    options.part = data->hold_out_every > 0 ? CORPUS_TRAINING_PART : CORPUS_ALL;
    FW_TRY(corpus_open(&options, &session->training, error));
    return check_corpus(session->training, where, "data.train", error);
}

/* Where the validation documents come from: their own source, or every n-th of the training's. */
static fw_status choose_validation(const struct session *session, struct corpus_options *options,
                                   fw_error *error) {
    const struct data_keys *data = &session->experiment->data;
    const char *key =
        data->validation[0] != '\0' || data->hold_out_every == 0 ? "validation" : "train";
    options->where = config_where(session->config, "data", key);
    if (data->validation[0] != '\0') {
        options->source = data->validation;
        options->every = 0;
        return FW_OK;
    }
    options->source = data->train;
    options->part = CORPUS_HELD_OUT_PART;
    if (data->hold_out_every > 0) return FW_OK;
    return fw_fail(
        error, FW_E_CONFIG,
        "%s: data.validation is empty; name a source, or set data.hold_out_every = 10 to hold "
        "out every tenth training document",
        options->where);
}

/* Held-out documents are apart by their index; data that the user names twice may not be. */
static fw_status check_overlap(const struct session *session, const char *where, fw_error *error) {
    char what[512];
    if (session->training == NULL ||
        !corpus_overlap(session->training, session->validation, what, sizeof what))
        return FW_OK;
    return fw_fail(
        error, FW_E_CONFIG,
        "%s: data.train and data.validation share %s; nothing that is scored may be trained on",
        where, what);
}

fw_status session_open_validation(struct session *session, fw_error *error) {
    struct corpus_options options = base_options(session);
    options.max_tokens = (uint64_t)session->experiment->eval.max_tokens;
    FW_TRY(choose_validation(session, &options, error));
    FW_TRY(corpus_open(&options, &session->validation, error));
    FW_TRY(check_corpus(session->validation, options.where, "the validation part", error));
    return options.part == CORPUS_ALL ? check_overlap(session, options.where, error) : FW_OK;
}

/* ---- the run directory ---- */

const char *session_path(const struct session *session, const char *name) {
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", session->experiment->run.output, name);
    return path;
}

/* Results of an earlier run must not stand beside the settings of this one. */
static void remove_results(const struct session *session) {
    static const char *const names[] = {"weights.fw",  "model.fairway", "receipt.json", "log.jsonl",
                                        "train.jsonl", "code.tar.xz",   "results.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)remove(session_path(session, names[i]));
}

/* What a process that was killed while it wrote a checkpoint left behind. */
static void remove_leftovers(const struct session *session) {
    static const char leftover[] = CHECKPOINT_NAME ".tmp-";
    DIR *directory = opendir(session->experiment->run.output);
    if (directory == NULL) return;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (strncmp(entry->d_name, leftover, sizeof leftover - 1) == 0)
            (void)remove(session_path(session, entry->d_name));
    (void)closedir(directory);
}

fw_status session_open_directory(struct session *session, const char *log_name, bool resume,
                                 fw_error *error) {
    FW_TRY(file_make_directories(session->experiment->run.output, error));
    remove_leftovers(session);
    if (!resume) remove_results(session);
    char *text = NULL;
    FW_TRY(config_text(session->config, NULL, &text, error));
    const fw_status status =
        file_write(session_path(session, "resolved.ini"), text, strlen(text), error);
    free(text);
    FW_TRY(status);
    const char *path = session_path(session, log_name);
    return resume ? log_append(path, &session->log, error) : log_open(path, &session->log, error);
}
