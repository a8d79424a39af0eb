#include "rows_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

static const char MAGIC[8] = "fw-rows\1";
enum { HEADER_BYTES = 32 };

static bool is_standard(const char *path) { return strcmp(path, "-") == 0; }

/* ---- writing ---- */

struct rows_writer {
    uint32_t vocabulary;
    struct file_writer *file; /* NULL: standard output */
};

static fw_status put(struct rows_writer *writer, const void *data, size_t size, fw_error *error) {
    if (writer->file != NULL) return file_append(writer->file, data, size, error);
    if (fwrite(data, 1, size, stdout) == size) return FW_OK;
    return fw_fail(error, FW_E_IO, "standard output cannot be written: %s", strerror(errno));
}

static void put_header(const struct rows_header *header, struct bytes *bytes) {
    const struct token_table *table = header->table;
    bytes_put(bytes, MAGIC, sizeof MAGIC);
    bytes_put_u32(bytes, table->vocabulary);
    bytes_put_u32(bytes, (uint32_t)header->windows.length);
    bytes_put_u32(bytes, (uint32_t)header->windows.stride);
    bytes_put_u32(bytes, 0);
    bytes_put_u64(bytes, header->windows.targets);
    for (uint32_t v = 0; v < table->vocabulary; v++)
        bytes_put(bytes, &table->tokens[v].base_bytes, sizeof(uint16_t));
    for (uint32_t v = 0; v < table->vocabulary; v++)
        bytes_put_u8(bytes, (uint8_t)((table->tokens[v].leading_space ? 1 : 0) |
                                      (table->tokens[v].boundary ? 2 : 0)));
    bytes_put(bytes, header->tokens, (header->windows.targets + 1) * sizeof *header->tokens);
    for (uint64_t t = 0; t < header->windows.targets; t++) {
        const uint16_t counted =
            (uint16_t)token_table_bytes(table, header->tokens[t], header->tokens[t + 1]);
        bytes_put(bytes, &counted, sizeof counted);
    }
}

static fw_status write_header(struct rows_writer *writer, const struct rows_header *header,
                              fw_error *error) {
    struct bytes bytes = {0};
    put_header(header, &bytes);
    const fw_status status =
        bytes.failed ? fw_fail(error, FW_E_MEMORY, "no memory for the header of a rows file")
                     : put(writer, bytes.data, bytes.size, error);
    bytes_free(&bytes);
    return status;
}

fw_status rows_writer_open(const char *path, const struct rows_header *header,
                           struct rows_writer **writer, fw_error *error) {
    struct rows_writer *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to write %s", path);
    made->vocabulary = header->table->vocabulary;
    fw_status status = is_standard(path) ? FW_OK : file_create(path, &made->file, error);
    if (status == FW_OK) status = write_header(made, header, error);
    if (status == FW_OK)
        *writer = made;
    else
        rows_writer_abandon(made);
    return status;
}

fw_status rows_writer_append(struct rows_writer *writer, const float *rows, uint64_t n,
                             fw_error *error) {
    return put(writer, rows, n * writer->vocabulary * sizeof *rows, error);
}

fw_status rows_writer_commit(struct rows_writer *writer, fw_error *error) {
    fw_status status = FW_OK;
    if (writer->file != NULL)
        status = file_commit(writer->file, error);
    else if (fflush(stdout) != 0)
        status = fw_fail(error, FW_E_IO, "standard output cannot be written: %s", strerror(errno));
    free(writer);
    return status;
}

void rows_writer_abandon(struct rows_writer *writer) {
    if (writer == NULL) return;
    if (writer->file != NULL) file_abandon(writer->file);
    free(writer);
}

/* ---- reading ---- */

struct rows_reader {
    const char *path;
    FILE *file;
    struct token_table *table;
    uint16_t *tokens;
    struct rows_header header;
    uint64_t next; /* row */
};

static fw_status cut_short(const struct rows_reader *reader, const char *where, fw_error *error) {
    if (ferror(reader->file))
        return fw_fail(error, FW_E_IO, "%s cannot be read: %s", reader->path, strerror(errno));
    return fw_fail(error, FW_E_FORMAT,
                   "%s is cut short %s; write it again with dump_rows (is the disk full?)",
                   reader->path, where);
}

static fw_status take(struct rows_reader *reader, void *data, size_t size, fw_error *error) {
    if (fread(data, 1, size, reader->file) == size) return FW_OK;
    return cut_short(reader, "before its rows begin", error);
}

static fw_status read_shape(struct rows_reader *reader, uint32_t *vocabulary, fw_error *error) {
    uint8_t data[HEADER_BYTES];
    const size_t n = fread(data, 1, sizeof data, reader->file);
    if (n < sizeof MAGIC || memcmp(data, MAGIC, sizeof MAGIC) != 0)
        return fw_fail(error, FW_E_FORMAT,
                       "%s is not a rows file, which begins with fw-rows; dump_rows writes one",
                       reader->path);
    if (n < sizeof data) return cut_short(reader, "within its header", error);
    struct byte_reader bytes = {data, sizeof data, sizeof MAGIC, false};
    *vocabulary = bytes_take_u32(&bytes);
    reader->header.windows.length = bytes_take_u32(&bytes);
    reader->header.windows.stride = bytes_take_u32(&bytes);
    (void)bytes_take_u32(&bytes);
    reader->header.windows.targets = bytes_take_u64(&bytes);
    const struct windows *windows = &reader->header.windows;
    if (*vocabulary >= 1 && *vocabulary <= 65536 && windows->stride >= 1 &&
        windows->stride <= windows->length && windows->targets >= 1 &&
        windows->targets < UINT64_C(1) << 40)
        return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s is damaged: its header speaks of %u tokens, %" PRIu64
                   " targets and windows of %" PRIu64 " that advance by %" PRIu64,
                   reader->path, *vocabulary, windows->targets, windows->length, windows->stride);
}

