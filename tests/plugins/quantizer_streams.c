#include "quantizer_streams.h"

#include <math.h>

#include "support.h"

void packed_free(packed *p) {
    for (uint32_t i = 0; i < p->n; i++) guarded_free(&p->buffers[i]);
}

size_t stream_bytes(const fw_stream *stream) {
    return (size_t)stream->rows * (size_t)stream->columns * fw_dtype_size(stream->dtype);
}

void stream_check(const fw_stream *stream, uint32_t index) {
    assert_true(stream->kind >= FW_STREAM_SYMBOLS && stream->kind <= FW_STREAM_OTHER);
    assert_true(fw_dtype_size(stream->dtype) > 0);
    assert_true(stream->rows >= 0 && stream->columns >= 0);
    assert_true(stream->symbol_min <= stream->symbol_max);
    assert_int_equal(stream->tensor, index);
    assert_null(stream->data);
}

static int64_t symbol(const fw_stream *stream, int64_t i) {
    const uint8_t *data = stream->data;
    uint16_t wide;
    switch (stream->dtype) {
    case FW_I8: return ((const int8_t *)data)[i];
    case FW_U8: return data[i];
    case FW_U16: memcpy(&wide, data + 2 * i, sizeof wide); return wide;
    default: fail_msg("symbols of type %u", stream->dtype); return 0;
    }
}

void packed_check_symbols(const packed *p) {
    for (uint32_t i = 0; i < p->n; i++) {
        const fw_stream *stream = &p->streams[i];
        if (stream->kind != FW_STREAM_SYMBOLS || stream->symbol_min == stream->symbol_max) continue;
        for (int64_t k = 0; k < stream->rows * stream->columns; k++)
            if (symbol(stream, k) < stream->symbol_min || symbol(stream, k) > stream->symbol_max)
                fail_msg("symbol %lld is outside the declared range", (long long)k);
    }
}

double packed_tolerance(const packed *p) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->streams[i].kind == FW_STREAM_SYMBOLS) {
            const int64_t levels = p->streams[i].symbol_max;
            return levels > 0 ? 1.1 * 4 / ((double)levels * sqrt(12)) : 0.25;
        }
    return p->streams[0].kind == FW_STREAM_FLOATS ? 0x1p-11 : 0.25;
}

int packed_is_quantized(const packed *p) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->streams[i].kind != FW_STREAM_FLOATS) return 1;
    return 0;
}
