/* Causal grouped-query attention, forward, on any GPU from compute capability 8.0: a block of
 * queries against blocks of keys with a running softmax in registers (Dao, 2023), so that no T x T
 * matrix exists. Keys and values stream through two buffers of shared memory. Exclusive self
 * attention is applied to the finished rows. */
#include "attention_general.cuh"

using namespace general;

/* ---- one warp's rows ---- */

template <int WIDTH> struct rows {
    static constexpr int M = row_tiles<WIDTH>;
    uint32_t q[M][WIDTH / 16][4];
    float sums[M][WIDTH / 8][4]; /* the output before it is normalised */
    float maximum[M][2];         /* of the raw scores, rows g and g + 8 of each tile */
    float total[M][2];           /* this lane's part of the sum of weights */
    int first[M][2], last[M][2]; /* keys that each row sees */
    int oldest, oldest_all;      /* first key that any row of the warp sees; that all rows see */
    int newest, newest_all;      /* last keys, likewise */
};

template <int WIDTH>
__device__ __forceinline__ void rows_begin(rows<WIDTH> &r, const problem &p, int b, int own) {
    const int lane = threadIdx.x % WARP_LANES, end = p.keys - 1;
#pragma unroll
    for (int m = 0; m < r.M; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            r.last[m][i] = own + 16 * m + 8 * i + lane / 4;
            r.first[m][i] = first_key(p, b, min(r.last[m][i], end));
            r.maximum[m][i] = -INFINITY;
            r.total[m][i] = 0.0f;
        }
#pragma unroll
    for (int m = 0; m < r.M; m++)
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) r.sums[m][n][e] = 0.0f;
    r.oldest = first_key(p, b, min(own, end));
    r.newest = own + warp_rows<WIDTH> - 1;
    r.oldest_all = first_key(p, b, min(r.newest, end));
    r.newest_all = own;
}

/* -infinity for every score whose query does not see its key. */
template <int WIDTH>
__device__ __forceinline__ void mask(float (&s)[row_tiles<WIDTH>][STREAM_ROWS / 8][4],
                                     const rows<WIDTH> &r, int k0) {
    const int column = k0 + threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < r.M; m++)
#pragma unroll
        for (int n = 0; n < STREAM_ROWS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int key = column + 8 * n + e % 2;
                if (key > r.last[m][e / 2] || key < r.first[m][e / 2]) s[m][n][e] = -INFINITY;
            }
}

/* Scores -> weights relative to the running maximum, by which the sums so far are shrunk. A row
 * that has seen no key yet has a maximum of -infinity; zero in its place keeps infinity from being
 * taken from infinity. */
template <int WIDTH>
__device__ __forceinline__ void softmax(float (&s)[row_tiles<WIDTH>][STREAM_ROWS / 8][4],
                                        rows<WIDTH> &r, float scale_log2) {
#pragma unroll
    for (int m = 0; m < r.M; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float largest = s[m][0][2 * i];
#pragma unroll
            for (int n = 0; n < STREAM_ROWS / 8; n++)
                largest = fmaxf(largest, fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
            largest = fmaxf(r.maximum[m][i], quad_max(largest));
            const float level = largest == -INFINITY ? 0.0f : largest * scale_log2;
            const float shrink = exp2_fast(r.maximum[m][i] * scale_log2 - level);
            r.maximum[m][i] = largest;
            float total = 0.0f;
#pragma unroll
            for (int n = 0; n < STREAM_ROWS / 8; n++)
#pragma unroll
                for (int e = 2 * i; e < 2 * i + 2; e++) {
                    s[m][n][e] = exp2_fast(fmaf(s[m][n][e], scale_log2, -level));
                    total += s[m][n][e];
                }
            r.total[m][i] = r.total[m][i] * shrink + total;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                r.sums[m][n][2 * i] *= shrink;
                r.sums[m][n][2 * i + 1] *= shrink;
            }
        }
}

/* Keys [k0, k0 + STREAM_ROWS), whose keys and values are in shared memory. */
template <int WIDTH>
__device__ __forceinline__ void attend(rows<WIDTH> &r, const char *k, const char *v, int k0,
                                       float scale_log2) {
    constexpr int M = row_tiles<WIDTH>;
    float s[M][STREAM_ROWS / 8][4];
    multiply_transposed<WIDTH, STREAM_ROWS / 8>(s, r.q, shared_address(k), 0);
    if (k0 < r.oldest_all || k0 + STREAM_ROWS - 1 > r.newest_all) mask<WIDTH>(s, r, k0);
    softmax<WIDTH>(s, r, scale_log2);
#pragma unroll
    for (int j = 0; j < STREAM_ROWS / 16; j++) {
        uint32_t weights[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) to_left(weights[m], s[m][2 * j], s[m][2 * j + 1]);
        multiply_plain<WIDTH>(r.sums, weights, shared_address(v), 16 * j);
    }
}

