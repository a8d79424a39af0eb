/* The activations of the feed-forward layer, forward and backward, element by element. */
#include "cpu.h"

#include "cpu_math.h"

#include <omp.h>

/* sqrt(2/pi) and the cubic coefficient of the tanh form of GELU (Hendrycks and Gimpel, 2016). */
#define GELU_RATE 0.797884561f
#define GELU_CUBE 0.044715f

static inline float leaky(float x, float slope) { return x > 0.0f ? x : slope * x; }

/* (1 + tanh(u)) / 2 = sigmoid(2u), which does not cancel for negative u. */
static inline float gelu_gate(float x) {
    return cpu_sigmoid(2.0f * GELU_RATE * (x + GELU_CUBE * x * x * x));
}

/* s + weight * s (1 - s) with s = sigmoid(z): what a gate's slope is made of. With e = exp(-|z|),
 * s (1 - s) = e / (1 + e)^2 for either sign; 1 - s itself would cancel where the gate is open, and
 * `weight` there is large: at x = 5 the slope of GELU would be off by 2e-6. */
static inline float gate_slope(float z, float weight) {
    const float e = cpu_exp(-fabsf(z)), open = 1.0f / (1.0f + e);
    return (z < 0.0f ? e * open : open) + weight * (e * open * open);
}

/* Beyond 20 the slope is 0 or 1, as at 20, and the cube of x need not fit float32. */
static inline float gelu_slope(float x) {
    const float least = x < -20.0f ? -20.0f : x, v = least > 20.0f ? 20.0f : least;
    const float u = v + GELU_CUBE * v * v * v, du = 1.0f + 3.0f * GELU_CUBE * v * v;
    return gate_slope(2.0f * GELU_RATE * u, v * 2.0f * GELU_RATE * du);
}

static inline float silu_slope(float x) { return gate_slope(x, x); }

/* One span of elements, on one thread; `d_out` is NULL in the forward pass. */
typedef void span(const float *x, const float *d_out, float *to, int64_t n, float slope);

static void squared_forward(const float *x, const float *d_out, float *to, int64_t n, float slope) {
    (void)d_out;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = leaky(x[i], slope) * leaky(x[i], slope);
}

static void gelu_forward(const float *x, const float *d_out, float *to, int64_t n, float slope) {
    (void)d_out, (void)slope;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = x[i] * gelu_gate(x[i]);
}

static void silu_forward(const float *x, const float *d_out, float *to, int64_t n, float slope) {
    (void)d_out, (void)slope;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = x[i] * cpu_sigmoid(x[i]);
}

static void squared_backward(const float *x, const float *d_out, float *to, int64_t n,
                             float slope) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = d_out[i] * (2.0f * leaky(x[i], slope) * (x[i] > 0.0f ? 1.0f : slope));
}

static void gelu_backward(const float *x, const float *d_out, float *to, int64_t n, float slope) {
    (void)slope;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = d_out[i] * gelu_slope(x[i]);
}

static void silu_backward(const float *x, const float *d_out, float *to, int64_t n, float slope) {
    (void)slope;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = d_out[i] * silu_slope(x[i]);
}

/* [kind][0] forward, [kind][1] backward. ReLU squared is leaky ReLU squared with slope 0. */
static span *const spans[][2] = {
    [FW_LEAKY_RELU_SQUARED] = {squared_forward, squared_backward},
    [FW_RELU_SQUARED] = {squared_forward, squared_backward},
    [FW_GELU_TANH] = {gelu_forward, gelu_backward},
    [FW_SILU] = {silu_forward, silu_backward},
};

enum { SPAN = 4096 };

static fw_status run(fw_device *device, const char *op, const fw_activation *a, int backward,
                     fw_error *error) {
    const fw_tensor *to = backward ? &a->d_x : &a->out;
    FW_TRY(cpu_check_packed(op, "x", &a->x, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&a->x);
    if (backward) FW_TRY(cpu_check_packed(op, "d_out", &a->d_out, FW_F32, n, error));
    FW_TRY(cpu_check_packed(op, backward ? "d_x" : "out", to, FW_F32, n, error));
    if (a->kind < FW_LEAKY_RELU_SQUARED || a->kind > FW_SILU)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: there is no activation %u", op, a->kind);
    const float *x = (const float *)a->x.data, *d_out = (const float *)a->d_out.data;
    const float slope = a->kind == FW_RELU_SQUARED ? 0.0f : a->slope;
    span *apply = spans[a->kind][backward];
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i += SPAN)
        apply(x + i, backward ? d_out + i : NULL, (float *)to->data + i, cpu_min(SPAN, n - i),
              slope);
    return FW_OK;
}

fw_status cpu_activation_forward(fw_device *device, const fw_activation *a, fw_error *error) {
    CPU_ARGUMENTS("activation_forward", device, a, error);
    return run(device, "activation_forward", a, 0, error);
}

fw_status cpu_activation_backward(fw_device *device, const fw_activation *a, fw_error *error) {
    CPU_ARGUMENTS("activation_backward", device, a, error);
    return run(device, "activation_backward", a, 1, error);
}
