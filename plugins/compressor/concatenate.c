/* Streams as one run of bytes; see concatenate.h. */
#include "concatenate.h"

#include <string.h>

static size_t stream_bytes(const fw_stream *stream) {
    return (size_t)stream->rows * (size_t)stream->columns * fw_dtype_size(stream->dtype);
}

fw_status concatenate_size(const fw_stream *streams, uint32_t n_streams, size_t *total,
                           fw_status status, fw_error *error) {
    size_t sum = 0;
    for (uint32_t i = 0; i < n_streams; i++) {
        const fw_stream *stream = &streams[i];
        const size_t element = fw_dtype_size(stream->dtype);
        size_t bytes = 0;
        int bad = element == 0 || stream->rows < 0 || stream->columns < 0;
        if (!bad && stream->rows > 0 && stream->columns > 0) {
            const size_t rows = (size_t)stream->rows, columns = (size_t)stream->columns;
            bad = columns > SIZE_MAX / element || rows > SIZE_MAX / (element * columns);
            bytes = bad ? 0 : element * columns * rows;
        }
        if (bad || bytes > SIZE_MAX - sum)
            return fw_fail(error, status,
                           "stream %u: %lld x %lld elements of type %u is not a size of data", i,
                           (long long)stream->rows, (long long)stream->columns, stream->dtype);
        sum += bytes;
    }
    *total = sum;
    return FW_OK;
}

/* The place of a kind in the order; kinds of later versions come last. */
enum { N_PLACES = 4 };
static uint32_t place(uint32_t kind) {
    return kind >= FW_STREAM_SYMBOLS && kind < FW_STREAM_OTHER ? kind - 1 : N_PLACES - 1;
}

void concatenate_gather(const fw_stream *streams, uint32_t n_streams, void *out) {
    uint8_t *to = out;
    for (uint32_t p = 0; p < N_PLACES; p++)
        for (uint32_t i = 0; i < n_streams; i++) {
            const size_t bytes = stream_bytes(&streams[i]);
            if (place(streams[i].kind) != p || bytes == 0) continue;
            memcpy(to, streams[i].data, bytes);
            to += bytes;
        }
}

void concatenate_scatter(const void *in, const fw_stream *streams, uint32_t n_streams) {
    const uint8_t *from = in;
    for (uint32_t p = 0; p < N_PLACES; p++)
        for (uint32_t i = 0; i < n_streams; i++) {
            const size_t bytes = stream_bytes(&streams[i]);
            if (place(streams[i].kind) != p || bytes == 0) continue;
            memcpy(streams[i].data, from, bytes);
            from += bytes;
        }
}
