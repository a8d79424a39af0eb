/* Little-endian serialisation: a growing buffer to write to, and a bounded reader. */
#ifndef FAIRWAY_BYTES_H
#define FAIRWAY_BYTES_H

#include <fairway/error.h>
#include <stdbool.h>

/* Zero-initialise; free with bytes_free. After a failed allocation `failed` is set, and nothing
 * more is appended. */
struct bytes {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
};

void bytes_free(struct bytes *bytes);
void bytes_put(struct bytes *bytes, const void *data, size_t size);
void bytes_put_u8(struct bytes *bytes, uint8_t value);
void bytes_put_u32(struct bytes *bytes, uint32_t value);
void bytes_put_u64(struct bytes *bytes, uint64_t value);
void bytes_put_text(struct bytes *bytes, const char *text); /* u32 length, then the characters */

/* Reads from `data` at `offset`; a read past the end sets `failed` and yields zeros. */
struct byte_reader {
    const uint8_t *data;
    size_t size, offset;
    bool failed;
};

/* A pointer to the next `size` bytes, NULL when there are fewer. */
const uint8_t *bytes_take(struct byte_reader *reader, size_t size);
uint32_t bytes_take_u32(struct byte_reader *reader);
uint64_t bytes_take_u64(struct byte_reader *reader);
char *bytes_take_text(struct byte_reader *reader); /* caller frees; NULL on failure */

#endif
