/* Where the time of a stream goes: what the device takes for chunks of several sizes, with and
 * without sending their rows, what the host takes to issue them, to measure rows and to score; and
 * the whole evaluation. Times are of a chunk, in milliseconds, and of 3.4 M tokens in seconds.
 *
 *     bench_decoder [INI [SECTION.KEY=VALUE...]]
 *
 * Without INI it is configs/quickstart.ini. The text is synthetic (bench.h), the weights are those
 * of the beginning. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "decoder.h"
#include "evaluate.h"
#include "rows.h"
#include "scorer.h"
#include "staging.h"

#define TOKENS 3.4e6

static struct session session;
static fw_error error = {.struct_size = sizeof error};
static fw_device *device;
static int32_t *text;
static uint32_t vocabulary;

enum { CHUNKS = 12 }; /* of a measurement */

struct parts {
    double issue, read, sent, measured, one; /* seconds of a chunk; of a token decoded alone */
};

static struct model *open_model(int64_t chunk) {
    const struct model_options options = {.experiment = session.experiment,
                                          .host = session.services,
                                          .vocabulary = vocabulary,
                                          .batch = 1,
                                          .tokens = evaluate_window(session.experiment),
                                          .feed = chunk};
    struct model *model = NULL;
    stop_on(model_create(&options, &model, &error), &error);
    stop_on(model_initialise(model, &error), &error);
    return model;
}

static void synchronize(void) { stop_on(device->synchronize(device, &error), &error); }

/* CHUNKS of them one behind the other, then a wait; with rows: as an evaluation sends for them. */
static double read_chunks(struct decoder *decoder, struct model *model, int64_t chunk,
                          struct staging *staging, double *issue) {
    const int64_t most = model_most_rows(model);
    uint32_t slot = 0;
    const double begin = bench_seconds();
    *issue = 0;
    for (int i = 0; i < CHUNKS; i++) {
        const double before = bench_seconds();
        stop_on(decoder_read(decoder, text + i * chunk, chunk, &error), &error);
        *issue += bench_seconds() - before;
        for (int64_t first = 0; staging != NULL && first < chunk; first += most) {
            const int64_t n = chunk - first < most ? chunk - first : most;
            slot = (slot + 1) % staging_slots(staging);
            stop_on(staging_wait(staging, slot, &error), &error);
            stop_on(model_send_log_probabilities(model, first, n, staging_memory(staging, slot),
                                                 &error),
                    &error);
            stop_on(staging_mark(staging, slot, &error), &error);
        }
    }
    synchronize();
    *issue /= CHUNKS;
    return (bench_seconds() - begin) / CHUNKS;
}

/* What the host does with a chunk's rows, which lie in memory of the kind that they come to. */
static double measure_rows(int64_t chunk, int64_t most, const float *l) {
    struct rows rows;
    static uint16_t targets[65536];
    stop_on(rows_create(most, vocabulary, &rows, &error), &error);
    double best = INFINITY;
    for (int run = 0; run < 5; run++) {
        const double begin = bench_seconds();
        for (int64_t first = 0; first < chunk; first += most)
            stop_on(rows_measure(&rows, session.services, l, targets,
                                 chunk - first < most ? chunk - first : most, &error),
                    &error);
        best = fmin(best, bench_seconds() - begin);
    }
    rows_free(&rows);
    return best;
}

static double decode_alone(struct decoder *decoder) {
    static float row[65536];
    const double begin = bench_seconds();
    for (int i = 0; i < 64; i++) stop_on(decoder_feed(decoder, text + i, 1, row, &error), &error);
    return (bench_seconds() - begin) / 64;
}

static struct parts take_parts(int64_t chunk) {
    struct parts parts = {0};
    struct model *model = open_model(chunk);
    const struct decoder_options options = {
        .model = model, .most = chunk, .window = evaluate_window(session.experiment)};
    struct decoder *decoder = NULL;
    struct staging *staging = NULL;
    stop_on(decoder_create(&options, &decoder, &error), &error);
    const size_t bytes = (size_t)model_most_rows(model) * vocabulary * sizeof(float);
    if (model_works_ahead(model))
        stop_on(staging_create(device, MODEL_SENDS, bytes, &staging, &error), &error);
    double issue = 0;
    (void)read_chunks(decoder, model, chunk, staging, &issue); /* warms up */
    parts.read = read_chunks(decoder, model, chunk, NULL, &parts.issue);
    parts.sent = read_chunks(decoder, model, chunk, staging, &issue);
    if (staging != NULL)
        parts.measured = measure_rows(chunk, model_most_rows(model), staging_memory(staging, 0));
    parts.one = decode_alone(decoder);
    staging_destroy(staging);
    decoder_destroy(decoder);
    model_destroy(model);
    return parts;
}

static void print_parts(int64_t chunk) {
    const struct parts p = take_parts(chunk);
    const double factor = TOKENS / (double)chunk;
    (void)printf(
        "| %6lld | %8.3f | %8.3f (%5.2f s) | %8.3f (%5.2f s) | %8.3f (%5.2f s) | %8.3f |\n",
        (long long)chunk, 1e3 * p.issue, 1e3 * p.read, factor * p.read, 1e3 * p.sent,
        factor * p.sent, 1e3 * p.measured, factor * p.measured, 1e3 * p.one);
}

static void open_session(int argc, char **argv) {
    static struct arguments arguments;
    const char *path = argc > 1 ? argv[1] : QUICKSTART_INI;
    for (int i = 2; i < argc && i < MAX_ARGUMENTS; i++)
        arguments.overrides[arguments.n_overrides++] = argv[i];
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    stop_on(session_open(&arguments, path, NULL, kinds, &session, &error), &error);
    device = session.services->device;
    vocabulary = (uint32_t)session.experiment->model.vocabulary;
    if (vocabulary == 0) vocabulary = 1024;
}

int main(int argc, char **argv) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    open_session(argc, argv);
    const int64_t all[] = {512, 2048, 4096, 8192, 16384, 32768, 65536};
    const size_t n = device->type == FW_CPU ? 2 : sizeof all / sizeof all[0];
    const size_t tokens = CHUNKS * (size_t)all[n - 1];
    uint32_t *synthetic = synthetic_text(vocabulary, tokens);
    text = must(malloc(tokens * sizeof *text));
    for (size_t i = 0; i < tokens; i++) text[i] = (int32_t)synthetic[i];
    (void)printf(
        "window %lld, %u threads; milliseconds a chunk (seconds for %.1f M tokens)\n"
        "|  chunk | to issue |      device alone  | with rows sent     | rows measured      "
        "| one token |\n"
        "| -----: | -------: | -----------------: | -----------------: | -----------------: "
        "| --------: |\n",
        (long long)evaluate_window(session.experiment), session.services->threads(session.services),
        1e-6 * TOKENS);
    for (size_t i = 0; i < n; i++) print_parts(all[i]);
    free(synthetic);
    free(text);
    session_close(&session);
    return 0;
}
