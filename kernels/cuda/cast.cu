/* Conversions between float32, bfloat16 and IEEE half, rounding to nearest even. NaN stays NaN,
 * infinities and denormals are kept; between equal dtypes the bits are copied. */
#include "elements.cuh"

namespace {

template <class From, class To> struct conversion {
    static constexpr int WIDTH = sizeof(From) + sizeof(To) == 4 ? 8 : 4, ROUNDS = 4;
    const From *from;
    To *to;

    template <int W> struct held { packed<W, From> x; };
    __device__ bool begin() const { return true; }
    template <int W> __device__ void read(int64_t at, held<W> *x) const {
        x->x = load<W>(from + at);
    }
    template <int W> __device__ void write(int64_t at, const held<W> &x) const {
        store<W>(to + at, unpack<W, From>(x.x));
    }
};

template <class From, class To> void convert(const cuda_device *cuda, const fw_cast *p, int64_t n) {
    const conversion<From, To> op = {static_cast<const From *>(p->from.data),
                                     static_cast<To *>(p->to.data)};
    launch_elements(cuda, op, n,
                    elements_aligned(&p->from, op.WIDTH) && elements_aligned(&p->to, op.WIDTH));
}

template <class From> void convert_from(const cuda_device *cuda, const fw_cast *p, int64_t n) {
    if (p->to.dtype == FW_F32)
        convert<From, float>(cuda, p, n);
    else if (p->to.dtype == FW_BF16)
        convert<From, __nv_bfloat16>(cuda, p, n);
    else
        convert<From, __half>(cuda, p, n);
}

bool is_real(uint32_t dtype) { return dtype == FW_F32 || dtype == FW_BF16 || dtype == FW_F16; }

fw_status check(const fw_cast *p, fw_error *error) {
    if (!is_real(p->from.dtype) || !is_real(p->to.dtype))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "cast: dtypes %u and %u; F32, BF16 and F16 can be converted", p->from.dtype,
                       p->to.dtype);
    FW_TRY(cuda_check_packed("cast", "from", &p->from, p->from.dtype, -1, error));
    return cuda_check_packed("cast", "to", &p->to, p->to.dtype, fw_tensor_count(&p->from), error);
}

} // namespace

fw_status cuda_cast(fw_device *device, const fw_cast *p, fw_error *error) {
    CUDA_ARGUMENTS("cast", device, p, error);
    FW_TRY(check(p, error));
    const int64_t n = fw_tensor_count(&p->from);
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    if (p->from.dtype == p->to.dtype)
        CUDA_TRY(cuda,
                 cudaMemcpyAsync(p->to.data, p->from.data, n * fw_dtype_size(p->to.dtype),
                                 cudaMemcpyDeviceToDevice, cuda->stream),
                 "cast", error);
    else if (p->from.dtype == FW_F32)
        convert_from<float>(cuda, p, n);
    else if (p->from.dtype == FW_BF16)
        convert_from<__nv_bfloat16>(cuda, p, n);
    else
        convert_from<__half>(cuda, p, n);
    return cuda_launched(cuda, "cast", "over_elements", error);
}
