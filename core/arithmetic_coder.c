#include "arithmetic_coder.h"

enum { TOTAL_BITS = 32, TOP_SHIFT = 56, CODE_BYTES = 8 };
#define LEAST_RANGE (UINT64_C(1) << TOP_SHIFT)

/* ---- to bytes ---- */

void arithmetic_encoder_begin(struct arithmetic_encoder *encoder) {
    *encoder = (struct arithmetic_encoder){.range = UINT64_MAX};
}

/* low has run over: one more for what was written. Its first byte never runs over, because the
 * whole of the code lies below 1. */
static void carry(struct bytes *bytes) {
    size_t i = bytes->size;
    while (i > 0 && ++bytes->data[--i] == 0) {
    }
}

static void add_to_low(struct arithmetic_encoder *encoder, uint64_t offset) {
    encoder->low += offset;
    if (encoder->low < offset) carry(&encoder->bytes);
}

static void put_top_byte(struct arithmetic_encoder *encoder) {
    bytes_put_u8(&encoder->bytes, (uint8_t)(encoder->low >> TOP_SHIFT));
    encoder->low <<= 8;
}

void arithmetic_encode(struct arithmetic_encoder *encoder, uint64_t first, uint64_t end) {
    const uint64_t unit = encoder->range >> TOTAL_BITS;
    add_to_low(encoder, unit * first);
    encoder->range = unit * (end - first);
    while (encoder->range < LEAST_RANGE) {
        put_top_byte(encoder);
        encoder->range <<= 8;
    }
}

/* The multiple of LEAST_RANGE at or above low lies within the range; zeros follow it. */
fw_status arithmetic_encoder_end(struct arithmetic_encoder *encoder, fw_error *error) {
    add_to_low(encoder, LEAST_RANGE - 1);
    put_top_byte(encoder);
    if (!encoder->bytes.failed) return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory for the coded tokens");
}

/* ---- from bytes ---- */

static void take_byte(struct arithmetic_decoder *decoder) {
    const size_t at = decoder->read++;
    decoder->code = decoder->code << 8 | (at < decoder->size ? decoder->data[at] : 0);
}

void arithmetic_decoder_begin(struct arithmetic_decoder *decoder, const uint8_t *data,
                              size_t size) {
    *decoder = (struct arithmetic_decoder){.data = data, .size = size, .range = UINT64_MAX};
    for (int i = 0; i < CODE_BYTES; i++) take_byte(decoder);
}

/* The token whose interval holds `value`, which is below cumulative[n]. */
static uint32_t find(const uint64_t *cumulative, uint32_t n, uint64_t value) {
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (cumulative[middle] <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* All but the last byte follow from the tokens, and of zeros only as many are read as fill the
 * code. */
static size_t most_read(const struct arithmetic_decoder *decoder) {
    return decoder->size + CODE_BYTES - 1;
}

fw_status arithmetic_decode(struct arithmetic_decoder *decoder, const uint64_t *cumulative,
                            uint32_t n, uint32_t *token, fw_error *error) {
    const uint64_t unit = decoder->range >> TOTAL_BITS, value = decoder->code / unit;
    if (value >= cumulative[n])
        return fw_fail(error, FW_E_FORMAT,
                       "byte %zu of the coded tokens is none that an encoder makes", decoder->read);
    const uint32_t found = find(cumulative, n, value);
    decoder->code -= unit * cumulative[found];
    decoder->range = unit * (cumulative[found + 1] - cumulative[found]);
    while (decoder->range < LEAST_RANGE) {
        take_byte(decoder);
        decoder->range <<= 8;
    }
    if (decoder->read > most_read(decoder))
        return fw_fail(error, FW_E_FORMAT, "the coded tokens end after %zu bytes, before the last",
                       decoder->size);
    *token = found;
    return FW_OK;
}

fw_status arithmetic_decoder_end(const struct arithmetic_decoder *decoder, fw_error *error) {
    if (decoder->read == most_read(decoder)) return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%zu bytes follow the last of the coded tokens, where none should",
                   most_read(decoder) - decoder->read);
}
