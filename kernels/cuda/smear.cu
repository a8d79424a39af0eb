/* Smear: every position mixed with the one before it by a gate per channel, forward and backward.
 *
 * A thread has eight channels and walks along a run of positions with the row before (forward) or
 * the gradient behind (backward) in registers, so that rows are read once but for the ends of runs.
 * The gate's gradient is summed along the run; blocks leave their sums in the workspace and a
 * second kernel adds them in order of block. */
#include "cuda_device.h"
#include "vector.cuh"

#include <climits>

#define PIECES 64 /* channels / 8 that a block has across */
#define WALKERS 4 /* runs that it has at a time */

/* Rows that are on the way together: in forward a whole run, so that the device starts the next as
 * soon as one is done; backward has few blocks, which keep sums, on each multiprocessor. */
#define FORWARD_AHEAD 8
#define BACKWARD_AHEAD 4
#define BACKWARD_BLOCKS 2

struct sequence_view {
    __nv_bfloat16 *data;
    int64_t batch, token; /* strides */
};

struct smear_call {
    int64_t tokens, runs, run_length;
    int64_t runs_each; /* in one sequence */
    int width;
    const float *gate;
    sequence_view x, out, d_out, d_x;
    float *partials; /* [blocks][width] */
};

struct run {
    int64_t batch, begin, end;
};

__device__ __forceinline__ run run_of(const smear_call &p, int64_t index) {
    const int64_t begin = index % p.runs_each * p.run_length;
    return {index / p.runs_each, begin, min(begin + p.run_length, p.tokens)};
}

/* Both halves of the mix are sigmoids of their own: 1 - g would lose what is left of it where the
 * gate saturates. */
struct mixing {
    floats8 previous, own; /* g and 1 - g */
};

template <bool ALIGNED>
__device__ __forceinline__ mixing load_gate(const smear_call &p, int column) {
    const floats8 logit = load_piece<ALIGNED>(p.gate + column, p.width - column);
    mixing m;
#pragma unroll
    for (int i = 0; i < PIECE; i++) {
        m.previous.at[i] = 1.0f / (1.0f + expf(-logit.at[i]));
        m.own.at[i] = 1.0f / (1.0f + expf(logit.at[i]));
    }
    return m;
}

/* Row t, or zeros where it lies at or beyond `end` or before the first. */
template <bool ALIGNED>
__device__ __forceinline__ uint4 load_at(const sequence_view &from, int64_t batch, int64_t t,
                                         int64_t end, int column, int width) {
    if (t < 0 || t >= end) return make_uint4(0, 0, 0, 0);
    const __nv_bfloat16 *row = from.data + batch * from.batch + t * from.token;
    return load_packed_piece<ALIGNED>(row + column, width - column);
}

/* (1 - g) * own + g * neighbour: both directions. */
template <bool ALIGNED>
__device__ __forceinline__ void store_mixed(const sequence_view &to, int64_t batch, int64_t t,
                                            int column, int width, const mixing &m,
                                            const floats8 &own, const floats8 &neighbour) {
    floats8 out;
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        out.at[i] = m.own.at[i] * own.at[i] + m.previous.at[i] * neighbour.at[i];
    __nv_bfloat16 *row = to.data + batch * to.batch + t * to.token;
    store_piece<ALIGNED>(row + column, out, width - column);
}

__device__ __forceinline__ int first_column() {
    return static_cast<int>(blockIdx.y * PIECES + threadIdx.x) * PIECE;
}
__device__ __forceinline__ int64_t first_run() {
    return static_cast<int64_t>(blockIdx.x) * WALKERS + threadIdx.y;
}

template <bool ALIGNED>
__global__ void __launch_bounds__(PIECES *WALKERS)
    forward_runs(const __grid_constant__ smear_call p) {
    const int column = first_column();
    const int64_t index = first_run();
    if (index >= p.runs) return;
    const run r = run_of(p, index);
    floats8 before = unpack8(load_at<ALIGNED>(p.x, r.batch, r.begin - 1, r.end, column, p.width));
    uint4 x[FORWARD_AHEAD];
#pragma unroll
    for (int i = 0; i < FORWARD_AHEAD; i++)
        x[i] = load_at<ALIGNED>(p.x, r.batch, r.begin + i, r.end, column, p.width);
    const mixing m = load_gate<ALIGNED>(p, column);
#pragma unroll
    for (int i = 0; i < FORWARD_AHEAD; i++) {
        if (r.begin + i >= r.end) break;
        const floats8 own = unpack8(x[i]);
        store_mixed<ALIGNED>(p.out, r.batch, r.begin + i, column, p.width, m, own, before);
        before = own;
    }
}

