/* Softcapped cross entropy forward and backward, and log-softmax rows with their entropy for
 * scoring: one warp a row, or one block where rows are long. Logits are bfloat16 in memory and
 * float32 in registers only. What training and scoring meet has kernels of its own; everything else
 * shares one a pass, which is slower and takes any row. */
#include "cuda_device.h"
#include "softcap.cuh"

#include <type_traits>

namespace {

#define BLOCK_THREADS 256
#define BLOCK_WARPS (BLOCK_THREADS / WARP_LANES)
#define MOST_LOADS 4       /* pieces of a row in flight in each thread */
#define BLOCK_COLUMNS 4096 /* longer rows take a block each */

/* e^(z - cap) >= e^(-2 cap) is a normal number up to here, and so a row needs no maximum. */
#define MOST_BOUNDED 40.0f

/* ---- the threads of a row ---- */

/* Rows of whole aligned pieces, a warp or a block each, whose cap is known when the kernel is
 * compiled; or any rows, a block each, whose cap is not. */
enum row_kind { WARP_ROWS, BLOCK_ROWS, ANY_ROWS };

template <row_kind KIND> __device__ __forceinline__ int64_t row_of_thread() {
    return KIND != WARP_ROWS
               ? static_cast<int64_t>(blockIdx.x)
               : static_cast<int64_t>(blockIdx.x) * BLOCK_WARPS + threadIdx.x / WARP_LANES;
}
template <row_kind KIND> __device__ __forceinline__ int thread_of_row() {
    return KIND != WARP_ROWS ? threadIdx.x : threadIdx.x % WARP_LANES;
}
template <row_kind KIND> __device__ constexpr int threads_of_row() {
    return KIND != WARP_ROWS ? BLOCK_THREADS : WARP_LANES;
}
template <row_kind KIND> __device__ __forceinline__ float sum_of_row(float x) {
    return KIND != WARP_ROWS ? block_sum(x) : warp_sum(x);
}
template <row_kind KIND> __device__ __forceinline__ float max_of_row(float x) {
    return KIND != WARP_ROWS ? block_max(x) : warp_max(x);
}

/* Calls f(piece as float32, column, elements there) on this thread's pieces of a row, LOADS of them
 * read before the first call. */
template <row_kind KIND, class T, class F>
__device__ __forceinline__ void each_piece(const T *row, int64_t columns, F f) {
    using held = std::conditional_t<std::is_same_v<T, float>, floats8, uint4>;
    constexpr bool ALIGNED = KIND != ANY_ROWS;
    constexpr int LOADS = ALIGNED ? MOST_LOADS : 1;
    constexpr int64_t step = threads_of_row<KIND>() * PIECE;
    for (int64_t base = thread_of_row<KIND>() * PIECE; base < columns; base += LOADS * step) {
        held pieces[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int64_t at = base + i * step;
            if constexpr (std::is_same_v<T, float>)
                pieces[i] = load_piece<ALIGNED>(row + at, columns - at);
            else
                pieces[i] = load_packed_piece<ALIGNED>(row + at, columns - at);
        }
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int64_t at = base + i * step;
            if (at >= columns) break;
            const int there = ALIGNED ? PIECE : static_cast<int>(min(columns - at, (int64_t)PIECE));
            if constexpr (std::is_same_v<T, float>)
                f(pieces[i], at, there);
            else
                f(unpack8(pieces[i]), at, there);
        }
    }
}

/* ---- sums over a row, relative to a maximum: of e^z and, for the entropy, of e^z (z - maximum)
 * ---- */

/* Far below any logit, and finite: its difference from itself is a number. */
#define LOWEST (-1e38f)

struct running {
    float maximum, total, weighted;
};

template <bool WEIGHTED> __device__ __forceinline__ void move_maximum(running *r, float maximum) {
    const float move = r->maximum - maximum, shrink = fast_exp(move);
    if (WEIGHTED) r->weighted = r->total > 0.0f ? (r->weighted + r->total * move) * shrink : 0.0f;
    r->total *= shrink;
    r->maximum = maximum;
}

template <bool WEIGHTED>
__device__ __forceinline__ void add_piece(running *r, const floats8 &z, int there) {
    float maximum = r->maximum;
#pragma unroll
    for (int i = 0; i < PIECE; i++) maximum = i < there ? fmaxf(maximum, z.at[i]) : maximum;
    move_maximum<WEIGHTED>(r, maximum);
#pragma unroll
    for (int i = 0; i < PIECE; i++) {
        const float below = z.at[i] - maximum, weight = i < there ? fast_exp(below) : 0.0f;
        r->total += weight;
        if (WEIGHTED) r->weighted += weight > 0.0f ? weight * below : 0.0f;
    }
}

