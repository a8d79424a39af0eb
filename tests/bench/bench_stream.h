/* Streams for the benchmarks of caches: tokens, and the rows that a language model gives for them.
 *
 * Rows come from a rows file (tests/peers/rows_file.h), or from pairs: how often each token follows
 * each other one in the same text, mixed with how often it comes at all. Such a model is about as
 * good as a small network, and its rows are as uneven. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include <stddef.h>
#include <stdint.h>

enum { STREAM_AT_ONCE = 128 }; /* positions of a piece, as in an evaluation */

typedef struct bench_stream {
    const char *rows; /* where they come from, for the table */
    uint32_t vocabulary;
    size_t n;         /* positions */
    uint32_t *tokens; /* n + 1: position t has the token t + 1 */
    float *pairs;     /* [V, V] log-probabilities, NULL with a rows file */
    float *piece;     /* [STREAM_AT_ONCE, V] */
    const char *path; /* of the rows file */
    struct rows_reader *reader;
    size_t next;
} bench_stream;

/* Synthetic text of bench.h; or what `path` holds, a token shard (256 int32, then uint16) or a rows
 * file, at most `most` positions of it. What cannot be read ends the program with a sentence. */
bench_stream bench_stream_synthetic(uint32_t vocabulary, size_t n);
bench_stream bench_stream_file(const char *path, size_t most);
void bench_stream_free(bench_stream *stream);

/* From the beginning again. */
void bench_stream_rewind(bench_stream *stream);

/* The next positions: *n of them, 0 behind the last, and their log-probabilities [n, V], valid
 * until the next call. */
const float *bench_stream_next(bench_stream *stream, size_t *first, size_t *n);

#endif
