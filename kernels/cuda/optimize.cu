/* The optimizers' element-wise steps: float32, in place, with the compute copy written in the same
 * pass. Scalars that change from step to step are read from the fw_step in device memory; a step
 * flagged as not finite changes nothing. */
#include "elements.cuh"

#include <cmath>

namespace {

/* ---- clip ---- */

#define CLIP_THREADS 32

__global__ void clip_steps(const float *sum_squares, float max_norm, fw_step *steps,
                           uint32_t n_steps) {
    const float squares = *sum_squares, norm = sqrtf(squares);
    const bool finite = isfinite(squares);
    const float within = max_norm > 0.0f ? fminf(1.0f, max_norm / (norm + 1e-6f)) : 1.0f;
    for (uint32_t i = threadIdx.x; i < n_steps; i += CLIP_THREADS) {
        steps[i].gradient_norm = norm;
        steps[i].finite = finite;
        steps[i].clip = finite ? within : 0.0f;
    }
}

/* ---- AdamW ---- */

struct adamw_factors {
    float clip, keep, rate, inverse_root2;
};

/* m^ / (sqrt(v^) + epsilon) with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t), formed in double. From
 * logarithms of b1 and b2: they are the same in every step, and b^t then takes one exponential. */
__device__ adamw_factors adamw_prepare(const fw_step *s, double log_beta1, double log_beta2) {
    const double t = static_cast<double>(s->step + 1);
    const double correction1 = -expm1(t * log_beta1), correction2 = -expm1(t * log_beta2);
    return {s->clip, 1.0f - s->learning_rate * s->weight_decay,
            static_cast<float>(static_cast<double>(s->learning_rate) / correction1),
            static_cast<float>(1.0 / sqrt(correction2))};
}

struct adamw_step {
    static constexpr int WIDTH = 4, ROUNDS = 2;
    const fw_step *step;
    const float *gradient;
    float *parameter, *first, *second;
    __nv_bfloat16 *compute; /* NULL: none */
    float beta1, beta2, epsilon;
    double log_beta1, log_beta2;
    adamw_factors f;

    template <int W> struct held { packed<W, float> gradient, parameter, first, second; };
    __device__ bool begin() {
        __shared__ adamw_factors shared;
        if (!step->finite) return false;
        if (threadIdx.x == 0) shared = adamw_prepare(step, log_beta1, log_beta2);
        __syncthreads();
        f = shared;
        return true;
    }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        to->gradient = load<W>(gradient + at);
        to->first = load<W>(static_cast<const float *>(first) + at);
        to->second = load<W>(static_cast<const float *>(second) + at);
        to->parameter = load<W>(static_cast<const float *>(parameter) + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        const floats<W> g = unpack<W, float>(from.gradient);
        floats<W> m = unpack<W, float>(from.first), v = unpack<W, float>(from.second);
        floats<W> x = unpack<W, float>(from.parameter);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float clipped = f.clip * g.at[i];
            m.at[i] = beta1 * m.at[i] + (1.0f - beta1) * clipped;
            v.at[i] = beta2 * v.at[i] + (1.0f - beta2) * clipped * clipped;
            x.at[i] =
                f.keep * x.at[i] - f.rate * m.at[i] / (sqrtf(v.at[i]) * f.inverse_root2 + epsilon);
        }
        store<W>(first + at, m);
        store<W>(second + at, v);
        store<W>(parameter + at, x);
        if (compute != nullptr) store<W>(compute + at, x);
    }
};

/* ---- momentum ---- */

struct momentum_step {
    static constexpr int WIDTH = 4, ROUNDS = 4;
    const fw_step *step;
    const float *gradient;
    float *momentum, *update;
    bool nesterov, finite;
    float clip, rate;

    template <int W> struct held { packed<W, float> gradient, momentum; };
    __device__ bool begin() {
        finite = step->finite != 0;
        clip = step->clip;
        rate = step->momentum;
        return true;
    }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        if (!finite) return;
        to->gradient = load<W>(gradient + at);
        to->momentum = load<W>(static_cast<const float *>(momentum) + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        floats<W> next = {}, out = {};
        if (finite) {
            const floats<W> g = unpack<W, float>(from.gradient);
            next = unpack<W, float>(from.momentum);
#pragma unroll
            for (int i = 0; i < W; i++) {
                const float clipped = clip * g.at[i];
                next.at[i] = rate * next.at[i] + clipped;
                out.at[i] = nesterov ? clipped + rate * next.at[i] : next.at[i];
            }
            store<W>(momentum + at, next);
        }
        store<W>(update + at, out);
    }
};

/* ---- updates ---- */

struct update_step {
    static constexpr int WIDTH = 4, ROUNDS = 4;
    const fw_step *step;
    const float *update;
    float *parameter;
    __nv_bfloat16 *compute; /* NULL: none */
    float scale;
    float keep, rate;

    template <int W> struct held { packed<W, float> update, parameter; };
    __device__ bool begin() {
        keep = 1.0f - step->learning_rate * step->weight_decay;
        rate = step->learning_rate * scale;
        return step->finite != 0;
    }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        to->update = load<W>(update + at);
        to->parameter = load<W>(static_cast<const float *>(parameter) + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        const floats<W> u = unpack<W, float>(from.update);
        floats<W> x = unpack<W, float>(from.parameter);
#pragma unroll
        for (int i = 0; i < W; i++) x.at[i] = keep * x.at[i] - rate * u.at[i];
        store<W>(parameter + at, x);
        if (compute != nullptr) store<W>(compute + at, x);
    }
};

