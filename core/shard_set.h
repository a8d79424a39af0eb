/* The shards of one output, PREFIX_000000.bin, PREFIX_000001.bin, ..., each with its documents
 * file. Older ones stay as they are until all that could go wrong has been done: prepare every set,
 * then commit every set, then remove what they supersede. */
#ifndef FAIRWAY_SHARD_SET_H
#define FAIRWAY_SHARD_SET_H

#include <fairway/error.h>
#include <stdbool.h>

struct shard_set {
    char *prefix;
    uint64_t shard_tokens; /* a document that would exceed this begins the next shard */
    uint8_t fingerprint[32];
    bool without_documents, replace;
    struct shard_writer **writers;
    uint32_t n_shards, capacity, n_committed, n_removed;
    uint64_t documents, raw_bytes, tokens;
};

/* E_CONFIG when such shards exist and `replace` is false. Without a fingerprint (NULL) the shards
 * get no documents files, for tokens that stand for no text. */
fw_status shard_set_open(struct shard_set *set, const char *prefix, uint64_t shard_tokens,
                         const uint8_t *fingerprint, bool replace, fw_error *error);

/* Append one document; it stays whole, in a shard of its own when it is longer than others may be.
 */
fw_status shard_set_append(struct shard_set *set, const uint16_t *tokens, uint64_t n,
                           uint64_t raw_bytes, const uint8_t hash[32], fw_error *error);

/* Append tokens that are no document, to shards without documents files; they are split where a
 * shard is full. */
fw_status shard_set_append_tokens(struct shard_set *set, const uint16_t *tokens, uint64_t n,
                                  fw_error *error);

/* Bring all to the disk under temporary names. */
fw_status shard_set_prepare(struct shard_set *set, fw_error *error);

/* Rename the shards to their names, preparing them if need be. On failure those that had appeared
 * are removed again, unless `replace` allowed them to take the place of others. */
fw_status shard_set_commit(struct shard_set *set, fw_error *error);
void shard_set_undo(struct shard_set *set); /* that removal, after a success */

/* With `replace`, remove older shards of higher numbers, since a glob would find them; n_removed
 * counts them. */
fw_status shard_set_remove_older(struct shard_set *set, fw_error *error);

/* Shards not committed vanish. A zeroed set is fine. */
void shard_set_close(struct shard_set *set);

/* Name of shard `index`; snprintf conventions. */
int shard_set_name(const struct shard_set *set, uint32_t index, char *out, size_t size);

#endif
