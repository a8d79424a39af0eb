#include "bytes.h"

#include <stdlib.h>
#include <string.h>

void bytes_free(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){0};
}

static bool reserve(struct bytes *bytes, size_t more) {
    if (bytes->failed) return false;
    if (bytes->capacity - bytes->size >= more) return true;
    size_t capacity = bytes->capacity > 0 ? bytes->capacity : 256;
    while (capacity - bytes->size < more) capacity *= 2;
    uint8_t *data = realloc(bytes->data, capacity);
    if (data == NULL) {
        bytes->failed = true;
        return false;
    }
    bytes->data = data;
    bytes->capacity = capacity;
    return true;
}

void bytes_put(struct bytes *bytes, const void *data, size_t size) {
    if (size == 0 || !reserve(bytes, size)) return;
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

void bytes_put_u8(struct bytes *bytes, uint8_t value) { bytes_put(bytes, &value, 1); }

static void put_little_endian(struct bytes *bytes, uint64_t value, size_t size) {
    uint8_t data[8];
    for (size_t i = 0; i < size; i++) data[i] = (uint8_t)(value >> (8 * i));
    bytes_put(bytes, data, size);
}

void bytes_put_u32(struct bytes *bytes, uint32_t value) { put_little_endian(bytes, value, 4); }

void bytes_put_u64(struct bytes *bytes, uint64_t value) { put_little_endian(bytes, value, 8); }

void bytes_put_text(struct bytes *bytes, const char *text) {
    const size_t length = strlen(text);
    bytes_put_u32(bytes, (uint32_t)length);
    bytes_put(bytes, text, length);
}

const uint8_t *bytes_take(struct byte_reader *reader, size_t size) {
    if (reader->failed || reader->size - reader->offset < size) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *data = reader->data + reader->offset;
    reader->offset += size;
    return data;
}

static uint64_t take_little_endian(struct byte_reader *reader, size_t size) {
    const uint8_t *data = bytes_take(reader, size);
    uint64_t value = 0;
    for (size_t i = 0; data != NULL && i < size; i++) value |= (uint64_t)data[i] << (8 * i);
    return value;
}

uint32_t bytes_take_u32(struct byte_reader *reader) {
    return (uint32_t)take_little_endian(reader, 4);
}

uint64_t bytes_take_u64(struct byte_reader *reader) { return take_little_endian(reader, 8); }

char *bytes_take_text(struct byte_reader *reader) {
    const size_t length = bytes_take_u32(reader);
    const uint8_t *data = bytes_take(reader, length);
    char *text = data != NULL ? malloc(length + 1) : NULL;
    if (text == NULL) {
        reader->failed = true;
        return NULL;
    }
    memcpy(text, data, length);
    text[length] = '\0';
    return text;
}
