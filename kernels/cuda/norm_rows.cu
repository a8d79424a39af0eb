/* Weighted sums of rows and the norm behind them, forward and backward, in one pass over memory.
 *
 * A row of up to 1,024 channels belongs to one warp, a wider or odd one to a block; either holds
 * its row in registers, so that every element is read and written once. The norm is that of the sum
 * as it is stored, rounded to bfloat16, because that is what backward reads. Where gradients of
 * weights are wanted, threads walk a fixed set of rows with their sums in registers, blocks leave
 * theirs in the workspace, and a second kernel adds those in order of block: the result depends on
 * shapes and device alone. */
#include "norm_rows.h"
#include "vector.cuh"

#define THREADS 256

/* How a row lies in threads: each of LANES threads has PIECES pieces, LANES pieces apart. BLOCKS
 * and SUM_BLOCKS, with sums over rows in registers too, are those of one multiprocessor: as many as
 * leave a thread the registers that its pieces take. */
template <int LANES_, int PIECES_, bool ALIGNED_> struct layout {
    static constexpr int LANES = LANES_, PIECES = PIECES_, ROWS = THREADS / LANES_;
    static constexpr bool ALIGNED = ALIGNED_;
    static constexpr int BLOCKS = PIECES == 4 ? 2 : PIECES == 2 ? 4 : 5;
    static constexpr int SUM_BLOCKS = PIECES == 4 ? 1 : PIECES == 2 ? 2 : 3;
    /* Blocks that sum one after the other on one place: multiprocessors differ in how fast they get
     * at memory. Wide rows have too many sums to leave behind. */
    static constexpr int SUM_TURNS = LANES == WARP_LANES ? 4 : 1;
};

/* data == NULL: absent. */
struct rows_view {
    __nv_bfloat16 *data;
    int64_t stride;
};

/* values == NULL: ones. */
struct weight_view {
    const float *values;
    bool one; /* for all channels */
};

struct rows_call {
    int64_t rows;
    int width;
    float epsilon, scale;
    bool accumulate_b;
    rows_view a, b, sum, out, d_sum, d_out, d_a, d_b;
    weight_view weight_a, weight_b;
    float *inverse_rms;
    float *partial_a, *partial_b; /* [blocks][channels]; [blocks] where the weight is one value */
    bool one_a, one_b;
};

/* ---- rows in registers ---- */

template <class L> __device__ __forceinline__ int column_of(int piece) {
    return (piece * L::LANES + static_cast<int>(threadIdx.x) % L::LANES) * PIECE;
}

template <class L> __device__ __forceinline__ int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * L::ROWS + threadIdx.x / L::LANES;
}

template <class L> __device__ __forceinline__ float row_sum(float value) {
    return L::LANES == WARP_LANES ? warp_sum(value) : block_sum(value);
}

template <class L>
__device__ __forceinline__ void load_row(uint4 (&to)[L::PIECES], const rows_view &from, int64_t row,
                                         int width) {
    const __nv_bfloat16 *start = from.data + row * from.stride;
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
        const int column = column_of<L>(i);
        to[i] = from.data == nullptr
                    ? make_uint4(0, 0, 0, 0)
                    : load_packed_piece<L::ALIGNED>(start + column, width - column);
    }
}

template <class L>
__device__ __forceinline__ floats8 weight_piece(const weight_view &weight, int column, int width) {
    if (weight.values != nullptr && !weight.one)
        return load_piece<L::ALIGNED>(weight.values + column, width - column);
    floats8 out;
    const float value = weight.values == nullptr ? 1.0f : weight.values[0];
#pragma unroll
    for (int i = 0; i < PIECE; i++) out.at[i] = value;
    return out;
}

__device__ __forceinline__ floats8 times(const floats8 &x, float factor) {
    floats8 out;
#pragma unroll
    for (int i = 0; i < PIECE; i++) out.at[i] = x.at[i] * factor;
    return out;
}

/* ---- forward ---- */

