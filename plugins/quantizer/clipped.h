/* Rows clipped at a percentile of their magnitudes, then rounded to a symmetric grid:
 *
 *   clip  = the percentile's quantile of |row|, in float32
 *   scale = max(clip / levels, scale_floor), in float32
 *   q     = round_half_even(clamp(w, -clip, clip) / scale), stored with the scale in float16. */
#ifndef FAIRWAY_QUANTIZER_CLIPPED_H
#define FAIRWAY_QUANTIZER_CLIPPED_H

#include <fairway/fairway.h>

typedef struct clipped_format {
    int levels;
    float percentile, scale_floor;
} clipped_format;

/* Fill the two streams of rows.h, which fit `weight`; values below HALF_OVERFLOW * levels.
 * E_MEMORY. */
fw_status clipped_encode(const fw_host *host, const clipped_format *format, const fw_weight *weight,
                         const float *values, fw_stream *streams, fw_error *error);

#endif
