/* Speed of the caches on one thread: tokens a second of predict + the host's validation + update,
 * and microseconds for a full distribution. Language-model rows are formed beforehand and reused.
 *
 *     bench_cache [SHARD.bin [TOKENS]]
 *
 * SHARD.bin is a token shard (256 int32, then uint16); without it the tokens are synthetic text
 * (bench.h). */
#include <math.h>
#include <stdio.h>

#include "bench.h"
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

typedef struct cache_speed {
    double tokens_per_second;
    double audit_microseconds;
    double entries; /* per prediction */
    double megabytes;
} cache_speed;

static cache_speed measure(const fw_cache *vtable, void *self, const stream *text,
                           const double *rows) {
    fw_error error = {.struct_size = sizeof error};
    const uint32_t V = text->vocabulary;
    struct prediction_buffers *buffers = must(prediction_buffers_create(V));
    double *full = must(calloc(V, sizeof *full));
    fw_row row = {.struct_size = sizeof row, .vocabulary = V, .entropy = -1};
    fw_prediction prediction;
    double probability = 0, audit = 0;
    uint64_t audits = 0, entries = 0;
    stop_on(vtable->begin(self, &error), &error);
    const double start = bench_seconds();
    for (size_t t = 0; t < text->n; t++) {
        row.position = t;
        row.probabilities = rows + t % ROWS * V;
        prediction_prepare(buffers, &prediction);
        stop_on(vtable->predict(self, &row, &prediction, &error), &error);
        stop_on(prediction_probability(buffers, &row, &prediction, text->tokens[t], &probability,
                                       &error),
                &error);
        entries += prediction.n;
        if (t % 1024 == 1023) {
            const double before = bench_seconds();
            stop_on(prediction_full(buffers, &row, &prediction, full, &error), &error);
            audit += bench_seconds() - before;
            audits++;
        }
        stop_on(vtable->update(self, &text->tokens[t], 1, &error), &error);
    }
    const double spent = bench_seconds() - start - audit;
    free(full);
    prediction_buffers_destroy(buffers);
    return (cache_speed){(double)text->n / spent, 1e6 * audit / (double)(audits > 0 ? audits : 1),
                         (double)entries / (double)text->n,
                         (double)vtable->memory_bytes(self) / (1 << 20)};
}

static void bench(const char *id, const stream *text, const char *source) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    const fw_cache *vtable = plugin->vtable;
    fw_value *values = test_values(plugin, NULL);
    double *rows = make_rows(text->vocabulary);
    const fw_cache_shape shape = {.struct_size = sizeof shape,
                                  .vocabulary = text->vocabulary,
                                  .max_entries = text->vocabulary,
                                  .stream_tokens = text->n};
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    stop_on(vtable->create(test_host(NULL), values, &shape, &self, &error), &error);
    const cache_speed first = measure(vtable, self, text, rows); /* also brings in the memory */
    const cache_speed again = measure(vtable, self, text, rows);
    printf("| %-12s | %5u | %-9s | %8zu | %5.2f | %5.2f | %8.1f | %9.2f | %6.0f |\n", id,
           text->vocabulary, source, text->n, 1e-6 * first.tokens_per_second,
           1e-6 * again.tokens_per_second, again.entries, again.audit_microseconds,
           again.megabytes);
    vtable->destroy(self);
    free(rows);
    free(values);
}

int main(int argc, char **argv) {
    static const char *const ids[] = {"none", "ngram_counts", "ngram"};
    bench_use_thread_clock();
    const size_t n = argc > 2 ? (size_t)strtoull(argv[2], NULL, 10) : 1000000;
    printf("M tokens/s of predict + validation + update, one thread, processor time; cold: first "
           "pass of an instance\n");
    printf("| cache        |     V | text      |   tokens |  cold |  warm | entries  |  audit us | "
           "   MiB |\n");
    printf("| ------------ | ----: | --------- | -------: | ----: | ----: | -------: | --------: | "
           "-----: |\n");
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