template <row_kind KIND, bool CAPPED>
__device__ __forceinline__ floats8 logits_of(const floats8 &x, softcap s) {
    if (KIND == ANY_ROWS) return s.cap > 0.0f ? capped<true>(x, s) : x;
    return capped<CAPPED>(x, s);
}

/* All threads of the row get the same sums. */
template <row_kind KIND, bool CAPPED, bool WEIGHTED, class T>
__device__ __forceinline__ running sum_row(const T *row, int64_t columns, softcap s) {
    running r = {LOWEST, 0.0f, 0.0f};
    each_piece<KIND>(row, columns, [&](const floats8 &x, int64_t, int there) {
        add_piece<WEIGHTED>(&r, logits_of<KIND, CAPPED>(x, s), there);
    });
    move_maximum<WEIGHTED>(&r, max_of_row<KIND>(r.maximum));
    r.total = sum_of_row<KIND>(r.total);
    if (WEIGHTED) r.weighted = sum_of_row<KIND>(r.weighted);
    return r;
}

/* The same relative to the cap itself: e^(z - cap) = 2^(-2 cap log2(e) r). */
template <row_kind KIND>
__device__ __forceinline__ running sum_bounded_row(const __nv_bfloat16 *row, int64_t columns,
                                                   softcap s) {
    const float scale = -2.0f * s.cap * LOG2_E;
    float total = 0.0f;
    each_piece<KIND>(row, columns, [&](const floats8 &x, int64_t, int there) {
        const bent8 b = bend8(x, s.rate);
#pragma unroll
        for (int i = 0; i < PIECE; i++) total += i < there ? fast_exp2(scale * b.rest.at[i]) : 0.0f;
    });
    return {s.cap, sum_of_row<KIND>(total), 0.0f};
}

/* ---- forward ---- */

struct problem {
    const __nv_bfloat16 *logits;
    __nv_bfloat16 *d_logits;
    const int32_t *targets;
    float *loss, *log_sum_exp;
    int64_t rows, columns, stride, d_stride;
    softcap cap;
    float d_loss;
};

/* A target beyond the last column reads as NaN: the host, which could refuse it, sees no targets.
 */
__device__ __forceinline__ float target_logit(const problem &p, const __nv_bfloat16 *row,
                                              int32_t target) {
    if (target >= p.columns) return nanf("");
    return capped_one(__bfloat162float(row[target]), p.cap);
}

/* CAPPED of rows that are not any rows: by no more than MOST_BOUNDED. */
template <row_kind KIND, bool CAPPED>
__global__ void __launch_bounds__(BLOCK_THREADS) forward_rows(problem p) {
    const int64_t index = row_of_thread<KIND>();
    if (index >= p.rows) return;
    const __nv_bfloat16 *row = p.logits + index * p.stride;
    running r;
    if constexpr (KIND != ANY_ROWS && CAPPED)
        r = sum_bounded_row<KIND>(row, p.columns, p.cap);
    else
        r = sum_row<KIND, CAPPED, false>(row, p.columns, p.cap);
    if (thread_of_row<KIND>() > 0) return;
    const int32_t target = p.targets[index];
    const float logarithm = r.maximum + logf(r.total);
    p.log_sum_exp[index] = logarithm;
    p.loss[index] = target < 0 ? 0.0f : logarithm - target_logit(p, row, target);
}

/* ---- backward ---- */

