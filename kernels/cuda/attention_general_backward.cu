/* Causal grouped-query attention, backward, on any GPU from compute capability 8.0: the scores are
 * formed again tile by tile from the saved logarithms (Dao, 2023), once with a block of keys at
 * rest for d_k and d_v and once with a block of queries at rest for d_q, so that every sum has one
 * owner and a fixed order. Before them, one pass over the rows undoes exclusive self attention. */
#include "attention_general.cuh"

using namespace general;

/* ---- scratch ---- */

struct backward_scratch {
    float2 *statistics; /* [B,H,padded]: log_sum_exp in powers of two, d_y . y */
    bf16 *d_plain;      /* [B,H,T,D]: gradient of y, the output before the own value was taken out;
                           only with exclusive self attention */
    int padded;         /* T, rounded up to whole blocks */
    size_t bytes;
};

enum { PADDING = 128 };

static backward_scratch carve(const fw_flash_attention *a) {
    const int64_t *q = a->q.shape, padded = cuda_divide_up(q[1], PADDING) * PADDING;
    const size_t statistics = static_cast<size_t>(q[0] * q[2] * padded) * sizeof(float2);
    const size_t d_plain = static_cast<size_t>(fw_tensor_count(&a->q)) * sizeof(bf16);
    backward_scratch s = {};
    s.statistics = static_cast<float2 *>(a->scratch);
    s.padded = static_cast<int>(padded);
    s.bytes = cuda_divide_up(statistics, 256) * 256;
    if (!a->exclude_self) return s;
    if (a->scratch != nullptr)
        s.d_plain = reinterpret_cast<bf16 *>(static_cast<char *>(a->scratch) + s.bytes);
    s.bytes += cuda_divide_up(d_plain, 256) * 256;
    return s;
}

size_t cuda_attention_backward_general_scratch(const cuda_device *cuda,
                                               const fw_flash_attention *a) {
    (void)cuda;
    return carve(a).bytes;
}

/* ---- before the products: statistics of rows, and exclusive self attention ---- */

/* A row is held by LANES lanes side by side, eight elements each. */
template <int LANES> __device__ __forceinline__ float row_sum(float x) {
    const unsigned lane = threadIdx.x % WARP_LANES;
    const unsigned members = ((1u << LANES) - 1u) << (lane / LANES * LANES);
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(members, x, step);
    return x;
}

template <int LANES> __device__ __forceinline__ float row_dot(const floats8 &x, const floats8 &y) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PIECE; i++) sum += x.at[i] * y.at[i];
    return row_sum<LANES>(sum);
}

/* One lane's elements of a row. */
struct lane_piece {
    int column, count;
    bool aligned;
};

__device__ __forceinline__ uint4 get(const bf16 *row, const lane_piece &at) {
    if (at.aligned) return load_packed_piece<true>(row + at.column, at.count);
    return load_packed_piece<false>(row + at.column, at.count);
}
__device__ __forceinline__ void put(bf16 *row, const floats8 &x, const lane_piece &at) {
    if (at.aligned)
        store_piece<true>(row + at.column, x, at.count);
    else
        store_piece<false>(row + at.column, x, at.count);
}

/* The direction of a value, u = v / max(|v|, 1e-12). */
struct direction {
    floats8 u;
    float inverse;
    bool above_floor;
};

template <int LANES> __device__ __forceinline__ direction direction_of(const floats8 &v) {
    const float length = sqrtf(row_dot<LANES>(v, v));
    direction d = {v, 1.0f / fmaxf(length, 1e-12f), length > 1e-12f};
#pragma unroll
    for (int i = 0; i < PIECE; i++) d.u.at[i] *= d.inverse;
    return d;
}

/* Exclusive self attention, one row: out = y - (y.u) u. From d_out: the gradient of y, rounded as
 * the products will see it, into d_out; y into out; what reaches v through u is added to d_v. Since
 * y.u is `self`, the part of d_u along u is known without another sum. */