/* The block's sums over its walkers, in order. */
__device__ __forceinline__ void store_gate_sums(const smear_call &p, const floats8 &total,
                                                int column) {
    __shared__ __align__(16) float sums[WALKERS][PIECES * PIECE];
    store8(&sums[threadIdx.y][threadIdx.x * PIECE], total);
    __syncthreads();
    if (threadIdx.y > 0) return;
    float *to = p.partials + static_cast<int64_t>(blockIdx.x) * p.width + column;
#pragma unroll
    for (int i = 0; i < PIECE; i++) {
        float sum = total.at[i];
        for (int w = 1; w < WALKERS; w++) sum += sums[w][threadIdx.x * PIECE + i];
        if (column + i < p.width) to[i] = sum;
    }
}

template <bool ALIGNED>
__global__ void __launch_bounds__(PIECES *WALKERS, BACKWARD_BLOCKS)
    backward_runs(const __grid_constant__ smear_call p) {
    const int column = first_column(), width = p.width;
    const int64_t step = static_cast<int64_t>(gridDim.x) * WALKERS;
    const mixing m = load_gate<ALIGNED>(p, column);
    floats8 total = zeros8();
    for (int64_t index = first_run(); index < p.runs; index += step) {
        const run r = run_of(p, index);
        floats8 before = unpack8(load_at<ALIGNED>(p.x, r.batch, r.begin - 1, r.end, column, width));
        floats8 d = unpack8(load_at<ALIGNED>(p.d_out, r.batch, r.begin, r.end, column, width));
        for (int64_t t = r.begin; t < r.end; t += BACKWARD_AHEAD) {
            uint4 x[BACKWARD_AHEAD], behind[BACKWARD_AHEAD];
#pragma unroll
            for (int i = 0; i < BACKWARD_AHEAD; i++) {
                const int64_t after = min(r.end + 1, p.tokens); /* of the run's last row too */
                x[i] = load_at<ALIGNED>(p.x, r.batch, t + i, r.end, column, width);
                behind[i] = load_at<ALIGNED>(p.d_out, r.batch, t + i + 1, after, column, width);
            }
#pragma unroll
            for (int i = 0; i < BACKWARD_AHEAD; i++) {
                if (t + i >= r.end) break;
                const floats8 own = unpack8(x[i]), d_behind = unpack8(behind[i]);
                store_mixed<ALIGNED>(p.d_x, r.batch, t + i, column, width, m, d, d_behind);
#pragma unroll
                for (int j = 0; j < PIECE; j++) total.at[j] += d.at[j] * (before.at[j] - own.at[j]);
                before = own;
                d = d_behind;
            }
        }
    }
    store_gate_sums(p, total, column);
}

/* g (1 - g) times the blocks' sums. */
__global__ void __launch_bounds__(WARP_LANES *SUM_ROWS)
    add_gate_sums(smear_call p, float *d_gate, int blocks, bool accumulate) {
    const int64_t column = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    double total = sum_column(p.partials, blocks, p.width, column);
    if (threadIdx.y > 0 || column >= p.width) return;
    const double logit = p.gate[column];
    total *= 1.0 / (1.0 + exp(-logit)) * (1.0 / (1.0 + exp(logit)));
    d_gate[column] = static_cast<float>(accumulate ? d_gate[column] + total : total);
}

/* ---- on the host ---- */

static fw_status check(const char *op, const fw_smear *p, fw_error *error) {
    const int64_t any[3] = {-1, -1, -1};
    FW_TRY(cuda_check_sequences(op, "x", &p->x, any, error));
    const int64_t width = p->x.shape[2];
    if (width > CUDA_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: x has %lld channels, at most %d are supported",
                       op, (long long)width, CUDA_MAX_WIDTH);
    return cuda_check_packed(op, "gate", &p->gate, FW_F32, width, error);
}

/* Neighbouring rows are read while others are written, by other threads too. */
static fw_status check_apart(const char *op, const char *name, const fw_tensor *to,
                             const char *other, const fw_tensor *from, fw_error *error) {
    if (to->data != from->data) return FW_OK;
    return fw_fail(error, FW_E_ARGUMENT, "%s: %s lies over %s; it needs memory of its own", op,
                   name, other);
}

