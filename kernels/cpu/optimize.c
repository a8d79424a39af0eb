/* The optimizers' element-wise steps. Scalars that change from step to step are read from fw_step;
 * a step flagged as not finite changes nothing. */
#include "cpu.h"

#include <math.h>
#include <omp.h>

fw_status cpu_clip(fw_device *device, const fw_clip *p, fw_error *error) {
    CPU_ARGUMENTS("clip", device, p, error);
    FW_TRY(cpu_check_packed("clip", "sum_squares", &p->sum_squares, FW_F32, 1, error));
    if (p->steps == NULL) return fw_fail(error, FW_E_ARGUMENT, "clip: steps is NULL");
    const float squares = *(const float *)p->sum_squares.data, norm = sqrtf(squares);
    const int finite = isfinite(squares);
    const float within = p->max_norm > 0.0f ? fminf(1.0f, p->max_norm / (norm + 1e-6f)) : 1.0f;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        p->steps[i].gradient_norm = norm;
        p->steps[i].finite = (uint32_t)finite;
        p->steps[i].clip = finite ? within : 0.0f;
    }
    return FW_OK;
}

static fw_status check_step(const char *op, const fw_step *step, fw_error *error) {
    return step != NULL ? FW_OK : fw_fail(error, FW_E_ARGUMENT, "%s: step is NULL", op);
}

/* The factors of one AdamW step: constant over the tensor. */
typedef struct adamw_factors {
    float clip, beta1, beta2, epsilon, keep, rate, inverse_root2;
} adamw_factors;

/* m^ / (sqrt(v^) + epsilon) with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t), formed in double. */
static adamw_factors adamw_prepare(const fw_adamw_step *p) {
    const fw_step *s = p->step;
    const double t = (double)(s->step + 1);
    const double correction1 = 1.0 - pow((double)p->beta1, t);
    const double correction2 = 1.0 - pow((double)p->beta2, t);
    return (adamw_factors){.clip = s->clip,
                           .beta1 = p->beta1,
                           .beta2 = p->beta2,
                           .epsilon = p->epsilon,
                           .keep = 1.0f - s->learning_rate * s->weight_decay,
                           .rate = (float)((double)s->learning_rate / correction1),
                           .inverse_root2 = (float)(1.0 / sqrt(correction2))};
}

fw_status cpu_adamw(fw_device *device, const fw_adamw_step *p, fw_error *error) {
    const char *op = "adamw";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check_step(op, p->step, error));
    FW_TRY(cpu_check_packed(op, "parameter", &p->parameter, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->parameter);
    FW_TRY(cpu_check_packed(op, "gradient", &p->gradient, FW_F32, n, error));
    FW_TRY(cpu_check_packed(op, "first_moment", &p->first_moment, FW_F32, n, error));
    FW_TRY(cpu_check_packed(op, "second_moment", &p->second_moment, FW_F32, n, error));
    float *x = (float *)p->parameter.data, *copy = x;
    if (p->compute.data != NULL) {
        FW_TRY(cpu_check_packed(op, "compute", &p->compute, FW_F32, n, error));
        copy = (float *)p->compute.data;
    }
    if (!p->step->finite) return FW_OK;
    const adamw_factors f = adamw_prepare(p);
    const float *gradient = (const float *)p->gradient.data;
    float *m = (float *)p->first_moment.data, *v = (float *)p->second_moment.data;
#pragma omp parallel for simd num_threads(cpu_self(device)->threads)                               \
    schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i++) {
        const float g = f.clip * gradient[i];
        m[i] = f.beta1 * m[i] + (1.0f - f.beta1) * g;
        v[i] = f.beta2 * v[i] + (1.0f - f.beta2) * g * g;
        const float next =
            f.keep * x[i] - f.rate * m[i] / (sqrtf(v[i]) * f.inverse_root2 + f.epsilon);
        x[i] = next;
        copy[i] = next;
    }
    return FW_OK;
}

fw_status cpu_momentum(fw_device *device, const fw_momentum_step *p, fw_error *error) {
    const char *op = "momentum";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check_step(op, p->step, error));
    FW_TRY(cpu_check_packed(op, "gradient", &p->gradient, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->gradient);
    FW_TRY(cpu_check_packed(op, "momentum", &p->momentum, FW_F32, n, error));
    FW_TRY(cpu_check_packed(op, "update", &p->update, FW_F32, n, error));
    float *update = (float *)p->update.data, *held = (float *)p->momentum.data;
    if (!p->step->finite) return device->zero(device, update, (size_t)n * sizeof *update, error);
    const float *gradient = (const float *)p->gradient.data;
    const float clip = p->step->clip, rate = p->step->momentum;
    const float look = p->nesterov ? clip : 0.0f, ahead = p->nesterov ? rate : 1.0f;
#pragma omp parallel for simd num_threads(cpu_self(device)->threads)                               \
    schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i++) {
        const float next = rate * held[i] + clip * gradient[i];
        update[i] = look * gradient[i] + ahead * next;
        held[i] = next;
    }
    return FW_OK;
}

fw_status cpu_apply_update(fw_device *device, const fw_apply_update *p, fw_error *error) {
    const char *op = "apply_update";
    CPU_ARGUMENTS(op, device, p, error);
    FW_TRY(check_step(op, p->step, error));
    FW_TRY(cpu_check_packed(op, "parameter", &p->parameter, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->parameter);
    FW_TRY(cpu_check_packed(op, "update", &p->update, FW_F32, n, error));
    float *x = (float *)p->parameter.data, *copy = x;
    if (p->compute.data != NULL) {
        FW_TRY(cpu_check_packed(op, "compute", &p->compute, FW_F32, n, error));
        copy = (float *)p->compute.data;
    }
    if (!p->step->finite) return FW_OK;
    const float *update = (const float *)p->update.data;
    const float keep = 1.0f - p->step->learning_rate * p->step->weight_decay;
    const float rate = p->step->learning_rate * p->scale;
#pragma omp parallel for simd num_threads(cpu_self(device)->threads)                               \
    schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i++) {
        const float next = keep * x[i] - rate * update[i];
        x[i] = next;
        copy[i] = next;
    }
    return FW_OK;
}
