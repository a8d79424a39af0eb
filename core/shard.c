/* Token shards and their documents files: reading with every field checked, and writing. */
#include "shard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

/* Tokens are used where they are mapped, so this machine's order must be the format's. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are little-endian");

enum { DOCUMENTS_HEADER = 8 + 32 + 8 + 8, DOCUMENTS_ENTRY = 8 + 8 + 32, HASH_BYTES = 32 };
static const uint8_t documents_magic[8] = {'F', 'W', 'D', 'O', 'C', 'S', 0, 1};

static uint64_t load64(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static int32_t load32(const uint8_t *bytes) {
    int32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* ---- Reading ---- */

static fw_status check_header(const char *path, const uint8_t *file, size_t bytes,
                              fw_error *error) {
    if (bytes < SHARD_HEADER_BYTES)
        return fw_fail(error, FW_E_FORMAT,
                       "%s is not a token shard: it has %zu bytes, the header alone has %d", path,
                       bytes, SHARD_HEADER_BYTES);
    const int32_t magic = load32(file), version = load32(file + 4), count = load32(file + 8);
    if (magic != SHARD_MAGIC)
        return fw_fail(error, FW_E_FORMAT,
                       "%s is not a token shard: it begins with the number %d instead of %d (to "
                       "read text, write text:FILE or jsonl:FILE)",
                       path, magic, SHARD_MAGIC);
    if (version != SHARD_VERSION)
        return fw_fail(error, FW_E_FORMAT, "%s is a token shard of version %d; only %d is known",
                       path, version, SHARD_VERSION);
    if (count < 0) return fw_fail(error, FW_E_FORMAT, "%s: its header says %d tokens", path, count);
    const uint64_t expected = SHARD_HEADER_BYTES + 2 * (uint64_t)count;
    if (expected == bytes) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s is %s: its header says %d tokens = %llu bytes, the file has %zu", path,
                   bytes < expected ? "truncated" : "too long", count, (unsigned long long)expected,
                   bytes);
}

fw_status shard_open(const char *path, struct shard *shard, fw_error *error) {
    struct shard opened = {0};
    FW_TRY(file_map(path, &opened.file, &opened.bytes, error));
    fw_status status = check_header(path, opened.file, opened.bytes, error);
    if (status == FW_OK && (opened.path = strdup(path)) == NULL)
        status = fw_fail(error, FW_E_MEMORY, "out of memory opening %s", path);
    if (status != FW_OK) {
        file_unmap(opened.file, opened.bytes);
        return status;
    }
    opened.tokens = (const uint16_t *)(const void *)(opened.file + SHARD_HEADER_BYTES);
    opened.n_tokens = (uint64_t)load32(opened.file + 8);
    *shard = opened;
    return FW_OK;
}

void shard_close(struct shard *shard) {
    file_unmap(shard->file, shard->bytes);
    free(shard->path);
    *shard = (struct shard){0};
}

uint16_t tokens_max(const uint16_t *tokens, uint64_t n) {
    uint16_t largest = 0;
    for (uint64_t i = 0; i < n; i++) largest = tokens[i] > largest ? tokens[i] : largest;
    return largest;
}

fw_status tokens_check(const char *path, const uint16_t *tokens, uint64_t n, uint32_t vocabulary,
                       fw_error *error) {
    if (vocabulary > UINT16_MAX || n == 0 || tokens_max(tokens, n) < vocabulary) return FW_OK;
    uint64_t position = 0;
    while (tokens[position] < vocabulary) position++;
    return fw_fail(error, FW_E_RANGE,
                   "%s: token %u at position %llu is not below the vocabulary of %u; was another "
                   "tokenizer used?",
                   path, (unsigned)tokens[position], (unsigned long long)position, vocabulary);
}

/* ---- The documents file ---- */

static char *documents_path(const char *shard_path) {
    const size_t size = strlen(shard_path) + sizeof SHARD_DOCUMENTS_SUFFIX;
    char *path = malloc(size);
    if (path != NULL) (void)snprintf(path, size, "%s" SHARD_DOCUMENTS_SUFFIX, shard_path);
    return path;
}

