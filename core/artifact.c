#include "artifact.h"

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

static const uint8_t magic[8] = {'F', 'A', 'I', 'R', 'W', 'A', 'Y', 0x1a};
enum {
    FORMAT_VERSION = 1,
    HEADER_BYTES = 28,
    HASH_BYTES = 32,
    MAX_STREAMS = 1 << 20,
    MAX_DESCRIPTION = 1 << 28,
};

void artifact_free(struct artifact *artifact) {
    free(artifact->config);
    free(artifact->streams);
    free(artifact->payload);
    token_table_destroy(artifact->table);
    *artifact = (struct artifact){0};
}

/* ---- description ---- */

static void describe(const struct artifact *artifact, struct bytes *bytes) {
    bytes_put_text(bytes, artifact->config);
    token_table_write(artifact->table, bytes);
    bytes_put_u32(bytes, artifact->n_streams);
    for (uint32_t i = 0; i < artifact->n_streams; i++) {
        const fw_stream *stream = &artifact->streams[i];
        bytes_put_u32(bytes, stream->kind);
        bytes_put_u32(bytes, stream->dtype);
        bytes_put_u32(bytes, stream->tensor);
        bytes_put_u64(bytes, (uint64_t)stream->rows);
        bytes_put_u64(bytes, (uint64_t)stream->columns);
        bytes_put_u64(bytes, (uint64_t)stream->symbol_min);
        bytes_put_u64(bytes, (uint64_t)stream->symbol_max);
    }
}

static fw_stream take_stream(struct byte_reader *reader) {
    fw_stream stream = {.struct_size = sizeof stream};
    stream.kind = bytes_take_u32(reader);
    stream.dtype = bytes_take_u32(reader);
    stream.tensor = bytes_take_u32(reader);
    stream.rows = (int64_t)bytes_take_u64(reader);
    stream.columns = (int64_t)bytes_take_u64(reader);
    stream.symbol_min = (int64_t)bytes_take_u64(reader);
    stream.symbol_max = (int64_t)bytes_take_u64(reader);
    return stream;
}

static bool stream_is_sane(const fw_stream *stream) {
    const int64_t limit = (int64_t)1 << 34;
    return fw_dtype_size(stream->dtype) > 0 && stream->rows >= 0 && stream->columns >= 0 &&
           stream->rows <= limit && stream->columns <= limit &&
           (stream->columns == 0 || stream->rows <= limit / stream->columns);
}

