#include "code_bundle.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 512 };

/* A ustar header; every field is text. */
struct header {
    char name[100], mode[8], owner[8], group[8], size[12], time[12], checksum[8], type;
    char link[100], magic[6], version[2], owner_name[32], group_name[32], device[16], prefix[155];
    char rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

static bool is_zero(const uint8_t *block) {
    for (int i = 0; i < BLOCK; i++)
        if (block[i] != 0) return false;
    return true;
}

/* Bytes of the file behind a header, in whole blocks; SIZE_MAX when the header does not say. */
static size_t file_blocks(const uint8_t *block) {
    const uint8_t *digit = block + offsetof(struct header, size);
    size_t size = 0, n = 0;
    for (; n < sizeof((struct header){0}.size) && digit[n] >= '0' && digit[n] <= '7'; n++)
        size = size * 8 + (size_t)(digit[n] - '0');
    return n > 0 ? (size + BLOCK - 1) / BLOCK * BLOCK : SIZE_MAX;
}

/* Where the end mark begins, a block of zeros where a header would be; 0 when there is none. */
static size_t end_of_files(const uint8_t *tar, size_t size) {
    size_t at = 0;
    while (size - at >= BLOCK && !is_zero(tar + at)) {
        const size_t file = file_blocks(tar + at), left = size - at - BLOCK;
        if (file > left) return 0;
        at += BLOCK + file;
    }
    return size - at >= BLOCK ? at : 0;
}

bool bundle_put_tar(struct bytes *bundle, const uint8_t *tar, size_t size) {
    if (size < BLOCK || size % BLOCK != 0) return false;
    if (memcmp(tar + offsetof(struct header, magic), "ustar", 5) != 0) return false;
    const size_t end = end_of_files(tar, size);
    if (end > 0) bytes_put(bundle, tar, end);
    return end > 0;
}

static void seal(struct header *header) {
    memset(header->checksum, ' ', sizeof header->checksum);
    unsigned sum = 0;
    const unsigned char *bytes = (const unsigned char *)header;
    for (size_t i = 0; i < sizeof *header; i++) sum += bytes[i];
    (void)snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
}

void bundle_put_binary(struct bytes *bundle, const char *name, const uint8_t *data, size_t size) {
    static const uint8_t zeros[BLOCK];
    struct header header = {.mode = "0000755",
                            .owner = "0000000",
                            .group = "0000000",
                            .time = "00000000000",
                            .type = '0',
                            .magic = "ustar",
                            .version = {'0', '0'}};
    (void)snprintf(header.name, sizeof header.name, "binaries/%.80s", name);
    (void)snprintf(header.size, sizeof header.size, "%011zo", size);
    seal(&header);
    bytes_put(bundle, &header, sizeof header);
    bytes_put(bundle, data, size);
    bytes_put(bundle, zeros, (BLOCK - size % BLOCK) % BLOCK);
}

void bundle_end(struct bytes *bundle) {
    static const uint8_t zeros[2 * BLOCK];
    bytes_put(bundle, zeros, sizeof zeros);
}
