/* The streams of one packed tensor: their buffers, and what they must look like by themselves. */
#ifndef QUANTIZER_STREAMS_H
#define QUANTIZER_STREAMS_H

#include <fairway/fairway.h>

#include "guarded.h"

typedef struct packed {
    uint32_t n;
    fw_stream streams[FW_MAX_STREAMS + 1]; /* one more, for a test of too many */
    guarded buffers[FW_MAX_STREAMS];
} packed;

void packed_free(packed *p);

size_t stream_bytes(const fw_stream *stream);

/* Fails the test unless the description is one of tensor `index` that fairway/quantizer.h allows.
 */
void stream_check(const fw_stream *stream, uint32_t index);

/* Fails the test when a symbol lies outside the range that its stream declares. */
void packed_check_symbols(const packed *p);

int packed_is_quantized(const packed *p);

/* Relative error allowed for normal values: of uniform rounding with 2L + 1 levels when a row is
 * clipped at 4 standard deviations, and a tenth more; of float16; a quarter when unknown. */
double packed_tolerance(const packed *p);

#endif