template <int LANES>
__device__ __forceinline__ void undo_self(floats8 &out, floats8 &d_out, floats8 &d_v,
                                          const direction &own, float self) {
    const float along = row_dot<LANES>(d_out, own.u);
    const float radial = own.above_floor ? -2.0f * along * self : 0.0f;
#pragma unroll
    for (int i = 0; i < PIECE; i++) {
        const float u = own.u.at[i], y = out.at[i] + self * u;
        const float d_u = -(self * d_out.at[i] + along * y);
        d_v.at[i] += (d_u - radial * u) * own.inverse;
        d_out.at[i] -= along * u;
        out.at[i] = y;
    }
    d_out = unpack8(pack8(d_out));
}

/* A lane's part of one query's output and of its gradient. */
struct output_pieces {
    uint4 out, d_out;
};

__device__ __forceinline__ output_pieces output_of(const problem &p, int b, int t, int h,
                                                   const lane_piece &at) {
    return {get(head_of(p.out, b, h) + static_cast<int64_t>(t) * p.out.position, at),
            get(head_of(p.d_out, b, h) + static_cast<int64_t>(t) * p.d_out.position, at)};
}

/* Position t of all query heads of group g. What the next head needs is asked for before this one
 * is worked on, and stored: a pass over memory lives from what is under way. */
template <int LANES, bool EXCLUDE>
__device__ __forceinline__ void prepare_row(const problem &p, const backward_scratch &s, int b,
                                            int t, int g, const lane_piece &at) {
    const int heads = p.n_heads / p.groups, end = (g + 1) * heads;
    const int64_t own = t + p.keys - p.tokens;
    bf16 *d_v_row = head_of(p.d_v, b, g) + own * p.d_v.position;
    output_pieces next = output_of(p, b, t, g * heads, at);
    direction self = {};
    floats8 d_v = zeros8();
    if (EXCLUDE) {
        const uint4 v = get(head_of(p.v, b, g) + own * p.v.position, at);
        if (p.add_d_v) d_v = unpack8(get(d_v_row, at));
        self = direction_of<LANES>(unpack8(v));
    }
    for (int h = g * heads; h < end; h++) {
        const int64_t row = static_cast<int64_t>(b) * p.n_heads + h, statistic = row * p.tokens + t;
        floats8 out = unpack8(next.out), d_out = unpack8(next.d_out);
        if (h + 1 < end) next = output_of(p, b, t, h + 1, at);
        if (EXCLUDE) {
            undo_self<LANES>(out, d_out, d_v, self, p.self_dot[statistic]);
            put(s.d_plain + statistic * p.width, d_out, at);
        }
        const float delta = row_dot<LANES>(d_out, out);
        if (at.column == 0)
            s.statistics[row * s.padded + t] =
                make_float2(p.log_sum_exp[statistic] * LOG2_E, delta);
    }
    if (EXCLUDE) put(d_v_row, d_v, at);
}

/* A block takes neighbouring positions of one group, from the first key to the end of the padding.
 * Rows of the padding get a logarithm under which every weight is zero; keys before the first query
 * have no direct part. */
template <int WIDTH, bool EXCLUDE>
__global__ void __launch_bounds__(THREADS)
    attention_prepare(const problem p, const backward_scratch s, int blocks) {
    constexpr int LANES = WIDTH / PIECE;
    const int shift = p.keys - p.tokens;
    const int g = blockIdx.x % p.groups, b = blockIdx.x / p.groups / blocks;
    const int position = blockIdx.x / p.groups % blocks * (THREADS / LANES) + threadIdx.x / LANES;
    const int t = position - shift;
    if (t >= s.padded) return;
    const int column = static_cast<int>(threadIdx.x) % LANES * PIECE;
    const lane_piece at = {column, p.width - column, p.aligned};
    if (t >= 0 && t < p.tokens) {
        prepare_row<LANES, EXCLUDE>(p, s, b, t, g, at);
    } else if (t < 0) {
        if (EXCLUDE && !p.add_d_v)
            put(head_of(p.d_v, b, g) + static_cast<int64_t>(position) * p.d_v.position, zeros8(),
                at);
    } else if (column == 0) {
        const int heads = p.n_heads / p.groups;
        for (int h = g * heads; h < (g + 1) * heads; h++)
            s.statistics[(static_cast<int64_t>(b) * p.n_heads + h) * s.padded + t] =
                make_float2(INFINITY, 0.0f);
    }
}

