/* RMS normalisation over the last dimension, forward and backward (Zhang and Sennrich, 2019). */
#include "cpu.h"

#include <math.h>
#include <omp.h>

static void forward_row(const float *x, float *out, float *inverse_rms, int64_t width,
                        float epsilon, float scale) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++) squares += x[i] * x[i];
    const float r = 1.0f / sqrtf(squares / (float)width + epsilon);
    const float factor = scale * r;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) out[i] = factor * x[i];
    *inverse_rms = r;
}

static void backward_row(const fw_rmsnorm *a, int64_t row, float r) {
    const int64_t width = a->x.shape[1];
    const float *x = cpu_row(&a->x, row), *d_out = cpu_row(&a->d_out, row);
    float *d_x = cpu_row(&a->d_x, row), dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; i++) dot += d_out[i] * x[i];
    const float factor = a->scale * r, pull = factor * r * r * dot / (float)width;
    if (a->accumulate) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) d_x[i] += factor * d_out[i] - pull * x[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) d_x[i] = factor * d_out[i] - pull * x[i];
    }
}

static fw_status check(const char *op, const fw_rmsnorm *a, fw_error *error) {
    FW_TRY(cpu_check_matrix(op, "x", &a->x, FW_F32, -1, -1, error));
    return cpu_check_packed(op, "inverse_rms", &a->inverse_rms, FW_F32, a->x.shape[0], error);
}

fw_status cpu_rmsnorm_forward(fw_device *device, const fw_rmsnorm *a, fw_error *error) {
    CPU_ARGUMENTS("rmsnorm_forward", device, a, error);
    FW_TRY(check("rmsnorm_forward", a, error));
    const int64_t rows = a->x.shape[0], width = a->x.shape[1];
    FW_TRY(cpu_check_matrix("rmsnorm_forward", "out", &a->out, FW_F32, rows, width, error));
    float *inverse_rms = (float *)a->inverse_rms.data;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * width > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++)
        forward_row(cpu_row(&a->x, i), cpu_row(&a->out, i), &inverse_rms[i], width, a->epsilon,
                    a->scale);
    return FW_OK;
}

fw_status cpu_rmsnorm_backward(fw_device *device, const fw_rmsnorm *a, fw_error *error) {
    const char *op = "rmsnorm_backward";
    CPU_ARGUMENTS(op, device, a, error);
    FW_TRY(check(op, a, error));
    const int64_t rows = a->x.shape[0], width = a->x.shape[1];
    FW_TRY(cpu_check_matrix(op, "d_out", &a->d_out, FW_F32, rows, width, error));
    FW_TRY(cpu_check_matrix(op, "d_x", &a->d_x, FW_F32, rows, width, error));
    const float *inverse_rms = (const float *)a->inverse_rms.data;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * width > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++) backward_row(a, i, inverse_rms[i]);
    return FW_OK;
}
