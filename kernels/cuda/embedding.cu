/* Token embedding: rows of a table by token, and the gradient's scatter-add.
 *
 * Backward adds rows in an order that never changes: row numbers are sorted by token, stably, then
 * the sorted list is cut into chunks of equal length, so that a frequent token is shared by many
 * chunks. A token's first chunk adds to the table; the others leave the part of the token that
 * they begin with in the workspace, and a last kernel adds those parts in order of chunk.
 *
 * A token outside of the table reads as NaN, and its gradient is dropped: the host, which could
 * refuse it, does not see tokens. */
#include "cuda_device.h"
#include "vector.cuh"

#include <cub/device/device_radix_sort.cuh>

namespace {

#define BLOCK_THREADS 256
#define GATHER_ROWS 4        /* of a thread, in flight */
#define CHUNK_ROWS 64        /* unless the parts would not fit the workspace */
#define LOOKAHEAD 8          /* rows of a chunk in flight in each thread */
#define RUN_LOADS 8          /* parts in flight in each thread */
#define SLICE_ROWS (1 << 20) /* sorted at a time */

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

__global__ void make_keys(const int32_t *tokens, int64_t n, uint32_t vocabulary, uint32_t *keys,
                          uint32_t *rows) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    keys[i] = min(static_cast<uint32_t>(tokens[i]), vocabulary);
    rows[i] = static_cast<uint32_t>(i);
}

/* The sum of one token's rows in one chunk, as far as it has got. */
struct segment {
    uint32_t key;
    bool continues; /* a token of the chunk before */
    floats8 sum;
};

template <bool ALIGNED>
__device__ __forceinline__ void put(const scatter &s, const segment &done, int64_t chunk,
                                    int64_t at) {
    if (done.key >= s.vocabulary) return;
    if (done.continues) {
        store8(s.parts + chunk * s.padded + at, done.sum);
        return;
    }
    float *to = s.d_table + done.key * s.d_table_stride + at;
    floats8 total = load_piece<ALIGNED>(to, s.width - at);
#pragma unroll
    for (int i = 0; i < PIECE; i++) total.at[i] += done.sum.at[i];
    store_piece<ALIGNED>(to, total, s.width - at);
}

