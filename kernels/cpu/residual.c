/* The residual stream in one pass: a weighted sum of two rows and the norm that follows it, forward
 * and backward. Optional operands are replaced by rows of ones or zeros in the workspace, so that
 * one loop serves every case. Gradients of the weights are summed in double, each thread over its
 * own contiguous rows, then over threads in order: the result depends on the number of threads but
 * never on timing. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* What one thread works with, carved from its workspace. */
typedef struct scratch {
    double *d_weight_a, *d_weight_b;
    float *ones, *zeros, *sink;
} scratch;

_Static_assert(CPU_MAX_WIDTH *(2 * sizeof(double) + 3 * sizeof(float)) <= CPU_WORKSPACE_BYTES,
               "a residual row must fit the workspace");

static scratch carve(const cpu_device *cpu, int thread, int64_t width) {
    scratch s = {.d_weight_a = (double *)cpu_workspace(cpu, thread)};
    s.d_weight_b = s.d_weight_a + width;
    s.ones = (float *)(s.d_weight_b + width);
    s.zeros = s.ones + width;
    s.sink = s.zeros + width;
    for (int64_t i = 0; i < width; i++) {
        s.d_weight_a[i] = s.d_weight_b[i] = 0.0;
        s.ones[i] = 1.0f;
        s.zeros[i] = 0.0f;
    }
    return s;
}

static const float *row_or(const fw_tensor *matrix, int64_t row, const float *fallback) {
    return matrix->data == NULL ? fallback : cpu_row(matrix, row);
}

static const float *vector_or(const fw_tensor *vector, const float *fallback) {
    return vector->data == NULL ? fallback : (const float *)vector->data;
}

static void forward_row(const fw_residual_norm *p, const scratch *s, int64_t row, int64_t width) {
    const float *a = cpu_row(&p->a, row), *b = row_or(&p->b, row, s->zeros);
    const float *wa = vector_or(&p->weight_a, s->ones), *wb = vector_or(&p->weight_b, s->ones);
    float *sum = cpu_row(&p->sum, row), squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++) {
        const float value = a[i] * wa[i] + b[i] * wb[i];
        sum[i] = value;
        squares += value * value;
    }
    if (p->out.data == NULL) return;
    const float r = 1.0f / sqrtf(squares / (float)width + p->epsilon), factor = p->scale * r;
    float *out = cpu_row(&p->out, row);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) out[i] = factor * sum[i];
    ((float *)p->inverse_rms.data)[row] = r;
}

/* The slope of the norm: d = d_sum + factor * d_out - pull * sum. */
typedef struct slope {
    float factor, pull;
} slope;

static slope norm_slope(const fw_residual_norm *p, int64_t row, int64_t width) {
    if (p->d_out.data == NULL) return (slope){0.0f, 0.0f};
    const float *x = cpu_row(&p->sum, row), *d_out = cpu_row(&p->d_out, row);
    const float r = ((const float *)p->inverse_rms.data)[row];
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; i++) dot += d_out[i] * x[i];
    const float factor = p->scale * r;
    return (slope){factor, factor * r * r * dot / (float)width};
}

static void add_weight_gradient(double *total, const float *d, const float *x, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; i++) total[i] += (double)(d[i] * x[i]);
}

static void backward_row(const fw_residual_norm *p, const scratch *s, int64_t row, int64_t width) {
    const slope n = norm_slope(p, row, width);
    const float *d_sum = row_or(&p->d_sum, row, s->zeros);
    const float *d_out = row_or(&p->d_out, row, s->zeros);
    const float *x = p->d_out.data == NULL ? s->zeros : cpu_row(&p->sum, row);
    float *d = s->sink;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) d[i] = d_sum[i] + (n.factor * d_out[i] - n.pull * x[i]);
    if (p->d_weight_a.data != NULL)
        add_weight_gradient(s->d_weight_a, d, cpu_row(&p->a, row), width);
    if (p->d_weight_b.data != NULL)
        add_weight_gradient(s->d_weight_b, d, cpu_row(&p->b, row), width);
    if (p->d_b.data != NULL) {
        const float *wb = vector_or(&p->weight_b, s->ones), keep = p->accumulate_b ? 1.0f : 0.0f;
        float *d_b = cpu_row(&p->d_b, row);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) d_b[i] = (keep > 0.0f ? d_b[i] : 0.0f) + d[i] * wb[i];
    }
    if (p->d_a.data == NULL) return;
    const float *wa = vector_or(&p->weight_a, s->ones);
    float *d_a = cpu_row(&p->d_a, row);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) d_a[i] = d[i] * wa[i];
}

