/* A matrix as int8 symbols -levels..levels with one float16 scale per row: its two streams and
 * their decoding, for every number of levels up to 127. Symbols are bytes whatever their range:
 * compressors make 9% to 21% more of packed bits. */
#ifndef FAIRWAY_QUANTIZER_ROWS_H
#define FAIRWAY_QUANTIZER_ROWS_H

#include <fairway/fairway.h>

enum { ROWS_SYMBOLS = 0, ROWS_SCALES = 1, ROWS_STREAMS = 2 };

/* Describe both streams; their data is NULL. */
void rows_streams(const fw_weight *weight, int levels, fw_stream *streams);

/* True when the streams are those of `weight`, with data. */
int rows_fit(const fw_weight *weight, const fw_stream *streams);

/* The scale as stored. Where float16 is subnormal its relative error is no longer small, so there
 * the scale is rounded up first, and *scale becomes what will be read back. */
uint16_t rows_store_scale(float *scale);

/* values = scale * symbol. The streams may be damaged: E_FORMAT for what no encoder writes, and
 * then nothing is written. */
fw_status rows_decode(const fw_weight *weight, int levels, const fw_stream *streams,
                      uint32_t n_streams, float *values, fw_error *error);

#endif