template <row_kind KIND, bool CAPPED>
__device__ __forceinline__ floats8 gradient(const floats8 &x, const problem &p, float logarithm,
                                            int64_t from_target) {
    floats8 d, slope;
    if (KIND == ANY_ROWS ? p.cap.cap > 0.0f : CAPPED) {
        const bent8 b = bend8(x, p.cap.rate);
        const float scale = -2.0f * p.cap.cap * LOG2_E, offset = (p.cap.cap - logarithm) * LOG2_E;
#pragma unroll
        for (int i = 0; i < PIECE; i++) {
            d.at[i] = fast_exp2(fmaf(scale, b.rest.at[i], offset));
            slope.at[i] = 4.0f * p.d_loss * b.power.at[i] * b.rest.at[i] * b.rest.at[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < PIECE; i++) {
            d.at[i] = fast_exp(x.at[i] - logarithm);
            slope.at[i] = p.d_loss;
        }
    }
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        d.at[i] = (d.at[i] - (i == from_target ? 1.0f : 0.0f)) * slope.at[i];
    return d;
}

template <row_kind KIND, bool CAPPED>
__global__ void __launch_bounds__(BLOCK_THREADS) backward_rows(problem p) {
    constexpr bool ALIGNED = KIND != ANY_ROWS;
    const int64_t index = row_of_thread<KIND>();
    if (index >= p.rows) return;
    const __nv_bfloat16 *row = p.logits + index * p.stride;
    __nv_bfloat16 *to = p.d_logits + index * p.d_stride;
    const int64_t target = p.targets[index];
    if (target < 0) {
        constexpr int64_t step = threads_of_row<KIND>() * PIECE;
        for (int64_t at = thread_of_row<KIND>() * PIECE; at < p.columns; at += step)
            store_piece<ALIGNED>(to + at, zeros8(), p.columns - at);
        return;
    }
    const float logarithm = p.log_sum_exp[index];
    each_piece<KIND>(row, p.columns, [&](const floats8 &x, int64_t at, int there) {
        store_piece<ALIGNED>(to + at, gradient<KIND, CAPPED>(x, p, logarithm, target - at), there);
    });
}

/* ---- log-softmax ---- */

template <class T> struct scoring {
    const T *logits;
    float *out, *entropy; /* entropy NULL: not wanted */
    int64_t rows, columns, stride, out_stride;
    softcap cap;
};

/* `out` may be the logits: all of a row is summed before any of it is written. Entropy: -sum p log
 * p = log total - weighted / total, both relative to the maximum. */
template <row_kind KIND, bool CAPPED, class T>
__global__ void __launch_bounds__(BLOCK_THREADS) log_softmax_rows(scoring<T> p) {
    const int64_t index = row_of_thread<KIND>();
    if (index >= p.rows) return;
    const T *row = p.logits + index * p.stride;
    float *to = p.out + index * p.out_stride;
    const running r = sum_row<KIND, CAPPED, true>(row, p.columns, p.cap);
    const float log_total = logf(r.total), logarithm = r.maximum + log_total;
    each_piece<KIND>(row, p.columns, [&](const floats8 &x, int64_t at, int there) {
        floats8 z = logits_of<KIND, CAPPED>(x, p.cap);
#pragma unroll
        for (int i = 0; i < PIECE; i++) z.at[i] -= logarithm;
        store_piece<KIND != ANY_ROWS>(to + at, z, there);
    });
    if (p.entropy != nullptr && thread_of_row<KIND>() == 0)
        p.entropy[index] = log_total - r.weighted / r.total;
}

/* ---- launching: what is known of a call becomes template arguments ---- */

template <row_kind KIND> using kind_of_rows = std::integral_constant<row_kind, KIND>;

template <class KIND, class F> void choose_cap(KIND kind, bool capped, unsigned blocks, F f) {
    if (capped)
        f(kind, std::true_type{}, blocks);
    else
        f(kind, std::false_type{}, blocks);
}

/* f(kind of rows, capped, blocks of the grid) */
template <class F> void for_rows(int64_t rows, int64_t columns, bool aligned, bool capped, F f) {
    if (!aligned)
        f(kind_of_rows<ANY_ROWS>{}, std::false_type{}, static_cast<unsigned>(rows));
    else if (columns > BLOCK_COLUMNS)
        choose_cap(kind_of_rows<BLOCK_ROWS>{}, capped, static_cast<unsigned>(rows), f);
    else
        choose_cap(kind_of_rows<WARP_ROWS>{}, capped,
                   static_cast<unsigned>(cuda_divide_up(rows, BLOCK_WARPS)), f);
}

void launch_log_softmax(cudaStream_t stream, const scoring<__nv_bfloat16> &p, bool aligned) {
    for_rows(p.rows, p.columns, aligned, p.cap.cap > 0.0f,
             [&](auto kind, auto is_capped, unsigned blocks) {
                 log_softmax_rows<kind.value, is_capped.value>
                     <<<blocks, BLOCK_THREADS, 0, stream>>>(p);
             });
}

/* Logits of float32 do not come from this device's products: nobody waits for them. */
void launch_log_softmax(cudaStream_t stream, const scoring<float> &p, bool) {
    log_softmax_rows<ANY_ROWS, false>
        <<<static_cast<unsigned>(p.rows), BLOCK_THREADS, 0, stream>>>(p);
}

/* ---- checks ---- */

fw_status check_logits(const char *op, const fw_tensor *logits, uint32_t dtype, fw_error *error) {
    FW_TRY(cuda_check_matrix(op, "logits", logits, dtype, -1, -1, error));
    if (logits->shape[0] > INT32_MAX)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: %lld rows, at most %d are supported", op,
                       static_cast<long long>(logits->shape[0]), INT32_MAX);
    return FW_OK;
}