/* a * weight_a + b * weight_b, rounded as it is stored; returns the sum of its squares. */
template <class L>
__device__ __forceinline__ float
add_row(uint4 (&sum)[L::PIECES], const uint4 (&a)[L::PIECES], const uint4 (&b)[L::PIECES],
        const floats8 (&weight_a)[L::PIECES], const floats8 (&weight_b)[L::PIECES]) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
        const floats8 x = unpack8(a[i]), y = unpack8(b[i]);
        floats8 z;
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            z.at[j] = x.at[j] * weight_a[i].at[j] + y.at[j] * weight_b[i].at[j];
        sum[i] = pack8(z);
        z = unpack8(sum[i]);
#pragma unroll
        for (int j = 0; j < PIECE; j++) squares += z.at[j] * z.at[j];
    }
    return squares;
}

template <class L>
__device__ __forceinline__ void store_row(const rows_view &to, const uint4 (&from)[L::PIECES],
                                          int64_t row, int width) {
    __nv_bfloat16 *start = to.data + row * to.stride;
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
        const int column = column_of<L>(i);
        store_packed_piece<L::ALIGNED>(start + column, from[i], width - column);
    }
}

/* The norm of a row whose sum of squares over this thread's pieces is `squares`. */
template <class L>
__device__ __forceinline__ void norm_row(const rows_call &p, const uint4 (&sum)[L::PIECES],
                                         float squares, int64_t row) {
    const float mean = row_sum<L>(squares) / static_cast<float>(p.width);
    const float r = rsqrtf(mean + p.epsilon);
    uint4 out[L::PIECES];
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) out[i] = pack8(times(unpack8(sum[i]), p.scale * r));
    store_row<L>(p.out, out, row, p.width);
    if (threadIdx.x % L::LANES == 0) p.inverse_rms[row] = r;
}

/* One row for each warp or block: the device starts the next as soon as one is done. `sum` may lie
 * over a or b: a thread stores where it alone has read. */
template <class L>
__global__ void __launch_bounds__(THREADS, L::BLOCKS)
    forward_rows(const __grid_constant__ rows_call p) {
    const int64_t row = first_row<L>();
    if (row >= p.rows) return;
    uint4 a[L::PIECES], b[L::PIECES], sum[L::PIECES];
    load_row<L>(a, p.a, row, p.width);
    load_row<L>(b, p.b, row, p.width);
    floats8 weight_a[L::PIECES], weight_b[L::PIECES];
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
        weight_a[i] = weight_piece<L>(p.weight_a, column_of<L>(i), p.width);
        weight_b[i] = weight_piece<L>(p.weight_b, column_of<L>(i), p.width);
    }
    const float squares = add_row<L>(sum, a, b, weight_a, weight_b);
    if (p.sum.data != nullptr) store_row<L>(p.sum, sum, row, p.width);
    if (p.out.data != nullptr) norm_row<L>(p, sum, squares, row);
}

/* ---- backward ---- */

/* The slope of the norm: d = d_sum + factor * d_out - pull * sum. */
struct slope {
    float factor, pull;
};

template <class L>
__device__ __forceinline__ slope norm_slope(const rows_call &p, const uint4 (&d_out)[L::PIECES],
                                            const uint4 (&sum)[L::PIECES], float r) {
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
        const floats8 d = unpack8(d_out[i]), x = unpack8(sum[i]);
#pragma unroll
        for (int j = 0; j < PIECE; j++) dot += d.at[j] * x.at[j];
    }
    const float factor = p.scale * r;
    return {factor, factor * r * r * (row_sum<L>(dot) / static_cast<float>(p.width))};
}

__device__ __forceinline__ floats8 slope_piece(const slope &n, const uint4 &d_sum,
                                               const uint4 &d_out, const uint4 &sum) {
    floats8 d = unpack8(d_sum);
    const floats8 g = unpack8(d_out), x = unpack8(sum);
#pragma unroll
    for (int i = 0; i < PIECE; i++) d.at[i] += n.factor * g.at[i] - n.pull * x.at[i];
    return d;
}

__device__ __forceinline__ void add_product(floats8 &total, const floats8 &d, const uint4 &packed) {
    const floats8 x = unpack8(packed);
#pragma unroll
    for (int i = 0; i < PIECE; i++) total.at[i] += d.at[i] * x.at[i];
}

