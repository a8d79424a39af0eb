/* dump_rows: writes a token stream and the rows that an artifact gives for it (rows_file.h), so
 * that replay can compare predictors on the same rows. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "decoder.h"
#include "random.h"
#include "reading.h"
#include "rows_file.h"
#include "scorer.h"
#include "waiting.h"

static const char help[] =
    "usage: dump_rows --artifact FILE --data SHARDS --out ROWS [--tokens N] [--shuffle SEED]\n"
    "                 [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n\n"
    "Reads SHARDS with the artifact's model, exactly as `fairway eval` does, and writes the "
    "tokens, the\n"
    "bytes that each counts and the float32 log-probabilities of every row to ROWS (\"-\": "
    "standard\n"
    "output). A row takes 4 bytes for each token of the vocabulary: 1 GiB for 262,144 rows of "
    "1,024.\n"
    "  --tokens N      the first N tokens alone\n"
    "  --shuffle SEED  the tokens in random order: what no predictor should gain on\n"
    "  --set           eval.mode, eval.window, eval.batch, run.threads and run.device matter\n\n"
    "examples\n"
    "  dump_rows --artifact model.fairway --data 'val_*.bin' --tokens 262144 --out val.rows\n"
    "  dump_rows --artifact model.fairway --data 'val_*.bin' --out - | replay - ngram\n";

enum { ROWS_AT_ONCE = 128 };

struct options {
    const char *artifact, *data, *out, *tokens, *shuffle;
};

struct dump {
    const struct options *options;
    struct scorer scorer;
    struct corpus *corpus;
    uint16_t *tokens;
    struct decoder *decoder; /* eval.mode = stream: what reads on */
    struct language_model model;
    struct windows read, shown; /* as the model reads, and as caches learn of */
    struct rows_writer *writer;
    struct reading *reading;
};

static fw_status parse_number(const char *name, const char *text, uint64_t *number,
                              fw_error *error) {
    if (text == NULL) return FW_OK;
    char *end = NULL;
    *number = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && *end == '\0') return FW_OK;
    return fw_fail(error, FW_E_CONFIG, "%s %s: a whole number is needed", name, text);
}

