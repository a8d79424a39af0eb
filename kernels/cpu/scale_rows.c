/* Rows of a weight times a value each, and the gradients of both. */
#include "cpu.h"

#include <omp.h>

fw_status cpu_scale_rows_forward(fw_device *device, const fw_scale_rows *p, fw_error *error) {
    const char *op = "scale_rows_forward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(cpu_check_matrix(op, "x", &p->x, FW_F32, -1, -1, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(cpu_check_packed(op, "scale", &p->scale, FW_F32, rows, error));
    FW_TRY(cpu_check_matrix(op, "out", &p->out, FW_F32, rows, columns, error));
    const float *scale = (const float *)p->scale.data;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * columns > CPU_PARALLEL_ELEMENTS)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = cpu_row(&p->x, r);
        float *out = cpu_row(&p->out, r);
#pragma omp simd
        for (int64_t i = 0; i < columns; i++) out[i] = scale[r] * x[i];
    }
    return FW_OK;
}

static fw_status check_backward(const fw_scale_rows *p, fw_error *error) {
    const char *op = "scale_rows_backward";
    FW_TRY(cpu_check_matrix(op, "x", &p->x, FW_F32, -1, -1, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(cpu_check_packed(op, "scale", &p->scale, FW_F32, rows, error));
    FW_TRY(cpu_check_matrix(op, "d_out", &p->d_out, FW_F32, rows, columns, error));
    FW_TRY(cpu_check_matrix(op, "d_x", &p->d_x, FW_F32, rows, columns, error));
    return cpu_check_packed(op, "d_scale", &p->d_scale, FW_F32, rows, error);
}

static void backward_row(const fw_scale_rows *p, int64_t row, int64_t columns) {
    const float scale = ((const float *)p->scale.data)[row];
    const float *x = cpu_row(&p->x, row), *d_out = cpu_row(&p->d_out, row);
    float *d_x = cpu_row(&p->d_x, row), *d_scale = (float *)p->d_scale.data + row;
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < columns; i++) {
        sum += (double)x[i] * (double)d_out[i];
        d_x[i] = (p->accumulate ? d_x[i] : 0.0f) + scale * d_out[i];
    }
    *d_scale = (float)((p->accumulate ? (double)*d_scale : 0.0) + sum);
}

fw_status cpu_scale_rows_backward(fw_device *device, const fw_scale_rows *p, fw_error *error) {
    CPU_ARGUMENTS("scale_rows_backward", device, p, error);
    FW_TRY(check_backward(p, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * columns > CPU_PARALLEL_ELEMENTS)
    for (int64_t r = 0; r < rows; r++) backward_row(p, r, columns);
    return FW_OK;
}
