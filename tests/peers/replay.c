/* replay: plays a rows file to caches and their rivals, and prints what each makes of it. Rows and
 * code lengths are formed by the same code as in an evaluation, so the score of a cache here is
 * that of `fairway eval` on the same tokens, bit for bit. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "contender.h"
#include "files.h"
#include "waiting.h"

static const char help[] =
    "usage: replay ROWS [CONTENDER[:KEY=VALUE,...]]... [--scores FILE] [--json FILE]\n"
    "              [--plugin-dir DIR]... [--set run.threads=N]\n\n"
    "Plays ROWS (written by dump_rows; \"-\": standard input) to each contender, all in one pass, "
    "and prints\n"
    "nats per token, bits per byte, the gain over the model alone in bits per byte, tokens per "
    "second,\n"
    "memory, and the share of targets whose code length it changed. A contender is\n"
    "  CACHE       an id or a path as in [cache] plugin = ..., with keys of that cache; one that "
    "states no\n"
    "              verifiable distribution is marked INVALID, with what its statements sum to\n"
    "  additive    an additive-logit n-gram of order 4, add-1/2 smoothing: alpha (else the best of "
    "several)\n"
    "  kneser_ney  interpolated Kneser-Ney mixed with the model: order 2 to 5, discount or "
    "modified=1,\n"
    "              weight; what is not given is tuned on the first tune=0.05 of the stream (1: on "
    "all of\n"
    "              it, in hindsight)\n\n"
    "  --scores FILE  code lengths in nats, float64, little-endian: those of all targets by the "
    "model,\n"
    "                 then by the first contender, and so on\n"
    "  --json FILE    the table as one JSON array\n\n"
    "examples\n"
    "  replay val.rows ngram ngram:max_order=6,discount=0.5 ngram_hashed\n"
    "  replay val.rows kneser_ney kneser_ney:tune=1 kneser_ney:order=3,modified=1 additive\n"
    "  dump_rows --artifact m.fairway --data 'val_*.bin' --out - | replay - ngram\n";

enum { ROWS_AT_ONCE = 128, MOST_CONTENDERS = 64 };

struct options {
    const char *rows, *scores, *json;
};

/* A contender at work. */
struct played {
    const char *text;
    const struct contender_type *type;
    void *self;
    double *scores; /* nats of each target */
    double nats, seconds;
    struct contender_result result;
};

struct replay {
    const struct options *options;
    struct session session; /* whose threads form the rows */
    struct rows_reader *reader;
    const struct rows_header *header;
    struct played played[MOST_CONTENDERS];
    size_t n_played;
    struct rows rows;
    float *log_probabilities;
    double nats; /* of the model alone */
    double *scores;
    uint64_t next; /* position */
    int with_entropy;
};

/* ---- opening ---- */

static const struct contender_type *find_type(const char *text) {
    static const struct contender_type *const types[] = {&additive_contender,
                                                         &kneser_ney_contender};
    const size_t size = strcspn(text, ":");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strlen(types[i]->name) == size && strncmp(types[i]->name, text, size) == 0)
            return types[i];
    return &cache_contender;
}

