/* Rotary position embedding (Su et al., 2021): its tables, and the fused norm, rotation and gain of
 * query and key heads, forward and backward.
 *
 * Heads of 32, 64 or 128 channels lie in groups of lanes, eight channels a lane, so that a warp
 * reads neighbouring heads in pieces of 16 bytes; the other half of a rotated pair comes by a
 * shuffle. Any other width, rotation or alignment takes one warp a head through shared memory. The
 * gain's gradient is a sum over all positions: blocks leave theirs in the workspace and a second
 * kernel adds them in order. */
#include "cuda_device.h"
#include "vector.cuh"

#include <climits>

#define THREADS 256
#define WARPS (THREADS / WARP_LANES)
#define MAX_HEAD 256 /* widest head */
#define MAX_GRID_Y 65535
#define GAIN_BLOCKS 5 /* of one multiprocessor in backward, where each keeps sums for the gain */

/* ---- tables ---- */

__global__ void fill_tables(float *cosine, int64_t cosine_stride, float *sine, int64_t sine_stride,
                            int64_t positions, int half, int64_t offset, double base) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < positions * half; i += step) {
        const int64_t t = i / half, j = i % half;
        const double rate = pow(base, -static_cast<double>(j) / half);
        double s, c;
        sincos(static_cast<double>(offset + t) * rate, &s, &c);
        cosine[t * cosine_stride + j] = static_cast<float>(c);
        sine[t * sine_stride + j] = static_cast<float>(s);
    }
}

fw_status cuda_rope_table(fw_device *device, const fw_rope_table *p, fw_error *error) {
    const char *op = "rope_table";
    CUDA_ARGUMENTS(op, device, p, error);
    const int64_t half = static_cast<int64_t>(p->dimensions) / 2;
    if (p->dimensions % 2 != 0 || half == 0 || !(p->base > 0.0))
        return fw_fail(error, FW_E_ARGUMENT,
                       "%s: %u dimensions of base %g; both must be positive, the first even", op,
                       p->dimensions, p->base);
    FW_TRY(cuda_check_matrix(op, "cosine", &p->cosine, FW_F32, -1, half, error));
    const int64_t positions = p->cosine.shape[0];
    FW_TRY(cuda_check_matrix(op, "sine", &p->sine, FW_F32, positions, half, error));
    cuda_device *cuda = cuda_self(device);
    fill_tables<<<cuda_blocks(cuda, positions * half, THREADS), THREADS, 0, cuda->stream>>>(
        static_cast<float *>(p->cosine.data), p->cosine.stride[0],
        static_cast<float *>(p->sine.data), p->sine.stride[0], positions, static_cast<int>(half),
        p->offset, p->base);
    return cuda_launched(cuda, op, "fill_tables", error);
}

/* ---- what the kernels get ---- */

struct heads_view {
    __nv_bfloat16 *data;
    int64_t batch, token, head; /* strides */
};

struct heads_call {
    int64_t positions; /* B * T */
    int64_t tokens;
    int heads, width, half;
    float epsilon;
    heads_view x, out, d_out, d_x;
    float *inverse_rms;
    const float *cosine, *sine;
    int64_t cosine_stride, sine_stride;
    const float *gain; /* NULL: ones */
    float *partials;   /* [blocks][heads]; NULL: no d_gain */
};

__device__ __forceinline__ __nv_bfloat16 *head_at(const heads_view &x, int64_t b, int64_t t,
                                                  int head) {
    return x.data + b * x.batch + t * x.token + head * x.head;
}

__device__ __forceinline__ float gain_of(const heads_call &p, int head) {
    return p.gain == nullptr ? 1.0f : p.gain[head];
}

/* ---- heads in groups of GROUP lanes ---- */

