/* The shards of one output: all are written under temporary names before the first appears. */
#include "shard_set.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shard.h"

int shard_set_name(const struct shard_set *set, uint32_t index, char *out, size_t size) {
    return snprintf(out, size, "%s_%06u.bin", set->prefix, index);
}

static bool exists(const struct shard_set *set, uint32_t index) {
    char path[PATH_MAX];
    (void)shard_set_name(set, index, path, sizeof path);
    return access(path, F_OK) == 0;
}

static fw_status remove_shard(const struct shard_set *set, uint32_t index, fw_error *error) {
    char path[PATH_MAX], documents[PATH_MAX + sizeof SHARD_DOCUMENTS_SUFFIX];
    (void)shard_set_name(set, index, path, sizeof path);
    (void)snprintf(documents, sizeof documents, "%s" SHARD_DOCUMENTS_SUFFIX, path);
    if (unlink(path) != 0 && errno != ENOENT)
        return fw_fail(error, FW_E_IO, "cannot remove the older shard %s: %s", path,
                       strerror(errno));
    (void)unlink(documents); /* harmless without its shard */
    return FW_OK;
}

fw_status shard_set_open(struct shard_set *set, const char *prefix, uint64_t shard_tokens,
                         const uint8_t *fingerprint, bool replace, fw_error *error) {
    if (strlen(prefix) > PATH_MAX - 64)
        return fw_fail(error, FW_E_CONFIG, "the prefix of the shards is longer than %d characters",
                       PATH_MAX - 64);
    *set = (struct shard_set){
        .shard_tokens = shard_tokens, .without_documents = fingerprint == NULL, .replace = replace};
    if (fingerprint != NULL) memcpy(set->fingerprint, fingerprint, sizeof set->fingerprint);
    set->prefix = strdup(prefix);
    if (set->prefix == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory for %s", prefix);
    if (replace || !exists(set, 0)) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s_000000.bin exists already; choose another prefix, or add --force to replace "
                   "these shards",
                   prefix);
}

/* The shard before is brought to the disk now: many shards need no more open files than one. */
static fw_status begin_shard(struct shard_set *set, fw_error *error) {
    FW_TRY(shard_set_prepare(set, error));
    if (set->n_shards == set->capacity) {
        const uint32_t capacity = set->capacity * 2 + 8;
        void *larger = realloc(set->writers, capacity * sizeof *set->writers);
        if (larger == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory for shards");
        set->writers = larger;
        set->capacity = capacity;
    }
    char path[PATH_MAX];
    (void)shard_set_name(set, set->n_shards, path, sizeof path);
    FW_TRY(shard_create(path, set->without_documents ? NULL : set->fingerprint,
                        &set->writers[set->n_shards], error));
    set->n_shards++;
    return FW_OK;
}

static bool is_full(const struct shard_set *set, uint64_t more) {
    if (set->n_shards == 0) return true;
    const uint64_t written = shard_written(set->writers[set->n_shards - 1]);
    return written > 0 && written + more > set->shard_tokens;
}

fw_status shard_set_append(struct shard_set *set, const uint16_t *tokens, uint64_t n,
                           uint64_t raw_bytes, const uint8_t hash[32], fw_error *error) {
    if (is_full(set, n)) FW_TRY(begin_shard(set, error));
    FW_TRY(shard_append(set->writers[set->n_shards - 1], tokens, n, raw_bytes, hash, error));
    set->documents++;
    set->raw_bytes += raw_bytes;
    set->tokens += n;
    return FW_OK;
}

fw_status shard_set_append_tokens(struct shard_set *set, const uint16_t *tokens, uint64_t n,
                                  fw_error *error) {
    while (n > 0) {
        if (is_full(set, 1)) FW_TRY(begin_shard(set, error));
        struct shard_writer *writer = set->writers[set->n_shards - 1];
        const uint64_t left = set->shard_tokens - shard_written(writer), part = n < left ? n : left;
        FW_TRY(shard_append_tokens(writer, tokens, part, error));
        set->tokens += part;
        tokens += part;
        n -= part;
    }
    return FW_OK;
}

fw_status shard_set_prepare(struct shard_set *set, fw_error *error) {
    return set->n_shards > 0 ? shard_prepare(set->writers[set->n_shards - 1], error) : FW_OK;
}

fw_status shard_set_commit(struct shard_set *set, fw_error *error) {
    FW_TRY(shard_set_prepare(set, error));
    for (; set->n_committed < set->n_shards; set->n_committed++) {
        struct shard_writer *writer = set->writers[set->n_committed];
        set->writers[set->n_committed] = NULL;
        const fw_status status = shard_commit(writer, error);
        if (status == FW_OK) continue;
        shard_set_undo(set);
        return status;
    }
    return FW_OK;
}

void shard_set_undo(struct shard_set *set) {
    while (!set->replace && set->n_committed > 0) (void)remove_shard(set, --set->n_committed, NULL);
}

/* From the last one down, so that an interruption leaves no gap that would hide the rest. */
fw_status shard_set_remove_older(struct shard_set *set, fw_error *error) {
    uint32_t end = set->n_shards;
    while (set->replace && exists(set, end)) end++;
    for (; end > set->n_shards; set->n_removed++) FW_TRY(remove_shard(set, --end, error));
    return FW_OK;
}

void shard_set_close(struct shard_set *set) {
    for (uint32_t i = 0; i < set->n_shards; i++) shard_abandon(set->writers[i]);
    free(set->writers);
    free(set->prefix);
    *set = (struct shard_set){0};
}