/* ---- keys at rest: d_k and d_v ---- */

template <int WIDTH> struct key_rows {
    static constexpr int M = row_tiles<WIDTH>;
    uint32_t k[M][WIDTH / 16][4], v[M][WIDTH / 16][4];
    float d_k[M][WIDTH / 8][4], d_v[M][WIDTH / 8][4];
    int first;       /* the warp's first key */
    const int *ends; /* queries at [key, end) see a key; of the warp's keys, in shared memory */
};

template <int N> __device__ __forceinline__ void clear(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) c[n][e] = 0.0f;
}

template <int WIDTH>
__device__ __forceinline__ void keys_begin(key_rows<WIDTH> &r, const problem &p, int *ends, int b,
                                           int first) {
    const int lane = threadIdx.x % WARP_LANES;
    r.first = first;
    r.ends = ends;
    if (lane < warp_rows<WIDTH>) ends[lane] = end_of_queries(p, b, min(first + lane, p.keys - 1));
    __syncwarp();
#pragma unroll
    for (int m = 0; m < r.M; m++) {
        clear(r.d_k[m]);
        clear(r.d_v[m]);
    }
}

/* A stage of queries in shared memory: rows of q, rows of the output's gradient, statistics. */
template <int WIDTH>
constexpr int query_stage = tile_bytes<WIDTH, 2 * STREAM_ROWS> + STREAM_ROWS * 8;

/* Scores -> weights and d weights -> d scores, for two tiles of 8 queries from position `query`. */
template <int WIDTH, bool MASKED>
__device__ __forceinline__ void
slopes_of_keys(float (&weights)[row_tiles<WIDTH>][2][4], float (&slopes)[row_tiles<WIDTH>][2][4],
               const key_rows<WIDTH> &r, const float2 *statistics, int query, float scale_log2) {
    const int lane = threadIdx.x % WARP_LANES, column = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const float4 two = *reinterpret_cast<const float4 *>(statistics + 8 * n + column);
#pragma unroll
        for (int m = 0; m < r.M; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float level = e % 2 == 0 ? two.x : two.z;
                const float delta = e % 2 == 0 ? two.y : two.w;
                float weight = exp2_fast(fmaf(weights[m][n][e], scale_log2, -level));
                const int own = query + 8 * n + column + e % 2;
                const int row = 16 * m + 8 * (e / 2) + lane / 4;
                if (MASKED && (own < r.first + row || own >= r.ends[row])) weight = 0.0f;
                weights[m][n][e] = weight;
                slopes[m][n][e] = weight * (slopes[m][n][e] - delta);
            }
    }
}

/* A stage of queries, the first of them at key position `query`. */
template <int WIDTH, bool MASKED>
__device__ __forceinline__ void add_queries(key_rows<WIDTH> &r, const char *stage, int query,
                                            float scale_log2) {
    constexpr int M = row_tiles<WIDTH>;
    const uint32_t q = shared_address(stage), d_y = q + tile_bytes<WIDTH, STREAM_ROWS>;
    const float2 *statistics =
        reinterpret_cast<const float2 *>(stage + tile_bytes<WIDTH, 2 * STREAM_ROWS>);
#pragma unroll 1
    for (int j = 0; j < STREAM_ROWS; j += 16) {
        if (MASKED && (query + j + 15 < r.first || query + j >= r.ends[warp_rows<WIDTH> - 1]))
            continue;
        float weights[M][2][4], slopes[M][2][4];
        uint32_t left[M][4];
        multiply_transposed<WIDTH, 2>(weights, r.k, q, j);
        multiply_transposed<WIDTH, 2>(slopes, r.v, d_y, j);
        slopes_of_keys<WIDTH, MASKED>(weights, slopes, r, statistics + j, query + j, scale_log2);
#pragma unroll
        for (int m = 0; m < M; m++) to_left(left[m], weights[m][0], weights[m][1]);
        multiply_plain<WIDTH>(r.d_v, left, d_y, j);
#pragma unroll
        for (int m = 0; m < M; m++) to_left(left[m], slopes[m][0], slopes[m][1]);
        multiply_plain<WIDTH>(r.d_k, left, q, j);
    }
}