fw_status check(const char *op, const fw_cross_entropy *p, fw_error *error) {
    FW_TRY(check_logits(op, &p->logits, FW_BF16, error));
    const int64_t rows = p->logits.shape[0];
    if (p->logits.shape[1] < 1) return fw_fail(error, FW_E_SHAPE, "%s: logits have no columns", op);
    FW_TRY(cuda_check_packed(op, "targets", &p->targets, FW_I32, rows, error));
    return cuda_check_packed(op, "log_sum_exp", &p->log_sum_exp, FW_F32, rows, error);
}

problem problem_of(const fw_cross_entropy *p) {
    return {.logits = static_cast<const __nv_bfloat16 *>(p->logits.data),
            .d_logits = static_cast<__nv_bfloat16 *>(p->d_logits.data),
            .targets = static_cast<const int32_t *>(p->targets.data),
            .loss = static_cast<float *>(p->loss.data),
            .log_sum_exp = static_cast<float *>(p->log_sum_exp.data),
            .rows = p->logits.shape[0],
            .columns = p->logits.shape[1],
            .stride = p->logits.stride[0],
            .d_stride = p->d_logits.stride[0],
            .cap = softcap_of(p->softcap),
            .d_loss = p->d_loss};
}

template <class T>
fw_status run_log_softmax(cuda_device *cuda, const fw_log_softmax *p, fw_error *error) {
    const scoring<T> call = {.logits = static_cast<const T *>(p->logits.data),
                             .out = static_cast<float *>(p->log_probabilities.data),
                             .entropy = static_cast<float *>(p->entropy.data),
                             .rows = p->logits.shape[0],
                             .columns = p->logits.shape[1],
                             .stride = p->logits.stride[0],
                             .out_stride = p->log_probabilities.stride[0],
                             .cap = softcap_of(p->softcap)};
    if (call.rows == 0 || call.columns == 0) return FW_OK;
    launch_log_softmax(cuda->stream, call,
                       rows_aligned(&p->logits) && rows_aligned(&p->log_probabilities));
    return cuda_launched(cuda, "log_softmax", "log_softmax_rows", error);
}

} // namespace

/* ---- the ops ---- */

fw_status cuda_cross_entropy_forward(fw_device *device, const fw_cross_entropy *p,
                                     fw_error *error) {
    const char *op = "cross_entropy_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cuda_check_packed(op, "loss", &p->loss, FW_F32, p->logits.shape[0], error));
    if (p->logits.shape[0] == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const problem call = problem_of(p);
    const bool aligned = rows_aligned(&p->logits) && !(p->softcap > MOST_BOUNDED);
    for_rows(call.rows, call.columns, aligned, p->softcap > 0.0f,
             [&](auto kind, auto is_capped, unsigned blocks) {
                 forward_rows<kind.value, is_capped.value>
                     <<<blocks, BLOCK_THREADS, 0, cuda->stream>>>(call);
             });
    return cuda_launched(cuda, op, "forward_rows", error);
}

fw_status cuda_cross_entropy_backward(fw_device *device, const fw_cross_entropy *p,
                                      fw_error *error) {
    const char *op = "cross_entropy_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    const int64_t rows = p->logits.shape[0], columns = p->logits.shape[1];
    FW_TRY(cuda_check_matrix(op, "d_logits", &p->d_logits, FW_BF16, rows, columns, error));
    if (rows == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const problem call = problem_of(p);
    const bool aligned = rows_aligned(&p->logits) && rows_aligned(&p->d_logits);
    for_rows(rows, columns, aligned, p->softcap > 0.0f,
             [&](auto kind, auto is_capped, unsigned blocks) {
                 backward_rows<kind.value, is_capped.value>
                     <<<blocks, BLOCK_THREADS, 0, cuda->stream>>>(call);
             });
    return cuda_launched(cuda, op, "backward_rows", error);
}

fw_status cuda_log_softmax(fw_device *device, const fw_log_softmax *p, fw_error *error) {
    const char *op = "log_softmax";
    CUDA_ARGUMENTS(op, device, p, error);
    const uint32_t dtype = p->logits.dtype == FW_F32 ? FW_F32 : FW_BF16;
    FW_TRY(check_logits(op, &p->logits, dtype, error));
    const int64_t rows = p->logits.shape[0], columns = p->logits.shape[1];
    FW_TRY(cuda_check_matrix(op, "log_probabilities", &p->log_probabilities, FW_F32, rows, columns,
                             error));
    if (p->entropy.data != nullptr)
        FW_TRY(cuda_check_packed(op, "entropy", &p->entropy, FW_F32, rows, error));
    cuda_device *cuda = cuda_self(device);
    return dtype == FW_F32 ? run_log_softmax<float>(cuda, p, error)
                           : run_log_softmax<__nv_bfloat16>(cuda, p, error);
}
