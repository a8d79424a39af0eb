/* What quantization-aware training needs: the largest magnitude of each row, and rounding each row
 * to a symmetric grid. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

fw_status cpu_row_absmax(fw_device *device, const fw_row_absmax *p, fw_error *error) {
    const char *op = "row_absmax";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(cpu_check_matrix(op, "x", &p->x, FW_F32, -1, -1, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(cpu_check_packed(op, "absmax", &p->absmax, FW_F32, rows, error));
    float *absmax = (float *)p->absmax.data;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * columns > CPU_PARALLEL_ELEMENTS)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = cpu_row(&p->x, r);
        float largest = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < columns; i++)
            largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        absmax[r] = largest;
    }
    return FW_OK;
}

/* rintf rounds half to even in the default rounding mode, which nothing here changes. */
static void quantize_row(const float *x, float *out, int64_t n, float scale, float levels) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float level = rintf(x[i] / scale);
        const float above = level < -levels ? -levels : level;
        out[i] = scale * (above > levels ? levels : above);
    }
}

fw_status cpu_fake_quantize(fw_device *device, const fw_fake_quantize *p, fw_error *error) {
    const char *op = "fake_quantize";
    CPU_ARGUMENTS_SINCE(op, device, p, out, error);
    FW_TRY(cpu_check_matrix(op, "x", &p->x, FW_F32, -1, -1, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(cpu_check_matrix(op, "out", &p->out, FW_F32, rows, columns, error));
    FW_TRY(cpu_check_packed(op, "scale", &p->scale, FW_F32, rows, error));
    const int copies = p->step != NULL && !p->step->quantize;
    const float *scale = (const float *)p->scale.data;
    const float least = FW_COVERS(p, scale_floor) ? p->scale_floor : 0.0f;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * columns > CPU_PARALLEL_ELEMENTS)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = cpu_row(&p->x, r);
        float *out = cpu_row(&p->out, r);
        const float s = scale[r] < least ? least : scale[r]; /* a NaN stays one, and shows */
        if (copies)
            memmove(out, x, (size_t)columns * sizeof *out);
        else if (s == 0.0f)
            memset(out, 0, (size_t)columns * sizeof *out);
        else
            quantize_row(x, out, columns, s, (float)p->levels);
    }
    return FW_OK;
}