template <int GROUP> __device__ __forceinline__ float group_sum(float value) {
#pragma unroll
    for (int step = GROUP / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

template <int GROUP> __device__ __forceinline__ uint4 shuffle_piece(const uint4 &x, int from) {
    return make_uint4(
        __shfl_sync(0xffffffffu, x.x, from, GROUP), __shfl_sync(0xffffffffu, x.y, from, GROUP),
        __shfl_sync(0xffffffffu, x.z, from, GROUP), __shfl_sync(0xffffffffu, x.w, from, GROUP));
}

/* Pairs (j, j + half) that lie in two lanes of the group, half a multiple of eight. */
template <int GROUP>
__device__ __forceinline__ floats8 rotate_across(const heads_call &p, const uint4 &packed,
                                                 int64_t t, float direction) {
    const int lane = static_cast<int>(threadIdx.x), pieces = p.half / PIECE;
    const bool first = lane < pieces, rotated = lane < 2 * pieces;
    const int other = first ? lane + pieces : rotated ? lane - pieces : lane;
    const floats8 partner = unpack8(shuffle_piece<GROUP>(packed, other));
    floats8 x = unpack8(packed);
    if (!rotated) return x;
    const int column = (first ? lane : other) * PIECE;
    const floats8 cosine = load8(p.cosine + t * p.cosine_stride + column);
    const floats8 sine = load8(p.sine + t * p.sine_stride + column);
    const float sign = first ? direction : -direction;
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        x.at[i] = x.at[i] * cosine.at[i] + partner.at[i] * (sign * sine.at[i]);
    return x;
}

/* Pairs (j, j + 4) of the group's first lane. */
__device__ __forceinline__ floats8 rotate_within(const heads_call &p, const uint4 &packed,
                                                 int64_t t, float direction) {
    floats8 x = unpack8(packed);
    if (threadIdx.x != 0) return x;
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) {
        const float c = p.cosine[t * p.cosine_stride + i];
        const float s = p.sine[t * p.sine_stride + i] * direction;
        const float x1 = x.at[i], x2 = x.at[i + PIECE / 2];
        x.at[i] = x1 * c + x2 * s;
        x.at[i + PIECE / 2] = x2 * c - x1 * s;
    }
    return x;
}

/* By the angle (direction 1) or back (-1). */
template <int GROUP>
__device__ __forceinline__ floats8 rotate(const heads_call &p, const uint4 &packed, int64_t t,
                                          float direction) {
    if (p.half == 0) return unpack8(packed);
    if (p.half < PIECE) return rotate_within(p, packed, t, direction);
    return rotate_across<GROUP>(p, packed, t, direction);
}

/* A thread's head and position: a block has (GROUP lanes) x (heads) x (neighbouring positions),
 * whole warps in all; blockIdx is (tile of positions, sequence, heads). t = 0 where the thread's
 * position lies beyond the sequence: it shuffles with the others all the same. */
struct spot {
    int64_t b;
    int t, head;
    bool active;
};

__device__ __forceinline__ spot spot_of(const heads_call &p, int64_t tile) {
    const int64_t t = tile * blockDim.z + threadIdx.z;
    const bool active = t < p.tokens;
    return {blockIdx.y, active ? static_cast<int>(t) : 0,
            static_cast<int>(blockIdx.z * blockDim.y + threadIdx.y), active};
}

__device__ __forceinline__ __nv_bfloat16 *piece_at(const heads_view &x, const spot &s) {
    return head_at(x, s.b, s.t, s.head) + threadIdx.x * PIECE;
}

__device__ __forceinline__ uint4 load_head(const heads_view &from, const spot &s) {
    return s.active ? load_packed8(piece_at(from, s)) : make_uint4(0, 0, 0, 0);
}

/* Where inverse_rms keeps this head's. */
__device__ __forceinline__ float *statistic(const heads_call &p, const spot &s) {
    return p.inverse_rms + (s.b * p.tokens + s.t) * p.heads + s.head;
}

template <int GROUP>
__global__ void __launch_bounds__(THREADS, 6) forward_groups(const __grid_constant__ heads_call p) {
    const spot s = spot_of(p, blockIdx.x);
    const uint4 packed = load_head(p.x, s);
    const floats8 x = unpack8(packed);
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PIECE; i++) squares += x.at[i] * x.at[i];
    const float r = rsqrtf(group_sum<GROUP>(squares) / (GROUP * PIECE) + p.epsilon);
    floats8 y = rotate<GROUP>(p, packed, s.t, 1.0f);
    if (!s.active) return;
    const float factor = r * gain_of(p, s.head);
#pragma unroll
    for (int i = 0; i < PIECE; i++) y.at[i] *= factor;
    store8(piece_at(p.out, s), y);
    if (threadIdx.x == 0) *statistic(p, s) = r;
}

