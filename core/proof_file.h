/* The file that `fairway prove` writes: spans of tokens, coded by a model that the reader has too.
 *
 *   4 bytes   "FWP" and 0x1a
 *   u8        format version, 1
 *   u8        1: the tokens were turned into text by a tokenizer; 0: they count as tokens
 *   u8        number of pins, then a u16 for each: what must be equal to decode it (proof_pins.h)
 *   8 bytes   the first of the SHA-256 of all tokens, as uint16
 *   varint    number of spans, varint tokens of each
 *   ...       the coded tokens (arithmetic_coder.h), all spans in one
 *   8 bytes   the first of the SHA-256 of everything before them
 *
 * Integers are little-endian, a varint has 7 bits in a byte, the lowest first, and its last byte
 * has no top bit. The pins are short because all bytes of the file are held against the claim. */
#ifndef FAIRWAY_PROOF_FILE_H
#define FAIRWAY_PROOF_FILE_H

#include "bytes.h"

enum { PROOF_MOST_PINS = 24, PROOF_HASH_BYTES = 8 };
#define PROOF_MOST_TOKENS (UINT64_C(1) << 34)

struct proof_file {
    bool text;
    uint32_t n_pins;
    uint16_t pins[PROOF_MOST_PINS];
    uint8_t tokens_hash[PROOF_HASH_BYTES];
    uint64_t spans, span_tokens;
    const uint8_t *coded; /* within what was read; the caller's when written */
    size_t coded_bytes;
};

/* Append the file to `out`, whose `failed` says if memory ran out. */
void proof_file_write(const struct proof_file *file, struct bytes *out);

/* `file` points into `data`. Errors, each a sentence without the file's name: E_FORMAT (no such
 * file, another version, truncated, impossible numbers), E_CHECKSUM (damaged). */
fw_status proof_file_read(const uint8_t *data, size_t size, struct proof_file *file,
                          fw_error *error);

#endif
