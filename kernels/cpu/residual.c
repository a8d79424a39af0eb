/* The residual stream in one pass: a weighted sum of two rows and the norm that follows it, forward
 * and backward. A weight that is absent or one value for all channels becomes a row in the
 * workspace, an absent operand a row of zeros, so that one loop serves every case. Gradients of the
 * weights are summed in double, each thread over its own contiguous rows, then over threads in
 * order: the result depends on the number of threads but never on timing. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* What one thread works with, carved from its workspace. */
typedef struct scratch {
    double *d_weight_a, *d_weight_b;
    const float *weight_a, *weight_b; /* the call's, or rows that stand for them */
    float *zeros, *sink;
} scratch;

_Static_assert(CPU_MAX_WIDTH *(2 * sizeof(double) + 4 * sizeof(float)) <= CPU_WORKSPACE_BYTES,
               "a residual row must fit the workspace");

/* The weight as one value per channel: its own row where it is one, else `row` filled with its only
 * value, or with ones where it is absent. */
static const float *weight_row(const fw_tensor *weight, float *row, int64_t width) {
    const float *values = (const float *)weight->data;
    if (values != NULL && fw_tensor_count(weight) == width) return values;
    const float value = values == NULL ? 1.0f : values[0];
    for (int64_t i = 0; i < width; i++) row[i] = value;
    return row;
}

static scratch carve(const cpu_device *cpu, const fw_residual_norm *p, int thread, int64_t width) {
    scratch s = {.d_weight_a = (double *)cpu_workspace(cpu, thread)};
    s.d_weight_b = s.d_weight_a + width;
    s.zeros = (float *)(s.d_weight_b + width);
    s.sink = s.zeros + width;
    s.weight_a = weight_row(&p->weight_a, s.sink + width, width);
    const fw_tensor ones = fw_absent();
    const int uses_b = p->b.data != NULL || p->d_b.data != NULL; /* else 0 * weight_b may be NaN */
    s.weight_b = weight_row(uses_b ? &p->weight_b : &ones, s.sink + 2 * width, width);
    for (int64_t i = 0; i < width; i++) {
        s.d_weight_a[i] = s.d_weight_b[i] = 0.0;
        s.zeros[i] = 0.0f;
    }
    return s;
}

static const float *row_or(const fw_tensor *matrix, int64_t row, const float *fallback) {
    return matrix->data == NULL ? fallback : cpu_row(matrix, row);
}

static void forward_row(const fw_residual_norm *p, const scratch *s, int64_t row, int64_t width) {
    const float *a = cpu_row(&p->a, row), *b = row_or(&p->b, row, s->zeros);
    const float *wa = s->weight_a, *wb = s->weight_b;
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
        const float *wb = s->weight_b, keep = p->accumulate_b ? 1.0f : 0.0f;
        float *d_b = cpu_row(&p->d_b, row);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) d_b[i] = (keep > 0.0f ? d_b[i] : 0.0f) + d[i] * wb[i];
    }
    if (p->d_a.data == NULL) return;
    const float *wa = s->weight_a;
    float *d_a = cpu_row(&p->d_a, row);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) d_a[i] = d[i] * wa[i];
}

fw_status cpu_residual_norm_forward(fw_device *device, const fw_residual_norm *p, fw_error *error) {
    CPU_ARGUMENTS("residual_norm_forward", device, p, error);
    FW_TRY(kernel_check_residual_forward(p, FW_F32, CPU_MAX_WIDTH, error));
    const cpu_device *cpu = cpu_self(device);
    const int64_t rows = p->a.shape[0], width = p->a.shape[1];
#pragma omp parallel num_threads(cpu->threads) if (rows * width > CPU_PARALLEL_ELEMENTS)
    {
        const scratch s = carve(cpu, p, omp_get_thread_num(), width);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) forward_row(p, &s, i, width);
    }
    return FW_OK;
}

/* The threads' sums, in order of thread; over all channels where the weight is one value. */
static void store_weight_gradient(const fw_tensor *to, const cpu_device *cpu, int threads,
                                  int64_t width, int second, uint32_t accumulate) {
    float *out = (float *)to->data;
    if (out == NULL) return;
    const int64_t n = cpu_min(fw_tensor_count(to), width), each = n > 0 ? width / n : 0;
    for (int64_t i = 0; i < n; i++) {
        double total = accumulate ? (double)out[i] : 0.0;
        for (int t = 0; t < threads; t++) {
            const double *sums = (const double *)cpu_workspace(cpu, t) + second * width;
            for (int64_t c = i * each; c < (i + 1) * each; c++) total += sums[c];
        }
        out[i] = (float)total;
    }
}

fw_status cpu_residual_norm_backward(fw_device *device, const fw_residual_norm *p,
                                     fw_error *error) {
    CPU_ARGUMENTS("residual_norm_backward", device, p, error);
    int64_t rows = 0, width = 0;
    FW_TRY(kernel_check_residual_backward(p, FW_F32, CPU_MAX_WIDTH, &rows, &width, error));
    const cpu_device *cpu = cpu_self(device);
    int threads = 1;
#pragma omp parallel num_threads(cpu->threads) if (rows * width > CPU_PARALLEL_ELEMENTS)
    {
        const scratch s = carve(cpu, p, omp_get_thread_num(), width);
#pragma omp single
        threads = omp_get_num_threads();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) backward_row(p, &s, i, width);
    }
    store_weight_gradient(&p->d_weight_a, cpu, threads, width, 0, p->accumulate);
    store_weight_gradient(&p->d_weight_b, cpu, threads, width, 1, p->accumulate);
    return FW_OK;
}