/* The block's sum for each of its heads, positions in order. */
__device__ __forceinline__ void store_gain(const heads_call &p, int head, float total) {
    __shared__ float totals[THREADS];
    if (p.partials == nullptr) return;
    if (threadIdx.x == 0) totals[threadIdx.z * blockDim.y + threadIdx.y] = total;
    __syncthreads();
    if (threadIdx.x > 0 || threadIdx.z > 0) return;
    for (unsigned z = 1; z < blockDim.z; z++) total += totals[z * blockDim.y + threadIdx.y];
    const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    p.partials[block * p.heads + head] = total;
}

/* With e = the rotation undone on d_out: d_gain = e . x_hat, d_x = gain * r * (e - x_hat *
 * mean(e * x_hat)). Returns this position's d_gain. */
template <int GROUP>
__device__ __forceinline__ float backward_head(const floats8 &e, const floats8 &x, float gain,
                                               float r, floats8 &d_x) {
    float dot = 0.0f;
#pragma unroll
    for (int j = 0; j < PIECE; j++) dot += e.at[j] * x.at[j];
    dot = group_sum<GROUP>(dot) * r;
    const float factor = gain * r, pull = factor * r * dot / (GROUP * PIECE);
#pragma unroll
    for (int j = 0; j < PIECE; j++) d_x.at[j] = factor * e.at[j] - pull * x.at[j];
    return dot;
}

template <int GROUP>
__global__ void __launch_bounds__(THREADS, GAIN_BLOCKS)
    backward_groups(const __grid_constant__ heads_call p) {
    const int head = spot_of(p, 0).head;
    const float gain = gain_of(p, head);
    float total = 0.0f;
    for (int64_t tile = blockIdx.x; tile * blockDim.z < p.tokens; tile += gridDim.x) {
        const spot s = spot_of(p, tile);
        const uint4 x = load_head(p.x, s), d_out = load_head(p.d_out, s);
        const float r = s.active ? *statistic(p, s) : 0.0f;
        const floats8 e = rotate<GROUP>(p, d_out, s.t, -1.0f);
        floats8 d_x;
        total += backward_head<GROUP>(e, unpack8(x), gain, r, d_x);
        if (s.active) store8(piece_at(p.d_x, s), d_x);
    }
    store_gain(p, head, total);
}

/* ---- heads of any width, rotation and alignment: one warp each, blockIdx.y is the head ---- */

/* Entry j of the rotated head. */
__device__ __forceinline__ float rotated(const heads_call &p, const float *x, int j, int64_t t,
                                         float direction) {
    if (j >= 2 * p.half) return x[j];
    const bool first = j < p.half;
    const int pair = first ? j : j - p.half, other = first ? j + p.half : pair;
    const float c = p.cosine[t * p.cosine_stride + pair];
    const float s = p.sine[t * p.sine_stride + pair] * (first ? direction : -direction);
    return x[j] * c + x[other] * s;
}

