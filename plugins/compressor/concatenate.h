/* The streams of an artifact as one run of bytes: sizes, gathering and scattering. */
#ifndef FAIRWAY_COMPRESSOR_CONCATENATE_H
#define FAIRWAY_COMPRESSOR_CONCATENATE_H

#include <fairway/fairway.h>

/* Bytes of all streams in `total`. Returns `status` with a message for an unknown element type, a
 * negative size or a sum that does not fit size_t. */
fw_status concatenate_size(const fw_stream *streams, uint32_t n_streams, size_t *total,
                           fw_status status, fw_error *error);

/* Copy the streams one after another to `out`, or from `in` to the streams. By kind: SYMBOLS, then
 * SCALES, FLOATS and the rest, each in the order given, so that alike bytes stand together. The
 * sizes have been checked by concatenate_size. */
void concatenate_gather(const fw_stream *streams, uint32_t n_streams, void *out);
void concatenate_scatter(const void *in, const fw_stream *streams, uint32_t n_streams);

#endif