static fw_status parse(int argc, char **argv, struct arguments *arguments, struct options *options,
                       fw_error *error) {
    const struct option table[] = {
        {"--artifact", &options->artifact, NULL}, {"--data", &options->data, NULL},
        {"--out", &options->out, NULL},           {"--tokens", &options->tokens, NULL},
        {"--shuffle", &options->shuffle, NULL},   {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    const char *missing = options->artifact == NULL ? "--artifact FILE"
                          : options->data == NULL   ? "--data SHARDS"
                          : options->out == NULL    ? "--out ROWS"
                                                    : NULL;
    if (missing != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s is missing; --help shows how", missing);
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; the data go after --data",
                       arguments->input);
    if (corpus_source_has_text(options->data))
        return fw_fail(error, FW_E_CONFIG,
                       "--data %s: shards are needed; `fairway data` makes them", options->data);
    return FW_OK;
}

/* Fisher and Yates. The first token is no target, but may become one. */
static void shuffle(uint16_t *tokens, uint64_t n, uint64_t seed) {
    struct random random = random_seeded(seed);
    for (uint64_t i = n - 1; i > 0; i--) {
        const uint64_t j = random_below(&random, i + 1);
        const uint16_t kept = tokens[i];
        tokens[i] = tokens[j];
        tokens[j] = kept;
    }
}

static fw_status read_tokens(struct dump *dump, fw_error *error) {
    const struct options *options = dump->options;
    const struct corpus_options source = {.source = options->data,
                                          .where = "--data",
                                          .vocabulary = dump->scorer.artifact.table->vocabulary};
    FW_TRY(corpus_open(&source, &dump->corpus, error));
    uint64_t n = corpus_tokens(dump->corpus), most = n, seed = 0;
    FW_TRY(parse_number("--tokens", options->tokens, &most, error));
    FW_TRY(parse_number("--shuffle", options->shuffle, &seed, error));
    if (most < n) n = most;
    if (n < 2) return fw_fail(error, FW_E_SHAPE, "2 tokens are the least that can be scored");
    dump->tokens = malloc(n * sizeof *dump->tokens);
    if (dump->tokens == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %" PRIu64 " tokens", n);
    corpus_read(dump->corpus, 0, n, dump->tokens);
    if (options->shuffle != NULL) shuffle(dump->tokens, n, seed);
    dump->read.targets = dump->shown.targets = n - 1;
    return FW_OK;
}

/* A stream is read in chunks; caches know the runs of eval.stride. */
static fw_status open_stream(struct dump *dump, fw_error *error) {
    const struct experiment *experiment = dump->scorer.session.experiment;
    const struct decoder_options options = {.model = dump->scorer.model,
                                            .most = evaluate_chunk(experiment),
                                            .window = evaluate_window(experiment)};
    const uint64_t run = (uint64_t)experiment->eval.stride;
    dump->shown.length = dump->shown.stride = run;
    dump->read.length = dump->read.stride = (uint64_t)options.most;
    return decoder_create(&options, &dump->decoder, error);
}

static fw_status open_windows(struct dump *dump, fw_error *error) {
    const struct experiment *experiment = dump->scorer.session.experiment;
    const uint64_t length = (uint64_t)evaluate_window(experiment);
    if (experiment->eval.mode == EVAL_STREAM) return open_stream(dump, error);
    const bool sliding = experiment->eval.mode == EVAL_SLIDING;
    dump->read.length = length;
    dump->read.stride = sliding ? (uint64_t)experiment->eval.stride : length;
    dump->shown = dump->read;
    return FW_OK;
}

static fw_status open_reading(struct dump *dump, fw_error *error) {
    const struct experiment *experiment = dump->scorer.session.experiment;
    const struct token_table *table = dump->scorer.artifact.table;
    FW_TRY(open_windows(dump, error));
    dump->model = dump->decoder != NULL ? language_model_with(dump->scorer.model, dump->decoder)
                                        : language_model_of(dump->scorer.model);
    const struct reading_options reading = {.host = dump->scorer.session.services,
                                            .model = &dump->model,
                                            .windows = &dump->read,
                                            .tokens = dump->tokens,
                                            .batch =
                                                dump->decoder != NULL ? 1 : experiment->eval.batch,
                                            .reads_on = dump->decoder != NULL,
                                            .vocabulary = table->vocabulary,
                                            .most = ROWS_AT_ONCE};
    FW_TRY(reading_create(&reading, &dump->reading, error));
    const struct rows_header header = {table, dump->shown, dump->tokens};
    return rows_writer_open(dump->options->out, &header, &dump->writer, error);
}

static fw_status copy_rows(struct dump *dump, fw_error *error) {
    struct progress *progress = &dump->scorer.session.progress;
    const double begin = clock_seconds();
    struct piece piece;
    for (;;) {
        FW_TRY(reading_next(dump->reading, &piece, error));
        if (piece.n == 0) break;
        FW_TRY(rows_writer_append(dump->writer, piece.log_probabilities, (uint64_t)piece.n, error));
        progress_work(progress, "rows",
                      (double)(piece.window.start + piece.first + (uint64_t)piece.n),
                      (double)dump->read.targets, "tokens", begin);
    }
    progress_end(progress);
    const fw_status status = rows_writer_commit(dump->writer, error);
    dump->writer = NULL;
    if (status == FW_OK)
        (void)fprintf(stderr, "%" PRIu64 " rows of %u in %.1f s\n", dump->read.targets,
                      dump->scorer.artifact.table->vocabulary, clock_seconds() - begin);
    return status;
}

static fw_status dump_rows(const struct arguments *arguments, const struct options *options,
                           fw_error *error) {
    struct dump dump = {.options = options};
    FW_TRY(scorer_open(arguments, options->artifact, &dump.scorer, error));
    fw_status status = read_tokens(&dump, error);
    if (status == FW_OK) status = open_reading(&dump, error);
    if (status == FW_OK) status = copy_rows(&dump, error);
    reading_destroy(dump.reading);
    rows_writer_abandon(dump.writer);
    decoder_destroy(dump.decoder);
    corpus_close(dump.corpus);
    free(dump.tokens);
    scorer_close(&dump.scorer);
    return status;
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
    if (status == FW_OK) status = dump_rows(&arguments, &options, &error);
    return report_failure(status, &error);
}
