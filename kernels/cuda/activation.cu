/* The activations of the feed-forward layer, forward and backward, element by element. */
#include "elements.cuh"

namespace {

/* sqrt(2/pi) and the cubic coefficient of the tanh form of GELU (Hendrycks and Gimpel, 2016). */
#define GELU_RATE 0.797884561f
#define GELU_CUBE 0.044715f

/* The quotient is zero where the sum overflows or nearly does, as a gate should be. */
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

/* s + weight * s (1 - s) with s = sigmoid(z): what a gate's slope is made of. With e = exp(-|z|),
 * s (1 - s) = e / (1 + e)^2 for either sign; 1 - s itself would cancel where the gate is open, and
 * `weight` there is large. */
__device__ __forceinline__ float gate_slope(float z, float weight) {
    const float e = __expf(-fabsf(z)), open = __fdividef(1.0f, 1.0f + e);
    return (z < 0.0f ? e * open : open) + weight * (e * open * open);
}

/* ---- the functions: of x, and their derivatives ---- */

/* ReLU squared is leaky ReLU squared with slope 0. */
struct leaky_relu_squared {
    float slope;
    __device__ float value(float x) const {
        const float leaky = x > 0.0f ? x : slope * x;
        return leaky * leaky;
    }
    __device__ float derivative(float x) const {
        return x > 0.0f ? 2.0f * x : 2.0f * (slope * x) * slope;
    }
};

struct gelu_tanh {
    /* (1 + tanh(u)) / 2 = sigmoid(2u), which does not cancel for negative u */
    __device__ float value(float x) const {
        return x * sigmoid(2.0f * GELU_RATE * (x + GELU_CUBE * x * x * x));
    }
    /* beyond 20 the slope is 0 or 1, as at 20, and the cube of x need not fit float32 */
    __device__ float derivative(float x) const {
        const float least = x < -20.0f ? -20.0f : x, v = least > 20.0f ? 20.0f : least;
        const float u = v + GELU_CUBE * v * v * v, du = 1.0f + 3.0f * GELU_CUBE * v * v;
        return gate_slope(2.0f * GELU_RATE * u, v * 2.0f * GELU_RATE * du);
    }
};

struct silu {
    __device__ float value(float x) const { return x * sigmoid(x); }
    __device__ float derivative(float x) const { return gate_slope(x, x); }
};

/* ---- over a tensor ---- */

template <class Function> struct forward {
    static constexpr int WIDTH = 8, ROUNDS = 4;
    const __nv_bfloat16 *x;
    __nv_bfloat16 *out;
    Function f;

    template <int W> struct held { packed<W, __nv_bfloat16> x; };
    __device__ bool begin() const { return true; }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        to->x = load<W>(x + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        floats<W> y = unpack<W, __nv_bfloat16>(from.x);
#pragma unroll
        for (int i = 0; i < W; i++) y.at[i] = f.value(y.at[i]);
        store<W>(out + at, y);
    }
};

template <class Function> struct backward {
    static constexpr int WIDTH = 8, ROUNDS = 4;
    const __nv_bfloat16 *x, *d_out;
    __nv_bfloat16 *d_x;
    Function f;

    template <int W> struct held { packed<W, __nv_bfloat16> x, d; };
    __device__ bool begin() const { return true; }
    template <int W> __device__ void read(int64_t at, held<W> *to) const {
        to->x = load<W>(x + at);
        to->d = load<W>(d_out + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &from) const {
        const floats<W> value = unpack<W, __nv_bfloat16>(from.x);
        floats<W> d = unpack<W, __nv_bfloat16>(from.d);
#pragma unroll
        for (int i = 0; i < W; i++) d.at[i] *= f.derivative(value.at[i]);
        store<W>(d_x + at, d);
    }
};

template <class Function>
void launch(const cuda_device *cuda, const fw_activation *a, Function f, bool back) {
    const int64_t n = fw_tensor_count(&a->x);
    const __nv_bfloat16 *x = static_cast<const __nv_bfloat16 *>(a->x.data);
    const fw_tensor *to = back ? &a->d_x : &a->out;
    const bool aligned = elements_aligned(&a->x, 8) && elements_aligned(to, 8);
    __nv_bfloat16 *out = static_cast<__nv_bfloat16 *>(to->data);
    if (back)
        launch_elements(
            cuda, backward<Function>{x, static_cast<const __nv_bfloat16 *>(a->d_out.data), out, f},
            n, aligned && elements_aligned(&a->d_out, 8));
    else
        launch_elements(cuda, forward<Function>{x, out, f}, n, aligned);
}

fw_status run(fw_device *device, const char *op, const fw_activation *a, bool back,
              fw_error *error) {
    FW_TRY(cuda_check_packed(op, "x", &a->x, FW_BF16, -1, error));
    const int64_t n = fw_tensor_count(&a->x);
    if (back) FW_TRY(cuda_check_packed(op, "d_out", &a->d_out, FW_BF16, n, error));
    FW_TRY(
        cuda_check_packed(op, back ? "d_x" : "out", back ? &a->d_x : &a->out, FW_BF16, n, error));
    if (a->kind < FW_LEAKY_RELU_SQUARED || a->kind > FW_SILU)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: there is no activation %u", op, a->kind);
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    switch (a->kind) {
    case FW_LEAKY_RELU_SQUARED: launch(cuda, a, leaky_relu_squared{a->slope}, back); break;
    case FW_RELU_SQUARED: launch(cuda, a, leaky_relu_squared{0.0f}, back); break;
    case FW_GELU_TANH: launch(cuda, a, gelu_tanh{}, back); break;
    default: launch(cuda, a, silu{}, back); break;
    }
    return cuda_launched(cuda, op, "over_elements", error);
}

} // namespace

fw_status cuda_activation_forward(fw_device *device, const fw_activation *a, fw_error *error) {
    CUDA_ARGUMENTS("activation_forward", device, a, error);
    return run(device, "activation_forward", a, false, error);
}

fw_status cuda_activation_backward(fw_device *device, const fw_activation *a, fw_error *error) {
    CUDA_ARGUMENTS("activation_backward", device, a, error);
    return run(device, "activation_backward", a, true, error);
}
