#include "clipped.h"

#include <math.h>
#include <string.h>

#include "quantile.h"
#include "rows.h"
#include "tensors.h"

/* One tensor on its way into its streams; rows are independent of each other. */
typedef struct row_job {
    const clipped_format *format;
    const float *values;
    float *magnitudes; /* scratch of the tensor's size */
    int64_t columns;
    int8_t *symbols;
    uint8_t *scales;
} row_job;

static void encode_row(const row_job *job, int64_t row) {
    const int64_t columns = job->columns;
    const float levels = (float)job->format->levels;
    const float *values = job->values + row * columns;
    float *magnitudes = job->magnitudes + row * columns;
    int8_t *symbols = job->symbols + row * columns;
    for (int64_t i = 0; i < columns; i++) magnitudes[i] = fabsf(values[i]);

    const float clip = quantile(magnitudes, columns, job->format->percentile);
    float scale = fmaxf(clip / levels, job->format->scale_floor);
    const uint16_t stored = rows_store_scale(&scale);
    memcpy(job->scales + row * 2, &stored, sizeof stored);
    for (int64_t i = 0; i < columns; i++) {
        const float clipped = fminf(fmaxf(values[i], -clip), clip);
        const float q = scale > 0 ? rintf(clipped / scale) : 0.0f;
        symbols[i] = (int8_t)fminf(fmaxf(q, -levels), levels);
    }
}

static void encode_rows(void *argument, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) encode_row(argument, row);
}

fw_status clipped_encode(const fw_host *host, const clipped_format *format, const fw_weight *weight,
                         const float *values, fw_stream *streams, fw_error *error) {
    const int64_t count = tensors_count(weight);
    if (count == 0) return FW_OK;
    float *magnitudes = host->allocate(host, (size_t)count * sizeof *magnitudes);
    if (magnitudes == NULL)
        return fw_fail(error, FW_E_MEMORY, "%s: no memory for %lld values", weight->name,
                       (long long)count);
    row_job job = {.format = format,
                   .values = values,
                   .magnitudes = magnitudes,
                   .columns = weight->shape[1],
                   .symbols = streams[ROWS_SYMBOLS].data,
                   .scales = streams[ROWS_SCALES].data};
    host->parallel_for(host, weight->shape[0], 16, encode_rows, &job);
    host->release(host, magnitudes);
    return FW_OK;
}
