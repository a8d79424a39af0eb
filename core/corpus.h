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
struct token_table;

/* What one item is, by its prefix (lower-case letters and a colon, so that ./a:b is a path). `item`
 * may go on behind a separator. `pattern`, where not NULL, gets what follows the prefix. */
enum source_kind { SOURCE_SHARDS, SOURCE_TEXT, SOURCE_JSONL, SOURCE_LIST, SOURCE_UNKNOWN };
enum source_kind corpus_source_kind(const char *item, const char **pattern);

/* Whether an item of `source` is text, JSONL or a list, which take a tokenizer. */
bool corpus_source_has_text(const char *source);

/* As corpus_source_kind. E_CONFIG: an unknown prefix, or no pattern. */
fw_status corpus_source_parse(const char *item, enum source_kind *kind, const char **pattern,
                              fw_error *error);

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
    /* That scores: the bytes it counts must be the text's, see tokenizer_check.h; those of shards,
     * where their documents files say how many there are. NULL: what the tokenizer says now, and
     * shards are not checked. */
    const struct token_table *table;
};

/* Errors: E_NOT_FOUND (empty glob, missing file), E_FORMAT (not a shard, truncated: path, what was
 * found and what was expected; a broken JSON line: FILE:LINE; no tokens at all), E_CHECKSUM (a
 * damaged .documents file), E_RANGE (token >= vocabulary: path, position, token), E_CONFIG (an
 * invalid source; text without a tokenizer; shards made with another tokenizer than this one),
 * E_PROTOCOL (the tokenizer miscounts bytes or changes the text). */
fw_status corpus_open(const struct corpus_options *options, struct corpus **corpus,
                      fw_error *error);
void corpus_close(struct corpus *corpus); /* NULL is fine */

/* A corpus of `n` > 0 tokens that are no text, copied. E_MEMORY. */
fw_status corpus_of_tokens(const uint16_t *tokens, uint64_t n, struct corpus **corpus,
                           fw_error *error);

uint64_t corpus_tokens(const struct corpus *corpus);

/* Copy tokens [first, first + n) to `out`; positions wrap around at the end. */
void corpus_read(const struct corpus *corpus, uint64_t first, uint64_t n, uint16_t *out);

/* Raw bytes of all documents, 0 when unknown (shards without a .documents file, or max_tokens cut
 * the last document, whose raw_bytes is then zero; its hash remains that of the whole). */
uint64_t corpus_raw_bytes(const struct corpus *corpus);

/* Documents in token order; NULL and 0 when unknown. */
const struct corpus_document *corpus_documents(const struct corpus *corpus, uint64_t *n);

/* Tokens of shard `index` (all that the file holds), with its path; NULL behind the last. */
const uint16_t *corpus_shard(const struct corpus *corpus, size_t index, const char **path,
                             uint64_t *n);

/* Whether the corpora hold an equal shard or, where both know their documents, an equal document
 * that is not empty. `what` then says which, to go after "share ": "the shard x.bin". Quick. */
bool corpus_overlap(const struct corpus *a, const struct corpus *b, char *what, size_t size);

/* Concatenated raw text of text sources when kept, else NULL. */
const uint8_t *corpus_text(const struct corpus *corpus, size_t *bytes);

#endif
