/* What the passes of general attention share: products of tensor cores on 16 x 8 x 16 tiles
 * (mma.sync, compute capability 8.0), tiles of bfloat16 in shared memory, where heads lie, and
 * which keys a query sees.
 *
 * A tile in shared memory holds rows of WIDTH elements, a head's width D rounded up to 64 or 128,
 * so that few kernels serve all heads; columns beyond D and rows beyond the sequence are zeros. Its
 * 16-byte pieces are permuted within a row so that the eight rows that ldmatrix reads at a time lie
 * in different banks. */
#ifndef FAIRWAY_ATTENTION_GENERAL_CUH
#define FAIRWAY_ATTENTION_GENERAL_CUH

#include "attention.h"
#include "vector.cuh"

#include <climits>
#include <cmath>

namespace general {

typedef __nv_bfloat16 bf16;

/* Warps of a block, and its threads. */
enum { WARPS = 4, THREADS = WARPS * WARP_LANES };

/* Tiles of 16 rows that a warp keeps in registers: with 128 columns two would not fit. */
template <int WIDTH> constexpr int row_tiles = WIDTH > 64 ? 1 : 2;
template <int WIDTH> constexpr int warp_rows = 16 * row_tiles<WIDTH>;
template <int WIDTH> constexpr int block_rows = WARPS *warp_rows<WIDTH>;

/* Rows of a tile that streams through shared memory, two buffers of it. */
enum { STREAM_ROWS = 64 };

#define LOG2_E 1.4426950408889634f

/* ---- heads and what a query sees ---- */

/* [B,positions,heads,D] with strides in elements. */
struct heads {
    bf16 *data;
    int64_t batch, head;
    int position;
};

__device__ __forceinline__ bf16 *head_of(const heads &x, int b, int h) {
    return x.data + b * x.batch + h * x.head;
}

struct problem {
    heads q, k, v, out, d_out, d_q, d_k, d_v;
    float *log_sum_exp, *self_dot; /* [B,H,T]; self_dot NULL: no exclusive self attention */
    const int32_t *starts;         /* [B,n_starts] or NULL */
    int batch, tokens, keys, n_heads, groups, width;
    int n_starts;
    int window;              /* 0: none */
    float scale, scale_log2; /* scores in powers of e and of two */
    bool aligned;            /* all rows can be read and written 16 bytes at a time */
    bool add_d_v;            /* to what d_v holds */
};

static inline heads heads_of(const fw_tensor &x) {
    const int64_t position = x.shape[1] > 1 ? x.stride[1] : x.shape[3];
    return {static_cast<bf16 *>(x.data), x.stride[0], x.stride[2], static_cast<int>(position)};
}

/* What both passes read; the gradients are the backward pass's to fill. */
static inline problem problem_of(const fw_flash_attention *a) {
    problem p = {};
    p.q = heads_of(a->q), p.k = heads_of(a->k), p.v = heads_of(a->v), p.out = heads_of(a->out);
    p.log_sum_exp = static_cast<float *>(a->log_sum_exp.data);
    p.self_dot = a->exclude_self ? static_cast<float *>(a->self_dot.data) : nullptr;
    p.starts = static_cast<const int32_t *>(a->cu_seqlens.data);
    p.n_starts = static_cast<int>(a->cu_seqlens.shape[1]);
    p.batch = static_cast<int>(a->q.shape[0]), p.tokens = static_cast<int>(a->q.shape[1]);
    p.keys = static_cast<int>(a->k.shape[1]), p.n_heads = static_cast<int>(a->q.shape[2]);
    p.groups = static_cast<int>(a->k.shape[2]), p.width = static_cast<int>(a->q.shape[3]);
    p.window = a->window < p.keys ? static_cast<int>(a->window) : 0;
    p.scale = a->scale, p.scale_log2 = a->scale * LOG2_E;
    p.aligned =
        rows_aligned(&a->q) && rows_aligned(&a->k) && rows_aligned(&a->v) && rows_aligned(&a->out);
    return p;
}

/* How many of the ascending starts of sequence b are not after `position`. */
__device__ __forceinline__ int starts_until(const problem &p, int b, int position) {
    const int32_t *starts = p.starts + static_cast<int64_t>(b) * p.n_starts;
    int low = 0, high = p.n_starts;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (starts[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The query at key position `own` sees the keys [first_key, own]; it never decreases with own. */
__device__ __forceinline__ int first_key(const problem &p, int b, int own) {
    int first = p.window > 0 ? max(0, own - p.window + 1) : 0;
    if (p.starts == nullptr) return first;
    const int before = starts_until(p, b, own);
    if (before > 0) first = max(first, p.starts[static_cast<int64_t>(b) * p.n_starts + before - 1]);
    return first;
}

/* The same from the key's side: queries at positions [key, last_query) see it. */
__device__ __forceinline__ int end_of_queries(const problem &p, int b, int key) {
    int end = p.window > 0 && key < INT_MAX - p.window ? key + p.window : INT_MAX;
    if (p.starts == nullptr) return end;
    const int before = starts_until(p, b, key);
    if (before < p.n_starts)
        end = min(end, p.starts[static_cast<int64_t>(b) * p.n_starts + before]);
    return end;
}

/* ---- tiles in shared memory ---- */

/* Of the 16-byte piece `piece` of row `row`, in bytes. */
template <int WIDTH> __device__ __forceinline__ int tile_offset(int row, int piece) {
    return row * WIDTH * 2 + ((piece ^ (row & 7)) << 4);
}

template <int WIDTH, int ROWS> constexpr int tile_bytes = ROWS *WIDTH * 2;

__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/* 16 bytes from global to shared memory behind the thread's back; zeros when `there` is false. */
__device__ __forceinline__ void copy_async(void *to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* The slow way for rows that do not lie on 16 bytes or whose width is no multiple of 8. */
template <int WIDTH>
__device__ __noinline__ void load_tile_unaligned(char *tile, const bf16 *from, int stride, int tall,
                                                 int rows, int width) {
    constexpr int PIECES = WIDTH / PIECE;
    for (int i = threadIdx.x; i < tall * PIECES; i += THREADS) {
        const int row = i / PIECES, column = i % PIECES * PIECE;
        const int count = row < rows ? width - column : 0;
        const bf16 *at = count > 0 ? from + static_cast<int64_t>(row) * stride + column : from;
        *reinterpret_cast<uint4 *>(tile + tile_offset<WIDTH>(row, column / PIECE)) =
            load_packed_piece<false>(at, count);
    }
}

/* A tile of ROWS rows, of which the first `rows` exist, `stride` elements apart. All threads of the
 * block take part; the rows are there behind copies_wait and a barrier. */
template <int WIDTH, int ROWS>
__device__ __forceinline__ void load_tile(char *tile, const bf16 *from, int stride, int rows,
                                          int width, bool aligned) {
    constexpr int PIECES = WIDTH / PIECE, EACH = ROWS * PIECES / THREADS;
    static_assert(ROWS * PIECES % THREADS == 0, "every thread copies as many pieces");
    if (!aligned) {
        load_tile_unaligned<WIDTH>(tile, from, stride, ROWS, rows, width);
        return;
    }
    const int piece = threadIdx.x % PIECES, first = threadIdx.x / PIECES;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int row = first + i * (THREADS / PIECES);
        const bool there = row < rows && piece * PIECE < width;
        const bf16 *at = from + static_cast<int64_t>(row) * stride + piece * PIECE;
        copy_async(tile + tile_offset<WIDTH>(row, piece), there ? at : from, there);
    }
}

/* Rows [first, first + COUNT) of a tile to global memory, by one warp; `rows` of the tile exist. */
template <int WIDTH, int COUNT>
__device__ __forceinline__ void store_rows(const char *tile, int first, bf16 *to, int stride,
                                           int rows, int width, bool aligned) {
    constexpr int PIECES = WIDTH / PIECE;
    for (int i = threadIdx.x % WARP_LANES; i < COUNT * PIECES; i += WARP_LANES) {
        const int row = first + i / PIECES, piece = i % PIECES;
        const int count = row < rows ? width - piece * PIECE : 0;
        const uint4 packed =
            *reinterpret_cast<const uint4 *>(tile + tile_offset<WIDTH>(row, piece));
        bf16 *at = to + static_cast<int64_t>(row) * stride + piece * PIECE;
        if (aligned)
            store_packed_piece<true>(at, packed, count);
        else
            store_packed_piece<false>(at, packed, count);
    }
}

/* ---- products: c[16 x 8] += a[16 x 16] b[16 x 8] ----
 * A lane holds of c the elements (row g, columns 2t, 2t + 1) and (row g + 8, the same columns) with
 * g = lane / 4 and t = lane % 4. Two tiles of c that lie side by side, rounded, are an a. */

__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void to_left(uint32_t (&a)[4], const float (&c0)[4],
                                        const float (&c1)[4]) {
    a[0] = pack2(c0[0], c0[1]);
    a[1] = pack2(c0[2], c0[3]);
    a[2] = pack2(c1[0], c1[1]);
    a[3] = pack2(c1[2], c1[3]);
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* a = rows [row, row + 16), columns [16 k, 16 k + 16) of a tile. */
template <int WIDTH>
__device__ __forceinline__ void left_operand(uint32_t (&a)[4], uint32_t tile, int row, int k) {
    const int lane = threadIdx.x % WARP_LANES;
    load_matrices(a, tile + tile_offset<WIDTH>(row + (lane & 15), 2 * k + (lane >> 4)));
}

/* Two b side by side (b[0], b[1] and b[2], b[3]): the transpose of rows [row, row + 16), columns
 * [16 k, 16 k + 16), for products along the columns of two tiles. */
template <int WIDTH>
__device__ __forceinline__ void right_transposed(uint32_t (&b)[4], uint32_t tile, int row, int k) {
    const int lane = threadIdx.x % WARP_LANES;
    const int at = row + (lane & 7) + ((lane >> 4) << 3);
    load_matrices(b, tile + tile_offset<WIDTH>(at, 2 * k + ((lane >> 3) & 1)));
}

/* Two b side by side: rows [row, row + 16), columns [16 n, 16 n + 16) as they are. */
template <int WIDTH>
__device__ __forceinline__ void right_plain(uint32_t (&b)[4], uint32_t tile, int row, int n) {
    const int lane = threadIdx.x % WARP_LANES;
    load_matrices_transposed(b, tile + tile_offset<WIDTH>(row + (lane & 15), 2 * n + (lane >> 4)));
}

/* All left operands of a warp's rows of a tile. */
template <int WIDTH>
__device__ __forceinline__ void left_operands(uint32_t (&a)[row_tiles<WIDTH>][WIDTH / 16][4],
                                              const char *tile, int row) {
    const uint32_t address = shared_address(tile);
#pragma unroll
    for (int m = 0; m < row_tiles<WIDTH>; m++)
#pragma unroll
        for (int k = 0; k < WIDTH / 16; k++) left_operand<WIDTH>(a[m][k], address, row + 16 * m, k);
}

/* c[rows x 8 N] = a times the transpose of rows [row, row + 8 N) of a tile. */
template <int WIDTH, int N>
__device__ __forceinline__ void
multiply_transposed(float (&c)[row_tiles<WIDTH>][N][4],
                    const uint32_t (&a)[row_tiles<WIDTH>][WIDTH / 16][4], uint32_t tile, int row) {
    constexpr int M = row_tiles<WIDTH>;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) c[m][n][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++)
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4];
            right_transposed<WIDTH>(b, tile, row + 8 * n, k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply(c[m][n], a[m][k], b[0], b[1]);
                multiply(c[m][n + 1], a[m][k], b[2], b[3]);
            }
        }
}

/* c[rows x WIDTH] += a[rows x 16] times rows [row, row + 16) of a tile. */
template <int WIDTH>
__device__ __forceinline__ void multiply_plain(float (&c)[row_tiles<WIDTH>][WIDTH / 8][4],
                                               const uint32_t (&a)[row_tiles<WIDTH>][4],
                                               uint32_t tile, int row) {
#pragma unroll
    for (int n = 0; n < WIDTH / 16; n++) {
        uint32_t b[4];
        right_plain<WIDTH>(b, tile, row, n);
#pragma unroll
        for (int m = 0; m < row_tiles<WIDTH>; m++) {
            multiply(c[m][2 * n], a[m], b[0], b[1]);
            multiply(c[m][2 * n + 1], a[m], b[2], b[3]);
        }
    }
}

/* One tile of 16 rows of accumulators, each row times its factor, into shared memory. */
template <int WIDTH>
__device__ __forceinline__ void put_rows(char *tile, int row, const float (&c)[WIDTH / 8][4],
                                         float factor_low, float factor_high) {
    const int lane = threadIdx.x % WARP_LANES;
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        char *low = tile + tile_offset<WIDTH>(row + lane / 4, n) + lane % 4 * 4;
        char *high = tile + tile_offset<WIDTH>(row + 8 + lane / 4, n) + lane % 4 * 4;
        *reinterpret_cast<uint32_t *>(low) = pack2(c[n][0] * factor_low, c[n][1] * factor_low);
        *reinterpret_cast<uint32_t *>(high) = pack2(c[n][2] * factor_high, c[n][3] * factor_high);
    }
}

/* ---- small things ---- */

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Over the four lanes that share a row of c. */
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Columns 8 n + 2t and the next one of a row of global memory, for this lane; zeros beyond it. */
__device__ __forceinline__ float2 pair_of(const bf16 *row, int n, int width, bool aligned) {
    const int column = 8 * n + threadIdx.x % 4 * 2;
    if (aligned) {
        if (column >= width) return make_float2(0.0f, 0.0f);
        return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(row + column));
    }
    return make_float2(column < width ? __bfloat162float(row[column]) : 0.0f,
                       column + 1 < width ? __bfloat162float(row[column + 1]) : 0.0f);
}

/* Calls launch<WIDTH>(...) for a head's width rounded up. */
#define GENERAL_BY_WIDTH(width, launch, ...)                                                       \
    ((width) <= 64 ? launch<64>(__VA_ARGS__) : launch<128>(__VA_ARGS__))

} /* namespace general */

#endif