template <class L>
__device__ __forceinline__ void store_weighted(const rows_view &to, const floats8 &d,
                                               const weight_view &weight, const floats8 &add,
                                               int64_t row, int column, int width) {
    const floats8 w = weight_piece<L>(weight, column, width);
    floats8 out;
#pragma unroll
    for (int i = 0; i < PIECE; i++) out.at[i] = add.at[i] + d.at[i] * w.at[i];
    store_piece<L::ALIGNED>(to.data + row * to.stride + column, out, width - column);
}

/* A block's sum for each channel: its warps' in order, where a warp has a row of its own. */
template <class L>
__device__ __forceinline__ void store_channels(const floats8 (&total)[L::PIECES], float *partial,
                                               int width) {
    constexpr int CHANNELS = L::LANES * L::PIECES * PIECE;
    float *to = partial + static_cast<int64_t>(blockIdx.x) * width;
    if constexpr (L::ROWS == 1) {
#pragma unroll
        for (int i = 0; i < L::PIECES; i++)
            store_piece<false>(to + column_of<L>(i), total[i], width - column_of<L>(i));
    } else {
        __shared__ __align__(16) float channels[L::ROWS][CHANNELS];
        __syncthreads(); /* the other weight's sums may still be read */
#pragma unroll
        for (int i = 0; i < L::PIECES; i++)
            store8(&channels[threadIdx.x / L::LANES][column_of<L>(i)], total[i]);
        __syncthreads();
        for (int c = static_cast<int>(threadIdx.x); c < width; c += THREADS) {
            float sum = channels[0][c];
#pragma unroll
            for (int i = 1; i < L::ROWS; i++) sum += channels[i][c];
            to[c] = sum;
        }
    }
}

template <class L>
__device__ __forceinline__ void store_partial(const floats8 (&total)[L::PIECES], float *partial,
                                              bool one, int width) {
    if (partial == nullptr) return;
    if (!one) return store_channels<L>(total, partial, width);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
#pragma unroll
        for (int j = 0; j < PIECE; j++) sum += total[i].at[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* From one row's gradients to those of its terms; with SUMS, what it adds to the weights'. */
template <class L, bool SUMS>
__device__ __forceinline__ void backward_row(const rows_call &p, int64_t row,
                                             floats8 (&total_a)[L::PIECES],
                                             floats8 (&total_b)[L::PIECES]) {
    uint4 d_sum[L::PIECES], d_out[L::PIECES], sum[L::PIECES];
    uint4 a[L::PIECES], b[L::PIECES], kept[L::PIECES];
    load_row<L>(d_out, p.d_out, row, p.width);
    load_row<L>(sum, p.sum, row, p.width);
    const float r = p.d_out.data != nullptr ? p.inverse_rms[row] : 0.0f;
    load_row<L>(d_sum, p.d_sum, row, p.width);
    if (SUMS) {
        load_row<L>(a, p.a, row, p.width);
        load_row<L>(b, p.b, row, p.width);
    }
    load_row<L>(kept, p.accumulate_b ? p.d_b : rows_view{nullptr, 0}, row, p.width);
    const slope n = p.d_out.data != nullptr ? norm_slope<L>(p, d_out, sum, r) : slope{0, 0};
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) {
        const int column = column_of<L>(i);
        const floats8 d = slope_piece(n, d_sum[i], d_out[i], sum[i]);
        if (SUMS) {
            add_product(total_a[i], d, a[i]);
            add_product(total_b[i], d, b[i]);
        }
        if (p.d_b.data != nullptr)
            store_weighted<L>(p.d_b, d, p.weight_b, unpack8(kept[i]), row, column, p.width);
        if (p.d_a.data != nullptr)
            store_weighted<L>(p.d_a, d, p.weight_a, zeros8(), row, column, p.width);
    }
}

/* Without SUMS each warp or block has one row; with them blocks walk the rows. */
template <class L, bool SUMS>
__global__ void __launch_bounds__(THREADS, SUMS ? L::SUM_BLOCKS : L::BLOCKS)
    backward_rows(const __grid_constant__ rows_call p) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * L::ROWS;
    floats8 total_a[L::PIECES], total_b[L::PIECES];
#pragma unroll
    for (int i = 0; i < L::PIECES; i++) total_a[i] = total_b[i] = zeros8();
    for (int64_t row = first_row<L>(); row < p.rows; row += step)
        backward_row<L, SUMS>(p, row, total_a, total_b);
    if (!SUMS) return;
    store_partial<L>(total_a, p.partial_a, p.one_a, p.width);
    store_partial<L>(total_b, p.partial_b, p.one_b, p.width);
}