__global__ void __launch_bounds__(THREADS) forward_warps(const __grid_constant__ heads_call p) {
    __shared__ float rows[WARPS][MAX_HEAD];
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES;
    const int head = static_cast<int>(blockIdx.y);
    const int64_t step = static_cast<int64_t>(gridDim.x) * WARPS;
    float *row = rows[warp];
    for (int64_t n = static_cast<int64_t>(blockIdx.x) * WARPS + warp; n < p.positions; n += step) {
        const int64_t b = n / p.tokens, t = n % p.tokens;
        const __nv_bfloat16 *x = head_at(p.x, b, t, head);
        float squares = 0.0f;
        for (int j = lane; j < p.width; j += WARP_LANES) {
            row[j] = __bfloat162float(x[j]);
            squares += row[j] * row[j];
        }
        const float mean = warp_sum(squares) / static_cast<float>(p.width);
        const float r = rsqrtf(mean + p.epsilon), factor = r * gain_of(p, head);
        __syncwarp();
        __nv_bfloat16 *out = head_at(p.out, b, t, head);
        for (int j = lane; j < p.width; j += WARP_LANES)
            out[j] = __float2bfloat16_rn(rotated(p, row, j, t, 1.0f) * factor);
        if (lane == 0) p.inverse_rms[n * p.heads + head] = r;
        __syncwarp(); /* the row is overwritten next */
    }
}

__global__ void __launch_bounds__(THREADS) backward_warps(const __grid_constant__ heads_call p) {
    __shared__ float rows[WARPS][MAX_HEAD], totals[WARPS];
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES;
    const int head = static_cast<int>(blockIdx.y);
    const int64_t step = static_cast<int64_t>(gridDim.x) * WARPS;
    float *row = rows[warp], total = 0.0f;
    for (int64_t n = static_cast<int64_t>(blockIdx.x) * WARPS + warp; n < p.positions; n += step) {
        const int64_t b = n / p.tokens, t = n % p.tokens;
        const __nv_bfloat16 *x = head_at(p.x, b, t, head), *d_out = head_at(p.d_out, b, t, head);
        for (int j = lane; j < p.width; j += WARP_LANES) row[j] = __bfloat162float(d_out[j]);
        __syncwarp();
        float dot = 0.0f;
        for (int j = lane; j < p.width; j += WARP_LANES)
            dot += rotated(p, row, j, t, -1.0f) * __bfloat162float(x[j]);
        const float r = p.inverse_rms[n * p.heads + head], factor = r * gain_of(p, head);
        dot = warp_sum(dot) * r;
        total += dot;
        const float pull = factor * r * dot / static_cast<float>(p.width);
        __nv_bfloat16 *d_x = head_at(p.d_x, b, t, head);
        for (int j = lane; j < p.width; j += WARP_LANES)
            d_x[j] = __float2bfloat16_rn(factor * rotated(p, row, j, t, -1.0f) -
                                         pull * __bfloat162float(x[j]));
        __syncwarp();
    }
    if (p.partials == nullptr) return;
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < WARPS; i++) total += totals[i];
    p.partials[static_cast<int64_t>(blockIdx.x) * p.heads + head] = total;
}

__global__ void __launch_bounds__(WARP_LANES *SUM_ROWS)
    add_gain(const float *partials, float *d_gain, int blocks, int heads, bool accumulate) {
    const int64_t head = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    const double total = sum_column(partials, blocks, heads, head);
    if (threadIdx.y > 0 || head >= heads) return;
    d_gain[head] = static_cast<float>(accumulate ? d_gain[head] + total : total);
}

/* ---- on the host ---- */

static fw_status check(const char *op, const fw_qk_norm_rope *p, fw_error *error) {
    const int64_t any[4] = {-1, -1, -1, -1};
    FW_TRY(cuda_check_heads(op, "x", &p->x, any, error));
    const int64_t *shape = p->x.shape, rows = shape[0] * shape[1] * shape[2];
    if (shape[3] > MAX_HEAD || shape[2] > CUDA_MAX_WIDTH)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: %lld heads of width %lld; at most %d of %d",
                       op, (long long)shape[2], (long long)shape[3], CUDA_MAX_WIDTH, MAX_HEAD);
    FW_TRY(cuda_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, rows, error));
    if (p->gain.data != NULL)
        FW_TRY(cuda_check_packed(op, "gain", &p->gain, FW_F32, shape[2], error));
    if (p->cosine.data == NULL) return FW_OK;
    FW_TRY(cuda_check_matrix(op, "cosine", &p->cosine, FW_F32, -1, -1, error));
    const int64_t positions = p->cosine.shape[0], half = p->cosine.shape[1];
    FW_TRY(cuda_check_matrix(op, "sine", &p->sine, FW_F32, positions, half, error));
    if (positions < shape[1] || 2 * half > shape[3])
        return fw_fail(error, FW_E_SHAPE,
                       "%s: tables are [%lld,%lld]; x has %lld positions and heads of width %lld",
                       op, (long long)positions, (long long)half, (long long)shape[1],
                       (long long)shape[3]);
    return FW_OK;
}

