#include "checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "files.h"

static const char magic[8] = {'F', 'W', 'C', 'H', 'E', 'C', 'K', 'P'};
enum { FORMAT_VERSION = 1, HASH_BYTES = 32, CHUNK = 1 << 20 };
static const int64_t LARGEST_STEP = INT64_C(1) << 53; /* a run's log holds steps as doubles */

struct checkpoint_file {
    char *path;
    const uint8_t *data; /* mapped */
    size_t size;
    size_t memory, memory_bytes; /* offset and size of the device memory */
    struct checkpoint contents;
};

void checkpoint_add_piece(void *argument, void *data, size_t bytes) {
    struct checkpoint_memory *memory = argument;
    if (bytes == 0 || memory->n == CHECKPOINT_PIECES) return;
    memory->piece[memory->n].data = data;
    memory->piece[memory->n++].bytes = bytes;
}

static size_t total_bytes(const struct checkpoint_memory *memory) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < memory->n; i++) bytes += memory->piece[i].bytes;
    return bytes;
}

/* ---- writing ---- */

static void put_number(struct bytes *bytes, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bytes_put_u64(bytes, bits);
}

static void put_header(struct bytes *bytes, const struct checkpoint *c, size_t memory_bytes) {
    bytes_put(bytes, magic, sizeof magic);
    bytes_put_u32(bytes, FORMAT_VERSION);
    bytes_put_text(bytes, c->config);
    bytes_put(bytes, c->data, sizeof c->data);
    bytes_put(bytes, c->layout, sizeof c->layout);
    bytes_put_u64(bytes, (uint64_t)c->step);
    put_number(bytes, c->elapsed);
    put_number(bytes, c->mean_loss);
    bytes_put_u32(bytes, c->qat_on ? 1 : 0);
    put_number(bytes, c->lowest_scale);
    bytes_put_u64(bytes, c->averager_bytes);
    if (c->averager_bytes > 0) bytes_put(bytes, c->averager, c->averager_bytes);
    bytes_put_u64(bytes, memory_bytes);
}

struct output {
    struct file_writer *writer;
    SHA2_CTX hash;
    uint8_t *chunk; /* CHUNK bytes */
};

static fw_status append(struct output *out, const void *data, size_t size, fw_error *error) {
    SHA256Update(&out->hash, data, size);
    return file_append(out->writer, data, size, error);
}

static fw_status append_piece(struct output *out, fw_device *device, const char *data, size_t bytes,
                              fw_error *error) {
    for (size_t done = 0; done < bytes;) {
        const size_t n = bytes - done < CHUNK ? bytes - done : CHUNK;
        FW_TRY(device->copy_to_host(device, out->chunk, data + done, n, error));
        FW_TRY(append(out, out->chunk, n, error));
        done += n;
    }
    return FW_OK;
}

static fw_status write_all(struct output *out, const struct bytes *header,
                           const struct checkpoint_memory *memory, fw_error *error) {
    SHA256Init(&out->hash);
    FW_TRY(append(out, header->data, header->size, error));
    for (uint32_t i = 0; i < memory->n; i++)
        FW_TRY(append_piece(out, memory->device, memory->piece[i].data, memory->piece[i].bytes,
                            error));
    uint8_t hash[HASH_BYTES];
    SHA256Final(hash, &out->hash);
    return file_append(out->writer, hash, sizeof hash, error);
}

static fw_status write_file(const char *path, struct output *out, const struct bytes *header,
                            const struct checkpoint_memory *memory, fw_error *error) {
    FW_TRY(file_create(path, &out->writer, error));
    const fw_status status = write_all(out, header, memory, error);
    if (status == FW_OK) return file_commit(out->writer, error);
    file_abandon(out->writer);
    return status;
}

fw_status checkpoint_write(const char *path, const struct checkpoint *checkpoint,
                           const struct checkpoint_memory *memory, fw_error *error) {
    struct bytes header = {0};
    struct output out = {.chunk = malloc(CHUNK)};
    put_header(&header, checkpoint, total_bytes(memory));
    const fw_status status = header.failed || out.chunk == NULL
                                 ? fw_fail(error, FW_E_MEMORY, "%s: no memory to write it", path)
                                 : write_file(path, &out, &header, memory, error);
    free(out.chunk);
    bytes_free(&header);
    return status;
}

/* ---- reading ---- */

