/* Softcapped cross entropy forward and backward, and log-softmax rows with their entropy for
 * scoring. A row is read in chunks that stay in the first-level cache: the soft cap's tanh is
 * formed once per element and pass, and the logarithm of the sum runs along with a moving maximum.
 */
#include "cpu.h"

#include "cpu_math.h"

#include <omp.h>

enum { CHUNK = 512 };

/* z = cap * tanh(x / cap), or x without a cap. */
static void cap_chunk(const float *x, float *z, int64_t n, float cap) {
    if (cap > 0.0f) {
        const float inverse = 1.0f / cap;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) z[i] = cap * cpu_tanh(x[i] * inverse);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) z[i] = x[i];
    }
}

/* The same, with its slope 1 - (z / cap)^2, or 1. */
static void bend_chunk(const float *x, float *z, float *slope, int64_t n, float cap) {
    const float inverse = cap > 0.0f ? 1.0f / cap : 0.0f;
    if (!(cap > 0.0f)) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) z[i] = x[i], slope[i] = 1.0f;
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const cpu_bend bend = cpu_tanh_bend(x[i] * inverse);
        z[i] = cap * bend.value;
        slope[i] = bend.slope;
    }
}

/* Sums over a row, relative to a maximum: of e^z and, for the entropy, of e^z (z - maximum). */
typedef struct running {
    float maximum;
    double total, weighted;
} running;

static float chunk_maximum(const float *z, int64_t n, float start) {
    float largest = start;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++) largest = z[i] > largest ? z[i] : largest;
    return largest;
}

static void add_chunk(running *r, const float *z, int64_t n) {
    const float maximum = chunk_maximum(z, n, r->maximum);
    float total = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(+ : total, weighted)
    for (int64_t i = 0; i < n; i++) {
        const float below = z[i] - maximum, weight = cpu_exp(below);
        total += weight;
        weighted += weight > 0.0f ? weight * below : 0.0f;
    }
    const double move = r->total > 0.0 ? (double)(r->maximum - maximum) : 0.0;
    const double shrink = exp(move);
    r->weighted = (r->weighted + r->total * move) * shrink + (double)weighted;
    r->total = r->total * shrink + (double)total;
    r->maximum = maximum;
}

static running sum_row(const float *x, int64_t n, float cap) {
    running r = {-INFINITY, 0.0, 0.0};
    for (int64_t i = 0; i < n; i += CHUNK) {
        float z[CHUNK];
        const int64_t count = cpu_min(CHUNK, n - i);
        cap_chunk(x + i, z, count, cap);
        add_chunk(&r, z, count);
    }
    return r;
}

static float log_sum(const running *r) { return (float)((double)r->maximum + log(r->total)); }

static fw_status check(const char *op, const fw_cross_entropy *p, fw_error *error) {
    FW_TRY(cpu_check_matrix(op, "logits", &p->logits, FW_F32, -1, -1, error));
    const int64_t rows = p->logits.shape[0], vocabulary = p->logits.shape[1];
    if (vocabulary < 1) return fw_fail(error, FW_E_SHAPE, "%s: logits have no columns", op);
    FW_TRY(cpu_check_packed(op, "targets", &p->targets, FW_I32, rows, error));
    FW_TRY(cpu_check_packed(op, "log_sum_exp", &p->log_sum_exp, FW_F32, rows, error));
    const int32_t *targets = (const int32_t *)p->targets.data;
    for (int64_t i = 0; i < rows; i++)
        if (targets[i] >= vocabulary)
            return fw_fail(error, FW_E_ARGUMENT, "%s: target %d of row %lld is not below %lld", op,
                           targets[i], (long long)i, (long long)vocabulary);
    return FW_OK;
}

static void forward_row(const fw_cross_entropy *p, int64_t row) {
    const float *x = cpu_row(&p->logits, row);
    const int32_t target = ((const int32_t *)p->targets.data)[row];
    const running r = sum_row(x, p->logits.shape[1], p->softcap);
    const double logarithm = (double)r.maximum + log(r.total);
    float z = 0.0f;
    if (target >= 0) cap_chunk(x + target, &z, 1, p->softcap);
    ((float *)p->log_sum_exp.data)[row] = (float)logarithm;
    ((float *)p->loss.data)[row] = target >= 0 ? (float)(logarithm - (double)z) : 0.0f;
}

fw_status cpu_cross_entropy_forward(fw_device *device, const fw_cross_entropy *p, fw_error *error) {
    const char *op = "cross_entropy_forward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    const int64_t rows = p->logits.shape[0];
    FW_TRY(cpu_check_packed(op, "loss", &p->loss, FW_F32, rows, error));
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (fw_tensor_count(&p->logits) > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++) forward_row(p, i);
    return FW_OK;
}

static void backward_row(const fw_cross_entropy *p, int64_t row) {
    const int64_t n = p->logits.shape[1];
    const int32_t target = ((const int32_t *)p->targets.data)[row];
    const float logarithm = ((const float *)p->log_sum_exp.data)[row];
    const float d_loss = target < 0 ? 0.0f : p->d_loss, *x = cpu_row(&p->logits, row);
    float *d_x = cpu_row(&p->d_logits, row), z[CHUNK], slope[CHUNK], at_target, target_slope = 0.0f;
    if (target >= 0) bend_chunk(x + target, &at_target, &target_slope, 1, p->softcap);
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t count = cpu_min(CHUNK, n - i);
        bend_chunk(x + i, z, slope, count, p->softcap);
#pragma omp simd
        for (int64_t j = 0; j < count; j++)
            d_x[i + j] = d_loss * cpu_exp(z[j] - logarithm) * slope[j];
    }
    if (target < 0)
        for (int64_t i = 0; i < n; i++) d_x[i] = 0.0f;
    else
        d_x[target] -= d_loss * target_slope;
}

fw_status cpu_cross_entropy_backward(fw_device *device, const fw_cross_entropy *p,
                                     fw_error *error) {
    const char *op = "cross_entropy_backward";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    const int64_t rows = p->logits.shape[0], vocabulary = p->logits.shape[1];
    FW_TRY(cpu_check_matrix(op, "d_logits", &p->d_logits, FW_F32, rows, vocabulary, error));
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * vocabulary > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++) backward_row(p, i);
    return FW_OK;
}

/* Entropy: -sum p log p = log total - weighted / total, both relative to the maximum. */
static void log_softmax_row(const fw_log_softmax *p, int64_t row) {
    const int64_t n = p->logits.shape[1];
    const float *x = cpu_row(&p->logits, row);
    float *out = cpu_row(&p->log_probabilities, row);
    const running r = sum_row(x, n, p->softcap);
    const float logarithm = log_sum(&r);
    cap_chunk(x, out, n, p->softcap);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] -= logarithm;
    if (p->entropy.data != NULL)
        ((float *)p->entropy.data)[row] = (float)(log(r.total) - r.weighted / r.total);
}

fw_status cpu_log_softmax(fw_device *device, const fw_log_softmax *p, fw_error *error) {
    const char *op = "log_softmax";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(cpu_check_matrix(op, "logits", &p->logits, FW_F32, -1, -1, error));
    const int64_t rows = p->logits.shape[0], vocabulary = p->logits.shape[1];
    FW_TRY(cpu_check_matrix(op, "log_probabilities", &p->log_probabilities, FW_F32, rows,
                            vocabulary, error));
    if (p->entropy.data != NULL)
        FW_TRY(cpu_check_packed(op, "entropy", &p->entropy, FW_F32, rows, error));
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (rows * vocabulary > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++) log_softmax_row(p, i);
    return FW_OK;
}