static heads_view view(const fw_tensor *x) {
    return {static_cast<__nv_bfloat16 *>(x->data), x->stride[0], x->stride[1], x->stride[2]};
}

static heads_call call_of(const fw_qk_norm_rope *p) {
    const bool rotary = p->cosine.data != NULL;
    return {.positions = p->x.shape[0] * p->x.shape[1],
            .tokens = p->x.shape[1],
            .heads = static_cast<int>(p->x.shape[2]),
            .width = static_cast<int>(p->x.shape[3]),
            .half = rotary ? static_cast<int>(p->cosine.shape[1]) : 0,
            .epsilon = p->epsilon,
            .x = view(&p->x),
            .inverse_rms = static_cast<float *>(p->inverse_rms.data),
            .cosine = static_cast<const float *>(p->cosine.data),
            .sine = static_cast<const float *>(p->sine.data),
            .cosine_stride = p->cosine.stride[0],
            .sine_stride = p->sine.stride[0],
            .gain = static_cast<const float *>(p->gain.data)};
}

static bool table_aligned(const fw_tensor *table) {
    return reinterpret_cast<uintptr_t>(table->data) % 16 == 0 && table->stride[0] % 4 == 0;
}

/* Whether groups of lanes can take these heads, of which y and z are the other tensors. */
static bool fits_groups(const fw_qk_norm_rope *p, const heads_call &call, const fw_tensor *y,
                        const fw_tensor *z) {
    const bool width = call.width == 32 || call.width == 64 || call.width == 128;
    const bool half =
        call.half == 0 || call.half == PIECE / 2 ||
        (call.half % PIECE == 0 && table_aligned(&p->cosine) && table_aligned(&p->sine));
    return width && half && p->x.shape[0] <= MAX_GRID_Y && call.tokens <= INT_MAX &&
           rows_aligned(&p->x) && rows_aligned(y) && rows_aligned(z);
}

/* The block's shape: as many heads as divide them all and fit, then positions to fill it. */
static dim3 block_of(const heads_call &call) {
    const int group = call.width / PIECE;
    for (int heads = call.heads; heads > 1; heads--) {
        int positions = THREADS / (group * heads);
        while (positions > 0 && group * heads * positions % WARP_LANES != 0) positions--;
        if (call.heads % heads == 0 && positions > 0)
            return dim3(static_cast<unsigned>(group), static_cast<unsigned>(heads),
                        static_cast<unsigned>(positions));
    }
    return dim3(static_cast<unsigned>(group), 1, static_cast<unsigned>(THREADS / group));
}

/* At most `most` blocks along the positions of one sequence. */
static dim3 grid_of_groups(const heads_call &call, const dim3 &block, int64_t most) {
    const int64_t tiles = cuda_divide_up(call.tokens, block.z);
    return dim3(static_cast<unsigned>(cuda_min(tiles, most)),
                static_cast<unsigned>(call.positions / call.tokens),
                static_cast<unsigned>(call.heads) / block.y);
}

/* Calls `launch` with the lanes of a head. */
template <class Launch> static void with_group(int width, Launch launch) {
    if (width == 32) return launch.template operator()<4>();
    if (width == 64) return launch.template operator()<8>();
    launch.template operator()<16>();
}