/* Queries [t0, t0 + STREAM_ROWS) of head h into one stage. */
template <int WIDTH>
__device__ __forceinline__ void fetch_queries(char *stage, const problem &p,
                                              const backward_scratch &s, int b, int h, int t0) {
    const int there = p.tokens - t0;
    load_tile<WIDTH, STREAM_ROWS>(stage,
                                  head_of(p.q, b, h) + static_cast<int64_t>(t0) * p.q.position,
                                  p.q.position, there, p.width, p.aligned);
    load_tile<WIDTH, STREAM_ROWS>(stage + tile_bytes<WIDTH, STREAM_ROWS>,
                                  head_of(p.d_out, b, h) +
                                      static_cast<int64_t>(t0) * p.d_out.position,
                                  p.d_out.position, there, p.width, p.aligned);
    const float2 *from =
        s.statistics + (static_cast<int64_t>(b) * p.n_heads + h) * s.padded + t0 + 2 * threadIdx.x;
    if (threadIdx.x < STREAM_ROWS / 2)
        copy_async(stage + tile_bytes<WIDTH, 2 * STREAM_ROWS> + 16 * threadIdx.x, from, true);
    copies_commit();
}

/* To d_v what it held, for half of a tile's rows. */
template <int WIDTH, int I>
__device__ __forceinline__ void add_held(float (&d_v)[WIDTH / 8][4], const bf16 *row, int width,
                                         bool aligned) {
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        const float2 held = pair_of(row, n, width, aligned);
        d_v[n][2 * I] += held.x;
        d_v[n][2 * I + 1] += held.y;
    }
}

template <int WIDTH, int I>
__device__ __forceinline__ void add_held_rows(key_rows<WIDTH> &r, int m, const problem &p,
                                              const bf16 *d_v) {
    const int key = r.first + 16 * m + 8 * I + static_cast<int>(threadIdx.x) % WARP_LANES / 4;
    if (key < p.keys)
        add_held<WIDTH, I>(r.d_v[m], d_v + static_cast<int64_t>(key) * p.d_v.position, p.width,
                           p.aligned);
}

/* A warp's rows leave through its own rows of the tiles of k and v. */
template <int WIDTH>
__device__ __forceinline__ void keys_finish(key_rows<WIDTH> &r, char *k_tile, char *v_tile,
                                            const problem &p, int b, int g, int k0) {
    const int row = r.first - k0, there = p.keys - k0;
    bf16 *d_k = head_of(p.d_k, b, g), *d_v = head_of(p.d_v, b, g);
#pragma unroll
    for (int m = 0; m < r.M; m++) {
        if (p.add_d_v) {
            add_held_rows<WIDTH, 0>(r, m, p, d_v);
            add_held_rows<WIDTH, 1>(r, m, p, d_v);
        }
        put_rows<WIDTH>(k_tile, row + 16 * m, r.d_k[m], p.scale, p.scale);
        put_rows<WIDTH>(v_tile, row + 16 * m, r.d_v[m], 1.0f, 1.0f);
    }
    __syncwarp();
    store_rows<WIDTH, warp_rows<WIDTH>>(k_tile, row,
                                        d_k + static_cast<int64_t>(k0) * p.d_k.position,
                                        p.d_k.position, there, p.width, p.aligned);
    store_rows<WIDTH, warp_rows<WIDTH>>(v_tile, row,
                                        d_v + static_cast<int64_t>(k0) * p.d_v.position,
                                        p.d_v.position, there, p.width, p.aligned);
}