/* ---- finished rows ---- */

/* Takes the part along the own value, in row `row` of the tile, out of half of a tile's rows (I =
 * 0: rows g, 1: rows g + 8); returns how long it was. */
template <int WIDTH, int I>
__device__ __forceinline__ float exclude_self(float (&y)[WIDTH / 8][4], const char *tile, int row) {
    float2 v[WIDTH / 8];
    float squares = 0.0f, dot = 0.0f;
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        const char *at = tile + tile_offset<WIDTH>(row, n) + threadIdx.x % 4 * 4;
        v[n] = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(at));
        squares += v[n].x * v[n].x + v[n].y * v[n].y;
        dot += y[n][2 * I] * v[n].x + y[n][2 * I + 1] * v[n].y;
    }
    const float inverse = 1.0f / fmaxf(sqrtf(quad_sum(squares)), 1e-12f);
    dot = quad_sum(dot) * inverse;
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        y[n][2 * I] -= dot * inverse * v[n].x;
        y[n][2 * I + 1] -= dot * inverse * v[n].y;
    }
    return dot;
}

/* Half of a tile's rows: normalised, logarithm left for backward, own value taken out. */
template <int WIDTH, int I>
__device__ __forceinline__ void finish_half(rows<WIDTH> &r, int m, const char *tile, int row,
                                            const problem &p, int64_t statistics, float scale) {
    const int position = r.last[m][I] - (p.keys - p.tokens);
    const bool writes = position < p.tokens && threadIdx.x % 4 == 0;
    const float total = quad_sum(r.total[m][I]), inverse = 1.0f / total;
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        r.sums[m][n][2 * I] *= inverse;
        r.sums[m][n][2 * I + 1] *= inverse;
    }
    if (writes) p.log_sum_exp[statistics + position] = r.maximum[m][I] * scale + logf(total);
    if (p.self_dot == nullptr) return;
    const float dot = exclude_self<WIDTH, I>(r.sums[m], tile, row);
    if (writes) p.self_dot[statistics + position] = dot;
}

/* A warp's rows leave through its own rows of shared memory, 16 bytes at a time. With exclusive
 * self attention those hold the rows' own values; a lane writes where it alone has read. */
template <int WIDTH>
__device__ __forceinline__ void finish(rows<WIDTH> &r, char *tile, const problem &p, int b, int h,
                                       int t0, float scale) {
    const int row = threadIdx.x / WARP_LANES * warp_rows<WIDTH>;
    const int low = row + static_cast<int>(threadIdx.x) % WARP_LANES / 4;
    const int64_t statistics = (static_cast<int64_t>(b) * p.n_heads + h) * p.tokens;
#pragma unroll
    for (int m = 0; m < r.M; m++) {
        finish_half<WIDTH, 0>(r, m, tile, low + 16 * m, p, statistics, scale);
        finish_half<WIDTH, 1>(r, m, tile, low + 16 * m + 8, p, statistics, scale);
        put_rows<WIDTH>(tile, row + 16 * m, r.sums[m], 1.0f, 1.0f);
    }
    __syncwarp();
    bf16 *out = head_of(p.out, b, h) + static_cast<int64_t>(t0) * p.out.position;
    store_rows<WIDTH, warp_rows<WIDTH>>(tile, row, out, p.out.position, p.tokens - t0, p.width,
                                        p.aligned);
}

/* ---- a block ---- */

/* Keys and values of positions [k0, k0 + STREAM_ROWS) into one buffer. */
template <int WIDTH>
__device__ __forceinline__ void fetch(char *buffer, const problem &p, const bf16 *k, const bf16 *v,
                                      int k0) {
    const int there = p.keys - k0;
    load_tile<WIDTH, STREAM_ROWS>(buffer, k + static_cast<int64_t>(k0) * p.k.position, p.k.position,
                                  there, p.width, p.aligned);
    load_tile<WIDTH, STREAM_ROWS>(buffer + tile_bytes<WIDTH, STREAM_ROWS>,
                                  v + static_cast<int64_t>(k0) * p.v.position, p.v.position, there,
                                  p.width, p.aligned);
    copies_commit();
}

/* The sign of the scale goes into the queries, so that the largest raw score is the largest score.
 */
