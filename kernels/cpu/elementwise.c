/* Sums of whole tensors: y = alpha x + beta y, and the step of a moving average. */
#include "cpu.h"

#include <omp.h>

fw_status cpu_axpby(fw_device *device, const fw_axpby *p, fw_error *error) {
    CPU_ARGUMENTS("axpby", device, p, error);
    FW_TRY(cpu_check_packed("axpby", "x", &p->x, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->x);
    FW_TRY(cpu_check_packed("axpby", "y", &p->y, FW_F32, n, error));
    const int threads = cpu_self(device)->threads;
    const float *x = (const float *)p->x.data, alpha = p->alpha, beta = p->beta;
    float *y = (float *)p->y.data;
    if (beta == 0.0f) {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
        for (int64_t i = 0; i < n; i++) y[i] = alpha * x[i];
    } else {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
        for (int64_t i = 0; i < n; i++) y[i] = alpha * x[i] + beta * y[i];
    }
    return FW_OK;
}

fw_status cpu_lerp(fw_device *device, const fw_lerp *p, fw_error *error) {
    CPU_ARGUMENTS("lerp", device, p, error);
    FW_TRY(cpu_check_packed("lerp", "x", &p->x, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->x);
    FW_TRY(cpu_check_packed("lerp", "y", &p->y, FW_F32, n, error));
    const int threads = cpu_self(device)->threads;
    const float *x = (const float *)p->x.data, weight = p->weight;
    float *y = (float *)p->y.data;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i++) y[i] += weight * (x[i] - y[i]);
    return FW_OK;
}
