/* An arithmetic coder: tokens as intervals of [0, 2^32) to bytes, and back.
 *
 * A range coder (Martin, 1979) over a 64-bit interval [low, low + range). A token's interval is
 * taken of range / 2^32, rounded down; then the bytes that can no longer change but by a carry are
 * written, and a carry runs back through what was written. As range is at least 2^56 before each
 * token, rounding costs at most 2^-24 of it, a ten-millionth of a bit, and one byte ends it all: a
 * file is longer than the code length by hardly more than that byte. */
#ifndef FAIRWAY_ARITHMETIC_CODER_H
#define FAIRWAY_ARITHMETIC_CODER_H

#include "bytes.h"

struct arithmetic_encoder {
    uint64_t low, range;
    struct bytes bytes;
};

void arithmetic_encoder_begin(struct arithmetic_encoder *encoder);

/* Append what has the interval [first, end), first < end <= 2^32. */
void arithmetic_encode(struct arithmetic_encoder *encoder, uint64_t first, uint64_t end);

/* The last byte; then `bytes` is complete, and is the caller's to free. E_MEMORY. */
fw_status arithmetic_encoder_end(struct arithmetic_encoder *encoder, fw_error *error);

struct arithmetic_decoder {
    const uint8_t *data;
    size_t size;
    size_t read; /* bytes, with zeros that stand for those behind the end */
    uint64_t code, range;
};

/* `data` must outlive the decoder. */
void arithmetic_decoder_begin(struct arithmetic_decoder *decoder, const uint8_t *data, size_t size);

/* The next of n tokens with these intervals (frequencies.h). E_FORMAT: no encoder made these bytes
 * from such intervals, or they end too early. */
fw_status arithmetic_decode(struct arithmetic_decoder *decoder, const uint64_t *cumulative,
                            uint32_t n, uint32_t *token, fw_error *error);

/* E_FORMAT unless the bytes end where an encoder would have ended them. */
fw_status arithmetic_decoder_end(const struct arithmetic_decoder *decoder, fw_error *error);

#endif