template <int WIDTH>
__device__ __forceinline__ void load_queries(rows<WIDTH> &r, const char *tile, bool negate) {
    left_operands<WIDTH>(r.q, tile, threadIdx.x / WARP_LANES * warp_rows<WIDTH>);
    if (!negate) return;
#pragma unroll
    for (int m = 0; m < r.M; m++)
#pragma unroll
        for (int k = 0; k < WIDTH / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) r.q[m][k][i] ^= 0x80008000u;
}

template <int WIDTH>
constexpr int forward_bytes = tile_bytes<WIDTH, block_rows<WIDTH> + 4 * STREAM_ROWS>;

/* A scale of zero would turn a masked -infinity into a NaN; the smallest scale does the same. */
__device__ __forceinline__ float size_of_scale(float scale) { return fmaxf(fabsf(scale), 1e-37f); }

/* The grid holds the blocks of queries of one head side by side, longest first: those that run at
 * one time share keys and values in the second-level cache. */
template <int WIDTH>
__global__ void __launch_bounds__(THREADS, 2) attention_forward(const problem p, int blocks) {
    extern __shared__ __align__(128) char shared[];
    constexpr int PAIR = tile_bytes<WIDTH, 2 * STREAM_ROWS>;
    const int t0 = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * block_rows<WIDTH>;
    const int h = blockIdx.x / blocks % p.n_heads, b = blockIdx.x / blocks / p.n_heads;
    const int shift = p.keys - p.tokens, kv = h / (p.n_heads / p.groups);
    const bf16 *k = head_of(p.k, b, kv), *v = head_of(p.v, b, kv);
    const bf16 *q = head_of(p.q, b, h) + static_cast<int64_t>(t0) * p.q.position;
    char *queries = shared, *stream = shared + tile_bytes<WIDTH, block_rows<WIDTH>>;

    const int begin = first_key(p, b, t0 + shift);
    const int end = min(t0 + block_rows<WIDTH>, p.tokens) + shift;
    load_tile<WIDTH, block_rows<WIDTH>>(queries, q, p.q.position, p.tokens - t0, p.width,
                                        p.aligned);
    fetch<WIDTH>(stream, p, k, v, begin);
    rows<WIDTH> r;
    rows_begin<WIDTH>(r, p, b,
                      t0 + shift + static_cast<int>(threadIdx.x) / WARP_LANES * warp_rows<WIDTH>);
    copies_wait();
    __syncthreads();
    load_queries<WIDTH>(r, queries, p.scale < 0.0f);
    if (p.self_dot != nullptr) {
        __syncthreads(); /* the queries are in registers, and the own values take their place */
        load_tile<WIDTH, block_rows<WIDTH>>(queries,
                                            v + static_cast<int64_t>(t0 + shift) * p.v.position,
                                            p.v.position, p.tokens - t0, p.width, p.aligned);
    }

    const float scale = size_of_scale(p.scale);
    int buffer = 0;
    for (int k0 = begin; k0 < end; k0 += STREAM_ROWS, buffer ^= 1) {
        if (k0 > begin) copies_wait();
        __syncthreads(); /* this buffer is full, and no warp reads the other one any more */
        if (k0 + STREAM_ROWS < end)
            fetch<WIDTH>(stream + (buffer ^ 1) * PAIR, p, k, v, k0 + STREAM_ROWS);
        const char *keys = stream + buffer * PAIR;
        if (k0 <= r.newest && k0 + STREAM_ROWS > r.oldest)
            attend<WIDTH>(r, keys, keys + PAIR / 2, k0, scale * LOG2_E);
    }
    copies_commit();
    copies_wait();
    __syncthreads(); /* the own values of all rows are there */
    finish<WIDTH>(r, queries, p, b, h, t0, scale);
}

template <int WIDTH>
static fw_status launch_forward(cuda_device *cuda, const problem &p, fw_error *error) {
    const int64_t blocks = cuda_divide_up(p.tokens, block_rows<WIDTH>);
    const unsigned grid = static_cast<unsigned>(blocks * p.n_heads * p.batch);
    CUDA_TRY(cuda,
             cudaFuncSetAttribute(attention_forward<WIDTH>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  forward_bytes<WIDTH>),
             "attention_forward", error);
    attention_forward<WIDTH>
        <<<grid, THREADS, forward_bytes<WIDTH>, cuda->stream>>>(p, static_cast<int>(blocks));
    return cuda_launched(cuda, "attention_forward", "attention_forward", error);
}

fw_status cuda_attention_forward_general(cuda_device *cuda, const fw_flash_attention *a,
                                         fw_error *error) {
    const problem p = problem_of(a);
    return GENERAL_BY_WIDTH(p.width, launch_forward, cuda, p, error);
}