static fw_status read_description(struct byte_reader *reader, struct artifact *artifact,
                                  fw_error *error) {
    artifact->config = bytes_take_text(reader);
    if (artifact->config == NULL)
        return fw_fail(error, FW_E_FORMAT, "its description is cut short");
    FW_TRY(token_table_read(reader, &artifact->table, error));
    artifact->n_streams = bytes_take_u32(reader);
    if (reader->failed || artifact->n_streams > MAX_STREAMS)
        return fw_fail(error, FW_E_FORMAT, "its list of streams is damaged");
    artifact->streams = calloc(artifact->n_streams + 1u, sizeof *artifact->streams);
    if (artifact->streams == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for its streams");
    for (uint32_t i = 0; i < artifact->n_streams; i++) {
        artifact->streams[i] = take_stream(reader);
        if (reader->failed || !stream_is_sane(&artifact->streams[i]))
            return fw_fail(error, FW_E_FORMAT, "stream %u of its list is damaged", i);
    }
    return FW_OK;
}

/* ---- file ---- */

static fw_status pack_description(const struct bytes *plain, struct bytes *packed,
                                  fw_error *error) {
    const size_t bound = lzma_stream_buffer_bound(plain->size);
    packed->data = malloc(bound);
    packed->capacity = bound;
    lzma_options_lzma options;
    lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    (void)lzma_lzma_preset(&options, 9 | LZMA_PRESET_EXTREME);
    options.dict_size =
        plain->size > LZMA_DICT_SIZE_MIN ? (uint32_t)plain->size : LZMA_DICT_SIZE_MIN;
    if (plain->failed || packed->data == NULL ||
        lzma_stream_buffer_encode(filters, LZMA_CHECK_NONE, NULL, plain->data, plain->size,
                                  packed->data, &packed->size, bound) != LZMA_OK)
        return fw_fail(error, FW_E_MEMORY, "no memory to pack the artifact's description");
    return FW_OK;
}

static fw_status assemble(const struct artifact *artifact, struct bytes *file, fw_error *error) {
    struct bytes plain = {0}, packed = {0};
    describe(artifact, &plain);
    const fw_status status = pack_description(&plain, &packed, error);
    if (status == FW_OK) {
        bytes_put(file, magic, sizeof magic);
        bytes_put_u32(file, FORMAT_VERSION);
        bytes_put_u32(file, (uint32_t)packed.size);
        bytes_put_u32(file, (uint32_t)plain.size);
        bytes_put_u64(file, artifact->payload_bytes);
        bytes_put(file, packed.data, packed.size);
        bytes_put(file, artifact->payload, artifact->payload_bytes);
    }
    bytes_free(&plain);
    bytes_free(&packed);
    return status;
}

fw_status artifact_overhead(const struct artifact *artifact, size_t *bytes, fw_error *error) {
    struct bytes plain = {0}, packed = {0};
    describe(artifact, &plain);
    const fw_status status = pack_description(&plain, &packed, error);
    if (status == FW_OK) *bytes = HEADER_BYTES + packed.size + HASH_BYTES;
    bytes_free(&plain);
    bytes_free(&packed);
    return status;
}

fw_status artifact_write(const char *path, struct artifact *artifact, fw_error *error) {
    struct bytes file = {0};
    fw_status status = assemble(artifact, &file, error);
    if (status == FW_OK) {
        uint8_t hash[HASH_BYTES];
        sha256_bytes(file.data, file.size, hash);
        bytes_put(&file, hash, sizeof hash);
        status = file.failed ? fw_fail(error, FW_E_MEMORY, "%s: no memory for the artifact", path)
                             : file_write(path, file.data, file.size, error);
    }
    if (status == FW_OK) artifact->file_bytes = file.size;
    bytes_free(&file);
    return status;
}

static fw_status unpack_description(const uint8_t *packed, size_t packed_bytes, size_t plain_bytes,
                                    struct artifact *artifact, fw_error *error) {
    uint8_t *plain = malloc(plain_bytes + 1);
    if (plain == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for its description");
    uint64_t memory = UINT64_C(1) << 30;
    size_t in = 0, out = 0;
    fw_status status = FW_OK;
    if (lzma_stream_buffer_decode(&memory, 0, NULL, packed, &in, packed_bytes, plain, &out,
                                  plain_bytes) != LZMA_OK ||
        in != packed_bytes || out != plain_bytes)
        status = fw_fail(error, FW_E_FORMAT, "its description cannot be unpacked");
    struct byte_reader reader = {.data = plain, .size = plain_bytes};
    if (status == FW_OK) status = read_description(&reader, artifact, error);
    free(plain);
    return status;
}

static fw_status check_file(const uint8_t *data, size_t size, fw_error *error) {
    if (size < sizeof magic || memcmp(data, magic, sizeof magic) != 0)
        return fw_fail(error, FW_E_FORMAT,
                       "not a Fairway artifact (it does not begin with its mark)");
    if (size < HEADER_BYTES + HASH_BYTES)
        return fw_fail(error, FW_E_FORMAT, "truncated: %zu bytes, less than an empty artifact",
                       size);
    struct byte_reader reader = {.data = data, .size = size, .offset = sizeof magic};
    const uint32_t version = bytes_take_u32(&reader);
    if (version != FORMAT_VERSION)
        return fw_fail(error, FW_E_FORMAT,
                       "artifact format version %u; this program reads version %d", version,
                       FORMAT_VERSION);
    const uint64_t packed = bytes_take_u32(&reader), plain = bytes_take_u32(&reader);
    const uint64_t payload = bytes_take_u64(&reader);
    const uint64_t rest = size - HEADER_BYTES - HASH_BYTES;
    if (payload > rest || packed != rest - payload || plain > MAX_DESCRIPTION)
        return fw_fail(error, FW_E_FORMAT,
                       "truncated or damaged: its header announces %llu bytes, the file has %zu",
                       (unsigned long long)(packed + payload + HEADER_BYTES + HASH_BYTES), size);
    uint8_t hash[HASH_BYTES];
    sha256_bytes(data, size - HASH_BYTES, hash);
    if (memcmp(hash, data + size - HASH_BYTES, HASH_BYTES) != 0)
        return fw_fail(error, FW_E_CHECKSUM, "damaged: its SHA-256 does not match its contents");
    return FW_OK;
}

static fw_status parse(const uint8_t *data, size_t size, struct artifact *artifact,
                       fw_error *error) {
    FW_TRY(check_file(data, size, error));
    struct byte_reader reader = {.data = data, .size = size, .offset = sizeof magic + 4};
    const size_t packed = bytes_take_u32(&reader), plain = bytes_take_u32(&reader);
    const size_t payload = (size_t)bytes_take_u64(&reader);
    FW_TRY(unpack_description(bytes_take(&reader, packed), packed, plain, artifact, error));
    artifact->payload = malloc(payload + 1);
    if (artifact->payload == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for its payload");
    memcpy(artifact->payload, data + reader.offset, payload);
    artifact->payload_bytes = payload;
    artifact->file_bytes = size;
    sha256_bytes(data, size, artifact->sha256);
    return FW_OK;
}

fw_status artifact_read(const char *path, struct artifact *artifact, fw_error *error) {
    uint8_t *data = NULL;
    size_t size = 0;
    FW_TRY(file_read(path, 0, &data, &size, error));
    struct artifact made = {0};
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = parse(data, size, &made, &why);
    free(data);
    if (status == FW_OK) {
        *artifact = made;
        return FW_OK;
    }
    artifact_free(&made);
    return fw_fail(error, status, "%s: %s", path, why.message);
}