static fw_status check_documents(const char *path, const uint8_t *file, size_t bytes,
                                 uint64_t n_tokens, fw_error *error) {
    if (bytes < DOCUMENTS_HEADER + HASH_BYTES ||
        memcmp(file, documents_magic, sizeof documents_magic) != 0)
        return fw_fail(error, FW_E_FORMAT,
                       "%s is not a documents file of this version; write it again with `fairway "
                       "data`, or delete it to do without raw byte counts",
                       path);
    uint8_t hash[HASH_BYTES];
    sha256_bytes(file, bytes - HASH_BYTES, hash);
    if (memcmp(hash, file + bytes - HASH_BYTES, HASH_BYTES) != 0)
        return fw_fail(error, FW_E_CHECKSUM,
                       "%s is damaged (its checksum does not match); write it again with `fairway "
                       "data`, or delete it to do without raw byte counts",
                       path);
    const uint64_t tokens = load64(file + 40), n = load64(file + 48);
    if (n > bytes / DOCUMENTS_ENTRY || bytes != DOCUMENTS_HEADER + n * DOCUMENTS_ENTRY + HASH_BYTES)
        return fw_fail(error, FW_E_FORMAT, "%s says %llu documents, which %zu bytes cannot hold",
                       path, (unsigned long long)n, bytes);
    if (tokens == n_tokens) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s belongs to another shard: it describes %llu tokens, this one has %llu", path,
                   (unsigned long long)tokens, (unsigned long long)n_tokens);
}

/* Documents cover the shard from its first token on, in order. */
static fw_status parse_documents(const char *path, const uint8_t *file, uint64_t n_tokens,
                                 struct shard_documents *out, fw_error *error) {
    out->present = true;
    out->n = load64(file + 48);
    memcpy(out->fingerprint, file + 8, sizeof out->fingerprint);
    out->documents = malloc((out->n + 1) * sizeof *out->documents);
    if (out->documents == NULL)
        return fw_fail(error, FW_E_MEMORY, "out of memory reading %s", path);
    uint64_t least = 0;
    const uint8_t *entry = file + DOCUMENTS_HEADER;
    for (uint64_t i = 0; i < out->n; i++, entry += DOCUMENTS_ENTRY) {
        struct corpus_document *document = &out->documents[i];
        document->first_token = load64(entry);
        document->raw_bytes = load64(entry + 8);
        memcpy(document->hash, entry + 16, sizeof document->hash);
        const bool begins = i > 0 || document->first_token == 0;
        if (!begins || document->first_token < least || document->first_token > n_tokens)
            return fw_fail(error, FW_E_FORMAT, "%s: document %llu begins at token %llu of %llu",
                           path, (unsigned long long)i, (unsigned long long)document->first_token,
                           (unsigned long long)n_tokens);
        least = document->first_token;
    }
    if (out->n > 0 || n_tokens == 0) return FW_OK;
    return fw_fail(error, FW_E_FORMAT, "%s lists no document for %llu tokens", path,
                   (unsigned long long)n_tokens);
}

static fw_status read_documents(const char *path, uint64_t n_tokens, struct shard_documents *out,
                                fw_error *error) {
    struct shard_documents documents = {0};
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        *out = documents;
        return FW_OK;
    }
    const uint8_t *file;
    size_t bytes;
    FW_TRY(file_map(path, &file, &bytes, error));
    fw_status status = check_documents(path, file, bytes, n_tokens, error);
    if (status == FW_OK) status = parse_documents(path, file, n_tokens, &documents, error);
    file_unmap(file, bytes);
    if (status != FW_OK)
        documents_free(&documents);
    else
        *out = documents;
    return status;
}

