/* The artifact: one file with all that scoring needs but the code.
 *
 *   8 bytes   "FAIRWAY" and 0x1a
 *   u32       format version, 1
 *   u32       size of the packed description; u32 its size unpacked
 *   u64       size of the payload
 *   ...       description (.xz): the INI text of the sections that decide the model, the token
 * table, and kind, dtype, shape and tensor of every stream
 *   ...       payload: the compressor plugin's bytes for those streams
 *   32 bytes  SHA-256 of everything before it
 *
 * All integers are little-endian. The same contents make the same bytes. */
#ifndef FAIRWAY_ARTIFACT_H
#define FAIRWAY_ARTIFACT_H

#include <fairway/quantizer.h>

#include "token_table.h"

struct artifact {
    char *config; /* INI text */
    struct token_table *table;
    uint32_t n_streams;
    fw_stream *streams; /* data is NULL */
    uint8_t *payload;
    size_t payload_bytes;
    size_t file_bytes;  /* size of the whole file, once written or read */
    uint8_t sha256[32]; /* of the whole file, once read */
};

void artifact_free(struct artifact *artifact); /* what the fields own; the struct is the caller's */

/* Bytes of the file around a payload: header, description, hash. E_MEMORY. */
fw_status artifact_overhead(const struct artifact *artifact, size_t *bytes, fw_error *error);

/* Atomic: the file is complete or absent. Sets file_bytes. E_IO. */
fw_status artifact_write(const char *path, struct artifact *artifact, fw_error *error);

/* Errors, each with the path: E_IO; E_FORMAT (not an artifact, another version, truncated);
 * E_CHECKSUM (damaged). */
fw_status artifact_read(const char *path, struct artifact *artifact, fw_error *error);

#endif
