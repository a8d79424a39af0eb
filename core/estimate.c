#include "estimate.h"

#include <math.h>
#include <stdlib.h>

enum { PROBABILITY_BITS = 11, ADAPTATION = 5, PROBABILITY_STEP = 4 };

struct estimation {
    const fw_stream *streams;
    float cost[1 << (PROBABILITY_BITS - PROBABILITY_STEP)]; /* bits, by probability */
    double *bits;                                           /* by stream */
};

static double code_bits(const struct estimation *estimation, const uint8_t *data, size_t n,
                        size_t width) {
    uint16_t models[8][256];
    double bits = 0;
    for (size_t i = 0; i < 8; i++)
        for (size_t k = 0; k < 256; k++) models[i][k] = 1 << (PROBABILITY_BITS - 1);
    for (size_t i = 0; i < n; i++) {
        uint16_t *model = models[i % width];
        float sum = 0;
        uint32_t node = 1;
        for (int shift = 7; shift >= 0; shift--) {
            const uint32_t bit = data[i] >> shift & 1u, zero = model[node];
            const uint32_t seen = bit ? (1u << PROBABILITY_BITS) - zero : zero;
            sum += estimation->cost[seen >> PROBABILITY_STEP];
            model[node] =
                (uint16_t)(bit ? zero - (zero >> ADAPTATION)
                               : zero + (((1u << PROBABILITY_BITS) - zero) >> ADAPTATION));
            node = node << 1 | bit;
        }
        bits += (double)sum;
    }
    return bits;
}

static void estimate_streams(void *argument, int64_t begin, int64_t end) {
    struct estimation *estimation = argument;
    for (int64_t i = begin; i < end; i++) {
        const fw_stream *stream = &estimation->streams[i];
        const size_t width = fw_dtype_size(stream->dtype);
        estimation->bits[i] = code_bits(estimation, stream->data,
                                        (size_t)(stream->rows * stream->columns) * width, width);
    }
}

fw_status estimate_bytes(const fw_host *host, const fw_stream *streams, uint32_t n_streams,
                         double *estimate, fw_error *error) {
    struct estimation estimation = {.streams = streams};
    const uint32_t levels = sizeof estimation.cost / sizeof estimation.cost[0];
    estimation.bits = calloc(n_streams + 1u, sizeof *estimation.bits);
    if (estimation.bits == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for an estimate");
    for (uint32_t i = 0; i < levels; i++) estimation.cost[i] = (float)-log2((i + 0.5) / levels);
    host->parallel_for(host, n_streams, 1, estimate_streams, &estimation);
    *estimate = 0;
    for (uint32_t i = 0; i < n_streams; i++) *estimate += estimation.bits[i] / 8;
    free(estimation.bits);
    return FW_OK;
}
