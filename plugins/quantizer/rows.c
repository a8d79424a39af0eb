#include "rows.h"

#include <string.h>

#include "half.h"
#include "tensors.h"

void rows_streams(const fw_weight *weight, int levels, fw_stream *streams) {
    fw_stream *symbols = &streams[ROWS_SYMBOLS], *scales = &streams[ROWS_SCALES];
    symbols->kind = FW_STREAM_SYMBOLS;
    symbols->dtype = FW_I8;
    symbols->columns = weight->shape[1];
    symbols->symbol_min = -levels;
    symbols->symbol_max = levels;
    scales->kind = FW_STREAM_SCALES;
    scales->dtype = FW_F16;
    scales->columns = 1;
    scales->symbol_min = scales->symbol_max = 0;
    for (int i = 0; i < ROWS_STREAMS; i++) {
        streams[i].tensor = weight->index;
        streams[i].rows = weight->shape[0];
        streams[i].data = NULL;
    }
}

int rows_fit(const fw_weight *weight, const fw_stream *streams) {
    const int64_t rows = weight->shape[0], columns = weight->shape[1];
    return weight->rank == 2 &&
           tensors_fits(&streams[ROWS_SYMBOLS], FW_STREAM_SYMBOLS, FW_I8, rows, columns) &&
           tensors_fits(&streams[ROWS_SCALES], FW_STREAM_SCALES, FW_F16, rows, 1);
}

uint16_t rows_store_scale(float *scale) {
    uint16_t stored = half_from_float(*scale);
    if (*scale < HALF_LEAST_NORMAL) {
        if (half_to_float(stored) < *scale) stored++;
        *scale = half_to_float(stored);
    }
    return stored;
}

static fw_status check(const fw_weight *weight, int levels, const fw_stream *streams,
                       uint32_t n_streams, fw_error *error) {
    if (n_streams != ROWS_STREAMS)
        return fw_fail(error, FW_E_FORMAT, "%s has %u streams, but 1 or 2 are written",
                       weight->name, n_streams);
    if (!rows_fit(weight, streams))
        return fw_fail(error, FW_E_FORMAT,
                       "%s: the streams are not %lld x %lld int8 symbols and a float16 scale a row",
                       weight->name, (long long)weight->shape[0], (long long)weight->shape[1]);
    const int8_t *symbols = streams[ROWS_SYMBOLS].data;
    const uint8_t *scales = streams[ROWS_SCALES].data; /* need not be aligned */
    for (int64_t i = 0; i < weight->shape[0]; i++) {
        uint16_t scale;
        memcpy(&scale, scales + i * 2, sizeof scale);
        if (scale >= 0x7c00u)
            return fw_fail(error, FW_E_FORMAT,
                           "%s: the scale of row %lld is negative or not finite", weight->name,
                           (long long)i);
    }
    for (int64_t i = 0; i < tensors_count(weight); i++)
        if (symbols[i] < -levels || symbols[i] > levels)
            return fw_fail(error, FW_E_FORMAT, "%s: symbol %lld is %d, beyond +-%d", weight->name,
                           (long long)i, symbols[i], levels);
    return FW_OK;
}

fw_status rows_decode(const fw_weight *weight, int levels, const fw_stream *streams,
                      uint32_t n_streams, float *values, fw_error *error) {
    FW_TRY(check(weight, levels, streams, n_streams, error));
    const int64_t columns = weight->shape[1];
    const int8_t *symbols = streams[ROWS_SYMBOLS].data;
    const uint8_t *scales = streams[ROWS_SCALES].data;
    for (int64_t row = 0; row < weight->shape[0]; row++) {
        uint16_t stored;
        memcpy(&stored, scales + row * 2, sizeof stored);
        const float scale = half_to_float(stored);
        for (int64_t i = row * columns; i < (row + 1) * columns; i++)
            values[i] = scale * (float)symbols[i];
    }
    return FW_OK;
}
