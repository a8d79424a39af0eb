/* Token embedding: rows of a table by token, and the gradient's scatter-add.
 *
 * Backward adds rows in an order that never changes: row numbers are sorted by token, stably, then
 * the sorted list is cut into chunks of equal length, so that a frequent token is shared by many
 * chunks. A token's first chunk adds to the table; the others leave the part of the token that
 * they begin with in the workspace, and a last kernel adds those parts in order of chunk.
 *
 * A token outside of the table reads as NaN, and its gradient is dropped: the host, which could
 * refuse it, does not see tokens. */
#include "row_sort.h"
#include "vector.cuh"

namespace {

#define BLOCK_THREADS 256
#define GATHER_ROWS 4                       /* of a thread, in flight */
#define CHUNK_ROWS 64                       /* unless the parts would not fit the workspace */
#define SHARES (BLOCK_THREADS / WARP_LANES) /* of a token's parts, in one block */
#define WIDE_COLUMNS 256 /* narrower rows take half as many, for enough threads */
#define LOOKAHEAD 8      /* rows of a chunk in flight in each thread */

/* Blocks of x threads over the pieces of a row and y rows or chunks. */
dim3 block_of(int64_t pieces) {
    unsigned x = 1;
    while (x < pieces && x < BLOCK_THREADS) x *= 2;
    return dim3(x, BLOCK_THREADS / x);
}

/* ---- forward ---- */

struct gather {
    const int32_t *tokens;
    const __nv_bfloat16 *table;
    __nv_bfloat16 *out;
    int64_t rows, width, vocabulary, table_stride, out_stride;
};

template <bool ALIGNED> __global__ void __launch_bounds__(BLOCK_THREADS) gather_rows(gather g) {
    const int64_t first =
        (static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y) * GATHER_ROWS;
    const uint4 nan = make_uint4(0x7fff7fffu, 0x7fff7fffu, 0x7fff7fffu, 0x7fff7fffu);
    int32_t tokens[GATHER_ROWS];
#pragma unroll
    for (int i = 0; i < GATHER_ROWS; i++) tokens[i] = first + i < g.rows ? g.tokens[first + i] : -1;
    for (int64_t at = threadIdx.x * PIECE; at < g.width; at += blockDim.x * PIECE) {
        uint4 pieces[GATHER_ROWS];
#pragma unroll
        for (int i = 0; i < GATHER_ROWS; i++)
            pieces[i] = tokens[i] < 0 || tokens[i] >= g.vocabulary
                            ? nan
                            : load_packed_piece<ALIGNED>(g.table + tokens[i] * g.table_stride + at,
                                                         g.width - at);
#pragma unroll
        for (int i = 0; i < GATHER_ROWS; i++)
            if (first + i < g.rows)
                store_packed_piece<ALIGNED>(g.out + (first + i) * g.out_stride + at, pieces[i],
                                            g.width - at);
    }
}

/* ---- backward ---- */

/* One slice of rows, sorted: keys are tokens, ascending; `vocabulary` for those out of range. */
struct scatter {
    const uint32_t *keys, *rows; /* [n] */
    int64_t n, chunk_rows, width, vocabulary;
    const __nv_bfloat16 *d_out;
    int64_t d_out_stride;
    float *d_table;
    int64_t d_table_stride;
    float *parts; /* [chunks, padded]: what continues the chunk before, by chunk */
    int64_t padded;
};

/* The sum of one token's rows in one chunk, as far as it has got. */
struct segment {
    uint32_t key;
    bool continues; /* a token of the chunk before */
    floats8 sum;
};

/* The additions are atomic not because others add to the same numbers, nobody does in this kernel,
 * but because nothing then waits to read the table. */
__device__ __forceinline__ void add_to(float *to, const float4 &sum) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(sum.x), "f"(sum.y),
                 "f"(sum.z), "f"(sum.w)
                 : "memory");
#else
    atomicAdd(to, sum.x), atomicAdd(to + 1, sum.y);
    atomicAdd(to + 2, sum.z), atomicAdd(to + 3, sum.w);
#endif
}

template <bool ALIGNED>
__device__ __forceinline__ void put(const scatter &s, const segment &done, int64_t chunk,
                                    int64_t at) {
    if (done.key >= s.vocabulary) return;
    if (done.continues) {
        store8(s.parts + chunk * s.padded + at, done.sum);
        return;
    }
    float *to = s.d_table + done.key * s.d_table_stride + at;
    const float *sum = done.sum.at;
    if constexpr (ALIGNED) {
        add_to(to, make_float4(sum[0], sum[1], sum[2], sum[3]));
        add_to(to + 4, make_float4(sum[4], sum[5], sum[6], sum[7]));
    } else {
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            if (at + i < s.width) atomicAdd(to + i, sum[i]);
    }
}

