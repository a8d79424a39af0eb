/* Compressor: all streams of an artifact with their shapes -> bytes, and back, without loss.
 *
 * It sees every stream at once, so it may concatenate, sort or model them by kind. The result is
 * the same on every machine and thread count. */
#ifndef FAIRWAY_COMPRESSOR_H
#define FAIRWAY_COMPRESSOR_H

#include "host.h"
#include "quantizer.h"

FW_BEGIN_DECLS

typedef struct fw_compressor {
    uint32_t struct_size;
    uint32_t reserved;
    fw_status (*create)(const fw_host *host, const fw_value *values, void **self, fw_error *error);
    void (*destroy)(void *self);

    /* An upper bound of compress()'s output for these streams; data is not read. */
    size_t (*bound)(void *self, const fw_stream *streams, uint32_t n_streams);

    /* `bytes` in: capacity of `out`, out: used. E_BUFFER. [deterministic] */
    fw_status (*compress)(void *self, const fw_stream *streams, uint32_t n_streams, void *out,
                          size_t *bytes, fw_error *error);

    /* Fill the data of the streams (shapes given, buffers allocated by the host) from `bytes` bytes
     * at `in`. E_FORMAT when the bytes are damaged or do not fill the streams exactly. Never reads
     * or writes out of bounds, whatever the bytes. */
    fw_status (*decompress)(void *self, const void *in, size_t bytes, const fw_stream *streams,
                            uint32_t n_streams, fw_error *error);

    /* Optional: estimated bits of each symbol value of `stream` in its context, for rate-distortion
     * quantizers: bits[symbol - symbol_min]. */
    fw_status (*cost_model)(void *self, const fw_stream *stream, float *bits, fw_error *error);
} fw_compressor;

FW_END_DECLS

#endif