template <bool ALIGNED>
__device__ __forceinline__ void add_chunk(const scatter &s, int64_t chunk, int64_t at) {
    const int64_t begin = chunk * s.chunk_rows, end = min(begin + s.chunk_rows, s.n);
    const uint32_t start = s.keys[begin];
    segment now = {start, begin > 0 && s.keys[begin - 1] == start, zeros8()};
    for (int64_t base = begin; base < end; base += LOOKAHEAD) {
        uint32_t keys[LOOKAHEAD];
        uint4 packed[LOOKAHEAD];
#pragma unroll
        for (int i = 0; i < LOOKAHEAD; i++) {
            const int64_t from = min(base + i, end - 1);
            keys[i] = s.keys[from];
            packed[i] = load_packed_piece<ALIGNED>(s.d_out + s.rows[from] * s.d_out_stride + at,
                                                   s.width - at);
        }
#pragma unroll
        for (int i = 0; i < LOOKAHEAD; i++) {
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

/* The parts of one token, which begin at chunk blockIdx.x + 1 if any do there. */
__global__ void __launch_bounds__(BLOCK_THREADS) add_parts(scatter s) {
    const int64_t step = s.chunk_rows, begin = (blockIdx.x + 1) * step;
    const int64_t column = static_cast<int64_t>(blockIdx.y) * BLOCK_THREADS + threadIdx.x;
    const uint32_t key = s.keys[begin];
    if (key >= s.vocabulary || column >= s.width || s.keys[begin - 1] != key) return;
    if (begin > step && s.keys[begin - step - 1] == key) return; /* they begin earlier */
    float *to = s.d_table + key * s.d_table_stride + column, total = *to;
    const float *part = s.parts + (blockIdx.x + 1) * s.padded + column;
    for (int64_t at = begin; at < s.n; at += RUN_LOADS * step, part += RUN_LOADS * s.padded) {
        float values[RUN_LOADS];
#pragma unroll
        for (int i = 0; i < RUN_LOADS; i++) {
            const int64_t row = at + i * step;
            values[i] = row < s.n && s.keys[row] == key ? part[i * s.padded] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < RUN_LOADS; i++) total += values[i];
        if (s.keys[min(at + (RUN_LOADS - 1) * step, s.n - 1)] != key) break;
    }
    *to = total;
}

/* ---- the workspace of one slice ---- */

struct carving {
    uint32_t *keys[2], *rows[2];
    void *sort;
    size_t sort_bytes;
    float *parts;
    size_t parts_bytes;
};

int bits_of(int64_t largest) {
    int bits = 1;
    while (largest >> bits > 0) bits++;
    return bits;
}

/* Sorts keys and rows, or with sort == NULL says how much room that takes. */
cudaError_t sort_slice(carving *c, int64_t n, int64_t vocabulary, cudaStream_t stream) {
    cub::DoubleBuffer<uint32_t> keys(c->keys[0], c->keys[1]), rows(c->rows[0], c->rows[1]);
    const cudaError_t code = cub::DeviceRadixSort::SortPairs(
        c->sort, c->sort_bytes, keys, rows, static_cast<int>(n), 0, bits_of(vocabulary), stream);
    c->keys[0] = keys.Current(), c->rows[0] = rows.Current();
    return code;
}

char *take(char **from, size_t bytes) {
    char *here = *from;
    *from += (bytes + 255) / 256 * 256;
    return here;
}

cudaError_t carve(const cuda_device *cuda, int64_t n, int64_t vocabulary, carving *c) {
    char *at = cuda->workspace;
    for (int i = 0; i < 2; i++) {
        c->keys[i] = reinterpret_cast<uint32_t *>(take(&at, n * sizeof(uint32_t)));
        c->rows[i] = reinterpret_cast<uint32_t *>(take(&at, n * sizeof(uint32_t)));
    }
    c->sort = nullptr;
    const cudaError_t code = sort_slice(c, n, vocabulary, cuda->stream);
    c->sort = take(&at, c->sort_bytes);
    c->parts = reinterpret_cast<float *>(at);
    c->parts_bytes = CUDA_WORKSPACE_BYTES - static_cast<size_t>(at - cuda->workspace);
    return code;
}

/* ---- one slice: rows first .. first + n - 1 of e ---- */

scatter make_scatter(const fw_embedding *e, const carving *c, int64_t first, int64_t n) {
    scatter s = {.keys = c->keys[0],
                 .rows = c->rows[0],
                 .n = n,
                 .chunk_rows = CHUNK_ROWS,
                 .width = e->d_out.shape[1],
                 .vocabulary = e->d_table.shape[0],
                 .d_out_stride = e->d_out.stride[0],
                 .d_table = static_cast<float *>(e->d_table.data),
                 .d_table_stride = e->d_table.stride[0],
                 .parts = c->parts};
    s.d_out = static_cast<const __nv_bfloat16 *>(e->d_out.data) + first * s.d_out_stride;
    s.padded = cuda_divide_up(s.width, PIECE) * PIECE;
    const int64_t room = static_cast<int64_t>(c->parts_bytes / sizeof(float));
    while (cuda_divide_up(n, s.chunk_rows) * s.padded > room) s.chunk_rows *= 2;
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
                    static_cast<unsigned>(cuda_divide_up(s.width, BLOCK_THREADS)));
    add_parts<<<grid, BLOCK_THREADS, 0, cuda->stream>>>(s);
    return cuda_launched(cuda, op, "add_parts", error);
}

fw_status backward_slice(cuda_device *cuda, const fw_embedding *e, int64_t first, int64_t n,
                         fw_error *error) {
    const char *op = "embedding_backward";
    const int64_t vocabulary = e->d_table.shape[0];
    const int32_t *tokens = static_cast<const int32_t *>(e->tokens.data) + first;
    carving c = {};
    CUDA_TRY(cuda, carve(cuda, n, vocabulary, &c), op, error);
    const unsigned blocks = static_cast<unsigned>(cuda_divide_up(n, BLOCK_THREADS));
    make_keys<<<blocks, BLOCK_THREADS, 0, cuda->stream>>>(
        tokens, n, static_cast<uint32_t>(vocabulary), c.keys[0], c.rows[0]);
    FW_TRY(cuda_launched(cuda, op, "make_keys", error));
    CUDA_TRY(cuda, sort_slice(&c, n, vocabulary, cuda->stream), op, error);
    FW_TRY(cuda_launched(cuda, op, "radix sort", error));
    return add_slice(cuda, e, make_scatter(e, &c, first, n), error);
}

/* ---- checks ---- */

/* Rows are numbers of 32 bits, and a row's parts must fit the workspace. */
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
    for (int64_t first = 0; first < n; first += SLICE_ROWS)
        FW_TRY(backward_slice(cuda, e, first, cuda_min(SLICE_ROWS, n - first), error));
    return FW_OK;
}