static double take_number(struct byte_reader *reader) {
    const uint64_t bits = bytes_take_u64(reader);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void take_hash(struct byte_reader *reader, uint8_t hash[32]) {
    const uint8_t *data = bytes_take(reader, HASH_BYTES);
    if (data != NULL) memcpy(hash, data, HASH_BYTES);
}

/* Whoever wrote the file: a clock that is no number never runs out, a step too large overflows. */
static fw_status check_numbers(const struct checkpoint_file *file, fw_error *error) {
    const struct checkpoint *c = &file->contents;
    if (c->step >= 0 && c->step <= LARGEST_STEP && c->elapsed >= 0 && isfinite(c->elapsed) &&
        isfinite(c->mean_loss) && isfinite(c->lowest_scale))
        return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s: step %" PRId64 " after %g s, loss %g, scale %g: no run has such",
                   file->path, c->step, c->elapsed, c->mean_loss, c->lowest_scale);
}

static fw_status take_header(struct checkpoint_file *file, fw_error *error) {
    struct byte_reader reader = {file->data, file->size - HASH_BYTES, sizeof magic + 4, false};
    struct checkpoint *c = &file->contents;
    char *config = bytes_take_text(&reader);
    if (config != NULL) (void)snprintf(c->config, sizeof c->config, "%s", config);
    free(config);
    take_hash(&reader, c->data);
    take_hash(&reader, c->layout);
    c->step = (int64_t)bytes_take_u64(&reader);
    c->elapsed = take_number(&reader);
    c->mean_loss = take_number(&reader);
    c->qat_on = bytes_take_u32(&reader) != 0;
    c->lowest_scale = take_number(&reader);
    const uint64_t state_bytes = bytes_take_u64(&reader);
    c->averager_bytes = state_bytes <= file->size ? (size_t)state_bytes : file->size;
    c->averager = bytes_take(&reader, c->averager_bytes);
    const uint64_t memory_bytes = bytes_take_u64(&reader);
    file->memory = reader.offset;
    file->memory_bytes = reader.size - reader.offset;
    if (reader.failed || memory_bytes != file->memory_bytes)
        return fw_fail(error, FW_E_FORMAT, "%s: its parts do not add up to its size", file->path);
    return check_numbers(file, error);
}

static fw_status verify(struct checkpoint_file *file, fw_error *error) {
    if (file->size < sizeof magic + 4 + HASH_BYTES || memcmp(file->data, magic, sizeof magic) != 0)
        return fw_fail(error, FW_E_FORMAT, "%s: not a checkpoint of Fairway", file->path);
    struct byte_reader reader = {file->data, file->size, sizeof magic, false};
    const uint32_t version = bytes_take_u32(&reader);
    if (version != FORMAT_VERSION)
        return fw_fail(error, FW_E_FORMAT,
                       "%s: a checkpoint of format version %u; this program reads %d", file->path,
                       version, FORMAT_VERSION);
    uint8_t hash[HASH_BYTES];
    sha256_bytes(file->data, file->size - HASH_BYTES, hash);
    if (memcmp(hash, file->data + file->size - HASH_BYTES, HASH_BYTES) != 0)
        return fw_fail(error, FW_E_CHECKSUM,
                       "%s: truncated or damaged: its SHA-256 does not match its contents",
                       file->path);
    return take_header(file, error);
}

static fw_status map(struct checkpoint_file *file, const char *path, fw_error *error) {
    file->path = strdup(path);
    if (file->path == NULL) return fw_fail(error, FW_E_MEMORY, "%s: no memory to read it", path);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return fw_fail(error, FW_E_NOT_FOUND,
                       "%s: there is no checkpoint to resume from; run.checkpoint_every = N writes "
                       "one every N steps",
                       path);
    return file_map(path, &file->data, &file->size, error);
}

fw_status checkpoint_open(const char *path, struct checkpoint_file **file, fw_error *error) {
    struct checkpoint_file *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "%s: no memory to read it", path);
    fw_status status = map(made, path, error);
    if (status == FW_OK) status = verify(made, error);
    if (status == FW_OK)
        *file = made;
    else
        checkpoint_close(made);
    return status;
}

void checkpoint_close(struct checkpoint_file *file) {
    if (file == NULL) return;
    if (file->data != NULL) file_unmap(file->data, file->size);
    free(file->path);
    free(file);
}

const struct checkpoint *checkpoint_contents(const struct checkpoint_file *file) {
    return &file->contents;
}

fw_status checkpoint_restore(const struct checkpoint_file *file,
                             const struct checkpoint_memory *memory, fw_error *error) {
    if (total_bytes(memory) != file->memory_bytes)
        return fw_fail(error, FW_E_FORMAT, "%s: it holds %zu bytes of state; this run has %zu",
                       file->path, file->memory_bytes, total_bytes(memory));
    const uint8_t *from = file->data + file->memory;
    for (uint32_t i = 0; i < memory->n; i++) {
        FW_TRY(memory->device->copy_from_host(memory->device, memory->piece[i].data, from,
                                              memory->piece[i].bytes, error));
        from += memory->piece[i].bytes;
    }
    return FW_OK;
}