template <int WIDTH>
constexpr int keys_bytes =
    tile_bytes<WIDTH, 2 * block_rows<WIDTH>> + 2 * query_stage<WIDTH> + 4 * block_rows<WIDTH>;

/* Walks the blocks of queries that see a block of keys, head after head of its group. */
struct query_walk {
    int h, t, begin, end, last_head;
    __device__ bool more() const { return begin < end && h <= last_head; }
    __device__ void step() {
        t += STREAM_ROWS;
        if (t < end) return;
        t = begin;
        h++;
    }
};

template <int WIDTH>
__device__ __forceinline__ query_walk walk_of(const problem &p, int b, int g, int k0) {
    const int heads = p.n_heads / p.groups, shift = p.keys - p.tokens;
    const int last = min(k0 + block_rows<WIDTH>, p.keys) - 1;
    const int begin = max(0, k0 - shift) / STREAM_ROWS * STREAM_ROWS;
    const int end = min(p.tokens, end_of_queries(p, b, last) - shift);
    return {g * heads, begin, begin, end, (g + 1) * heads - 1};
}

/* The grid holds the blocks of keys of one head side by side, the longest first. */
template <int WIDTH>
__global__ void __launch_bounds__(THREADS, 2)
    attention_d_keys(const problem p, const backward_scratch s, int blocks) {
    extern __shared__ __align__(128) char shared[];
    constexpr int TILE = tile_bytes<WIDTH, block_rows<WIDTH>>;
    const int k0 = static_cast<int>(blockIdx.x) % blocks * block_rows<WIDTH>;
    const int g = blockIdx.x / blocks % p.groups, b = blockIdx.x / blocks / p.groups;
    const int shift = p.keys - p.tokens, there = p.keys - k0;
    const int row = threadIdx.x / WARP_LANES * warp_rows<WIDTH>;
    char *k_tile = shared, *v_tile = shared + TILE, *stages = shared + 2 * TILE;
    int *ends = reinterpret_cast<int *>(stages + 2 * query_stage<WIDTH>);

    load_tile<WIDTH, block_rows<WIDTH>>(
        k_tile, head_of(p.k, b, g) + static_cast<int64_t>(k0) * p.k.position, p.k.position, there,
        p.width, p.aligned);
    load_tile<WIDTH, block_rows<WIDTH>>(
        v_tile, head_of(p.v, b, g) + static_cast<int64_t>(k0) * p.v.position, p.v.position, there,
        p.width, p.aligned);
    query_walk walk = walk_of<WIDTH>(p, b, g, k0);
    if (walk.more()) fetch_queries<WIDTH>(stages, p, s, b, walk.h, walk.t);
    key_rows<WIDTH> r;
    keys_begin<WIDTH>(r, p, ends + row, b, k0 + row);
    copies_commit();
    copies_wait();
    __syncthreads();
    left_operands<WIDTH>(r.k, k_tile, row);
    left_operands<WIDTH>(r.v, v_tile, row);

    for (int buffer = 0; walk.more(); buffer ^= 1) {
        const int query = walk.t + shift, last = query + STREAM_ROWS - 1;
        copies_wait();
        __syncthreads(); /* this stage is full, and no warp reads the other one any more */
        walk.step();
        if (walk.more())
            fetch_queries<WIDTH>(stages + (buffer ^ 1) * query_stage<WIDTH>, p, s, b, walk.h,
                                 walk.t);
        const char *stage = stages + buffer * query_stage<WIDTH>;
        if (query >= r.first + warp_rows<WIDTH> - 1 && last < r.ends[0])
            add_queries<WIDTH, false>(r, stage, query, p.scale_log2);
        else
            add_queries<WIDTH, true>(r, stage, query, p.scale_log2);
    }
    keys_finish<WIDTH>(r, k_tile, v_tile, p, b, g, k0);
}

/* ---- queries at rest: d_q ---- */