static fw_status check_forward(const fw_residual_norm *p, fw_error *error) {
    const char *op = "residual_norm_forward";
    FW_TRY(cpu_check_matrix(op, "a", &p->a, FW_F32, -1, -1, error));
    const int64_t rows = p->a.shape[0], width = p->a.shape[1];
    if (width > CPU_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: a has %lld columns, at most %d are supported",
                       op, (long long)width, CPU_MAX_WIDTH);
    FW_TRY(cpu_check_matrix(op, "sum", &p->sum, FW_F32, rows, width, error));
    if (p->weight_a.data != NULL)
        FW_TRY(cpu_check_packed(op, "weight_a", &p->weight_a, FW_F32, width, error));
    if (p->b.data != NULL) FW_TRY(cpu_check_matrix(op, "b", &p->b, FW_F32, rows, width, error));
    if (p->b.data != NULL && p->weight_b.data != NULL)
        FW_TRY(cpu_check_packed(op, "weight_b", &p->weight_b, FW_F32, width, error));
    if (p->out.data == NULL) return FW_OK;
    FW_TRY(cpu_check_matrix(op, "out", &p->out, FW_F32, rows, width, error));
    return cpu_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, rows, error);
}

fw_status cpu_residual_norm_forward(fw_device *device, const fw_residual_norm *p, fw_error *error) {
    CPU_ARGUMENTS("residual_norm_forward", device, p, error);
    FW_TRY(check_forward(p, error));
    const cpu_device *cpu = cpu_self(device);
    const int64_t rows = p->a.shape[0], width = p->a.shape[1];
#pragma omp parallel num_threads(cpu->threads) if (rows * width > CPU_PARALLEL_ELEMENTS)
    {
        const scratch s = carve(cpu, omp_get_thread_num(), width);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) forward_row(p, &s, i, width);
    }
    return FW_OK;
}

static fw_status check_optional(const char *op, const char *name, const fw_tensor *tensor,
                                int64_t rows, int64_t width, fw_error *error) {
    if (tensor->data == NULL) return FW_OK;
    if (rows < 0) return cpu_check_packed(op, name, tensor, FW_F32, width, error);
    return cpu_check_matrix(op, name, tensor, FW_F32, rows, width, error);
}

/* The rows and columns of a backward call, from whichever of its matrices is there. */
static fw_status check_backward(const fw_residual_norm *p, int64_t *rows, int64_t *width,
                                fw_error *error) {
    const char *op = "residual_norm_backward";
    const fw_tensor *any = p->d_a.data != NULL ? &p->d_a : p->d_b.data != NULL ? &p->d_b : &p->a;
    FW_TRY(cpu_check_matrix(op, "d_a", any, FW_F32, -1, -1, error));
    const int64_t n = any->shape[0], c = any->shape[1];
    if (c > CPU_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: rows of %lld, at most %d are supported", op,
                       (long long)c, CPU_MAX_WIDTH);
    FW_TRY(check_optional(op, "d_b", &p->d_b, n, c, error));
    FW_TRY(check_optional(op, "d_sum", &p->d_sum, n, c, error));
    FW_TRY(check_optional(op, "d_out", &p->d_out, n, c, error));
    FW_TRY(check_optional(op, "weight_a", &p->weight_a, -1, c, error));
    FW_TRY(check_optional(op, "weight_b", &p->weight_b, -1, c, error));
    FW_TRY(check_optional(op, "d_weight_a", &p->d_weight_a, -1, c, error));
    FW_TRY(check_optional(op, "d_weight_b", &p->d_weight_b, -1, c, error));
    if (p->d_weight_a.data != NULL) FW_TRY(cpu_check_matrix(op, "a", &p->a, FW_F32, n, c, error));
    if (p->d_weight_b.data != NULL) FW_TRY(cpu_check_matrix(op, "b", &p->b, FW_F32, n, c, error));
    if (p->d_out.data != NULL) {
        FW_TRY(cpu_check_matrix(op, "sum", &p->sum, FW_F32, n, c, error));
        FW_TRY(cpu_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, n, error));
    }
    *rows = n;
    *width = c;
    return FW_OK;
}

/* The threads' sums, in order of thread. */
static void store_weight_gradient(const fw_tensor *to, const cpu_device *cpu, int threads,
                                  int64_t width, int second, uint32_t accumulate) {
    float *out = (float *)to->data;
    if (out == NULL) return;
    for (int64_t i = 0; i < width; i++) {
        double total = accumulate ? (double)out[i] : 0.0;
        for (int t = 0; t < threads; t++)
            total += ((const double *)cpu_workspace(cpu, t))[second * width + i];
        out[i] = (float)total;
    }
}

fw_status cpu_residual_norm_backward(fw_device *device, const fw_residual_norm *p,
                                     fw_error *error) {
    CPU_ARGUMENTS("residual_norm_backward", device, p, error);
    int64_t rows = 0, width = 0;
    FW_TRY(check_backward(p, &rows, &width, error));
    const cpu_device *cpu = cpu_self(device);
    int threads = 1;
#pragma omp parallel num_threads(cpu->threads) if (rows * width > CPU_PARALLEL_ELEMENTS)
    {
        const scratch s = carve(cpu, omp_get_thread_num(), width);
#pragma omp single
        threads = omp_get_num_threads();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) backward_row(p, &s, i, width);
    }
    store_weight_gradient(&p->d_weight_a, cpu, threads, width, 0, p->accumulate);
    store_weight_gradient(&p->d_weight_b, cpu, threads, width, 1, p->accumulate);
    return FW_OK;
}