fw_status documents_read(const char *shard_path, uint64_t n_tokens, struct shard_documents *out,
                         fw_error *error) {
    char *path = documents_path(shard_path);
    if (path == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory opening %s", shard_path);
    const fw_status status = read_documents(path, n_tokens, out, error);
    free(path);
    return status;
}

void documents_free(struct shard_documents *documents) {
    free(documents->documents);
    *documents = (struct shard_documents){0};
}

/* ---- Writing ---- */

struct shard_writer {
    struct file_writer *shard;
    struct file_writer *beside; /* the documents file, once prepared */
    char *path;                 /* its name */
    uint64_t n_tokens, n_documents;
    bool without_documents, prepared;
    uint8_t *documents; /* the documents file so far, DOCUMENTS_HEADER first */
    size_t used, capacity;
};

static fw_status documents_reserve(struct shard_writer *writer, size_t more, fw_error *error) {
    if (writer->capacity - writer->used >= more) return FW_OK;
    const size_t capacity = writer->capacity * 2 + more;
    uint8_t *larger = realloc(writer->documents, capacity);
    if (larger == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory for %s", writer->path);
    writer->documents = larger;
    writer->capacity = capacity;
    return FW_OK;
}

static void put(struct shard_writer *writer, const void *data, size_t size) {
    memcpy(writer->documents + writer->used, data, size);
    writer->used += size;
}

static fw_status begin_documents(struct shard_writer *writer, const uint8_t fingerprint[32],
                                 fw_error *error) {
    FW_TRY(documents_reserve(writer, 1 << 16, error));
    const uint64_t zeros[2] = {0, 0}; /* the counts, known at the end */
    put(writer, documents_magic, sizeof documents_magic);
    put(writer, fingerprint, 32);
    put(writer, zeros, sizeof zeros);
    return FW_OK;
}

static fw_status begin(struct shard_writer *writer, const char *path, const uint8_t *fingerprint,
                       fw_error *error) {
    writer->path = documents_path(path);
    if (writer->path == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory for %s", path);
    writer->without_documents = fingerprint == NULL;
    if (fingerprint != NULL) FW_TRY(begin_documents(writer, fingerprint, error));
    FW_TRY(file_create(path, &writer->shard, error));
    const int32_t header[SHARD_HEADER_BYTES / 4] = {SHARD_MAGIC, SHARD_VERSION};
    return file_append(writer->shard, header, sizeof header, error);
}

fw_status shard_create(const char *path, const uint8_t *fingerprint, struct shard_writer **out,
                       fw_error *error) {
    struct shard_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory for %s", path);
    const fw_status status = begin(writer, path, fingerprint, error);
    if (status != FW_OK)
        shard_abandon(writer);
    else
        *out = writer;
    return status;
}

uint64_t shard_written(const struct shard_writer *writer) { return writer->n_tokens; }

fw_status shard_append_tokens(struct shard_writer *writer, const uint16_t *tokens, uint64_t n,
                              fw_error *error) {
    if (n > SHARD_MAX_TOKENS - writer->n_tokens)
        return fw_fail(error, FW_E_LIMIT, "a shard holds at most %llu tokens",
                       (unsigned long long)SHARD_MAX_TOKENS);
    FW_TRY(file_append(writer->shard, tokens, n * sizeof *tokens, error));
    writer->n_tokens += n;
    return FW_OK;
}

fw_status shard_append(struct shard_writer *writer, const uint16_t *tokens, uint64_t n,
                       uint64_t raw_bytes, const uint8_t hash[32], fw_error *error) {
    const uint64_t first = writer->n_tokens;
    FW_TRY(documents_reserve(writer, DOCUMENTS_ENTRY, error));
    FW_TRY(shard_append_tokens(writer, tokens, n, error));
    put(writer, &first, 8);
    put(writer, &raw_bytes, 8);
    put(writer, hash, HASH_BYTES);
    writer->n_documents++;
    return FW_OK;
}

static fw_status prepare_documents(struct shard_writer *writer, fw_error *error) {
    FW_TRY(documents_reserve(writer, HASH_BYTES, error));
    memcpy(writer->documents + 40, &writer->n_tokens, 8);
    memcpy(writer->documents + 48, &writer->n_documents, 8);
    uint8_t hash[HASH_BYTES];
    sha256_bytes(writer->documents, writer->used, hash);
    put(writer, hash, sizeof hash);
    struct file_writer *beside;
    FW_TRY(file_create(writer->path, &beside, error));
    fw_status status = file_append(beside, writer->documents, writer->used, error);
    if (status == FW_OK) status = file_prepare(beside, error);
    if (status == FW_OK)
        writer->beside = beside;
    else
        file_abandon(beside);
    return status;
}

fw_status shard_prepare(struct shard_writer *writer, fw_error *error) {
    if (writer->prepared) return FW_OK;
    const int32_t count = (int32_t)writer->n_tokens;
    FW_TRY(file_patch(writer->shard, 8, &count, sizeof count, error));
    FW_TRY(file_prepare(writer->shard, error));
    if (!writer->without_documents) FW_TRY(prepare_documents(writer, error));
    writer->prepared = true;
    return FW_OK;
}

static fw_status publish(struct shard_writer *writer, fw_error *error) {
    FW_TRY(shard_prepare(writer, error));
    struct file_writer *shard = writer->shard, *beside = writer->beside;
    (void)unlink(writer->path);
    writer->shard = NULL;
    FW_TRY(file_commit(shard, error));
    writer->beside = NULL;
    return beside != NULL ? file_commit(beside, error) : FW_OK;
}

fw_status shard_commit(struct shard_writer *writer, fw_error *error) {
    const fw_status status = publish(writer, error);
    shard_abandon(writer);
    return status;
}

void shard_abandon(struct shard_writer *writer) {
    if (writer == NULL) return;
    file_abandon(writer->shard);
    file_abandon(writer->beside);
    free(writer->documents);
    free(writer->path);
    free(writer);
}