template <int WIDTH> struct query_rows {
    static constexpr int M = row_tiles<WIDTH>;
    uint32_t q[M][WIDTH / 16][4], d_y[M][WIDTH / 16][4];
    float d_q[M][WIDTH / 8][4];
    float level[M][2], delta[M][2];
    int own;                /* key position of the warp's first query */
    int first[M][2];        /* first key that a row sees */
    int oldest, oldest_all; /* first key that any row of the warp sees; that all rows see */
};

template <int WIDTH>
__device__ __forceinline__ void queries_begin(query_rows<WIDTH> &r, const problem &p,
                                              const float2 *statistics, int b, int own) {
    const int lane = threadIdx.x % WARP_LANES, last = p.keys - 1;
    r.own = own;
    r.oldest = first_key(p, b, min(own, last));
    r.oldest_all = first_key(p, b, min(own + warp_rows<WIDTH> - 1, last));
#pragma unroll
    for (int m = 0; m < r.M; m++) {
        clear(r.d_q[m]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = 16 * m + 8 * i + lane / 4;
            r.first[m][i] = first_key(p, b, min(own + row, last));
            r.level[m][i] = statistics[row].x;
            r.delta[m][i] = statistics[row].y;
        }
    }
}

/* d scores, from scores and d weights, for two tiles of 8 keys from `key`. */
template <int WIDTH, bool MASKED>
__device__ __forceinline__ void slopes_of_queries(float (&slopes)[row_tiles<WIDTH>][2][4],
                                                  const float (&scores)[row_tiles<WIDTH>][2][4],
                                                  const query_rows<WIDTH> &r, int key,
                                                  float scale_log2) {
    const int lane = threadIdx.x % WARP_LANES;
#pragma unroll
    for (int m = 0; m < r.M; m++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = e / 2, own = r.own + 16 * m + 8 * i + lane / 4;
                const int at = key + 8 * n + lane % 4 * 2 + e % 2;
                float weight = exp2_fast(fmaf(scores[m][n][e], scale_log2, -r.level[m][i]));
                if (MASKED && (at > own || at < r.first[m][i])) weight = 0.0f;
                slopes[m][n][e] = weight * (slopes[m][n][e] - r.delta[m][i]);
            }
}

/* A stage of keys and values, the first of them at `key`. */
template <int WIDTH, bool MASKED>
__device__ __forceinline__ void add_keys(query_rows<WIDTH> &r, const char *stage, int key,
                                         float scale_log2) {
    constexpr int M = row_tiles<WIDTH>;
    const uint32_t k = shared_address(stage), v = k + tile_bytes<WIDTH, STREAM_ROWS>;
#pragma unroll 1
    for (int j = 0; j < STREAM_ROWS; j += 16) {
        if (MASKED && (key + j > r.own + warp_rows<WIDTH> - 1 || key + j + 15 < r.oldest)) continue;
        float scores[M][2][4], slopes[M][2][4];
        uint32_t left[M][4];
        multiply_transposed<WIDTH, 2>(scores, r.q, k, j);
        multiply_transposed<WIDTH, 2>(slopes, r.d_y, v, j);
        slopes_of_queries<WIDTH, MASKED>(slopes, scores, r, key + j, scale_log2);
#pragma unroll
        for (int m = 0; m < M; m++) to_left(left[m], slopes[m][0], slopes[m][1]);
        multiply_plain<WIDTH>(r.d_q, left, k, j);
    }
}

template <int WIDTH>
__device__ __forceinline__ void fetch_keys(char *stage, const problem &p, int b, int g, int k0) {
    const int there = p.keys - k0;
    load_tile<WIDTH, STREAM_ROWS>(stage,
                                  head_of(p.k, b, g) + static_cast<int64_t>(k0) * p.k.position,
                                  p.k.position, there, p.width, p.aligned);
    load_tile<WIDTH, STREAM_ROWS>(stage + tile_bytes<WIDTH, STREAM_ROWS>,
                                  head_of(p.v, b, g) + static_cast<int64_t>(k0) * p.v.position,
                                  p.v.position, there, p.width, p.aligned);
    copies_commit();
}

