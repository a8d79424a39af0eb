/* Smear: every position mixed with the one before it by a gate per channel, forward and backward.
 * The gate's gradient is summed in double, each thread over its own contiguous rows, then over
 * threads in order: the result depends on the number of threads but never on timing. */
#include "cpu.h"
#include "cpu_math.h"

#include <omp.h>

/* What one thread works with, carved from its workspace. Both halves of the mix are sigmoids of
 * their own: 1 - g would lose what is left of it where the gate saturates. */
typedef struct scratch {
    double *d_gate;
    float *previous, *own; /* g and 1 - g */
    float *zeros;          /* the row beyond either end of a sequence */
} scratch;

_Static_assert(CPU_MAX_WIDTH *(sizeof(double) + 3 * sizeof(float)) <= CPU_WORKSPACE_BYTES,
               "a smeared row must fit the workspace");

static scratch carve(const cpu_device *cpu, int thread, const fw_tensor *gate, int64_t width) {
    scratch s = {.d_gate = (double *)cpu_workspace(cpu, thread)};
    s.previous = (float *)(s.d_gate + width);
    s.own = s.previous + width;
    s.zeros = s.own + width;
    const float *logit = (const float *)gate->data;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        s.previous[i] = cpu_sigmoid(logit[i]);
        s.own[i] = cpu_sigmoid(-logit[i]);
        s.zeros[i] = 0.0f;
        s.d_gate[i] = 0.0;
    }
    return s;
}

/* Row t of sequence b; `beyond` before the first and after the last. */
static const float *row_or(const fw_tensor *x, int64_t b, int64_t t, const float *beyond) {
    if (t < 0 || t >= x->shape[1]) return beyond;
    return (const float *)x->data + b * x->stride[0] + t * x->stride[1];
}

static float *row_of(const fw_tensor *x, int64_t b, int64_t t) {
    return (float *)x->data + b * x->stride[0] + t * x->stride[1];
}

/* to = (1 - g) * own + g * neighbour: one loop for both directions. */
static void mix(const scratch *s, const float *own, const float *neighbour, float *to,
                int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; i++) to[i] = s->own[i] * own[i] + s->previous[i] * neighbour[i];
}

static void backward_row(const fw_smear *p, const scratch *s, int64_t b, int64_t t) {
    const int64_t width = p->x.shape[2];
    const float *d_out = row_of(&p->d_out, b, t);
    const float *x = row_of(&p->x, b, t), *before = row_or(&p->x, b, t - 1, s->zeros);
    mix(s, d_out, row_or(&p->d_out, b, t + 1, s->zeros), row_of(&p->d_x, b, t), width);
    double *d_gate = s->d_gate;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) d_gate[i] += (double)(d_out[i] * (before[i] - x[i]));
}

static fw_status check(const char *op, const fw_smear *p, fw_error *error) {
    const int64_t any[3] = {-1, -1, -1};
    FW_TRY(cpu_check_sequences(op, "x", &p->x, any, error));
    const int64_t width = p->x.shape[2];
    if (width > CPU_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: x has %lld channels, at most %d are supported",
                       op, (long long)width, CPU_MAX_WIDTH);
    return cpu_check_packed(op, "gate", &p->gate, FW_F32, width, error);
}

/* Neighbouring rows are read while others are written, by other threads too. */
static fw_status check_apart(const char *op, const char *name, const fw_tensor *to,
                             const char *other, const fw_tensor *from, fw_error *error) {
    if (to->data != from->data) return FW_OK;
    return fw_fail(error, FW_E_ARGUMENT, "%s: %s lies over %s; it needs memory of its own", op,
                   name, other);
}

fw_status cpu_smear_forward(fw_device *device, const fw_smear *p, fw_error *error) {
    const char *op = "smear_forward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cpu_check_sequences(op, "out", &p->out, p->x.shape, error));
    FW_TRY(check_apart(op, "out", &p->out, "x", &p->x, error));
    const cpu_device *cpu = cpu_self(device);
    const int64_t tokens = p->x.shape[1], width = p->x.shape[2], rows = p->x.shape[0] * tokens;
#pragma omp parallel num_threads(cpu->threads) if (rows * width > CPU_PARALLEL_ELEMENTS)
    {
        const scratch s = carve(cpu, omp_get_thread_num(), &p->gate, width);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const int64_t b = i / tokens, t = i % tokens;
            mix(&s, row_of(&p->x, b, t), row_or(&p->x, b, t - 1, s.zeros), row_of(&p->out, b, t),
                width);
        }
    }
    return FW_OK;
}

/* g (1 - g) times the threads' sums, in order of thread. */
static void store_gate_gradient(const fw_smear *p, const cpu_device *cpu, int threads) {
    const int64_t width = p->x.shape[2];
    const float *gate = (const float *)p->gate.data;
    float *d_gate = (float *)p->d_gate.data;
    for (int64_t i = 0; i < width; i++) {
        double total = 0.0;
        for (int t = 0; t < threads; t++) total += ((const double *)cpu_workspace(cpu, t))[i];
        total *= (double)cpu_sigmoid(gate[i]) * (double)cpu_sigmoid(-gate[i]);
        d_gate[i] = (float)(p->accumulate ? (double)d_gate[i] + total : total);
    }
}

fw_status cpu_smear_backward(fw_device *device, const fw_smear *p, fw_error *error) {
    const char *op = "smear_backward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cpu_check_sequences(op, "d_out", &p->d_out, p->x.shape, error));
    FW_TRY(cpu_check_sequences(op, "d_x", &p->d_x, p->x.shape, error));
    FW_TRY(cpu_check_packed(op, "d_gate", &p->d_gate, FW_F32, p->x.shape[2], error));
    FW_TRY(check_apart(op, "d_x", &p->d_x, "d_out", &p->d_out, error));
    FW_TRY(check_apart(op, "d_x", &p->d_x, "x", &p->x, error));
    const cpu_device *cpu = cpu_self(device);
    const int64_t tokens = p->x.shape[1], width = p->x.shape[2], rows = p->x.shape[0] * tokens;
    int threads = 1;
#pragma omp parallel num_threads(cpu->threads) if (rows * width > CPU_PARALLEL_ELEMENTS)
    {
        const scratch s = carve(cpu, omp_get_thread_num(), &p->gate, width);
#pragma omp single
        threads = omp_get_num_threads();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) backward_row(p, &s, i / tokens, i % tokens);
    }
    store_gate_gradient(p, cpu, threads);
    return FW_OK;
}
