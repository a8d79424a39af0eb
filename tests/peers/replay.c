/* replay: plays a rows file to caches, through the host's own cache_stream, and prints what each
 * makes of it. Sums and rows are formed by the same code as in an evaluation, so a score here is
 * that of `fairway eval` on the same tokens, bit for bit. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache_stream.h"
#include "clock.h"
#include "files.h"
#include "rows.h"
#include "rows_file.h"
#include "session.h"

static const char help[] =
    "usage: replay ROWS [CACHE[:KEY=VALUE,...]]... [--scores FILE] [--plugin-dir DIR]...\n"
    "              [--set run.threads=N]\n\n"
    "Plays ROWS (written by dump_rows; \"-\": standard input) to each CACHE, an id or a path as "
    "in\n"
    "[cache] plugin = ..., and prints nats per token, bits per byte, the gain over the model alone "
    "in bits\n"
    "per byte, tokens per second of the cache itself, its memory, and the positions it changed. "
    "All caches\n"
    "are played in one pass. A cache that states no verifiable distribution is marked INVALID, "
    "with what\n"
    "its statements sum to.\n"
    "  --scores FILE  code lengths in nats, float64, little-endian: those of all targets by the "
    "model,\n"
    "                 then by the first cache, and so on\n\n"
    "examples\n"
    "  replay val.rows ngram ngram:max_order=6,discount=0.5 ngram_hashed\n"
    "  dump_rows --artifact m.fairway --data 'val_*.bin' --out - | replay - ngram\n";

enum { ROWS_AT_ONCE = 128, MOST_CACHES = 64 };

struct options {
    const char *rows, *scores;
};

/* A cache at work, with a configuration of its own. */
struct played {
    const char *text; /* ID:KEY=VALUE,... */
    char *overrides;  /* the same as overrides of [cache] */
    struct session session;
    struct cache_stream *stream;
    uint32_t *context; /* what fw_row.context shows */
    double nats, seconds;
    double *scores; /* one for each target, or NULL */
};

struct replay {
    const struct options *options;
    struct rows_reader *reader;
    const struct rows_header *header;
    struct played caches[MOST_CACHES];
    size_t n_caches;
    struct rows rows;
    float *log_probabilities;
    double nats; /* of the model alone */
    double *scores;
    uint64_t next, window; /* position, and index of its window */
    int with_entropy;
};

/* ---- opening ---- */