static fw_status open_played(struct replay *replay, const char *text,
                             const struct arguments *arguments, fw_error *error) {
    struct played *played = &replay->played[replay->n_played++];
    played->text = text;
    played->type = find_type(text);
    played->scores = calloc(replay->header->windows.targets, sizeof *played->scores);
    if (played->scores == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the scores of %s", text);
    FW_TRY(played->type->open(text, replay->header, arguments, &played->self, error));
    if (played->type->needs_entropy(played->self)) replay->with_entropy = 1;
    return FW_OK;
}

static fw_status open_replay(struct replay *replay, const struct arguments *arguments,
                             fw_error *error) {
    FW_TRY(rows_reader_open(replay->options->rows, &replay->reader, error));
    FW_TRY(session_open(arguments, "command line", "", CONFIG_BIND(FW_DEVICE), &replay->session,
                        error));
    replay->header = rows_reader_header(replay->reader);
    const uint32_t V = replay->header->table->vocabulary;
    replay->scores = calloc(replay->header->windows.targets, sizeof *replay->scores);
    replay->log_probabilities = calloc(ROWS_AT_ONCE, V * sizeof(float));
    if (replay->log_probabilities == NULL || replay->scores == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for rows of %u tokens", V);
    FW_TRY(rows_create(ROWS_AT_ONCE, V, &replay->rows, error));
    if (arguments->n_inputs > MOST_CONTENDERS)
        return fw_fail(error, FW_E_LIMIT, "at most %d contenders at once", MOST_CONTENDERS - 1);
    for (size_t i = 1; i < arguments->n_inputs; i++)
        FW_TRY(open_played(replay, arguments->inputs[i], arguments, error));
    return FW_OK;
}

static void close_replay(struct replay *replay) {
    for (size_t i = 0; i < replay->n_played; i++) {
        replay->played[i].type->close(replay->played[i].self);
        free(replay->played[i].scores);
    }
    session_close(&replay->session);
    rows_free(&replay->rows);
    rows_reader_close(replay->reader);
    free(replay->log_probabilities);
    free(replay->scores);
}

/* ---- playing ---- */

static void score_model(struct replay *replay, uint64_t n) {
    const uint32_t V = replay->header->table->vocabulary;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t position = replay->next + i;
        const uint32_t target = replay->header->tokens[position + 1];
        const double excess =
            replay->rows.log_normaliser[i] - (double)replay->log_probabilities[i * V + target];
        replay->scores[position] = excess > 0 ? excess : 0;
        replay->nats += replay->scores[position];
    }
}

static fw_status play_rows(struct replay *replay, uint64_t n, fw_error *error) {
    FW_TRY(rows_form(&replay->rows, replay->session.services, replay->log_probabilities, (int64_t)n,
                     replay->with_entropy, error));
    const struct block block = {replay->header, &replay->rows, replay->next, n};
    for (size_t i = 0; i < replay->n_played; i++) {
        struct played *played = &replay->played[i];
        const double begin = clock_seconds();
        FW_TRY(played->type->play(played->self, &block, played->scores + replay->next, error));
        played->seconds += clock_seconds() - begin;
    }
    score_model(replay, n);
    replay->next += n;
    return FW_OK;
}

static fw_status play_all(struct replay *replay, fw_error *error) {
    struct progress *progress = &replay->session.progress;
    const double begin = clock_seconds();
    for (;;) {
        uint64_t n = 0;
        FW_TRY(
            rows_reader_next(replay->reader, ROWS_AT_ONCE, replay->log_probabilities, &n, error));
        if (n == 0) break;
        FW_TRY(play_rows(replay, n, error));
        progress_work(progress, "replay", (double)replay->next,
                      (double)replay->header->windows.targets, "tokens", begin);
    }
    return FW_OK;
}

static fw_status finish(struct replay *replay, struct played *played, fw_error *error) {
    const double begin = clock_seconds();
    FW_TRY(
        played->type->finish(played->self, replay->scores, played->scores, &played->result, error));
    played->seconds += clock_seconds() - begin;
    for (uint64_t t = 0; t < replay->header->windows.targets; t++)
        played->nats += played->scores[t];
    return FW_OK;
}

/* Side by side: what is tuned takes its time. */
static fw_status finish_all(struct replay *replay, fw_error *error) {
    fw_status statuses[MOST_CONTENDERS] = {FW_OK};
    const size_t n = replay->n_played;
    progress_update(&replay->session.progress, "finishing");
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < n; i++) {
        fw_error why = {.struct_size = sizeof why};
        statuses[i] = finish(replay, &replay->played[i], &why);
        if (statuses[i] != FW_OK)
#pragma omp critical
            (void)fw_fail(error, statuses[i], "%s", why.message);
    }
    progress_end(&replay->session.progress);
    for (size_t i = 0; i < n; i++) FW_TRY(statuses[i]);
    return FW_OK;
}

/* ---- results ---- */

static double total_bytes(const struct rows_header *header) {
    uint64_t bytes = 0;
    for (uint64_t t = 0; t < header->windows.targets; t++)
        bytes += token_table_bytes(header->table, header->tokens[t], header->tokens[t + 1]);
    return (double)bytes;
}

static double bits_per_byte(const struct replay *replay, double nats) {
    return nats / log(2) / total_bytes(replay->header);
}

static void print_played(const struct replay *replay, const struct played *played) {
    const double targets = (double)replay->header->windows.targets;
    const struct contender_result *result = &played->result;
    (void)printf("%-24s %9.6f %9.6f %+10.6f %10.0f %6.0f", played->text, played->nats / targets,
                 bits_per_byte(replay, played->nats),
                 bits_per_byte(replay, replay->nats - played->nats), targets / played->seconds,
                 (double)result->memory / (1 << 20));
    if (result->changed > 0)
        (void)printf(" %5.1f%%", 100 * (double)result->changed / targets);
    else
        (void)printf(" %6s", "-");
    if (result->note[0] != '\0') (void)printf("  %s", result->note);
    if (result->invalid) (void)printf("  INVALID: the distribution sums to %.4g", result->mean_sum);
    (void)printf("\n");
}

