/* Rows of a weight times a value each, and the gradients of both: a block for each row. */
#include "elements.cuh"
#include "vector.cuh"

namespace {

constexpr int ROW_THREADS = 128;

/* Matrices of a call; strides in elements. */
struct rows {
    const void *x; /* float or __nv_bfloat16 */
    const float *scale, *d_out;
    float *d_x, *d_scale;
    __nv_bfloat16 *out;
    int64_t columns, x_stride, out_stride, d_out_stride, d_x_stride;
    bool accumulate;
};

template <int WIDTH, class X>
__global__ void __launch_bounds__(ROW_THREADS) scale_rows(const rows p) {
    const int64_t row = blockIdx.x;
    const X *from = static_cast<const X *>(p.x) + row * p.x_stride;
    const float scale = p.scale[row];
    for (int64_t at = threadIdx.x * WIDTH; at < p.columns; at += ROW_THREADS * WIDTH) {
        floats<WIDTH> values = unpack<WIDTH, X>(load<WIDTH>(from + at));
#pragma unroll
        for (int i = 0; i < WIDTH; i++) values.at[i] *= scale;
        store<WIDTH>(p.out + row * p.out_stride + at, values);
    }
}

/* d_x may be d_out: a thread writes what it alone has read. */
template <int WIDTH, class X>
__global__ void __launch_bounds__(ROW_THREADS) scale_rows_back(const rows p) {
    const int64_t row = blockIdx.x;
    const X *from = static_cast<const X *>(p.x) + row * p.x_stride;
    const float scale = p.scale[row];
    float sum = 0.0f;
    for (int64_t at = threadIdx.x * WIDTH; at < p.columns; at += ROW_THREADS * WIDTH) {
        const floats<WIDTH> x = unpack<WIDTH, X>(load<WIDTH>(from + at));
        const floats<WIDTH> d =
            unpack<WIDTH, float>(load<WIDTH>(p.d_out + row * p.d_out_stride + at));
        float *to = p.d_x + row * p.d_x_stride + at;
        floats<WIDTH> result = {};
        if (p.accumulate) result = unpack<WIDTH, float>(load<WIDTH>(to));
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            sum += x.at[i] * d.at[i];
            result.at[i] += scale * d.at[i];
        }
        store<WIDTH>(to, result);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.d_scale[row] = (p.accumulate ? p.d_scale[row] : 0.0f) + sum;
}

/* Whether rows can be taken in fours. */
bool in_fours(const fw_tensor *matrix) {
    return elements_aligned(matrix, 4) && matrix->shape[1] % 4 == 0 &&
           (matrix->shape[0] <= 1 || matrix->stride[0] % 4 == 0);
}

fw_status check_rows(const char *op, const fw_scale_rows *p, fw_error *error) {
    const uint32_t dtype = p->x.dtype == FW_F32 ? FW_F32 : FW_BF16;
    FW_TRY(cuda_check_matrix(op, "x", &p->x, dtype, -1, -1, error));
    FW_TRY(cuda_check_packed(op, "scale", &p->scale, FW_F32, p->x.shape[0], error));
    if (p->x.shape[0] <= INT32_MAX) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "%s: x has %lld rows, at most 2^31 - 1 are supported",
                   op, (long long)p->x.shape[0]);
}

template <int WIDTH>
void launch_scale_rows(const cuda_device *cuda, const fw_scale_rows *p, const rows &r) {
    const unsigned n = static_cast<unsigned>(p->x.shape[0]);
    if (p->x.dtype == FW_F32)
        scale_rows<WIDTH, float><<<n, ROW_THREADS, 0, cuda->stream>>>(r);
    else
        scale_rows<WIDTH, __nv_bfloat16><<<n, ROW_THREADS, 0, cuda->stream>>>(r);
}

template <int WIDTH>
void launch_scale_rows_back(const cuda_device *cuda, const fw_scale_rows *p, const rows &r) {
    const unsigned n = static_cast<unsigned>(p->x.shape[0]);
    if (p->x.dtype == FW_F32)
        scale_rows_back<WIDTH, float><<<n, ROW_THREADS, 0, cuda->stream>>>(r);
    else
        scale_rows_back<WIDTH, __nv_bfloat16><<<n, ROW_THREADS, 0, cuda->stream>>>(r);
}

} /* namespace */

fw_status cuda_scale_rows_forward(fw_device *device, const fw_scale_rows *p, fw_error *error) {
    const char *op = "scale_rows_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check_rows(op, p, error));
    const int64_t n = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(cuda_check_matrix(op, "out", &p->out, FW_BF16, n, columns, error));
    if (n == 0 || columns == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const rows r = {.x = p->x.data,
                    .scale = static_cast<const float *>(p->scale.data),
                    .out = static_cast<__nv_bfloat16 *>(p->out.data),
                    .columns = columns,
                    .x_stride = p->x.stride[0],
                    .out_stride = p->out.stride[0]};
    if (in_fours(&p->x) && in_fours(&p->out))
        launch_scale_rows<4>(cuda, p, r);
    else
        launch_scale_rows<1>(cuda, p, r);
    return cuda_launched(cuda, op, "scale_rows", error);
}

fw_status cuda_scale_rows_backward(fw_device *device, const fw_scale_rows *p, fw_error *error) {
    const char *op = "scale_rows_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check_rows(op, p, error));
    const int64_t n = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(cuda_check_matrix(op, "d_out", &p->d_out, FW_F32, n, columns, error));
    FW_TRY(cuda_check_matrix(op, "d_x", &p->d_x, FW_F32, n, columns, error));
    FW_TRY(cuda_check_packed(op, "d_scale", &p->d_scale, FW_F32, n, error));
    if (n == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const rows r = {.x = p->x.data,
                    .scale = static_cast<const float *>(p->scale.data),
                    .d_out = static_cast<const float *>(p->d_out.data),
                    .d_x = static_cast<float *>(p->d_x.data),
                    .d_scale = static_cast<float *>(p->d_scale.data),
                    .columns = columns,
                    .x_stride = p->x.stride[0],
                    .d_out_stride = p->d_out.stride[0],
                    .d_x_stride = p->d_x.stride[0],
                    .accumulate = p->accumulate != 0};
    if (in_fours(&p->x) && in_fours(&p->d_out) && in_fours(&p->d_x))
        launch_scale_rows_back<4>(cuda, p, r);
    else
        launch_scale_rows_back<1>(cuda, p, r);
    return cuda_launched(cuda, op, "scale_rows_back", error);
}
