#include "bench_stream.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "rows_file.h"

enum { SHARD_HEADER_BYTES = 1024 };

/* Mix of pairs and single tokens: a token that came c times leaves PRIOR / (c + PRIOR) to the
 * latter. */
static const double PRIOR = 50;

static void count_pairs(bench_stream *s) {
    const size_t V = s->vocabulary;
    double *single = must(calloc(V, sizeof *single)), *left = must(calloc(V, sizeof *left));
    s->pairs = must(calloc(V * V, sizeof *s->pairs));
    for (size_t t = 0; t < s->n; t++) {
        s->pairs[s->tokens[t] * V + s->tokens[t + 1]] += 1;
        single[s->tokens[t + 1]] += 1;
        left[s->tokens[t]] += 1;
    }
    for (size_t u = 0; u < V; u++)
        for (size_t v = 0; v < V; v++) {
            const double alone = (single[v] + 1) / (double)(s->n + V);
            const double count = (double)s->pairs[u * V + v];
            s->pairs[u * V + v] = (float)log((count + PRIOR * alone) / (left[u] + PRIOR));
        }
    free(left);
    free(single);
}

static void prepare(bench_stream *s) {
    s->piece = must(calloc(STREAM_AT_ONCE * (size_t)s->vocabulary, sizeof *s->piece));
    if (s->path == NULL) count_pairs(s);
}

bench_stream bench_stream_synthetic(uint32_t vocabulary, size_t n) {
    bench_stream s = {.rows = "pairs", .vocabulary = vocabulary, .n = n};
    s.tokens = synthetic_text(vocabulary, n + 1);
    prepare(&s);
    return s;
}

static void refuse(const char *path, const char *why) {
    (void)fprintf(stderr, "%s %s\n", path, why);
    exit(1);
}

static bench_stream read_shard(const char *path, FILE *file, size_t most) {
    bench_stream s = {.rows = "pairs", .vocabulary = 1};
    if (fseek(file, SHARD_HEADER_BYTES, SEEK_SET) != 0) refuse(path, "cannot be read");
    s.tokens = must(calloc(most + 1, sizeof *s.tokens));
    size_t n = 0;
    uint8_t pair[2];
    while (n <= most && fread(pair, 1, 2, file) == 2) {
        s.tokens[n++] = pair[0] | (uint32_t)pair[1] << 8;
        if (s.tokens[n - 1] >= s.vocabulary) s.vocabulary = s.tokens[n - 1] + 1;
    }
    if (n < 2) refuse(path, "holds no text");
    s.n = n - 1;
    prepare(&s);
    return s;
}

static void open_rows(bench_stream *s) {
    fw_error error = {.struct_size = sizeof error};
    rows_reader_close(s->reader);
    stop_on(rows_reader_open(s->path, &s->reader, &error), &error);
    s->next = 0;
}

static bench_stream read_rows(const char *path, size_t most) {
    bench_stream s = {.rows = "model", .path = path};
    open_rows(&s);
    const struct rows_header *header = rows_reader_header(s.reader);
    s.vocabulary = header->table->vocabulary;
    s.n = header->windows.targets < most ? header->windows.targets : most;
    s.tokens = must(calloc(s.n + 1, sizeof *s.tokens));
    for (size_t t = 0; t <= s.n; t++) s.tokens[t] = header->tokens[t];
    prepare(&s);
    return s;
}

bench_stream bench_stream_file(const char *path, size_t most) {
    char magic[7] = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(magic, 1, sizeof magic, file) != sizeof magic)
        refuse(path, "cannot be read");
    const int has_rows = memcmp(magic, "fw-rows", sizeof magic) == 0;
    const bench_stream s = has_rows ? read_rows(path, most) : read_shard(path, file, most);
    (void)fclose(file);
    return s;
}

void bench_stream_free(bench_stream *s) {
    rows_reader_close(s->reader);
    free(s->tokens);
    free(s->pairs);
    free(s->piece);
    *s = (bench_stream){0};
}

void bench_stream_rewind(bench_stream *s) {
    s->next = 0;
    if (s->path != NULL) open_rows(s);
}

const float *bench_stream_next(bench_stream *s, size_t *first, size_t *n) {
    const size_t V = s->vocabulary, left = s->n - s->next;
    *first = s->next;
    *n = left < STREAM_AT_ONCE ? left : STREAM_AT_ONCE;
    s->next += *n;
    if (s->path != NULL) {
        fw_error error = {.struct_size = sizeof error};
        uint64_t got = 0;
        stop_on(rows_reader_next(s->reader, *n, s->piece, &got, &error), &error);
        return s->piece;
    }
    for (size_t i = 0; i < *n; i++)
        memcpy(s->piece + i * V, s->pairs + s->tokens[*first + i] * V, V * sizeof *s->piece);
    return s->piece;
}
