#include "proof_file.h"

#include <string.h>

#include "files.h"

static const uint8_t magic[4] = {'F', 'W', 'P', 0x1a};
enum { FORMAT_VERSION = 1, VARINT_BYTES = 5 };

static void hash_of(const uint8_t *data, size_t size, uint8_t hash[PROOF_HASH_BYTES]) {
    uint8_t whole[32];
    sha256_bytes(data, size, whole);
    memcpy(hash, whole, PROOF_HASH_BYTES);
}

/* ---- writing ---- */

static void put_varint(struct bytes *out, uint64_t value) {
    for (; value > 0x7f; value >>= 7) bytes_put_u8(out, (uint8_t)(0x80 | (value & 0x7f)));
    bytes_put_u8(out, (uint8_t)value);
}

void proof_file_write(const struct proof_file *file, struct bytes *out) {
    const size_t begin = out->size;
    bytes_put(out, magic, sizeof magic);
    bytes_put_u8(out, FORMAT_VERSION);
    bytes_put_u8(out, file->text ? 1 : 0);
    bytes_put_u8(out, (uint8_t)file->n_pins);
    for (uint32_t i = 0; i < file->n_pins; i++) {
        bytes_put_u8(out, (uint8_t)file->pins[i]);
        bytes_put_u8(out, (uint8_t)(file->pins[i] >> 8));
    }
    bytes_put(out, file->tokens_hash, sizeof file->tokens_hash);
    put_varint(out, file->spans);
    put_varint(out, file->span_tokens);
    bytes_put(out, file->coded, file->coded_bytes);
    if (out->failed) return;
    uint8_t hash[PROOF_HASH_BYTES];
    hash_of(out->data + begin, out->size - begin, hash);
    bytes_put(out, hash, sizeof hash);
}

/* ---- reading ---- */

static uint8_t take_u8(struct byte_reader *reader) {
    const uint8_t *byte = bytes_take(reader, 1);
    return byte != NULL ? *byte : 0;
}

static uint64_t take_varint(struct byte_reader *reader) {
    uint64_t value = 0;
    for (int i = 0; i < VARINT_BYTES; i++) {
        const uint8_t byte = take_u8(reader);
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) return value;
    }
    reader->failed = true;
    return 0;
}

static fw_status check_mark(const uint8_t *data, size_t size, fw_error *error) {
    if (size < sizeof magic + 1 || memcmp(data, magic, sizeof magic) != 0)
        return fw_fail(error, FW_E_FORMAT, "not a proof file (it does not begin with its mark)");
    if (data[sizeof magic] == FORMAT_VERSION) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "proof file format version %u; this program reads version %d",
                   data[sizeof magic], FORMAT_VERSION);
}

static fw_status check_hash(const uint8_t *data, size_t size, fw_error *error) {
    if (size < sizeof magic + 1 + PROOF_HASH_BYTES)
        return fw_fail(error, FW_E_FORMAT, "truncated: %zu bytes, less than an empty proof", size);
    uint8_t hash[PROOF_HASH_BYTES];
    hash_of(data, size - sizeof hash, hash);
    if (memcmp(hash, data + size - sizeof hash, sizeof hash) == 0) return FW_OK;
    return fw_fail(error, FW_E_CHECKSUM,
                   "damaged or truncated: its checksum does not match its %zu bytes", size);
}

static void take_header(struct byte_reader *reader, struct proof_file *file) {
    (void)bytes_take(reader, sizeof magic + 1);
    const uint8_t kind = take_u8(reader);
    file->text = kind == 1;
    file->n_pins = take_u8(reader);
    if (kind > 1 || file->n_pins > PROOF_MOST_PINS) {
        reader->failed = true;
        return;
    }
    for (uint32_t i = 0; i < file->n_pins; i++) {
        const unsigned low = take_u8(reader), high = take_u8(reader);
        file->pins[i] = (uint16_t)(low | high << 8);
    }
    const uint8_t *hash = bytes_take(reader, PROOF_HASH_BYTES);
    if (hash != NULL) memcpy(file->tokens_hash, hash, PROOF_HASH_BYTES);
    file->spans = take_varint(reader);
    file->span_tokens = take_varint(reader);
}

static bool counts_are_sane(const struct proof_file *file) {
    return file->spans > 0 && file->span_tokens > 0 &&
           file->spans <= PROOF_MOST_TOKENS / file->span_tokens;
}

fw_status proof_file_read(const uint8_t *data, size_t size, struct proof_file *file,
                          fw_error *error) {
    FW_TRY(check_mark(data, size, error));
    FW_TRY(check_hash(data, size, error));
    struct byte_reader reader = {.data = data, .size = size - PROOF_HASH_BYTES};
    struct proof_file made = {0};
    take_header(&reader, &made);
    if (reader.failed || !counts_are_sane(&made))
        return fw_fail(error, FW_E_FORMAT, "its header is none that this program writes");
    made.coded = data + reader.offset;
    made.coded_bytes = reader.size - reader.offset;
    *file = made;
    return FW_OK;
}
