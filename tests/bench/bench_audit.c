/* What the audit of a cache costs (core/audit.h), on one thread: tokens a second without it and
 * with eval.audit = sample, and microseconds for a position of which all is audited, the twin
 * included. No language model takes part: rows are formed beforehand and reused, so that a scoring
 * with a model loses far less than these shares.
 *
 *     bench_audit [TOKENS]
 */
#include <math.h>
#include <stdio.h>

#include "audit.h"
#include "bench.h"

enum { ROWS = 64, AUDITED = 4096 /* positions of a full audit */, TURNS = 5 };

typedef struct stream {
    uint32_t *tokens;
    size_t n;
    uint32_t vocabulary;
    double *rows;
    struct token_table table;
} stream;

enum kind { OFF, SAMPLE, FULL };

static stream make_stream(uint32_t vocabulary, size_t n) {
    test_random random = {1};
    stream text = {.tokens = synthetic_text(vocabulary, n), .n = n, .vocabulary = vocabulary};
    text.rows = must(calloc((size_t)ROWS * vocabulary, sizeof *text.rows));
    for (size_t r = 0; r < ROWS; r++) {
        double *row = text.rows + r * vocabulary, sum = 0;
        for (uint32_t v = 0; v < vocabulary; v++) sum += row[v] = exp(2 * test_normal(&random));
        for (uint32_t v = 0; v < vocabulary; v++) row[v] /= sum;
    }
    text.table = (struct token_table){.vocabulary = vocabulary, .begin_token = -1};
    text.table.tokens = must(calloc(vocabulary, sizeof *text.table.tokens));
    return text;
}

static void free_stream(stream *text) {
    free(text->tokens);
    free(text->rows);
    free(text->table.tokens);
}

static void score(const stream *text, size_t n, struct cache_stream *cache,
                  struct cache_audit *audit) {
    fw_error error = {.struct_size = sizeof error};
    fw_row row = {.struct_size = sizeof row, .vocabulary = text->vocabulary, .entropy = 4};
    double nats = 0;
    for (size_t t = 0; t < n; t++) {
        row.position = t;
        row.probabilities = text->rows + t % ROWS * text->vocabulary;
        stop_on(cache_audit_score(audit, cache, &row, text->tokens[t], &nats, &error), &error);
    }
}

/* Seconds of processor time for `n` positions with a fresh instance. */
static double measure(const struct plugin_choice *choice, const stream *text, size_t n,
                      enum kind kind) {
    fw_error error = {.struct_size = sizeof error};
    struct verdicts verdicts = {0};
    struct cache_stream *cache = NULL;
    struct cache_audit *audit = NULL;
    const struct cache_audit_options options = {.subject = "cache",
                                                .choice = choice,
                                                .host = test_host(NULL),
                                                .table = &text->table,
                                                .targets = n,
                                                .allow_unverified = true,
                                                .seed = 7,
                                                .full = kind == FULL,
                                                .verdicts = &verdicts};
    stop_on(cache_stream_open(choice, options.host, &text->table, n, true, &cache, &error), &error);
    const double start = bench_seconds();
    if (kind != OFF) stop_on(cache_audit_open(&options, &audit, &error), &error);
    score(text, n, cache, audit);
    cache_audit_close(audit);
    const double spent = bench_seconds() - start;
    cache_stream_close(cache);
    return spent;
}

static void bench(const char *id, uint32_t vocabulary, size_t n) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    const struct registry_entry entry = {.plugin = plugin};
    fw_value *values = test_values(plugin, NULL);
    const struct plugin_choice choice = {
        .kind = FW_CACHE, .section = "cache", .name = id, .entry = &entry, .values = values};
    stream text = make_stream(vocabulary, n);
    double off = INFINITY, sample = INFINITY; /* the best of some, in turns */
    for (int i = 0; i < TURNS; i++) {
        off = fmin(off, measure(&choice, &text, n, OFF));
        sample = fmin(sample, measure(&choice, &text, n, SAMPLE));
    }
    const double alone = measure(&choice, &text, AUDITED, OFF);
    const double full = measure(&choice, &text, AUDITED, FULL) - alone;
    (void)printf("| %-12s | %5u | %8zu | %6.3f | %6.3f | %5.1f%% | %8.1f |\n", id, vocabulary, n,
                 1e-6 * (double)n / off, 1e-6 * (double)n / sample, 100 * (sample / off - 1),
                 1e6 * full / AUDITED);
    free_stream(&text);
    free(values);
}

int main(int argc, char **argv) {
    static const char *const ids[] = {"none", "ngram", "ngram_hashed"};
    const size_t n = argc > 1 ? (size_t)strtoull(argv[1], NULL, 10) : 1000000;
    if (n < AUDITED) {
        (void)fprintf(stderr, "at least %d tokens\n", AUDITED);
        return 1;
    }
    bench_use_thread_clock();
    (void)printf("M tokens/s without and with sampling (the best of 5 each), and us for a fully "
                 "audited position\n"
                 "| cache        |     V |   tokens |    off | sample |  cost | full, us |\n"
                 "| ------------ | ----: | -------: | -----: | -----: | ----: | -------: |\n");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        for (uint32_t vocabulary = 1024; vocabulary <= 8192; vocabulary *= 8)
            bench(ids[i], vocabulary, vocabulary > 1024 ? n / 8 : n);
    return 0;
}
