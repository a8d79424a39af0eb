#include "weights_file.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"

static const char magic[8] = {'F', 'W', 'W', 'E', 'I', 'G', 'H', 'T'};
enum { FORMAT_VERSION = 1, HASH_BYTES = 32 };

struct weights_file {
    char *path;
    uint8_t *data;
    size_t size;
    struct token_table *table;
    size_t tensors; /* offset of the list of tensors */
};

static size_t weight_bytes(const fw_weight *weight) {
    return (size_t)(weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3]) *
           sizeof(float);
}

static void put_tensors(struct bytes *bytes, const struct model *model, const float *arena) {
    for (uint32_t i = 0; i < model_n_weights(model); i++)
        bytes_put(bytes, arena + model_offset(model, i), weight_bytes(model_weight(model, i)));
}

fw_status weights_save(const char *path, const struct model *model, const struct token_table *table,
                       const char *config_hash, const float *raw, const float *averaged,
                       fw_error *error) {
    struct bytes bytes = {0};
    bytes_put(&bytes, magic, sizeof magic);
    bytes_put_u32(&bytes, FORMAT_VERSION);
    bytes_put_text(&bytes, config_hash);
    token_table_write(table, &bytes);
    bytes_put_u32(&bytes, model_n_weights(model));
    for (uint32_t i = 0; i < model_n_weights(model); i++) {
        const fw_weight *weight = model_weight(model, i);
        bytes_put_text(&bytes, weight->name);
        bytes_put_u32(&bytes, weight->rank);
        for (uint32_t d = 0; d < weight->rank; d++)
            bytes_put_u64(&bytes, (uint64_t)weight->shape[d]);
    }
    put_tensors(&bytes, model, raw);
    put_tensors(&bytes, model, averaged);
    uint8_t hash[HASH_BYTES];
    if (!bytes.failed) sha256_bytes(bytes.data, bytes.size, hash);
    bytes_put(&bytes, hash, sizeof hash);
    const fw_status status =
        bytes.failed ? fw_fail(error, FW_E_MEMORY, "%s: no memory to save the weights", path)
                     : file_write(path, bytes.data, bytes.size, error);
    bytes_free(&bytes);
    return status;
}

static fw_status check(struct weights_file *file, fw_error *error) {
    const char *path = file->path;
    if (file->size < sizeof magic + 4 + HASH_BYTES || memcmp(file->data, magic, sizeof magic) != 0)
        return fw_fail(error, FW_E_FORMAT, "%s: not a file of Fairway weights", path);
    struct byte_reader reader = {file->data, file->size - HASH_BYTES, sizeof magic, false};
    const uint32_t version = bytes_take_u32(&reader);
    if (version != FORMAT_VERSION)
        return fw_fail(error, FW_E_FORMAT,
                       "%s: weights of format version %u; this program reads %d", path, version,
                       FORMAT_VERSION);
    uint8_t hash[HASH_BYTES];
    sha256_bytes(file->data, file->size - HASH_BYTES, hash);
    if (memcmp(hash, file->data + file->size - HASH_BYTES, HASH_BYTES) != 0)
        return fw_fail(error, FW_E_CHECKSUM,
                       "%s: truncated or damaged: its SHA-256 does not match its contents", path);
    free(bytes_take_text(&reader));
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = token_table_read(&reader, &file->table, &why);
    if (status != FW_OK) return fw_fail(error, status, "%s: %s", path, why.message);
    file->tensors = reader.offset;
    return FW_OK;
}

fw_status weights_open(const char *path, struct weights_file **file, fw_error *error) {
    struct weights_file *made = calloc(1, sizeof *made);
    if (made == NULL || (made->path = strdup(path)) == NULL) {
        free(made);
        return fw_fail(error, FW_E_MEMORY, "%s: no memory to read the weights", path);
    }
    fw_status status = file_read(path, 0, &made->data, &made->size, error);
    if (status == FW_OK) status = check(made, error);
    if (status == FW_OK)
        *file = made;
    else
        weights_close(made);
    return status;
}

void weights_close(struct weights_file *file) {
    if (file == NULL) return;
    token_table_destroy(file->table);
    free(file->data);
    free(file->path);
    free(file);
}

const struct token_table *weights_table(const struct weights_file *file) { return file->table; }

static bool tensor_matches(struct byte_reader *reader, const fw_weight *weight) {
    char *name = bytes_take_text(reader);
    bool same = name != NULL && strcmp(name, weight->name) == 0;
    free(name);
    const uint32_t rank = bytes_take_u32(reader);
    same = same && rank == weight->rank;
    for (uint32_t d = 0; same && d < rank; d++)
        same = bytes_take_u64(reader) == (uint64_t)weight->shape[d];
    return same && !reader->failed;
}

fw_status weights_read(const struct weights_file *file, const struct model *model, bool averaged,
                       float *arena, fw_error *error) {
    struct byte_reader reader = {file->data, file->size - HASH_BYTES, file->tensors, false};
    const uint32_t n = bytes_take_u32(&reader);
    if (n != model_n_weights(model))
        return fw_fail(error, FW_E_SHAPE, "%s: holds %u tensors; the configured model has %u",
                       file->path, n, model_n_weights(model));
    for (uint32_t i = 0; i < n; i++)
        if (!tensor_matches(&reader, model_weight(model, i)))
            return fw_fail(error, FW_E_SHAPE, "%s: tensor %u is not the configured model's %s",
                           file->path, i, model_weight(model, i)->name);
    for (int set = 0; set <= (averaged ? 1 : 0); set++)
        for (uint32_t i = 0; i < n; i++) {
            const size_t bytes = weight_bytes(model_weight(model, i));
            const uint8_t *data = bytes_take(&reader, bytes);
            if (data == NULL)
                return fw_fail(error, FW_E_FORMAT, "%s: its tensors are cut short", file->path);
            memcpy(arena + model_offset(model, i), data, bytes);
        }
    return FW_OK;
}
