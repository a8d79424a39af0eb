/* Sums of whole tensors: y = alpha x + beta y (float32, or activations in bfloat16), and the step
 * of a moving average. */
#include "elements.cuh"

/* ---- axpby ---- */

namespace {

template <class X, class Y, bool KEEPS> struct axpby {
    static constexpr int WIDTH = sizeof(X) + sizeof(Y) == 4 ? 8 : 4, ROUNDS = 4;
    const X *x;
    Y *y;
    float alpha, beta;

    template <int W> struct held {
        packed<W, X> x;
        packed<W, Y> y;
    };
    __device__ bool begin() const { return true; }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        to->x = load<W>(x + at);
        if (KEEPS) to->y = load<W>(y + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        floats<W> out = unpack<W, X>(from.x);
#pragma unroll
        for (int i = 0; i < W; i++) out.at[i] *= alpha;
        if (KEEPS) {
            const floats<W> old = unpack<W, Y>(from.y);
#pragma unroll
            for (int i = 0; i < W; i++) out.at[i] = fmaf(beta, old.at[i], out.at[i]);
        }
        store<W>(y + at, out);
    }
};

template <class X, class Y>
void launch_axpby(const cuda_device *cuda, const fw_axpby *p, int64_t n) {
    const X *x = static_cast<const X *>(p->x.data);
    Y *y = static_cast<Y *>(p->y.data);
    const axpby<X, Y, true> sum = {x, y, p->alpha, p->beta};
    const axpby<X, Y, false> product = {x, y, p->alpha, 0.0f};
    const bool aligned = elements_aligned(&p->x, sum.WIDTH) && elements_aligned(&p->y, sum.WIDTH);
    if (p->beta == 0.0f)
        launch_elements(cuda, product, n, aligned);
    else
        launch_elements(cuda, sum, n, aligned);
}

fw_status check_axpby(const fw_axpby *p, fw_error *error) {
    const uint32_t x = p->x.dtype == FW_BF16 ? FW_BF16 : FW_F32;
    const uint32_t y = p->y.dtype == FW_BF16 ? FW_BF16 : FW_F32;
    FW_TRY(cuda_check_packed("axpby", "x", &p->x, x, -1, error));
    return cuda_check_packed("axpby", "y", &p->y, y, fw_tensor_count(&p->x), error);
}

} // namespace

fw_status cuda_axpby(fw_device *device, const fw_axpby *p, fw_error *error) {
    CUDA_ARGUMENTS("axpby", device, p, error);
    FW_TRY(check_axpby(p, error));
    const int64_t n = fw_tensor_count(&p->x);
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    if (p->x.dtype == FW_F32 && p->y.dtype == FW_F32)
        launch_axpby<float, float>(cuda, p, n);
    else if (p->x.dtype == FW_F32)
        launch_axpby<float, __nv_bfloat16>(cuda, p, n);
    else if (p->y.dtype == FW_F32)
        launch_axpby<__nv_bfloat16, float>(cuda, p, n);
    else
        launch_axpby<__nv_bfloat16, __nv_bfloat16>(cuda, p, n);
    return cuda_launched(cuda, "axpby", "over_elements", error);
}

/* ---- lerp ---- */

namespace {

struct lerp_step {
    static constexpr int WIDTH = 4, ROUNDS = 4;
    const float *x;
    float *y, weight;

    template <int W> struct held { packed<W, float> x, y; };
    __device__ bool begin() const { return true; }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        to->x = load<W>(x + at);
        to->y = load<W>(static_cast<const float *>(y) + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        const floats<W> toward = unpack<W, float>(from.x), old = unpack<W, float>(from.y);
        floats<W> out;
#pragma unroll
        for (int i = 0; i < W; i++) out.at[i] = fmaf(weight, toward.at[i] - old.at[i], old.at[i]);
        store<W>(y + at, out);
    }
};

} // namespace

fw_status cuda_lerp(fw_device *device, const fw_lerp *p, fw_error *error) {
    CUDA_ARGUMENTS("lerp", device, p, error);
    FW_TRY(cuda_check_packed("lerp", "x", &p->x, FW_F32, -1, error));
    const int64_t n = fw_tensor_count(&p->x);
    FW_TRY(cuda_check_packed("lerp", "y", &p->y, FW_F32, n, error));
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const lerp_step step = {static_cast<const float *>(p->x.data), static_cast<float *>(p->y.data),
                            p->weight};
    launch_elements(cuda, step, n,
                    elements_aligned(&p->x, step.WIDTH) && elements_aligned(&p->y, step.WIDTH));
    return cuda_launched(cuda, "lerp", "over_elements", error);
}