/* ID:KEY=VALUE,... as overrides of [cache]; the text is copied and cut. */
static fw_status cache_arguments(const char *text, const struct arguments *given,
                                 struct arguments *arguments, char **memory, fw_error *error) {
    const size_t size = strlen(text);
    *memory = calloc(2, 8 * size + 64);
    if (*memory == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the cache %s", text);
    char *copy = *memory, *out = *memory + size + 1;
    memcpy(copy, text, size + 1);
    *arguments = *given;
    const char *prefix = "plugin=";
    for (char *part = strtok(copy, ":"); part != NULL; part = strtok(NULL, ",")) {
        if (arguments->n_overrides == MAX_ARGUMENTS || size > 1024)
            return fw_fail(error, FW_E_LIMIT, "%.64s...: too many keys", text);
        arguments->overrides[arguments->n_overrides++] = out;
        out += sprintf(out, "cache.%s%s", prefix, part) + 1;
        prefix = "";
    }
    return FW_OK;
}

static fw_status open_session(struct played *played, const struct arguments *given,
                              fw_error *error) {
    struct arguments arguments;
    const uint32_t kinds = CONFIG_BIND(FW_CACHE) | CONFIG_BIND(FW_DEVICE);
    FW_TRY(cache_arguments(played->text, given, &arguments, &played->overrides, error));
    return session_open(&arguments, "command line", "", kinds, &played->session, error);
}

static fw_status open_cache(struct replay *replay, struct played *played,
                            const struct arguments *given, fw_error *error) {
    const uint64_t targets = replay->header->windows.targets;
    FW_TRY(open_session(played, given, error));
    FW_TRY(cache_stream_open(&played->session.experiment->cache, played->session.services,
                             replay->header->table, targets, true, &played->stream, error));
    if (cache_stream_needs_entropy(played->stream)) replay->with_entropy = 1;
    played->context = calloc(cache_stream_context(played->stream) + 1, sizeof *played->context);
    if (replay->options->scores != NULL) played->scores = calloc(targets, sizeof *played->scores);
    if (played->context == NULL || (replay->options->scores != NULL && played->scores == NULL))
        return fw_fail(error, FW_E_MEMORY, "no memory for the scores of %s", played->text);
    return FW_OK;
}

static fw_status open_replay(struct replay *replay, const struct arguments *arguments,
                             fw_error *error) {
    FW_TRY(rows_reader_open(replay->options->rows, &replay->reader, error));
    replay->header = rows_reader_header(replay->reader);
    const uint32_t V = replay->header->table->vocabulary;
    if (replay->options->scores != NULL)
        replay->scores = calloc(replay->header->windows.targets, sizeof *replay->scores);
    replay->log_probabilities = calloc(ROWS_AT_ONCE, V * sizeof(float));
    if (replay->log_probabilities == NULL ||
        (replay->options->scores != NULL && replay->scores == NULL))
        return fw_fail(error, FW_E_MEMORY, "no memory for rows of %u tokens", V);
    FW_TRY(rows_create(ROWS_AT_ONCE, V, &replay->rows, error));
    if (arguments->n_inputs > MOST_CACHES)
        return fw_fail(error, FW_E_LIMIT, "at most %d caches at once", MOST_CACHES);
    for (size_t i = 1; i < arguments->n_inputs; i++) {
        struct played *played = &replay->caches[replay->n_caches++];
        played->text = arguments->inputs[i];
        FW_TRY(open_cache(replay, played, arguments, error));
    }
    if (replay->n_caches > 0) return FW_OK;
    replay->caches[0].text = "none"; /* whose session forms the rows */
    return open_session(&replay->caches[0], arguments, error);
}

static void close_replay(struct replay *replay) {
    for (size_t i = 0; i < MOST_CACHES; i++) {
        cache_stream_close(replay->caches[i].stream);
        session_close(&replay->caches[i].session);
        free(replay->caches[i].overrides);
        free(replay->caches[i].context);
        free(replay->caches[i].scores);
    }
    rows_free(&replay->rows);
    rows_reader_close(replay->reader);
    free(replay->log_probabilities);
    free(replay->scores);
}

/* ---- playing ---- */

static void gather_context(const struct replay *replay, struct played *played, fw_row *row) {
    const uint64_t wanted = cache_stream_context(played->stream), most = row->position + 1;
    row->n_context = (uint32_t)(wanted < most ? wanted : most);
    for (uint32_t i = 0; i < row->n_context; i++)
        played->context[i] = replay->header->tokens[row->position + 1 - row->n_context + i];
    row->context = played->context;
}

/* Whether `position` is the last of its window. */
static bool ends_window(struct replay *replay, uint64_t position, uint64_t *index) {
    const struct window window = windows_get(&replay->header->windows, *index);
    if (position + 1 < window.start + window.n) return false;
    (*index)++;
    return true;
}

static fw_status play(struct replay *replay, struct played *played, uint64_t n, fw_error *error) {
    const uint32_t V = replay->header->table->vocabulary;
    const double begin = clock_seconds();
    uint64_t window = replay->window;
    for (uint64_t i = 0; i < n; i++) {
        fw_row row = {
            .struct_size = sizeof row,
            .vocabulary = V,
            .position = replay->next + i,
            .probabilities = replay->rows.probabilities + i * V,
            .entropy = cache_stream_needs_entropy(played->stream) ? replay->rows.entropy[i] : -1};
        gather_context(replay, played, &row);
        double nats = 0;
        FW_TRY(cache_stream_score(played->stream, &row, replay->header->tokens[row.position + 1],
                                  &nats, error));
        if (ends_window(replay, row.position, &window))
            FW_TRY(cache_stream_end_window(played->stream, error));
        played->nats += nats;
        if (played->scores != NULL) played->scores[row.position] = nats;
    }
    played->seconds += clock_seconds() - begin;
    return FW_OK;
}

static void score_model(struct replay *replay, uint64_t n) {
    const uint32_t V = replay->header->table->vocabulary;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t position = replay->next + i;
        const uint32_t target = replay->header->tokens[position + 1];
        const double excess =
            replay->rows.log_normaliser[i] - (double)replay->log_probabilities[i * V + target];
        const double nats = excess > 0 ? excess : 0;
        replay->nats += nats;
        if (replay->scores != NULL) replay->scores[position] = nats;
        (void)ends_window(replay, position, &replay->window);
    }
}

