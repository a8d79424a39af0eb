/* Rotary position embedding (Su et al., 2021): its tables, and the fused norm, rotation and gain of
 * query and key heads, forward and backward. */
#include "cpu.h"

#include <math.h>
#include <omp.h>

fw_status cpu_rope_table(fw_device *device, const fw_rope_table *p, fw_error *error) {
    const char *op = "rope_table";
    CPU_ARGUMENTS(op, device, p, error);
    const int64_t half = (int64_t)p->dimensions / 2;
    if (p->dimensions % 2 != 0 || half == 0 || !(p->base > 0.0))
        return fw_fail(error, FW_E_ARGUMENT,
                       "%s: %u dimensions of base %g; both must be positive, "
                       "the first even",
                       op, p->dimensions, p->base);
    FW_TRY(cpu_check_matrix(op, "cosine", &p->cosine, FW_F32, -1, half, error));
    const int64_t positions = p->cosine.shape[0];
    FW_TRY(cpu_check_matrix(op, "sine", &p->sine, FW_F32, positions, half, error));
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (positions * half > CPU_PARALLEL_ELEMENTS)
    for (int64_t j = 0; j < half; j++) {
        const double rate = pow(p->base, -2.0 * (double)j / (double)p->dimensions);
        for (int64_t t = 0; t < positions; t++) {
            const double angle = (double)(p->offset + t) * rate;
            cpu_row(&p->cosine, t)[j] = (float)cos(angle);
            cpu_row(&p->sine, t)[j] = (float)sin(angle);
        }
    }
    return FW_OK;
}

static float *head_row(const fw_tensor *x, int64_t b, int64_t t, int64_t h) {
    return (float *)x->data + b * x->stride[0] + t * x->stride[1] + h * x->stride[2];
}

/* Rotate the first 2 * half entries of `x` by +angle (direction 1) or -angle (-1) into `out`, and
 * copy the rest, all times `factor`. x and out do not overlap. */
static inline void rotate(const float *restrict x, float *restrict out, const float *cosine,
                          const float *sine, float direction, float factor, int64_t half,
                          int64_t width) {
#pragma omp simd
    for (int64_t j = 0; j < half; j++) {
        const float c = cosine[j] * factor, s = sine[j] * (direction * factor);
        const float x1 = x[j], x2 = x[j + half];
        out[j] = x1 * c + x2 * s;
        out[j + half] = x2 * c - x1 * s;
    }
#pragma omp simd
    for (int64_t j = 2 * half; j < width; j++) out[j] = x[j] * factor;
}

static inline void forward_head(const float *x, float *out, float *inverse_rms, const float *cosine,
                                const float *sine, float gain, float epsilon, int64_t half,
                                int64_t width) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++) squares += x[i] * x[i];
    const float r = 1.0f / sqrtf(squares / (float)width + epsilon);
    rotate(x, out, cosine, sine, 1.0f, r * gain, half, width);
    *inverse_rms = r;
}

/* With e = the rotation undone on d_out: d_gain = e . x_hat, d_x = gain * r * (e - x_hat *
 * mean(e * x_hat)). Returns d_gain of this row. */
static inline float backward_head(const float *x, const float *d_out, float *d_x,
                                  const float *cosine, const float *sine, float gain, float r,
                                  int64_t half, int64_t width) {
    float e[CPU_MAX_HEAD], dot = 0.0f;
    rotate(d_out, e, cosine, sine, -1.0f, 1.0f, half, width);
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; i++) dot += e[i] * x[i];
    dot *= r;
    const float factor = gain * r, pull = factor * r * dot / (float)width;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) d_x[i] = factor * e[i] - pull * x[i];
    return dot;
}

/* The heads of one position: from `base` on, `step` apart. */
typedef struct position {
    const float *x, *cosine, *sine, *gain;
    float *inverse_rms;
    int64_t heads, half, x_step;
} position;

static position locate(const fw_qk_norm_rope *p, int64_t b, int64_t t) {
    const int rotary = p->cosine.data != NULL;
    const int64_t heads = p->x.shape[2];
    return (position){.x = head_row(&p->x, b, t, 0),
                      .cosine = rotary ? cpu_row(&p->cosine, t) : NULL,
                      .sine = rotary ? cpu_row(&p->sine, t) : NULL,
                      .gain = (const float *)p->gain.data,
                      .inverse_rms = (float *)p->inverse_rms.data + (b * p->x.shape[1] + t) * heads,
                      .heads = heads,
                      .half = rotary ? p->cosine.shape[1] : 0,
                      .x_step = p->x.stride[2]};
}

static inline void forward_width(const position *at, float *out, int64_t out_step, float epsilon,
                                 int64_t half, int64_t width) {
    for (int64_t h = 0; h < at->heads; h++)
        forward_head(at->x + h * at->x_step, out + h * out_step, &at->inverse_rms[h], at->cosine,
                     at->sine, at->gain == NULL ? 1.0f : at->gain[h], epsilon, half, width);
}

static inline void backward_width(const position *at, const float *d_out, int64_t out_step,
                                  float *d_x, int64_t x_step, double *d_gain, int64_t half,
                                  int64_t width) {
    for (int64_t h = 0; h < at->heads; h++)
        d_gain[h] += (double)backward_head(
            at->x + h * at->x_step, d_out + h * out_step, d_x + h * x_step, at->cosine, at->sine,
            at->gain == NULL ? 1.0f : at->gain[h], at->inverse_rms[h], half, width);
}