/* ---- the blocks' sums ---- */

struct weight_sum {
    const float *partials;
    float *out; /* NULL: not wanted */
    int64_t columns;
};

__global__ void __launch_bounds__(WARP_LANES *SUM_ROWS)
    add_partials(weight_sum a, weight_sum b, int blocks, bool accumulate) {
    const weight_sum s = blockIdx.y == 0 ? a : b;
    if (s.out == nullptr) return;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    const double total = sum_column(s.partials, blocks, s.columns, column);
    if (threadIdx.y > 0 || column >= s.columns) return;
    s.out[column] = static_cast<float>(accumulate ? s.out[column] + total : total);
}

/* ---- on the host ---- */

static rows_view view(const fw_tensor *matrix) {
    return {static_cast<__nv_bfloat16 *>(matrix->data), matrix->stride[0]};
}

static bool same_rows(const fw_tensor *x, const fw_tensor *y) {
    return x->data == y->data && x->stride[0] == y->stride[0];
}

static weight_view weight_of(const fw_tensor *weight) {
    return {static_cast<const float *>(weight->data), fw_tensor_count(weight) == 1};
}

static bool weight_aligned(const fw_tensor *weight) {
    return reinterpret_cast<uintptr_t>(weight->data) % 16 == 0 || fw_tensor_count(weight) == 1;
}

/* Calls `launch` with the layout for rows of this width: few, as each costs three kernels. Odd
 * rows, whose elements are moved one by one, share the widest. */
template <class Launch> static void with_layout(bool aligned, int64_t width, Launch launch) {
    if (!aligned)
        launch(layout<THREADS, 4, false>{});
    else if (width <= 2 * WARP_LANES * PIECE)
        launch(layout<WARP_LANES, 2, true>{});
    else if (width <= 4 * WARP_LANES * PIECE)
        launch(layout<WARP_LANES, 4, true>{});
    else if (width <= THREADS * PIECE)
        launch(layout<THREADS, 1, true>{});
    else
        launch(layout<THREADS, 4, true>{});
}
static_assert(CUDA_MAX_WIDTH <= 4 * THREADS * PIECE, "the widest row must fit a block");

static rows_call call_of(const fw_residual_norm *p, int64_t rows, int64_t width) {
    return {.rows = rows,
            .width = static_cast<int>(width),
            .epsilon = p->epsilon,
            .scale = p->scale,
            .weight_a = weight_of(&p->weight_a),
            .weight_b = weight_of(&p->weight_b),
            .inverse_rms = static_cast<float *>(p->inverse_rms.data)};
}

fw_status cuda_norm_rows_forward(cuda_device *cuda, const char *op, const fw_residual_norm *p,
                                 fw_error *error) {
    const int64_t rows = p->a.shape[0], width = p->a.shape[1];
    rows_call call = call_of(p, rows, width);
    call.a = view(&p->a), call.b = view(&p->b), call.out = view(&p->out);
    if (p->b.data == NULL) call.weight_b = {nullptr, true};           /* 0 * weight_b may be NaN */
    const bool same = same_rows(&p->a, &p->sum) && p->b.data == NULL; /* only a norm is wanted */
    if (!same || p->weight_a.data != NULL) call.sum = view(&p->sum);
    if (call.sum.data == nullptr && call.out.data == nullptr) return FW_OK;
    const bool aligned = rows_aligned(&p->a) && rows_aligned(&p->b) && rows_aligned(&p->sum) &&
                         rows_aligned(&p->out) && weight_aligned(&p->weight_a) &&
                         weight_aligned(&p->weight_b);
    with_layout(aligned, width, [&]<class L>(L) {
        const int64_t blocks = cuda_max(1, cuda_divide_up(rows, L::ROWS));
        forward_rows<L><<<static_cast<unsigned>(blocks), THREADS, 0, cuda->stream>>>(call);
    });
    return cuda_launched(cuda, op, "forward_rows", error);
}