/* The queries and the output's gradients of a block, at rest from here on. */
template <int WIDTH>
__device__ __forceinline__ void fetch_rest(char *q_tile, char *d_tile, const problem &p, int b,
                                           int h, int t0) {
    const int there = p.tokens - t0;
    load_tile<WIDTH, block_rows<WIDTH>>(
        q_tile, head_of(p.q, b, h) + static_cast<int64_t>(t0) * p.q.position, p.q.position, there,
        p.width, p.aligned);
    load_tile<WIDTH, block_rows<WIDTH>>(
        d_tile, head_of(p.d_out, b, h) + static_cast<int64_t>(t0) * p.d_out.position,
        p.d_out.position, there, p.width, p.aligned);
}

template <int WIDTH>
__device__ __forceinline__ void queries_finish(query_rows<WIDTH> &r, char *tile, int row,
                                               const problem &p, int b, int h, int t0) {
#pragma unroll
    for (int m = 0; m < r.M; m++) put_rows<WIDTH>(tile, row + 16 * m, r.d_q[m], p.scale, p.scale);
    __syncwarp();
    store_rows<WIDTH, warp_rows<WIDTH>>(
        tile, row, head_of(p.d_q, b, h) + static_cast<int64_t>(t0) * p.d_q.position, p.d_q.position,
        p.tokens - t0, p.width, p.aligned);
}

template <int WIDTH>
constexpr int queries_bytes = tile_bytes<WIDTH, 2 * block_rows<WIDTH> + 4 * STREAM_ROWS>;

template <int WIDTH>
__global__ void __launch_bounds__(THREADS, 2)
    attention_d_queries(const problem p, const backward_scratch s, int blocks) {
    extern __shared__ __align__(128) char shared[];
    constexpr int TILE = tile_bytes<WIDTH, block_rows<WIDTH>>;
    constexpr int STAGE = tile_bytes<WIDTH, 2 * STREAM_ROWS>;
    const int t0 = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * block_rows<WIDTH>;
    const int h = blockIdx.x / blocks % p.n_heads, b = blockIdx.x / blocks / p.n_heads;
    const int shift = p.keys - p.tokens, g = h / (p.n_heads / p.groups);
    const int row = threadIdx.x / WARP_LANES * warp_rows<WIDTH>;
    char *q_tile = shared, *d_tile = shared + TILE, *stages = shared + 2 * TILE;

    const int begin = first_key(p, b, t0 + shift);
    const int end = min(t0 + block_rows<WIDTH>, p.tokens) + shift;
    fetch_rest<WIDTH>(q_tile, d_tile, p, b, h, t0);
    fetch_keys<WIDTH>(stages, p, b, g, begin);
    query_rows<WIDTH> r;
    const int64_t statistics = (static_cast<int64_t>(b) * p.n_heads + h) * s.padded + t0 + row;
    queries_begin<WIDTH>(r, p, s.statistics + statistics, b, t0 + row + shift);
    copies_wait();
    __syncthreads();
    left_operands<WIDTH>(r.q, q_tile, row);
    left_operands<WIDTH>(r.d_y, d_tile, row);

    int buffer = 0;
    for (int k0 = begin; k0 < end; k0 += STREAM_ROWS, buffer ^= 1) {
        copies_wait();
        __syncthreads(); /* this stage is full, and no warp reads the other one any more */
        if (k0 + STREAM_ROWS < end)
            fetch_keys<WIDTH>(stages + (buffer ^ 1) * STAGE, p, b, g, k0 + STREAM_ROWS);
        const char *stage = stages + buffer * STAGE;
        if (k0 >= r.oldest_all && k0 + STREAM_ROWS - 1 <= r.own)
            add_keys<WIDTH, false>(r, stage, k0, p.scale_log2);
        else
            add_keys<WIDTH, true>(r, stage, k0, p.scale_log2);
    }
    queries_finish<WIDTH>(r, q_tile, row, p, b, h, t0);
}

