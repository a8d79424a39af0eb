/* Reductions to one number. The elements are cut into a fixed number of pieces, each summed in
 * double, and the pieces are combined in order: the same result on any number of threads. */
#include "cpu.h"

#include <math.h>
#include <omp.h>

enum { PIECES = 256 };

static double sum(const float *x, int64_t n) {
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += (double)x[i];
    return total;
}

static double dot(const float *x, const float *y, int64_t n) {
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += (double)x[i] * (double)y[i];
    return total;
}

static double max_abs(const float *x, int64_t n) {
    float largest = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    return (double)largest;
}

static double reduce_piece(const fw_reduce *p, int64_t begin, int64_t n) {
    const float *x = (const float *)p->x.data + begin;
    switch (p->reduction) {
    case FW_SUM: return sum(x, n);
    case FW_SUM_SQUARES: return dot(x, x, n);
    case FW_MAX_ABS: return max_abs(x, n);
    default: return dot(x, (const float *)p->y.data + begin, n);
    }
}

static double combine(const fw_reduce *p, const double *pieces) {
    double result = 0.0;
    for (int i = 0; i < PIECES; i++)
        result = p->reduction == FW_MAX_ABS ? fmax(result, pieces[i]) : result + pieces[i];
    return result;
}

static fw_status check(const fw_reduce *p, fw_error *error) {
    FW_TRY(cpu_check_packed("reduce", "x", &p->x, FW_F32, -1, error));
    if (p->reduction < FW_SUM || p->reduction > FW_DOT)
        return fw_fail(error, FW_E_UNSUPPORTED, "reduce: there is no reduction %u", p->reduction);
    if (p->reduction == FW_DOT)
        FW_TRY(cpu_check_packed("reduce", "y", &p->y, FW_F32, fw_tensor_count(&p->x), error));
    return cpu_check_packed("reduce", "result", &p->result, FW_F32, 1, error);
}

fw_status cpu_reduce(fw_device *device, const fw_reduce *p, fw_error *error) {
    CPU_ARGUMENTS("reduce", device, p, error);
    FW_TRY(check(p, error));
    const int64_t n = fw_tensor_count(&p->x), size = (n + PIECES - 1) / PIECES;
    double pieces[PIECES] = {0.0};
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int i = 0; i < PIECES; i++) {
        const int64_t begin = cpu_min(i * size, n);
        pieces[i] = reduce_piece(p, begin, cpu_min(size, n - begin));
    }
    float *result = (float *)p->result.data;
    *result = (float)(combine(p, pieces) + (p->accumulate ? (double)*result : 0.0));
    return FW_OK;
}