/* The tensors that a backward call reads and writes; none that it would read for nothing, and no
 * d_a that lies over a d_sum equal to it. */
static rows_call backward_call(const fw_residual_norm *p, int64_t rows, int64_t width) {
    rows_call call = call_of(p, rows, width);
    call.accumulate_b = p->accumulate_b != 0 && p->d_b.data != NULL;
    call.d_sum = view(&p->d_sum), call.d_out = view(&p->d_out);
    call.d_b = view(&p->d_b);
    if (p->d_out.data != NULL) call.sum = view(&p->sum);
    if (p->d_weight_a.data != NULL) call.a = view(&p->a);
    if (p->d_weight_b.data != NULL) call.b = view(&p->b);
    const bool same = same_rows(&p->d_a, &p->d_sum) && p->d_out.data == NULL;
    if (!same || p->weight_a.data != NULL) call.d_a = view(&p->d_a);
    return call;
}

static bool backward_aligned(const fw_residual_norm *p) {
    const fw_tensor *matrices[] = {&p->a, &p->b, &p->sum, &p->d_sum, &p->d_out, &p->d_a, &p->d_b};
    bool good = weight_aligned(&p->weight_a) && weight_aligned(&p->weight_b);
    for (const fw_tensor *matrix : matrices) good = good && rows_aligned(matrix);
    return good;
}

/* Lays out the workspace for this many blocks and says what the second kernel adds. */
static weight_sum place_partials(const fw_tensor *gradient, float **next, int64_t blocks,
                                 float **partials, bool *one) {
    if (gradient->data == NULL) return {};
    const int64_t columns = fw_tensor_count(gradient);
    *partials = *next;
    *one = columns == 1;
    *next += blocks * columns;
    return {*partials, static_cast<float *>(gradient->data), columns};
}

fw_status cuda_norm_rows_backward(cuda_device *cuda, const char *op, const fw_residual_norm *p,
                                  int64_t rows, int64_t width, fw_error *error) {
    rows_call call = backward_call(p, rows, width);
    const bool summed = p->d_weight_a.data != NULL || p->d_weight_b.data != NULL;
    if (call.d_a.data == nullptr && call.d_b.data == nullptr && !summed) return FW_OK;
    weight_sum a = {}, b = {};
    int64_t blocks = 1;
    with_layout(backward_aligned(p), width, [&]<class L>(L) {
        blocks = cuda_max(1, cuda_divide_up(rows, L::ROWS));
        if (!summed) {
            backward_rows<L, false>
                <<<static_cast<unsigned>(blocks), THREADS, 0, cuda->stream>>>(call);
            return;
        }
        blocks = cuda_min(blocks, static_cast<int64_t>(cuda->multiprocessors) * L::SUM_BLOCKS *
                                      L::SUM_TURNS);
        float *next = reinterpret_cast<float *>(cuda->workspace);
        a = place_partials(&p->d_weight_a, &next, blocks, &call.partial_a, &call.one_a);
        b = place_partials(&p->d_weight_b, &next, blocks, &call.partial_b, &call.one_b);
        backward_rows<L, true><<<static_cast<unsigned>(blocks), THREADS, 0, cuda->stream>>>(call);
    });
    FW_TRY(cuda_launched(cuda, op, "backward_rows", error));
    if (!summed) return FW_OK;
    const int64_t tiles = cuda_max(1, cuda_divide_up(cuda_max(a.columns, b.columns), WARP_LANES));
    add_partials<<<dim3(static_cast<unsigned>(tiles), 2), dim3(WARP_LANES, SUM_ROWS), 0,
                   cuda->stream>>>(a, b, static_cast<int>(blocks), p->accumulate != 0);
    return cuda_launched(cuda, op, "add_partials", error);
}