/* ---- launches ---- */

static const char *const op = "attention_backward";

template <int WIDTH>
static fw_status launch_prepare(cuda_device *cuda, const problem &p, const backward_scratch &s,
                                fw_error *error) {
    const int64_t positions = p.keys - p.tokens + s.padded;
    const int blocks = static_cast<int>(cuda_divide_up(positions, THREADS / (WIDTH / PIECE)));
    const unsigned grid = static_cast<unsigned>(blocks) * p.groups * p.batch;
    if (p.self_dot != nullptr)
        attention_prepare<WIDTH, true><<<grid, THREADS, 0, cuda->stream>>>(p, s, blocks);
    else
        attention_prepare<WIDTH, false><<<grid, THREADS, 0, cuda->stream>>>(p, s, blocks);
    return cuda_launched(cuda, op, "attention_prepare", error);
}

template <int WIDTH>
static fw_status launch_keys(cuda_device *cuda, const problem &p, const backward_scratch &s,
                             fw_error *error) {
    const int64_t blocks = cuda_divide_up(p.keys, block_rows<WIDTH>);
    const unsigned grid = static_cast<unsigned>(blocks * p.groups * p.batch);
    CUDA_TRY(cuda,
             cudaFuncSetAttribute(attention_d_keys<WIDTH>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, keys_bytes<WIDTH>),
             op, error);
    attention_d_keys<WIDTH>
        <<<grid, THREADS, keys_bytes<WIDTH>, cuda->stream>>>(p, s, static_cast<int>(blocks));
    return cuda_launched(cuda, op, "attention_d_keys", error);
}

template <int WIDTH>
static fw_status launch_queries(cuda_device *cuda, const problem &p, const backward_scratch &s,
                                fw_error *error) {
    const int64_t blocks = cuda_divide_up(p.tokens, block_rows<WIDTH>);
    const unsigned grid = static_cast<unsigned>(blocks * p.n_heads * p.batch);
    if (grid == 0) return FW_OK;
    CUDA_TRY(cuda,
             cudaFuncSetAttribute(attention_d_queries<WIDTH>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  queries_bytes<WIDTH>),
             op, error);
    attention_d_queries<WIDTH>
        <<<grid, THREADS, queries_bytes<WIDTH>, cuda->stream>>>(p, s, static_cast<int>(blocks));
    return cuda_launched(cuda, op, "attention_d_queries", error);
}

/* Exclusive self attention's part of d_v is written first, and d_keys adds to it. */
template <int WIDTH>
static fw_status launch_backward(cuda_device *cuda, const problem &given, const backward_scratch &s,
                                 fw_error *error) {
    problem p = given;
    if (p.keys - p.tokens + s.padded > 0) FW_TRY(launch_prepare<WIDTH>(cuda, p, s, error));
    if (p.self_dot != nullptr) {
        const int64_t head = static_cast<int64_t>(p.tokens) * p.width;
        p.d_out = {s.d_plain, head * p.n_heads, head, p.width};
        p.add_d_v = true;
    }
    FW_TRY(launch_keys<WIDTH>(cuda, p, s, error));
    return launch_queries<WIDTH>(cuda, p, s, error);
}

fw_status cuda_attention_backward_general(cuda_device *cuda, const fw_flash_attention *a,
                                          fw_error *error) {
    problem p = problem_of(a);
    p.d_out = heads_of(a->d_out), p.d_q = heads_of(a->d_q);
    p.d_k = heads_of(a->d_k), p.d_v = heads_of(a->d_v);
    p.add_d_v = a->accumulate_dv != 0;
    p.aligned = p.aligned && rows_aligned(&a->d_out) && rows_aligned(&a->d_q) &&
                rows_aligned(&a->d_k) && rows_aligned(&a->d_v);
    return GENERAL_BY_WIDTH(p.width, launch_backward, cuda, p, carve(a), error);
}