static sequence_view view(const fw_tensor *x) {
    return {static_cast<__nv_bfloat16 *>(x->data), x->stride[0], x->stride[1]};
}

static int64_t blocks_across(int64_t width) {
    return cuda_max(1, cuda_divide_up(width, PIECES * PIECE));
}

static smear_call call_of(const fw_smear *p, int64_t run_length) {
    const int64_t batch = p->x.shape[0], tokens = p->x.shape[1];
    const int64_t each = cuda_divide_up(tokens, run_length);
    return {.tokens = tokens,
            .runs = batch * each,
            .run_length = run_length,
            .runs_each = each,
            .width = static_cast<int>(p->x.shape[2]),
            .gate = static_cast<const float *>(p->gate.data),
            .x = view(&p->x)};
}

/* Runs such that every walker of that many blocks has one, and about the same. */
static int64_t backward_length(const fw_smear *p, int64_t blocks) {
    const int64_t wanted = cuda_max(1, blocks * WALKERS / cuda_max(1, p->x.shape[0]));
    return cuda_max(BACKWARD_AHEAD, cuda_divide_up(p->x.shape[1], wanted));
}

static dim3 grid_of(const smear_call &call, int64_t most) {
    const int64_t blocks = cuda_max(1, cuda_min(cuda_divide_up(call.runs, WALKERS), most));
    return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(blocks_across(call.width)));
}

static bool gate_aligned(const fw_smear *p) {
    return reinterpret_cast<uintptr_t>(p->gate.data) % 16 == 0 && rows_aligned(&p->x);
}

fw_status cuda_smear_forward(fw_device *device, const fw_smear *p, fw_error *error) {
    const char *op = "smear_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cuda_check_sequences(op, "out", &p->out, p->x.shape, error));
    FW_TRY(check_apart(op, "out", &p->out, "x", &p->x, error));
    cuda_device *cuda = cuda_self(device);
    smear_call call = call_of(p, FORWARD_AHEAD);
    call.out = view(&p->out);
    const dim3 grid = grid_of(call, INT_MAX), block(PIECES, WALKERS);
    if (gate_aligned(p) && rows_aligned(&p->out))
        forward_runs<true><<<grid, block, 0, cuda->stream>>>(call);
    else
        forward_runs<false><<<grid, block, 0, cuda->stream>>>(call);
    return cuda_launched(cuda, op, "forward_runs", error);
}

fw_status cuda_smear_backward(fw_device *device, const fw_smear *p, fw_error *error) {
    const char *op = "smear_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cuda_check_sequences(op, "d_out", &p->d_out, p->x.shape, error));
    FW_TRY(cuda_check_sequences(op, "d_x", &p->d_x, p->x.shape, error));
    FW_TRY(cuda_check_packed(op, "d_gate", &p->d_gate, FW_F32, p->x.shape[2], error));
    FW_TRY(check_apart(op, "d_x", &p->d_x, "d_out", &p->d_out, error));
    FW_TRY(check_apart(op, "d_x", &p->d_x, "x", &p->x, error));
    cuda_device *cuda = cuda_self(device);
    const int64_t most = cuda_max(1, static_cast<int64_t>(cuda->multiprocessors) * BACKWARD_BLOCKS /
                                         blocks_across(p->x.shape[2]));
    smear_call call = call_of(p, backward_length(p, most));
    call.d_out = view(&p->d_out), call.d_x = view(&p->d_x);
    call.partials = reinterpret_cast<float *>(cuda->workspace);
    const dim3 grid = grid_of(call, most), block(PIECES, WALKERS);
    if (gate_aligned(p) && rows_aligned(&p->d_out) && rows_aligned(&p->d_x))
        backward_runs<true><<<grid, block, 0, cuda->stream>>>(call);
    else
        backward_runs<false><<<grid, block, 0, cuda->stream>>>(call);
    FW_TRY(cuda_launched(cuda, op, "backward_runs", error));
    const int64_t tiles = cuda_max(1, cuda_divide_up(call.width, WARP_LANES));
    add_gate_sums<<<static_cast<unsigned>(tiles), dim3(WARP_LANES, SUM_ROWS), 0, cuda->stream>>>(
        call, static_cast<float *>(p->d_gate.data), static_cast<int>(grid.x), p->accumulate != 0);
    return cuda_launched(cuda, op, "add_gate_sums", error);
}