/* Common head widths get loops of constant length, which the compiler unrolls completely. */
static void forward_position(const fw_qk_norm_rope *p, int64_t b, int64_t t) {
    const position at = locate(p, b, t);
    const int64_t width = p->x.shape[3], step = p->out.stride[2];
    float *out = head_row(&p->out, b, t, 0);
    if (width == 32 && at.half == 16)
        forward_width(&at, out, step, p->epsilon, 16, 32);
    else if (width == 64 && at.half == 32)
        forward_width(&at, out, step, p->epsilon, 32, 64);
    else
        forward_width(&at, out, step, p->epsilon, at.half, width);
}

static void backward_position(const fw_qk_norm_rope *p, int64_t b, int64_t t, double *d_gain) {
    const position at = locate(p, b, t);
    const int64_t width = p->x.shape[3], out_step = p->d_out.stride[2], x_step = p->d_x.stride[2];
    const float *d_out = head_row(&p->d_out, b, t, 0);
    float *d_x = head_row(&p->d_x, b, t, 0);
    if (width == 32 && at.half == 16)
        backward_width(&at, d_out, out_step, d_x, x_step, d_gain, 16, 32);
    else if (width == 64 && at.half == 32)
        backward_width(&at, d_out, out_step, d_x, x_step, d_gain, 32, 64);
    else
        backward_width(&at, d_out, out_step, d_x, x_step, d_gain, at.half, width);
}

static fw_status check(const char *op, const fw_qk_norm_rope *p, fw_error *error) {
    const int64_t any[4] = {-1, -1, -1, -1};
    FW_TRY(cpu_check_heads(op, "x", &p->x, any, error));
    const int64_t *shape = p->x.shape, rows = shape[0] * shape[1] * shape[2];
    if (shape[3] > CPU_MAX_HEAD || shape[2] > CPU_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: %lld heads of width %lld; at most %d of %d",
                       op, (long long)shape[2], (long long)shape[3], CPU_MAX_WIDTH, CPU_MAX_HEAD);
    FW_TRY(cpu_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, rows, error));
    if (p->gain.data != NULL)
        FW_TRY(cpu_check_packed(op, "gain", &p->gain, FW_F32, shape[2], error));
    if (p->cosine.data == NULL) return FW_OK;
    FW_TRY(cpu_check_matrix(op, "cosine", &p->cosine, FW_F32, -1, -1, error));
    const int64_t positions = p->cosine.shape[0], half = p->cosine.shape[1];
    FW_TRY(cpu_check_matrix(op, "sine", &p->sine, FW_F32, positions, half, error));
    if (positions < shape[1] || 2 * half > shape[3])
        return fw_fail(error, FW_E_SHAPE,
                       "%s: tables are [%lld,%lld]; x has %lld positions and heads of width %lld",
                       op, (long long)positions, (long long)half, (long long)shape[1],
                       (long long)shape[3]);
    return FW_OK;
}

fw_status cpu_qk_norm_rope_forward(fw_device *device, const fw_qk_norm_rope *p, fw_error *error) {
    const char *op = "qk_norm_rope_forward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cpu_check_heads(op, "out", &p->out, p->x.shape, error));
    const int64_t tokens = p->x.shape[1], rows = p->x.shape[0] * tokens;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (fw_tensor_count(&p->x) > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++) forward_position(p, i / tokens, i % tokens);
    return FW_OK;
}

/* d_gain: each thread sums its rows in double, then the threads' sums in order. */
static void store_gain(const fw_qk_norm_rope *p, const cpu_device *cpu, int threads) {
    float *d_gain = (float *)p->d_gain.data;
    if (d_gain == NULL) return;
    for (int64_t h = 0; h < p->x.shape[2]; h++) {
        double total = p->accumulate ? (double)d_gain[h] : 0.0;
        for (int t = 0; t < threads; t++) total += ((const double *)cpu_workspace(cpu, t))[h];
        d_gain[h] = (float)total;
    }
}

fw_status cpu_qk_norm_rope_backward(fw_device *device, const fw_qk_norm_rope *p, fw_error *error) {
    const char *op = "qk_norm_rope_backward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cpu_check_heads(op, "d_out", &p->d_out, p->x.shape, error));
    FW_TRY(cpu_check_heads(op, "d_x", &p->d_x, p->x.shape, error));
    const int64_t tokens = p->x.shape[1], rows = p->x.shape[0] * tokens, heads = p->x.shape[2];
    if (p->d_gain.data != NULL)
        FW_TRY(cpu_check_packed(op, "d_gain", &p->d_gain, FW_F32, heads, error));
    const cpu_device *cpu = cpu_self(device);
    int threads = 1;
#pragma omp parallel num_threads(cpu->threads) if (fw_tensor_count(&p->x) > CPU_PARALLEL_ELEMENTS)
    {
        double *d_gain = (double *)cpu_workspace(cpu, omp_get_thread_num());
        for (int64_t h = 0; h < heads; h++) d_gain[h] = 0.0;
#pragma omp single
        threads = omp_get_num_threads();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) backward_position(p, i / tokens, i % tokens, d_gain);
    }
    store_gain(p, cpu, threads);
    return FW_OK;
}