/* ---- checks ---- */

fw_status check_step(const char *op, const fw_step *step, fw_error *error) {
    return step != nullptr ? FW_OK : fw_fail(error, FW_E_ARGUMENT, "%s: step is NULL", op);
}

fw_status check_copy(const char *op, const fw_tensor *compute, int64_t n, fw_error *error) {
    if (compute->data == nullptr) return FW_OK;
    return cuda_check_packed(op, "compute", compute, FW_BF16, n, error);
}

float *floats_of(const fw_tensor *tensor) { return static_cast<float *>(tensor->data); }

} // namespace

/* ---- the ops ---- */

fw_status cuda_clip(fw_device *device, const fw_clip *p, fw_error *error) {
    CUDA_ARGUMENTS("clip", device, p, error);
    FW_TRY(cuda_check_packed("clip", "sum_squares", &p->sum_squares, FW_F32, 1, error));
    if (p->steps == nullptr) return fw_fail(error, FW_E_ARGUMENT, "clip: steps is NULL");
    cuda_device *cuda = cuda_self(device);
    clip_steps<<<1, CLIP_THREADS, 0, cuda->stream>>>(floats_of(&p->sum_squares), p->max_norm,
                                                     p->steps, p->n_steps);
    return cuda_launched(cuda, "clip", "clip_steps", error);
}

static fw_status check_adamw(const fw_adamw_step *p, fw_error *error) {
    const char *op = "adamw";
    FW_TRY(check_step(op, p->step, error));
    FW_TRY(cuda_check_packed(op, "parameter", &p->parameter, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->parameter);
    FW_TRY(cuda_check_packed(op, "gradient", &p->gradient, FW_F32, n, error));
    FW_TRY(cuda_check_packed(op, "first_moment", &p->first_moment, FW_F32, n, error));
    FW_TRY(cuda_check_packed(op, "second_moment", &p->second_moment, FW_F32, n, error));
    return check_copy(op, &p->compute, n, error);
}

fw_status cuda_adamw(fw_device *device, const fw_adamw_step *p, fw_error *error) {
    CUDA_ARGUMENTS("adamw", device, p, error);
    FW_TRY(check_adamw(p, error));
    const int64_t n = fw_tensor_count(&p->parameter);
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const adamw_step op = {.step = p->step,
                           .gradient = floats_of(&p->gradient),
                           .parameter = floats_of(&p->parameter),
                           .first = floats_of(&p->first_moment),
                           .second = floats_of(&p->second_moment),
                           .compute = static_cast<__nv_bfloat16 *>(p->compute.data),
                           .beta1 = p->beta1,
                           .beta2 = p->beta2,
                           .epsilon = p->epsilon,
                           .log_beta1 = std::log(static_cast<double>(p->beta1)),
                           .log_beta2 = std::log(static_cast<double>(p->beta2))};
    launch_elements(cuda, op, n,
                    elements_aligned(&p->parameter, 4) && elements_aligned(&p->gradient, 4) &&
                        elements_aligned(&p->first_moment, 4) &&
                        elements_aligned(&p->second_moment, 4) && elements_aligned(&p->compute, 4));
    return cuda_launched(cuda, "adamw", "over_elements", error);
}

fw_status cuda_momentum(fw_device *device, const fw_momentum_step *p, fw_error *error) {
    const char *op = "momentum";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check_step(op, p->step, error));
    FW_TRY(cuda_check_packed(op, "gradient", &p->gradient, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->gradient);
    FW_TRY(cuda_check_packed(op, "momentum", &p->momentum, FW_F32, n, error));
    FW_TRY(cuda_check_packed(op, "update", &p->update, FW_F32, n, error));
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const momentum_step step = {.step = p->step,
                                .gradient = floats_of(&p->gradient),
                                .momentum = floats_of(&p->momentum),
                                .update = floats_of(&p->update),
                                .nesterov = p->nesterov != 0};
    launch_elements(cuda, step, n,
                    elements_aligned(&p->gradient, 4) && elements_aligned(&p->momentum, 4) &&
                        elements_aligned(&p->update, 4));
    return cuda_launched(cuda, op, "over_elements", error);
}

fw_status cuda_apply_update(fw_device *device, const fw_apply_update *p, fw_error *error) {
    const char *op = "apply_update";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check_step(op, p->step, error));
    FW_TRY(cuda_check_packed(op, "parameter", &p->parameter, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->parameter);
    FW_TRY(cuda_check_packed(op, "update", &p->update, FW_F32, n, error));
    FW_TRY(check_copy(op, &p->compute, n, error));
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const update_step step = {.step = p->step,
                              .update = floats_of(&p->update),
                              .parameter = floats_of(&p->parameter),
                              .compute = static_cast<__nv_bfloat16 *>(p->compute.data),
                              .scale = p->scale};
    launch_elements(cuda, step, n,
                    elements_aligned(&p->parameter, 4) && elements_aligned(&p->update, 4) &&
                        elements_aligned(&p->compute, 4));
    return cuda_launched(cuda, op, "over_elements", error);
}
