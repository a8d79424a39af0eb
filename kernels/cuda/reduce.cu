/* Reductions to one number. Each block sums its share in double, in an order that follows from the
 * count of elements and the GPU alone; a second kernel of one block combines the shares in order.
 * There is no counter of finished blocks: the workspace belongs to every op in turn and keeps
 * nothing from one to the next. */
#include "elements.cuh"
#include "vector.cuh"

namespace {

#define REDUCE_THREADS 512
#define REDUCE_LOADS 4  /* of 16 bytes, in flight in each thread */
#define REDUCE_BLOCKS 4 /* for each multiprocessor */
#define COMBINE_THREADS 256

struct reduction {
    const float *x, *y;
    int64_t n;
    double *shares; /* one for each block */
    float *result;
    bool accumulate;
};

template <int KIND, int WIDTH>
__device__ __forceinline__ double add(double total, const packed<WIDTH, float> &of_x,
                                      const packed<WIDTH, float> &of_y) {
    const floats<WIDTH> x = unpack<WIDTH, float>(of_x), y = unpack<WIDTH, float>(of_y);
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        const double value = static_cast<double>(x.at[i]);
        switch (KIND) {
        case FW_SUM: total += value; break;
        case FW_SUM_SQUARES: total = fma(value, value, total); break;
        case FW_MAX_ABS: total = fmax(total, fabs(value)); break;
        default: total = fma(value, static_cast<double>(y.at[i]), total); break;
        }
    }
    return total;
}

template <int KIND> __device__ __forceinline__ double combine(double value) {
    if (KIND == FW_MAX_ABS) return static_cast<double>(block_max(static_cast<float>(value)));
    return block_sum(value);
}

__device__ __forceinline__ void finish(const reduction &r, double total) {
    *r.result = static_cast<float>(total + (r.accumulate ? static_cast<double>(*r.result) : 0.0));
}

template <int KIND, int WIDTH>
__global__ void __launch_bounds__(REDUCE_THREADS) reduce_shares(reduction r) {
    constexpr int64_t tile = REDUCE_THREADS * REDUCE_LOADS;
    const int64_t accesses = r.n / WIDTH;
    double totals[REDUCE_LOADS] = {};
    for (int64_t base = blockIdx.x * tile; base < accesses; base += gridDim.x * tile) {
        packed<WIDTH, float> x[REDUCE_LOADS] = {}, y[REDUCE_LOADS] = {};
        const int64_t first = base + threadIdx.x;
#pragma unroll
        for (int i = 0; i < REDUCE_LOADS; i++) {
            const int64_t at = first + i * REDUCE_THREADS;
            if (at < accesses) x[i] = load<WIDTH>(r.x + at * WIDTH);
            if (KIND == FW_DOT && at < accesses) y[i] = load<WIDTH>(r.y + at * WIDTH);
        }
#pragma unroll
        for (int i = 0; i < REDUCE_LOADS; i++) totals[i] = add<KIND, WIDTH>(totals[i], x[i], y[i]);
    }
    double total = KIND == FW_MAX_ABS ? fmax(fmax(totals[0], totals[1]), fmax(totals[2], totals[3]))
                                      : (totals[0] + totals[1]) + (totals[2] + totals[3]);
    const int64_t rest = accesses * WIDTH + threadIdx.x;
    if (blockIdx.x == 0 && rest < r.n)
        total =
            add<KIND, 1>(total, load<1>(r.x + rest), load<1>((KIND == FW_DOT ? r.y : r.x) + rest));
    total = combine<KIND>(total);
    if (threadIdx.x > 0) return;
    if (gridDim.x == 1)
        finish(r, total);
    else
        r.shares[blockIdx.x] = total;
}

template <int KIND>
__global__ void __launch_bounds__(COMBINE_THREADS) combine_shares(reduction r, int blocks) {
    double total = 0.0;
#pragma unroll 4
    for (int i = threadIdx.x; i < blocks; i += COMBINE_THREADS)
        total = KIND == FW_MAX_ABS ? fmax(total, r.shares[i]) : total + r.shares[i];
    total = combine<KIND>(total);
    if (threadIdx.x == 0) finish(r, total);
}

template <int KIND>
fw_status run(cuda_device *cuda, const reduction &r, bool aligned, fw_error *error) {
    const int64_t tile = REDUCE_THREADS * REDUCE_LOADS * (aligned ? 4 : 1);
    const int64_t most = static_cast<int64_t>(cuda->multiprocessors) * REDUCE_BLOCKS;
    const int blocks = static_cast<int>(cuda_max(1, cuda_min(cuda_divide_up(r.n, tile), most)));
    if (aligned)
        reduce_shares<KIND, 4><<<blocks, REDUCE_THREADS, 0, cuda->stream>>>(r);
    else
        reduce_shares<KIND, 1><<<blocks, REDUCE_THREADS, 0, cuda->stream>>>(r);
    FW_TRY(cuda_launched(cuda, "reduce", "reduce_shares", error));
    if (blocks == 1) return FW_OK;
    combine_shares<KIND><<<1, COMBINE_THREADS, 0, cuda->stream>>>(r, blocks);
    return cuda_launched(cuda, "reduce", "combine_shares", error);
}

fw_status check(const fw_reduce *p, fw_error *error) {
    FW_TRY(cuda_check_packed("reduce", "x", &p->x, FW_F32, -1, error));
    if (p->reduction < FW_SUM || p->reduction > FW_DOT)
        return fw_fail(error, FW_E_UNSUPPORTED, "reduce: there is no reduction %u", p->reduction);
    if (p->reduction == FW_DOT)
        FW_TRY(cuda_check_packed("reduce", "y", &p->y, FW_F32, fw_tensor_count(&p->x), error));
    return cuda_check_packed("reduce", "result", &p->result, FW_F32, 1, error);
}

} // namespace

fw_status cuda_reduce(fw_device *device, const fw_reduce *p, fw_error *error) {
    CUDA_ARGUMENTS("reduce", device, p, error);
    FW_TRY(check(p, error));
    cuda_device *cuda = cuda_self(device);
    const reduction r = {.x = static_cast<const float *>(p->x.data),
                         .y = static_cast<const float *>(p->y.data),
                         .n = fw_tensor_count(&p->x),
                         .shares = reinterpret_cast<double *>(cuda->workspace),
                         .result = static_cast<float *>(p->result.data),
                         .accumulate = p->accumulate != 0};
    const bool aligned =
        elements_aligned(&p->x, 4) && (p->reduction != FW_DOT || elements_aligned(&p->y, 4));
    switch (p->reduction) {
    case FW_SUM: return run<FW_SUM>(cuda, r, aligned, error);
    case FW_SUM_SQUARES: return run<FW_SUM_SQUARES>(cuda, r, aligned, error);
    case FW_MAX_ABS: return run<FW_MAX_ABS>(cuda, r, aligned, error);
    default: return run<FW_DOT>(cuda, r, aligned, error);
    }
}
