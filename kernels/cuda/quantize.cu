/* What quantization-aware training needs: the largest magnitude of each row, and rounding each row
 * to a symmetric grid. One block a row. */
#include "elements.cuh"
#include "vector.cuh"

namespace {

#define ROW_THREADS 128

template <int WIDTH>
__global__ void __launch_bounds__(ROW_THREADS)
    largest_of_rows(const float *x, int64_t stride, int64_t columns, float *absmax) {
    const float *row = x + blockIdx.x * stride;
    float largest = 0.0f;
#pragma unroll 4
    for (int64_t at = threadIdx.x * WIDTH; at < columns; at += ROW_THREADS * WIDTH) {
        const floats<WIDTH> values = unpack<WIDTH, float>(load<WIDTH>(row + at));
#pragma unroll
        for (int i = 0; i < WIDTH; i++) largest = fmaxf(largest, fabsf(values.at[i]));
    }
    largest = block_max(largest);
    if (threadIdx.x == 0) absmax[blockIdx.x] = largest;
}

/* rintf rounds half to even. Comparisons, not fminf: they let a NaN through, and it shows. */
__device__ __forceinline__ float on_grid(float x, float scale, float levels) {
    const float level = rintf(x / scale);
    const float above = level < -levels ? -levels : level;
    return scale * (above > levels ? levels : above);
}

template <class Out> struct quantize_rows {
    const float *x, *scale;
    Out *out;
    int64_t stride, out_stride, columns;
    const fw_step *step;
    float floor, levels;
};

template <int WIDTH, class Out>
__global__ void __launch_bounds__(ROW_THREADS) fake_quantize_rows(quantize_rows<Out> q) {
    const float *row = q.x + blockIdx.x * q.stride;
    Out *to = q.out + blockIdx.x * q.out_stride;
    const bool copies = q.step != nullptr && q.step->quantize == 0;
    const float given = q.scale[blockIdx.x], scale = given < q.floor ? q.floor : given;
#pragma unroll 4
    for (int64_t at = threadIdx.x * WIDTH; at < q.columns; at += ROW_THREADS * WIDTH) {
        floats<WIDTH> values = unpack<WIDTH, float>(load<WIDTH>(row + at));
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            if (!copies)
                values.at[i] = scale == 0.0f ? 0.0f : on_grid(values.at[i], scale, q.levels);
        store<WIDTH>(to + at, values);
    }
}

bool rows_of_four(const fw_tensor *rows) {
    return elements_aligned(rows, 4) && rows->shape[1] % 4 == 0 &&
           (rows->shape[0] <= 1 || rows->stride[0] % 4 == 0);
}

template <class Out> void launch(const cuda_device *cuda, const fw_fake_quantize *p) {
    const quantize_rows<Out> q = {.x = static_cast<const float *>(p->x.data),
                                  .scale = static_cast<const float *>(p->scale.data),
                                  .out = static_cast<Out *>(p->out.data),
                                  .stride = p->x.stride[0],
                                  .out_stride = p->out.stride[0],
                                  .columns = p->x.shape[1],
                                  .step = p->step,
                                  .floor = FW_COVERS(p, scale_floor) ? p->scale_floor : 0.0f,
                                  .levels = static_cast<float>(p->levels)};
    const unsigned rows = static_cast<unsigned>(p->x.shape[0]);
    if (rows_of_four(&p->x) && rows_of_four(&p->out))
        fake_quantize_rows<4, Out><<<rows, ROW_THREADS, 0, cuda->stream>>>(q);
    else
        fake_quantize_rows<1, Out><<<rows, ROW_THREADS, 0, cuda->stream>>>(q);
}

/* Rows are blocks. */
fw_status check_rows(const char *op, int64_t rows, fw_error *error) {
    if (rows <= INT32_MAX) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "%s: x has %lld rows, at most %d are supported", op,
                   static_cast<long long>(rows), INT32_MAX);
}

} // namespace

fw_status cuda_row_absmax(fw_device *device, const fw_row_absmax *p, fw_error *error) {
    const char *op = "row_absmax";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(cuda_check_matrix(op, "x", &p->x, FW_F32, -1, -1, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
    FW_TRY(check_rows(op, rows, error));
    FW_TRY(cuda_check_packed(op, "absmax", &p->absmax, FW_F32, rows, error));
    if (rows == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const float *x = static_cast<const float *>(p->x.data);
    float *absmax = static_cast<float *>(p->absmax.data);
    const auto kernel = rows_of_four(&p->x) ? largest_of_rows<4> : largest_of_rows<1>;
    kernel<<<static_cast<unsigned>(rows), ROW_THREADS, 0, cuda->stream>>>(x, p->x.stride[0],
                                                                          columns, absmax);
    return cuda_launched(cuda, op, "largest_of_rows", error);
}

static fw_status check_quantize(const char *op, const fw_fake_quantize *p, fw_error *error) {
    FW_TRY(cuda_check_matrix(op, "x", &p->x, FW_F32, -1, -1, error));
    const int64_t rows = p->x.shape[0], columns = p->x.shape[1];
    const uint32_t dtype = p->out.dtype == FW_F32 ? FW_F32 : FW_BF16;
    FW_TRY(check_rows(op, rows, error));
    FW_TRY(cuda_check_matrix(op, "out", &p->out, dtype, rows, columns, error));
    return cuda_check_packed(op, "scale", &p->scale, FW_F32, rows, error);
}

fw_status cuda_fake_quantize(fw_device *device, const fw_fake_quantize *p, fw_error *error) {
    const char *op = "fake_quantize";
    CUDA_ARGUMENTS_SINCE(op, device, p, out, error);
    FW_TRY(check_quantize(op, p, error));
    if (p->x.shape[0] == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    if (p->out.dtype == FW_F32)
        launch<float>(cuda, p);
    else
        launch<__nv_bfloat16>(cuda, p);
    return cuda_launched(cuda, op, "fake_quantize_rows", error);
}
