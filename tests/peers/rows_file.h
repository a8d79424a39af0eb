/* A rows file: a token stream with the rows that a language model gave for it, so that predictors
 * can be compared on the same tokens and the same rows without computing them again.
 *
 * Layout, all little-endian, without padding:
 *   8 bytes          "fw-rows\1"
 *   uint32 V         vocabulary
 *   uint32           length of the evaluation windows
 *   uint32           positions that each window but the first scores (the length: plain windows)
 *   uint32           0
 *   uint64 N         targets, in stream order
 *   uint16 [V]       bytes of each token, uint8 [V] 1: a space before it counts, 2: a boundary (or
 * both); see fairway/tokenizer.h uint16 [N + 1]   tokens: target t is token t + 1 uint16 [N] bytes
 * that each target counts float32 [N][V]   natural logarithms of the probabilities, as the device
 * gave them The name "-" stands for standard output or input. */
#ifndef PEERS_ROWS_FILE_H
#define PEERS_ROWS_FILE_H

#include "token_table.h"
#include "windows.h"

/* What stands before the rows. */
struct rows_header {
    const struct token_table *table;
    struct windows windows;
    const uint16_t *tokens; /* windows.targets + 1 */
};

/* ---- writing ---- */

struct rows_writer;

/* A named file appears when it is complete. E_IO. */
fw_status rows_writer_open(const char *path, const struct rows_header *header,
                           struct rows_writer **writer, fw_error *error);
fw_status rows_writer_append(struct rows_writer *writer, const float *rows, uint64_t n,
                             fw_error *error);
fw_status rows_writer_commit(struct rows_writer *writer, fw_error *error); /* frees it, always */
void rows_writer_abandon(struct rows_writer *writer);                      /* NULL is fine */

/* ---- reading ---- */

struct rows_reader;

/* Reads all but the rows. E_IO; E_FORMAT: not a rows file, cut short, or a token outside the
 * vocabulary. */
fw_status rows_reader_open(const char *path, struct rows_reader **reader, fw_error *error);
void rows_reader_close(struct rows_reader *reader); /* NULL is fine */

/* Lives as long as the reader. */
const struct rows_header *rows_reader_header(const struct rows_reader *reader);

/* The next rows, at most `most`; n is 0 behind the last. E_FORMAT: the file is cut short, or goes
 * on behind its last row. */
fw_status rows_reader_next(struct rows_reader *reader, uint64_t most, float *rows, uint64_t *n,
                           fw_error *error);

#endif
