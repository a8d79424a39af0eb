/* Speed of the caches on one thread, through cache_stream_score as an evaluation calls it: copy of
 * the row, predict, validation, look-up, update, logarithm. Besides, entries of a prediction and
 * microseconds for a full distribution. Language-model rows are formed beforehand and reused.
 *
 *     bench_cache [SHARD.bin [TOKENS]]
 *
 * SHARD.bin is a token shard (256 int32, then uint16); without it the tokens are synthetic text
 * (bench.h). */
#include <math.h>
#include <stdio.h>

#include "bench.h"
#include "cache_stream.h"
#include "prediction.h"

enum { ROWS = 64, SHARD_HEADER_BYTES = 1024 };

typedef struct stream {
    uint32_t *tokens;
    size_t n;
    uint32_t vocabulary;
} stream;

static stream synthetic(uint32_t vocabulary, size_t n) {
    return (stream){synthetic_text(vocabulary, n), n, vocabulary};
}

static stream from_shard(const char *path, size_t most) {
    FILE *file = fopen(path, "rb");
    stream text = {must(calloc(most, sizeof *text.tokens)), 0, 1};
    if (file == NULL || fseek(file, SHARD_HEADER_BYTES, SEEK_SET) != 0) {
        (void)fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    uint8_t pair[2];
    while (text.n < most && fread(pair, 1, 2, file) == 2) {
        const uint32_t token = pair[0] | (uint32_t)pair[1] << 8;
        text.tokens[text.n++] = token;
        if (token >= text.vocabulary) text.vocabulary = token + 1;
    }
    (void)fclose(file);
    return text;
}

/* Rows of a model of some opinion: softmax of normal logits. */
static double *make_rows(uint32_t vocabulary) {
    test_random random = {1};
    double *rows = must(calloc((size_t)ROWS * vocabulary, sizeof *rows));
    for (size_t r = 0; r < ROWS; r++) {
        double *row = rows + r * vocabulary, sum = 0;
        for (uint32_t v = 0; v < vocabulary; v++) sum += row[v] = exp(2 * test_normal(&random));
        for (uint32_t v = 0; v < vocabulary; v++) row[v] /= sum;
    }
    return rows;
}

static struct token_table *make_table(uint32_t vocabulary) {
    struct token_table *table = must(calloc(1, sizeof *table));
    table->vocabulary = vocabulary;
    table->begin_token = -1;
    table->tokens = must(calloc(vocabulary, sizeof *table->tokens));
    for (uint32_t v = 0; v < vocabulary; v++)
        table->tokens[v] = (fw_token_info){.base_bytes = 1, .boundary = v == 0};
    return table;
}

typedef struct cache_speed {
    double tokens_per_second, nats, megabytes;
} cache_speed;

/* One fresh instance over the text, as an evaluation does it. */
static cache_speed measure(const struct plugin_choice *choice, const stream *text,
                           const double *rows) {
    fw_error error = {.struct_size = sizeof error};
    struct token_table *table = make_table(text->vocabulary);
    struct cache_stream *cache = NULL;
    stop_on(cache_stream_open(choice, test_host(NULL), table, text->n, false, &cache, &error),
            &error);
    fw_row row = {.struct_size = sizeof row, .vocabulary = text->vocabulary, .entropy = -1};
    double total = 0, nats = 0;
    const double start = bench_seconds();
    for (size_t t = 0; t < text->n; t++) {
        row.position = t;
        row.probabilities = rows + t % ROWS * text->vocabulary;
        stop_on(cache_stream_score(cache, &row, text->tokens[t], &nats, &error), &error);
        total += nats;
    }
    const double spent = bench_seconds() - start;
    struct cache_summary summary;
    cache_stream_summary(cache, &summary);
    cache_stream_close(cache);
    token_table_destroy(table);
    return (cache_speed){(double)text->n / spent, total / (double)text->n,
                         (double)summary.memory_bytes / (1 << 20)};
}

typedef struct statement_cost {
    double entries;            /* per prediction */
    double audit_microseconds; /* of a full distribution */
} statement_cost;

static statement_cost measure_statements(const struct plugin_choice *choice, const stream *text,
                                         const double *rows) {
    enum { TOKENS = 100000, AUDIT_EVERY = 64 };
    const fw_cache *vtable = choice->entry->plugin->vtable;
    const uint32_t V = text->vocabulary;
    const size_t n = text->n < TOKENS ? text->n : TOKENS;
    const fw_cache_shape shape = {
        .struct_size = sizeof shape, .vocabulary = V, .max_entries = V, .stream_tokens = n};
    fw_error error = {.struct_size = sizeof error};
    struct prediction_buffers *buffers = must(prediction_buffers_create(V));
    double *full = must(calloc(V, sizeof *full)), audit = 0;
    fw_row row = {.struct_size = sizeof row, .vocabulary = V, .entropy = -1};
    uint64_t audits = 0, entries = 0;
    void *self = NULL;
    stop_on(vtable->create(test_host(NULL), choice->values, &shape, &self, &error), &error);
    stop_on(vtable->begin(self, &error), &error);
    for (size_t t = 0; t < n; t++) {
        fw_prediction prediction;
        row.position = t;
        row.probabilities = rows + t % ROWS * V;
        prediction_prepare(buffers, &prediction);
        stop_on(vtable->predict(self, &row, &prediction, &error), &error);
        entries += prediction.n;
        if (t % AUDIT_EVERY == 0) {
            const double before = bench_seconds();
            stop_on(prediction_full(buffers, &row, &prediction, full, &error), &error);
            audit += bench_seconds() - before;
            audits++;
        }
        stop_on(vtable->update(self, &text->tokens[t], 1, &error), &error);
    }
    vtable->destroy(self);
    free(full);
    prediction_buffers_destroy(buffers);
    return (statement_cost){(double)entries / (double)n, 1e6 * audit / (double)audits};
}

static void bench(const char *id, const stream *text, const char *source) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    const struct registry_entry entry = {.plugin = plugin};
    fw_value *values = test_values(plugin, NULL);
    const struct plugin_choice choice = {
        .kind = FW_CACHE, .section = "cache", .name = id, .entry = &entry, .values = values};
    double *rows = make_rows(text->vocabulary);
    const cache_speed first = measure(&choice, text, rows), again = measure(&choice, text, rows);
    const statement_cost cost = measure_statements(&choice, text, rows);
    printf("| %-12s | %5u | %-9s | %8zu | %5.2f | %5.2f | %6.3f | %8.1f | %9.2f | %6.0f |\n", id,
           text->vocabulary, source, text->n, 1e-6 * first.tokens_per_second,
           1e-6 * again.tokens_per_second, again.nats, cost.entries, cost.audit_microseconds,
           again.megabytes);
    free(rows);
    free(values);
}

int main(int argc, char **argv) {
    static const char *const ids[] = {"none", "ngram_counts", "ngram", "tilt"};
    bench_use_thread_clock();
    const size_t n = argc > 2 ? (size_t)strtoull(argv[2], NULL, 10) : 1000000;
    printf("M tokens/s of cache_stream_score, one thread, processor time; two runs, each with a "
           "fresh instance\n");
    printf("| cache        |     V | text      |   tokens | run 1 | run 2 |   nats | entries  |  "
           "audit "
           "us |    MiB |\n");
    printf("| ------------ | ----: | --------- | -------: | ----: | ----: | -----: | -------: | "
           "--------: | -----: |\n");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        for (uint32_t V = 256; V <= 1024; V *= 4) {
            if (argc > 1 && V > 256) continue;
            stream text = argc > 1 ? from_shard(argv[1], n) : synthetic(V, n);
            bench(ids[i], &text, argc > 1 ? "shard" : "synthetic");
            free(text.tokens);
        }
    }
    return 0;
}