static fw_status play_rows(struct replay *replay, uint64_t n, fw_error *error) {
    FW_TRY(rows_form(&replay->rows, replay->caches[0].session.services, replay->log_probabilities,
                     (int64_t)n, replay->with_entropy, error));
    for (size_t i = 0; i < replay->n_caches; i++)
        FW_TRY(play(replay, &replay->caches[i], n, error));
    score_model(replay, n);
    replay->next += n;
    return FW_OK;
}

static fw_status play_all(struct replay *replay, fw_error *error) {
    struct progress *progress = &replay->caches[0].session.progress;
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
    progress_end(progress);
    return FW_OK;
}

/* ---- results ---- */

static uint64_t total_bytes(const struct rows_header *header) {
    uint64_t bytes = 0;
    for (uint64_t t = 0; t < header->windows.targets; t++)
        bytes += token_table_bytes(header->table, header->tokens[t], header->tokens[t + 1]);
    return bytes;
}

static void print_cache(const struct replay *replay, const struct played *played, double bytes) {
    const double targets = (double)replay->header->windows.targets;
    struct cache_summary summary;
    cache_stream_summary(played->stream, &summary);
    (void)printf("%-32s %9.6f %9.6f %+10.6f %10.0f %6.0f %5.1f%%", played->text,
                 played->nats / targets, played->nats / log(2) / bytes,
                 (replay->nats - played->nats) / log(2) / bytes, targets / played->seconds,
                 (double)summary.memory_bytes / (1 << 20), 100 * (double)summary.changed / targets);
    if (summary.invalid) (void)printf("  INVALID: the distribution sums to %.4g", summary.mean_sum);
    (void)printf("\n");
}

static void print_results(const struct replay *replay) {
    const uint64_t targets = replay->header->windows.targets;
    const double bytes = (double)total_bytes(replay->header);
    (void)printf("%" PRIu64 " targets, %.0f bytes, vocabulary %u\n", targets, bytes,
                 replay->header->table->vocabulary);
    (void)printf("%-32s %9s %9s %10s %10s %6s %6s\n", "predictor", "nats", "bpb", "gain",
                 "tokens/s", "MiB", "moved");
    (void)printf("%-32s %9.6f %9.6f\n", "model alone", replay->nats / (double)targets,
                 replay->nats / log(2) / bytes);
    for (size_t i = 0; i < replay->n_caches; i++) print_cache(replay, &replay->caches[i], bytes);
}

static fw_status write_scores(const struct replay *replay, fw_error *error) {
    const char *path = replay->options->scores;
    const size_t size = replay->header->windows.targets * sizeof(double);
    if (path == NULL) return FW_OK;
    struct file_writer *file = NULL;
    FW_TRY(file_create(path, &file, error));
    fw_status status = file_append(file, replay->scores, size, error);
    for (size_t i = 0; i < replay->n_caches && status == FW_OK; i++)
        status = file_append(file, replay->caches[i].scores, size, error);
    if (status == FW_OK) return file_commit(file, error);
    file_abandon(file);
    return status;
}

static fw_status run(const struct arguments *arguments, const struct options *options,
                     fw_error *error) {
    struct replay replay = {.options = options};
    fw_status status = open_replay(&replay, arguments, error);
    if (status == FW_OK) status = play_all(&replay, error);
    if (status == FW_OK) status = write_scores(&replay, error);
    if (status == FW_OK) print_results(&replay);
    close_replay(&replay);
    return status;
}

static fw_status parse(int argc, char **argv, struct arguments *arguments, struct options *options,
                       fw_error *error) {
    const struct option table[] = {{"--scores", &options->scores, NULL}, {NULL, NULL, NULL}};
    FW_TRY(arguments_parse_many(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->n_inputs == 0)
        return fw_fail(error, FW_E_CONFIG, "the rows file is missing; --help shows how");
    options->rows = arguments->inputs[0];
    return FW_OK;
}

int main(int argc, char **argv) {
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