/* Blocks of the general kernels for one head. */
static int64_t warp_blocks(const cuda_device *cuda, const heads_call &call) {
    const int64_t most = static_cast<int64_t>(cuda->multiprocessors) * 8 / call.heads;
    return cuda_max(1, cuda_min(cuda_divide_up(call.positions, WARPS), most));
}

static dim3 grid_of(int64_t blocks, int64_t heads) {
    return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(heads));
}

fw_status cuda_qk_norm_rope_forward(fw_device *device, const fw_qk_norm_rope *p, fw_error *error) {
    const char *op = "qk_norm_rope_forward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cuda_check_heads(op, "out", &p->out, p->x.shape, error));
    cuda_device *cuda = cuda_self(device);
    heads_call call = call_of(p);
    call.out = view(&p->out);
    if (call.positions * call.heads == 0) return FW_OK;
    if (!fits_groups(p, call, &p->out, &p->out)) {
        const dim3 grid = grid_of(warp_blocks(cuda, call), call.heads);
        forward_warps<<<grid, THREADS, 0, cuda->stream>>>(call);
        return cuda_launched(cuda, op, "forward_warps", error);
    }
    const dim3 block = block_of(call), grid = grid_of_groups(call, block, INT_MAX);
    with_group(call.width,
               [&]<int GROUP>() { forward_groups<GROUP><<<grid, block, 0, cuda->stream>>>(call); });
    return cuda_launched(cuda, op, "forward_groups", error);
}

/* Launches the kernel that fits; returns its blocks, each of which leaves a partial sum. */
static int64_t launch_backward(cuda_device *cuda, const fw_qk_norm_rope *p,
                               const heads_call &call) {
    int64_t blocks = warp_blocks(cuda, call);
    if (!fits_groups(p, call, &p->d_out, &p->d_x)) {
        backward_warps<<<grid_of(blocks, call.heads), THREADS, 0, cuda->stream>>>(call);
        return blocks;
    }
    const dim3 block = block_of(call);
    const int64_t places = static_cast<int64_t>(cuda->multiprocessors) * GAIN_BLOCKS;
    const int64_t sequences = call.positions / call.tokens;
    const int64_t most = call.partials == nullptr ? INT_MAX : cuda_max(1, places / sequences);
    const dim3 grid = grid_of_groups(call, block, most);
    with_group(call.width, [&]<int GROUP>() {
        backward_groups<GROUP><<<grid, block, 0, cuda->stream>>>(call);
    });
    return static_cast<int64_t>(grid.x) * grid.y;
}

fw_status cuda_qk_norm_rope_backward(fw_device *device, const fw_qk_norm_rope *p, fw_error *error) {
    const char *op = "qk_norm_rope_backward";
    CUDA_ARGUMENTS(op, device, p, error);
    FW_TRY(check(op, p, error));
    FW_TRY(cuda_check_heads(op, "d_out", &p->d_out, p->x.shape, error));
    FW_TRY(cuda_check_heads(op, "d_x", &p->d_x, p->x.shape, error));
    const bool summed = p->d_gain.data != NULL;
    if (summed) FW_TRY(cuda_check_packed(op, "d_gain", &p->d_gain, FW_F32, p->x.shape[2], error));
    cuda_device *cuda = cuda_self(device);
    heads_call call = call_of(p);
    call.d_out = view(&p->d_out), call.d_x = view(&p->d_x);
    if (summed) call.partials = reinterpret_cast<float *>(cuda->workspace);
    if (call.heads == 0) return FW_OK;
    const int64_t blocks = call.positions > 0 ? launch_backward(cuda, p, call) : 0;
    FW_TRY(cuda_launched(cuda, op, "backward_heads", error));
    if (!summed) return FW_OK;
    const int64_t tiles = cuda_divide_up(call.heads, WARP_LANES);
    add_gain<<<grid_of(tiles, 1), dim3(WARP_LANES, SUM_ROWS), 0, cuda->stream>>>(
        call.partials, static_cast<float *>(p->d_gain.data), static_cast<int>(blocks), call.heads,
        p->accumulate != 0);
    return cuda_launched(cuda, op, "add_gain", error);
}