template <bool ALIGNED>
__device__ __forceinline__ void add_chunk(const scatter &s, int64_t chunk, int64_t at) {
    const int64_t begin = chunk * s.chunk_rows, end = min(begin + s.chunk_rows, s.n);
    const uint32_t start = s.keys[begin];
    constexpr int lookahead = ALIGNED ? LOOKAHEAD : 2;
    segment now = {start, begin > 0 && s.keys[begin - 1] == start, zeros8()};
    for (int64_t base = begin; base < end; base += lookahead) {
        uint32_t keys[lookahead];
        uint4 packed[lookahead];
#pragma unroll
        for (int i = 0; i < lookahead; i++) {
            const int64_t from = min(base + i, end - 1);
            keys[i] = s.keys[from];
            packed[i] = load_packed_piece<ALIGNED>(s.d_out + s.rows[from] * s.d_out_stride + at,
                                                   s.width - at);
        }
#pragma unroll
        for (int i = 0; i < lookahead; i++) {
            if (base + i >= end) break;
            if (keys[i] != now.key) {
                put<ALIGNED>(s, now, chunk, at);
                now = {keys[i], false, zeros8()};
            }
            const floats8 row = unpack8(packed[i]);
#pragma unroll
            for (int j = 0; j < PIECE; j++) now.sum.at[j] += row.at[j];
        }
    }
    put<ALIGNED>(s, now, chunk, at);
}

template <bool ALIGNED> __global__ void __launch_bounds__(BLOCK_THREADS) add_chunks(scatter s) {
    const int64_t chunk = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
    if (chunk * s.chunk_rows >= s.n) return;
    for (int64_t at = threadIdx.x * PIECE; at < s.width; at += blockDim.x * PIECE)
        add_chunk<ALIGNED>(s, chunk, at);
}

/* How many chunks from row `begin` on begin with `key`; all threads of the block call. Keys are
 * sorted, so those that do come first. */
__device__ __forceinline__ int64_t count_parts(const scatter &s, int64_t begin, uint32_t key) {
    const int64_t thread = threadIdx.y * blockDim.x + threadIdx.x;
    for (int64_t count = 0;; count += BLOCK_THREADS) {
        const int64_t row = begin + (count + thread) * s.chunk_rows;
        const int found = __syncthreads_count(row < s.n && s.keys[row] == key);
        if (found < BLOCK_THREADS) return count + found;
    }
}

__device__ __forceinline__ float4 add4(const float4 &a, const float4 &b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* The parts of one token, if their first is that of chunk blockIdx.x + 1. Threads (x, y) add 4
 * columns of the y-th share of the parts, then threads (x, 0) the shares in order. */
__global__ void __launch_bounds__(BLOCK_THREADS) add_parts(scatter s) {
    __shared__ float4 shares[SHARES][WARP_LANES];
    const int64_t step = s.chunk_rows, begin = (blockIdx.x + 1) * step;
    const uint32_t key = s.keys[begin], before = s.keys[begin - 1];
    const bool earlier = begin > step && s.keys[max(begin - step - 1, int64_t(0))] == key;
    if (key >= s.vocabulary || before != key || earlier) return;
    const int64_t count = count_parts(s, begin, key), each = (count + SHARES - 1) / SHARES;
    const int64_t first = threadIdx.y * each, last = min(first + each, count);
    const int64_t column = (static_cast<int64_t>(blockIdx.y) * WARP_LANES + threadIdx.x) * 4;
    const float *parts = s.parts + (blockIdx.x + 1) * s.padded + column;
    float4 total = make_float4(0, 0, 0, 0);
    if (column < s.padded) {
#pragma unroll 8
        for (int64_t i = first; i < last; i++)
            total = add4(total, *reinterpret_cast<const float4 *>(parts + i * s.padded));
    }
    shares[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y > 0) return;
#pragma unroll
    for (int i = 1; i < SHARES; i++) total = add4(total, shares[i][threadIdx.x]);
    float *to = s.d_table + key * s.d_table_stride + column;
    const float sums[4] = {total.x, total.y, total.z, total.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (column + i < s.width) to[i] += sums[i];
}

/* ---- one slice: rows first .. first + n - 1 of e ---- */

scatter make_scatter(const fw_embedding *e, const row_sort *sort, int64_t first, float *parts,
                     int64_t room) {
    scatter s = {.keys = sort->keys[0],
                 .rows = sort->rows[0],
                 .n = sort->n,
                 .chunk_rows = e->d_out.shape[1] < WIDE_COLUMNS ? CHUNK_ROWS / 2 : CHUNK_ROWS,
                 .width = e->d_out.shape[1],
                 .vocabulary = e->d_table.shape[0],
                 .d_out_stride = e->d_out.stride[0],
                 .d_table = static_cast<float *>(e->d_table.data),
                 .d_table_stride = e->d_table.stride[0],
                 .parts = parts};
    s.d_out = static_cast<const __nv_bfloat16 *>(e->d_out.data) + first * s.d_out_stride;
    s.padded = cuda_divide_up(s.width, PIECE) * PIECE;
    while (cuda_divide_up(s.n, s.chunk_rows) * s.padded > room) s.chunk_rows *= 2;
    return s;
}

fw_status add_slice(cuda_device *cuda, const fw_embedding *e, const scatter &s, fw_error *error) {
    const char *op = "embedding_backward";
    const int64_t chunks = cuda_divide_up(s.n, s.chunk_rows);
    const dim3 block = block_of(s.padded / PIECE);
    const unsigned blocks = static_cast<unsigned>(cuda_divide_up(chunks, block.y));
    const bool aligned = rows_aligned(&e->d_out) && rows_aligned(&e->d_table);
    (aligned ? add_chunks<true> : add_chunks<false>)<<<blocks, block, 0, cuda->stream>>>(s);
    FW_TRY(cuda_launched(cuda, op, "add_chunks", error));
    if (chunks == 1) return FW_OK;
    const dim3 grid(static_cast<unsigned>(chunks - 1),
                    static_cast<unsigned>(cuda_divide_up(s.width, 4 * WARP_LANES)));
    add_parts<<<grid, dim3(WARP_LANES, SHARES), 0, cuda->stream>>>(s);
    return cuda_launched(cuda, op, "add_parts", error);
}

fw_status backward_slice(cuda_device *cuda, const fw_embedding *e, int64_t first, int64_t n,
                         fw_error *error) {
    row_sort sort;
    char *rest = row_sort_carve(cuda->workspace, n, e->d_table.shape[0], &sort);
    const size_t room = CUDA_WORKSPACE_BYTES - static_cast<size_t>(rest - cuda->workspace);
    const int32_t *tokens = static_cast<const int32_t *>(e->tokens.data) + first;
    FW_TRY(row_sort_run(cuda, "embedding_backward", tokens, &sort, error));
    const scatter s = make_scatter(e, &sort, first, reinterpret_cast<float *>(rest),
                                   static_cast<int64_t>(room / sizeof(float)));
    return add_slice(cuda, e, s, error);
}

/* ---- checks ---- */

/* Tokens are numbers of 32 bits, and the parts of a chunk must fit the workspace. */
#define MAX_COLUMNS 65536

fw_status check(const char *op, const fw_embedding *e, const fw_tensor *rows,
                const fw_tensor *table, uint32_t table_dtype, fw_error *error) {
    FW_TRY(cuda_check_packed(op, "tokens", &e->tokens, FW_I32, -1, error));
    FW_TRY(cuda_check_matrix(op, "the table", table, table_dtype, -1, -1, error));
    const int64_t n = fw_tensor_count(&e->tokens);
    FW_TRY(cuda_check_matrix(op, "the rows", rows, FW_BF16, n, table->shape[1], error));
    if (table->shape[0] > INT32_MAX || table->shape[1] > MAX_COLUMNS)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "%s: a table of %lld x %lld; at most %d x %d are supported", op,
                       static_cast<long long>(table->shape[0]),
                       static_cast<long long>(table->shape[1]), INT32_MAX, MAX_COLUMNS);
    return FW_OK;
}

cudaError_t zero_rows(const cuda_device *cuda, const fw_tensor *rows) {
    const size_t width = static_cast<size_t>(rows->shape[1]) * sizeof(float);
    const size_t pitch = rows->shape[0] > 1 ? rows->stride[0] * sizeof(float) : width;
    return cudaMemset2DAsync(rows->data, pitch, 0, width, rows->shape[0], cuda->stream);
}

} // namespace