static void print_results(const struct replay *replay) {
    const uint64_t targets = replay->header->windows.targets;
    (void)printf("%" PRIu64 " targets, %.0f bytes, vocabulary %u\n", targets,
                 total_bytes(replay->header), replay->header->table->vocabulary);
    (void)printf("%-24s %9s %9s %10s %10s %6s %6s\n", "predictor", "nats", "bpb", "gain",
                 "tokens/s", "MiB", "moved");
    (void)printf("%-24s %9.6f %9.6f\n", "model alone", replay->nats / (double)targets,
                 bits_per_byte(replay, replay->nats));
    for (size_t i = 0; i < replay->n_played; i++) print_played(replay, &replay->played[i]);
}

static fw_status write_scores(const struct replay *replay, fw_error *error) {
    const char *path = replay->options->scores;
    const size_t size = replay->header->windows.targets * sizeof(double);
    if (path == NULL) return FW_OK;
    struct file_writer *file = NULL;
    FW_TRY(file_create(path, &file, error));
    fw_status status = file_append(file, replay->scores, size, error);
    for (size_t i = 0; i < replay->n_played && status == FW_OK; i++)
        status = file_append(file, replay->played[i].scores, size, error);
    if (status == FW_OK) return file_commit(file, error);
    file_abandon(file);
    return status;
}

static cJSON *json_line(const struct replay *replay, const char *name, double nats) {
    cJSON *line = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(line, "predictor", name);
    (void)cJSON_AddNumberToObject(line, "targets", (double)replay->header->windows.targets);
    (void)cJSON_AddNumberToObject(line, "bytes", total_bytes(replay->header));
    (void)cJSON_AddNumberToObject(line, "nats", nats);
    (void)cJSON_AddNumberToObject(line, "bpb", bits_per_byte(replay, nats));
    return line;
}

static fw_status write_json(const struct replay *replay, fw_error *error) {
    if (replay->options->json == NULL) return FW_OK;
    cJSON *array = cJSON_CreateArray();
    (void)cJSON_AddItemToArray(array, json_line(replay, "model", replay->nats));
    for (size_t i = 0; i < replay->n_played; i++) {
        const struct played *played = &replay->played[i];
        cJSON *line = json_line(replay, played->text, played->nats);
        (void)cJSON_AddStringToObject(line, "note", played->result.note);
        (void)cJSON_AddNumberToObject(line, "seconds", played->seconds);
        (void)cJSON_AddNumberToObject(line, "memory", (double)played->result.memory);
        if (played->result.invalid)
            (void)cJSON_AddNumberToObject(line, "sums_to", played->result.mean_sum);
        (void)cJSON_AddItemToArray(array, line);
    }
    char *text = cJSON_Print(array);
    cJSON_Delete(array);
    if (text == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the table");
    const fw_status status = file_write(replay->options->json, text, strlen(text), error);
    free(text);
    return status;
}

static fw_status run(const struct arguments *arguments, const struct options *options,
                     fw_error *error) {
    struct replay replay = {.options = options};
    fw_status status = open_replay(&replay, arguments, error);
    if (status == FW_OK) status = play_all(&replay, error);
    if (status == FW_OK) status = finish_all(&replay, error);
    if (status == FW_OK) status = write_scores(&replay, error);
    if (status == FW_OK) status = write_json(&replay, error);
    if (status == FW_OK) print_results(&replay);
    close_replay(&replay);
    return status;
}

static fw_status parse(int argc, char **argv, struct arguments *arguments, struct options *options,
                       fw_error *error) {
    const struct option table[] = {
        {"--scores", &options->scores, NULL}, {"--json", &options->json, NULL}, {NULL, NULL, NULL}};
    FW_TRY(arguments_parse_many(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->n_inputs == 0)
        return fw_fail(error, FW_E_CONFIG, "the rows file is missing; --help shows how");
    options->rows = arguments->inputs[0];
    return FW_OK;
}

int main(int argc, char **argv) {
    waiting_limit_spinning(argv);
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct options options = {0};
    fw_status status = parse(argc, argv, &arguments, &options, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = run(&arguments, &options, &error);
    return report_failure(status, &error);
}