static fw_status read_table(struct rows_reader *reader, fw_error *error) {
    struct token_table *table = reader->table;
    const uint32_t V = table->vocabulary;
    for (uint32_t v = 0; v < V; v++) {
        uint8_t pair[2];
        FW_TRY(take(reader, pair, sizeof pair, error));
        table->tokens[v].struct_size = sizeof table->tokens[v];
        table->tokens[v].base_bytes = (uint16_t)(pair[0] | pair[1] << 8);
    }
    for (uint32_t v = 0; v < V; v++) {
        uint8_t flags;
        FW_TRY(take(reader, &flags, 1, error));
        table->tokens[v].leading_space = flags & 1;
        table->tokens[v].boundary = flags >> 1 & 1;
    }
    return FW_OK;
}

static fw_status read_tokens(struct rows_reader *reader, fw_error *error) {
    const uint64_t n = reader->header.windows.targets + 1;
    reader->tokens = malloc(n * sizeof *reader->tokens);
    if (reader->tokens == NULL)
        return fw_fail(error, FW_E_MEMORY, "%s: no memory for %" PRIu64 " tokens", reader->path, n);
    FW_TRY(take(reader, reader->tokens, n * sizeof *reader->tokens, error));
    for (uint64_t t = 0; t < n; t++)
        if (reader->tokens[t] >= reader->table->vocabulary)
            return fw_fail(error, FW_E_FORMAT,
                           "%s: token %u at position %" PRIu64 " is outside its vocabulary of %u",
                           reader->path, (unsigned)reader->tokens[t], t, reader->table->vocabulary);
    return FW_OK;
}

/* What was written for other readers must be what the table says. */
static fw_status check_bytes(struct rows_reader *reader, fw_error *error) {
    for (uint64_t t = 0; t < reader->header.windows.targets; t++) {
        uint8_t pair[2];
        FW_TRY(take(reader, pair, sizeof pair, error));
        const uint32_t right =
            token_table_bytes(reader->table, reader->tokens[t], reader->tokens[t + 1]);
        if ((uint32_t)(pair[0] | pair[1] << 8) != right)
            return fw_fail(error, FW_E_FORMAT,
                           "%s: target %" PRIu64 " counts %u bytes, but its token table says %u",
                           reader->path, t, (unsigned)(pair[0] | pair[1] << 8), right);
    }
    return FW_OK;
}

static fw_status make_table(struct rows_reader *reader, uint32_t vocabulary, fw_error *error) {
    fw_token_info *tokens = calloc(vocabulary, sizeof *tokens);
    const struct token_table wanted = {
        .vocabulary = vocabulary, .begin_token = -1, .tokens = tokens};
    const fw_status status =
        tokens == NULL
            ? fw_fail(error, FW_E_MEMORY, "%s: no memory for %u tokens", reader->path, vocabulary)
            : token_table_copy(&wanted, &reader->table, error);
    free(tokens);
    return status;
}

static fw_status read_header(struct rows_reader *reader, fw_error *error) {
    uint32_t vocabulary = 0;
    FW_TRY(read_shape(reader, &vocabulary, error));
    FW_TRY(make_table(reader, vocabulary, error));
    FW_TRY(read_table(reader, error));
    FW_TRY(read_tokens(reader, error));
    FW_TRY(check_bytes(reader, error));
    reader->header.table = reader->table;
    reader->header.tokens = reader->tokens;
    return FW_OK;
}

fw_status rows_reader_open(const char *path, struct rows_reader **reader, fw_error *error) {
    struct rows_reader *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to read %s", path);
    made->path = is_standard(path) ? "standard input" : path;
    made->file = is_standard(path) ? stdin : fopen(path, "rb");
    const fw_status status = made->file == NULL ? fw_fail(error, FW_E_IO, "%s cannot be opened: %s",
                                                          path, strerror(errno))
                                                : read_header(made, error);
    if (status == FW_OK)
        *reader = made;
    else
        rows_reader_close(made);
    return status;
}

void rows_reader_close(struct rows_reader *reader) {
    if (reader == NULL) return;
    if (reader->file != NULL && reader->file != stdin) (void)fclose(reader->file);
    token_table_destroy(reader->table);
    free(reader->tokens);
    free(reader);
}

const struct rows_header *rows_reader_header(const struct rows_reader *reader) {
    return &reader->header;
}

static fw_status check_end(struct rows_reader *reader, fw_error *error) {
    if (fgetc(reader->file) == EOF) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s goes on behind its last row; write it again with dump_rows", reader->path);
}

fw_status rows_reader_next(struct rows_reader *reader, uint64_t most, float *rows, uint64_t *n,
                           fw_error *error) {
    const uint64_t left = reader->header.windows.targets - reader->next;
    const uint64_t wanted = left < most ? left : most;
    if (wanted == 0) {
        *n = 0;
        return check_end(reader, error);
    }
    const size_t size = reader->header.table->vocabulary * sizeof *rows;
    const uint64_t got = fread(rows, size, wanted, reader->file);
    if (got < wanted) {
        char where[80];
        (void)snprintf(where, sizeof where, "at row %" PRIu64 " of %" PRIu64, reader->next + got,
                       reader->header.windows.targets);
        return cut_short(reader, where, error);
    }
    reader->next += wanted;
    *n = wanted;
    return FW_OK;
}
