/* Token shards in the challenge's format, and the documents file that `fairway data` puts beside
 * each.
 *
 * Shard: 256 little-endian int32 (20240520, 1, token count, zeros), then uint16 tokens.
 * SHARD.documents, little-endian: "FWDOCS\0\1", the tokenizer's fingerprint (32 bytes), token count
 * of the shard (u64), document count (u64); for each document first token (u64), raw bytes (u64)
 * and SHA-256 of the raw text; last the SHA-256 of all before it. A document never spans two
 * shards. */
#ifndef FAIRWAY_SHARD_H
#define FAIRWAY_SHARD_H

#include "corpus.h"

enum { SHARD_MAGIC = 20240520, SHARD_VERSION = 1, SHARD_HEADER_BYTES = 1024 };
#define SHARD_MAX_TOKENS UINT64_C(0x7fffffff)
#define SHARD_DOCUMENTS_SUFFIX ".documents"

/* A mapped shard. */
struct shard {
    char *path;
    const uint8_t *file;
    size_t bytes;
    const uint16_t *tokens;
    uint64_t n_tokens;
};

/* E_IO; E_FORMAT: not a shard, another version, or a size that its header contradicts. */
fw_status shard_open(const char *path, struct shard *shard, fw_error *error);
void shard_close(struct shard *shard);

/* The largest of n tokens, 0 when there are none. */
uint16_t tokens_max(const uint16_t *tokens, uint64_t n);

/* E_RANGE, naming path, position and token, when a token is not below `vocabulary`. */
fw_status tokens_check(const char *path, const uint16_t *tokens, uint64_t n, uint32_t vocabulary,
                       fw_error *error);

struct shard_documents {
    bool present;
    uint8_t fingerprint[32]; /* of the tokenizer */
    uint64_t n;
    struct corpus_document *documents; /* first_token counts from the shard's beginning */
};

/* The documents of a shard of n_tokens tokens. A missing file is not an error (present = false).
 * E_CHECKSUM: damaged; E_FORMAT: another format or version, or not of this shard. */
fw_status documents_read(const char *shard_path, uint64_t n_tokens, struct shard_documents *out,
                         fw_error *error);
void documents_free(struct shard_documents *documents);

/* Writes shard and documents file; both appear under their names when committed, not before. A
 * shard never lies beside documents of another: those of one that it replaces are removed first.
 * Without a fingerprint (NULL) no documents file is written, for tokens that stand for no text. */
struct shard_writer;
fw_status shard_create(const char *path, const uint8_t *fingerprint, struct shard_writer **writer,
                       fw_error *error);
uint64_t shard_written(const struct shard_writer *writer); /* tokens */

/* Append one document. E_LIMIT when the shard would exceed SHARD_MAX_TOKENS. */
fw_status shard_append(struct shard_writer *writer, const uint16_t *tokens, uint64_t n,
                       uint64_t raw_bytes, const uint8_t hash[32], fw_error *error);

/* Append tokens that are no document, to a shard without a documents file. E_LIMIT as above. */
fw_status shard_append_tokens(struct shard_writer *writer, const uint16_t *tokens, uint64_t n,
                              fw_error *error);

/* Bring both files to the disk under temporary names, so that only renames are left to fail. */
fw_status shard_prepare(struct shard_writer *writer, fw_error *error);
fw_status shard_commit(struct shard_writer *writer, fw_error *error); /* frees the writer, always */
void shard_abandon(struct shard_writer *writer);                      /* NULL is fine */

#endif
