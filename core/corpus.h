/* A corpus: tokens from shards, text or JSONL, read by position; and the documents they came from.
 *
 * A source is a list of items separated by spaces or commas, each one of
 *   PATTERN        shards of the challenge's format (glob)
 *   text:PATTERN   text files (glob), one document each
 *   jsonl:PATTERN  JSON lines (glob), one document for each line's "text"
 *   list:FILE      text files named in FILE, one a line, one document each
 * Text and JSONL are tokenized when the corpus is opened. Relative paths start at `base`, those in
 * a list file at that file. Shards come first, then the documents of all text items, each in the
 * order of the source and, within a glob, of the names' bytes.
 *
 * Shard: 256 little-endian int32 (20240520, 1, token count, zeros), then that many uint16 tokens.
 * Beside a shard that `fairway data` wrote lies NAME.documents (NAME.bin.documents): where each
 * document begins, its raw bytes and its SHA-256. */
#ifndef FAIRWAY_CORPUS_H
#define FAIRWAY_CORPUS_H

#include <fairway/tokenizer.h>
#include <stdbool.h>

struct corpus;

struct corpus_document {
    uint64_t first_token; /* of the corpus; its begin token where there is one */
    uint64_t raw_bytes;
    uint8_t hash[32]; /* SHA-256 of the raw text */
};

/* Which documents of text sources to keep: every `every`-th (index % every == every - 1, counted in
 * the order above, before any shuffle) is held out for validation; CORPUS_ALL ignores `every`.
 * Shards cannot be split: E_CONFIG when every > 0 and a source is a shard. */
enum corpus_part { CORPUS_ALL, CORPUS_TRAINING_PART, CORPUS_HELD_OUT_PART };

struct corpus_options {
    const char *source; /* as above */
    const char *base;   /* directory for relative paths; NULL: the working directory */
    const char *where;  /* "file.ini:12: data.train", opens error messages; may be NULL */
    enum corpus_part part;
    uint32_t every; /* 0: keep all */
    bool shuffle;   /* order of documents of text sources, by `seed` */
    uint64_t seed;
    uint32_t vocabulary; /* tokens must be below this; 0: the tokenizer's, else unchecked */
    uint64_t max_tokens; /* 0: no limit */
    bool keep_text;      /* keep the raw text of text sources for corpus_text */
    const fw_tokenizer *tokenizer; /* NULL: only shards can be read */
    void *tokenizer_self;
};

/* Errors: E_NOT_FOUND (empty glob, missing file), E_FORMAT (not a shard, truncated: path, what was
 * found and what was expected; a broken JSON line: FILE:LINE; no tokens at all), E_CHECKSUM (a
 * damaged .documents file), E_RANGE (token >= vocabulary: path, position, token), E_CONFIG (an
 * invalid source; text without a tokenizer; shards made with another tokenizer than this one). */
fw_status corpus_open(const struct corpus_options *options, struct corpus **corpus,
                      fw_error *error);
void corpus_close(struct corpus *corpus); /* NULL is fine */

uint64_t corpus_tokens(const struct corpus *corpus);

/* Copy tokens [first, first + n) to `out`; positions wrap around at the end. */
void corpus_read(const struct corpus *corpus, uint64_t first, uint64_t n, uint16_t *out);

/* Raw bytes of all documents, 0 when unknown (shards without a .documents file, or max_tokens cut
 * the last document, whose raw_bytes and hash are then zero). */
uint64_t corpus_raw_bytes(const struct corpus *corpus);

/* Documents in token order; NULL and 0 when unknown. */
const struct corpus_document *corpus_documents(const struct corpus *corpus, uint64_t *n);

/* Concatenated raw text of text sources when kept, else NULL. */
const uint8_t *corpus_text(const struct corpus *corpus, size_t *bytes);

#endif