fw_status cuda_embedding_forward(fw_device *device, const fw_embedding *e, fw_error *error) {
    const char *op = "embedding_forward";
    CUDA_ARGUMENTS(op, device, e, error);
    FW_TRY(check(op, e, &e->out, &e->table, FW_BF16, error));
    const gather g = {.tokens = static_cast<const int32_t *>(e->tokens.data),
                      .table = static_cast<const __nv_bfloat16 *>(e->table.data),
                      .out = static_cast<__nv_bfloat16 *>(e->out.data),
                      .rows = e->out.shape[0],
                      .width = e->out.shape[1],
                      .vocabulary = e->table.shape[0],
                      .table_stride = e->table.stride[0],
                      .out_stride = e->out.stride[0]};
    if (g.rows == 0 || g.width == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const dim3 block = block_of(cuda_divide_up(g.width, PIECE));
    const int64_t blocks = cuda_divide_up(g.rows, static_cast<int64_t>(block.y) * GATHER_ROWS);
    const bool aligned = rows_aligned(&e->table) && rows_aligned(&e->out);
    (aligned ? gather_rows<true>
             : gather_rows<false>)<<<static_cast<unsigned>(blocks), block, 0, cuda->stream>>>(g);
    return cuda_launched(cuda, op, "gather_rows", error);
}

fw_status cuda_embedding_backward(fw_device *device, const fw_embedding *e, fw_error *error) {
    const char *op = "embedding_backward";
    CUDA_ARGUMENTS(op, device, e, error);
    FW_TRY(check(op, e, &e->d_out, &e->d_table, FW_F32, error));
    const int64_t n = e->d_out.shape[0];
    cuda_device *cuda = cuda_self(device);
    if (fw_tensor_count(&e->d_table) == 0) return FW_OK;
    if (!e->accumulate) CUDA_TRY(cuda, zero_rows(cuda, &e->d_table), op, error);
    for (int64_t first = 0; first < n; first += ROW_SORT_MOST)
        FW_TRY(backward_slice(cuda, e, first, cuda_min(ROW_SORT_MOST, n - first), error));
    return FW_OK;
}
