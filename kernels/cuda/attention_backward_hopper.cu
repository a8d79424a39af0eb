/* Attention backward on Hopper (Dao 2023; Shah et al. 2024): heads of 64, as many keys as queries.
 *
 * A block of threads owns one query head of one sequence (or several, one after another, that share
 * a key/value head), so that every sum has one order: it walks blocks of 128 keys and, for each,
 * the blocks of 64 queries that see them. Two warpgroups of 64 keys each form S^T = K Q^T and dP^T
 * = V dY^T, hence P^T and dS^T in the registers where the products dV += P^T dY and dK += dS^T Q
 * want them; dS^T also goes to shared memory, where a third warpgroup forms dQ^T += K^T dS^T and
 * adds it to float32 scratch, always from the same thread. That warpgroup's first thread also feeds
 * the tiles of queries by TMA. When a key/value head has an even number of query heads, two blocks
 * form a cluster, take half of them each, and exchange their sums of dK and dV through shared
 * memory: one finishes dK, the other dV.
 *
 * Per 128 x 128 scores: 2560 cycles of the matrix units, 1024 of the exponentials, about 2100 of
 * shared memory. */
#include "attention.h"
#include "attention_backward_rows.cuh"
#include "fragments.cuh"
#include "tensor_map.h"
#include "wgmma.cuh"

#include <climits>

namespace {

constexpr int WIDTH = 64, QUERIES = 64, KEYS = 128;
constexpr int STAGES = 4, SLOPE_STAGES = 2;
constexpr int TILE = 64 * WIDTH; /* elements: 64 rows of 128 bytes */
constexpr int SCORE_WARPS = 8, THREADS = 3 * 128;

struct parameters {
    CUtensorMap q, k, v, d_y, d_q; /* boxes of 64 positions of one head */
    CUtensorMap d_k, d_v;          /* boxes of 16 */
    float4 *d_q_partial;           /* [B,H,query blocks][8][128]: one float4 of every thread */
    const float *statistics;       /* attention_rows::parameters */
    int query_blocks, key_blocks, groups, heads_each; /* heads_each: of one block of threads */
    int window;                                       /* INT_MAX: none */
    float scale;
    bool add_to_d_v; /* d_v holds something to add to */
};

__device__ __forceinline__ int last_query_block(const parameters &p, int last_key) {
    const int last = p.query_blocks - 1;
    return p.window == INT_MAX ? last : min(last, (last_key + p.window - 1) / QUERIES);
}

/* The (key block, head, query block) triples in the order in which everyone walks them. Every other
 * turn goes backwards: the queries just used are still in the second-level cache. */
struct walk {
    int key_block, head, at, n; /* of n query blocks */

    __device__ __forceinline__ void begin(const parameters &p) {
        key_block = head = at = 0;
        n = last_query_block(p, KEYS - 1) + 1;
    }
    __device__ __forceinline__ bool done(const parameters &p) const {
        return key_block >= p.key_blocks;
    }
    __device__ __forceinline__ bool backwards(const parameters &p) const {
        return (key_block * p.heads_each + head) & 1;
    }
    __device__ __forceinline__ int query_block(const parameters &p) const {
        return 2 * key_block + (backwards(p) ? n - 1 - at : at);
    }
    __device__ __forceinline__ void next(const parameters &p) {
        if (++at < n) return;
        at = 0;
        if (++head < p.heads_each) return;
        head = 0;
        key_block++;
        n = last_query_block(p, key_block * KEYS + KEYS - 1) - 2 * key_block + 1;
    }
};

/* The sequence, key/value head and query heads of a block of threads. */
struct place {
    int sequence, group, first_head; /* heads [first_head, first_head + heads_each) */
    int rank;
    int64_t unit; /* sequence * heads + first_head */
};

/* Tiles come first: swizzled, each a multiple of 1024 bytes. */
struct memory {
    __nv_bfloat16 q[STAGES][TILE], d_y[STAGES][TILE];
    __nv_bfloat16 k[2][2 * TILE], v[2][2 * TILE];
    __nv_bfloat16 slopes[SLOPE_STAGES][2 * TILE]; /* dS^T: a row of 64 queries for each key */
    __nv_bfloat16 finished[2][TILE];              /* of each warpgroup, on the way out */
    __nv_bfloat16 d_q[TILE];
    float exchange[SCORE_WARPS][1024];
    float statistics[STAGES][2][QUERIES];
    place at;
    walk ahead; /* of the loads, and their number: the loading thread's alone */
    uint32_t loads;
    uint64_t loaded[STAGES], keys_loaded[2];
    uint64_t slopes_full[SLOPE_STAGES], slopes_empty[SLOPE_STAGES];
    uint64_t exchange_full[SCORE_WARPS], exchange_empty[SCORE_WARPS], d_v_loaded[SCORE_WARPS];
};
constexpr int MEMORY_BYTES = (int)sizeof(memory);

#ifdef FAIRWAY_HOPPER_CODE

using namespace hopper;

constexpr int HELD_STEPS = 6; /* of 8 steps of 16 keys, as left operand of dQ in registers */
constexpr int SCORE_REGISTERS = 208, QUERY_REGISTERS = 88; /* 2 x 208 + 88 = 3 x 168 */

template <int CLUSTER> __device__ __forceinline__ place find_place(const parameters &p) {
    const int shared = blockIdx.x / CLUSTER, rank = blockIdx.x % CLUSTER;
    place at;
    at.sequence = shared / p.groups;
    at.group = shared % p.groups;
    at.first_head = (at.group * CLUSTER + rank) * p.heads_each;
    at.rank = rank;
    at.unit = (int64_t)blockIdx.x * p.heads_each;
    return at;
}

/* ---- feeding ---- */

__device__ __forceinline__ void load_keys(memory &m, const parameters &p, int key_block) {
    const int buffer = key_block & 1;
    barrier_expect(&m.keys_loaded[buffer], 4 * TILE * sizeof(__nv_bfloat16));
    for (int half = 0; half < 2; half++) {
        const int row = key_block * KEYS + half * 64;
        load_4d(m.k[buffer] + half * TILE, &p.k, &m.keys_loaded[buffer], 0, row, m.at.group,
                m.at.sequence);
        load_4d(m.v[buffer] + half * TILE, &p.v, &m.keys_loaded[buffer], 0, row, m.at.group,
                m.at.sequence);
    }
}

/* The next tile of the walk into its place, if there is one. */
__device__ __forceinline__ void load_queries(memory &m, const parameters &p) {
    walk ahead = m.ahead;
    if (ahead.done(p)) return;
    const int slot = m.loads++ % STAGES, block = ahead.query_block(p);
    uint64_t *barrier = &m.loaded[slot];
    barrier_expect(barrier, 2 * TILE * sizeof(__nv_bfloat16) + sizeof m.statistics[0]);
    load_4d(m.q[slot], &p.q, barrier, 0, block * QUERIES, m.at.first_head + ahead.head,
            m.at.sequence);
    load_4d(m.d_y[slot], &p.d_y, barrier, 0, block * QUERIES, m.at.first_head + ahead.head,
            m.at.sequence);
    const int64_t row = (m.at.unit + ahead.head) * p.query_blocks + block;
    load_bytes(m.statistics[slot], p.statistics + row * 2 * QUERIES, sizeof m.statistics[0],
               barrier);
    ahead.next(p);
    m.ahead = ahead;
}

/* ---- the warpgroup of dQ ---- */

__device__ __forceinline__ uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

/* K^T of 128 keys as left operand: 16 rows (of 64) for this warp, 16 keys to a step. */
__device__ __forceinline__ void
load_transposed_keys(uint32_t (&k)[HELD_STEPS][4], const __nv_bfloat16 *tile, int warp, int lane) {
    const int block = lane / 8, row = (block >> 1) * 8 + lane % 8;
    const int piece = (2 * warp + (block & 1)) ^ (lane % 8);
    const uint32_t address = shared_address(tile) + row * 128 + piece * 16;
#pragma unroll
    for (int i = 0; i < HELD_STEPS; i++) load_blocks_transposed(k[i], address + i * 2048);
}

/* d_q rows of one block of queries, complete: scaled, turned into rows, and out. */
__device__ __forceinline__ void finish_d_q(memory &m, const parameters &p, const float (&c)[32],
                                           int head, int query_block, int warp, int lane) {
    if (threadIdx.x % 128 == 0) bulk_wait_read<0>();
    named_sync(1, 128);
    const int block = lane / 8, row = (block >> 1) * 8 + lane % 8;
    const int piece = (2 * warp + (block & 1)) ^ (lane % 8);
    const uint32_t address = shared_address(m.d_q) + row * 128 + piece * 16;
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        const float *x = c + 4 * j;
        const uint32_t r[4] = {
            pack(x[0] * p.scale, x[1] * p.scale), pack(x[2] * p.scale, x[3] * p.scale),
            pack(x[4] * p.scale, x[5] * p.scale), pack(x[6] * p.scale, x[7] * p.scale)};
        store_blocks_transposed(address + j * 1024, r);
    }
    fence_async();
    named_sync(1, 128);
    if (threadIdx.x % 128 == 0) {
        store_4d(&p.d_q, m.d_q, 0, query_block * QUERIES, m.at.first_head + head, m.at.sequence);
        bulk_commit();
    }
}

/* Which of the two halves of 64 keys a block of queries sees. */
__device__ __forceinline__ bool sees(const parameters &p, int query_block, int key0) {
    return query_block >= key0 / QUERIES && query_block <= last_query_block(p, key0 + 63);
}

/* dQ^T += K^T dS^T over the steps [FROM, TO) of 16 keys. */
template <int FROM, int TO>
__device__ __forceinline__ void multiply_slopes(float (&c)[32], const uint32_t (&k)[HELD_STEPS][4],
                                                uint64_t keys, uint64_t slopes) {
    wgmma_fence();
#pragma unroll
    for (int i = FROM; i < TO; i++)
        if (i < HELD_STEPS)
            product<64, 0, 1>::rs(c, k[i < HELD_STEPS ? i : 0], slopes + i * 128, 1);
        else
            product<64, 1, 1>::ss(c, keys + i * 128, slopes + i * 128, 1);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(c);
}

__device__ __forceinline__ float4 quarter(const float (&c)[32], int j) {
    return make_float4(c[4 * j], c[4 * j + 1], c[4 * j + 2], c[4 * j + 3]);
}

template <bool ADD_IN_REGISTERS>
__device__ __forceinline__ void query_turn(memory &m, const parameters &p, const walk &now,
                                           uint32_t turn, const uint32_t (&k)[HELD_STEPS][4],
                                           int warp, int lane) {
    const int query_block = now.query_block(p), slot = turn % SLOPE_STAGES;
    const int oldest = max(0, query_block * QUERIES - p.window + 1) / KEYS;
    const bool first = p.window == INT_MAX ? now.key_block == 0 : now.key_block == oldest;
    const bool final = now.key_block == query_block / 2;
    float4 *partial = p.d_q_partial +
                      ((m.at.unit + now.head) * p.query_blocks + query_block) * 1024 +
                      threadIdx.x % 128;
    float c[32];
    const bool add = !first && (final || ADD_IN_REGISTERS);
    if (add)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float4 x = load_again(partial + j * 128);
            c[4 * j] = x.x, c[4 * j + 1] = x.y, c[4 * j + 2] = x.z, c[4 * j + 3] = x.w;
        }
    else
#pragma unroll
        for (int j = 0; j < 32; j++) c[j] = 0.0f;
    barrier_wait(&m.slopes_full[slot], turn / SLOPE_STAGES & 1);
    /* Slopes of this turn are written after all products of the turn before: its tiles are free. */
    if (threadIdx.x % 128 == 0) {
        if (turn > 0) load_queries(m, p);
        if (now.at == 1 && now.head == 0 && now.key_block + 1 < p.key_blocks)
            load_keys(m, p, now.key_block + 1);
    }
    __syncwarp();
    const uint64_t slopes = descriptor(m.slopes[slot]);
    const uint64_t keys = descriptor(m.k[now.key_block & 1]);
    const bool low = sees(p, query_block, now.key_block * KEYS);
    const bool high = sees(p, query_block, now.key_block * KEYS + 64);
    if (low && high)
        multiply_slopes<0, 8>(c, k, keys, slopes);
    else if (low)
        multiply_slopes<0, 4>(c, k, keys, slopes);
    else
        multiply_slopes<4, 8>(c, k, keys, slopes);
    if (lane == 0) barrier_arrive(&m.slopes_empty[slot]);
    if (final) {
        finish_d_q(m, p, c, now.head, query_block, warp, lane);
        return;
    }
    if (first || ADD_IN_REGISTERS)
#pragma unroll
        for (int j = 0; j < 8; j++) __stcg(partial + j * 128, quarter(c, j));
    else
#pragma unroll
        for (int j = 0; j < 8; j++) add_to(partial + j * 128, quarter(c, j));
}

template <bool ADD_IN_REGISTERS>
__device__ __forceinline__ void query_warpgroup(memory &m, const parameters &p, int warp,
                                                int lane) {
    walk now;
    if (threadIdx.x % 128 == 0) {
        m.ahead.begin(p);
        m.loads = 0;
        load_keys(m, p, 0);
        for (int i = 0; i < STAGES; i++) load_queries(m, p);
    }
    __syncwarp();
    uint32_t turn = 0;
    now.begin(p);
    while (!now.done(p)) {
        uint32_t k[HELD_STEPS][4];
        const int key_block = now.key_block;
        barrier_wait(&m.keys_loaded[key_block & 1], key_block / 2 & 1);
        load_transposed_keys(k, m.k[key_block & 1], warp, lane);
        for (; now.key_block == key_block; now.next(p), turn++)
            query_turn<ADD_IN_REGISTERS>(m, p, now, turn, k, warp, lane);
    }
    if (threadIdx.x % 128 == 0) bulk_wait<0>();
}

/* ---- the warpgroups of scores ---- */

/* What one of them holds in registers while it walks the queries of 64 keys. Scores and slopes are
 * keys x queries: this thread's keys are key and key + 8. */
struct score_state {
    uint32_t k[4][4];       /* 64 keys as left operand */
    uint32_t weights[4][4]; /* P^T as left operand */
    float scores[32], slopes[32], d_k[32], d_v[32];
    uint64_t v;            /* descriptor of 64 values */
    uint32_t slopes_at;    /* address in the first stage of slopes */
    int key0, key, column; /* of the warpgroup; of this thread; its first query */
};

__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ void start_scores(score_state &s, uint64_t q) {
#pragma unroll
    for (int i = 0; i < 4; i++) product<64>::rs(s.scores, s.k[i], q + i * 2, i > 0);
}
__device__ __forceinline__ void start_slopes(score_state &s, uint64_t d_y) {
#pragma unroll
    for (int i = 0; i < 4; i++) product<64>::ss(s.slopes, s.v + i * 2, d_y + i * 2, i > 0);
}
__device__ __forceinline__ void multiply_weights(score_state &s, uint64_t d_y) {
#pragma unroll
    for (int i = 0; i < 4; i++) product<64, 0, 1>::rs(s.d_v, s.weights[i], d_y + i * 128, 1);
}

/* Minus infinity where a query does not see its key. */
__device__ __forceinline__ void mask(score_state &s, int query0, int window) {
    const int distance = query0 + s.column - s.key;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int between = distance + i / 4 * 8 + i % 2 - (i / 2 % 2) * 8;
        if ((unsigned)between >= (unsigned)window) s.scores[i] = -INFINITY;
    }
}

__device__ __forceinline__ void form_weights(score_state &s, const float *minus_logarithm,
                                             float scale) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float2 l = *reinterpret_cast<const float2 *>(minus_logarithm + 8 * j + s.column);
        const float *x = s.scores + 4 * j;
        uint32_t *w = s.weights[j / 2] + j % 2 * 2;
        w[0] = pack(power_of_two(fmaf(x[0], scale, l.x)), power_of_two(fmaf(x[1], scale, l.y)));
        w[1] = pack(power_of_two(fmaf(x[2], scale, l.x)), power_of_two(fmaf(x[3], scale, l.y)));
    }
}

__device__ __forceinline__ uint32_t multiply_pairs(uint32_t a, uint32_t b) {
    const __nv_bfloat162 c = __hmul2(*reinterpret_cast<const __nv_bfloat162 *>(&a),
                                     *reinterpret_cast<const __nv_bfloat162 *>(&b));
    return *reinterpret_cast<const uint32_t *>(&c);
}

/* dS = P (dP - delta), without the scale, which d_q and d_k get at the end. */
__device__ __forceinline__ void form_slopes(const score_state &s, const float *delta,
                                            uint32_t (&slopes)[4][4]) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float2 d = *reinterpret_cast<const float2 *>(delta + 8 * j + s.column);
        const float *x = s.slopes + 4 * j;
        const uint32_t *w = s.weights[j / 2] + j % 2 * 2;
        uint32_t *to = slopes[j / 2] + j % 2 * 2;
        to[0] = multiply_pairs(w[0], pack(x[0] - d.x, x[1] - d.y));
        to[1] = multiply_pairs(w[1], pack(x[2] - d.x, x[3] - d.y));
    }
}

/* Hand this turn's slopes to the warpgroup of dQ; without slopes, only the turn. */
__device__ __forceinline__ void pass_slopes(const score_state &s, memory &m, uint32_t turn,
                                            const uint32_t (*slopes)[4], int lane) {
    const int slot = turn % SLOPE_STAGES;
    barrier_wait(&m.slopes_empty[slot], (turn / SLOPE_STAGES & 1) ^ 1);
    if (slopes != nullptr) {
        const uint32_t address = s.slopes_at + slot * (2 * TILE * sizeof(__nv_bfloat16));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t r[4] = {slopes[i][0], slopes[i][1], slopes[i][2], slopes[i][3]};
            store_blocks(address ^ (i << 5), r);
        }
        fence_async();
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(&m.slopes_full[slot]);
}

/* One block of queries, in two phases of which each has products under way while the other pipes
 * work: those of dK and the next slopes while scores become weights, those of dV and the next
 * scores while slopes are formed. On entry scores are complete. */
template <bool MORE>
__device__ __forceinline__ void score_turn(score_state &s, memory &m, const parameters &p,
                                           int query_block, uint32_t turn, int lane) {
    const int slot = turn % STAGES, query0 = query_block * QUERIES;
    if (query0 < s.key0 + 63 || query0 + 63 - s.key0 >= p.window) mask(s, query0, p.window);
    form_weights(s, m.statistics[slot][0], p.scale * 1.44269504f);
    /* A branch, which keeps the compiler from moving the exponentials behind the next wait. */
    if (MORE) barrier_wait(&m.loaded[(turn + 1) % STAGES], (turn + 1) / STAGES & 1);
    wgmma_wait<0>();
    wgmma_hold(s.slopes);
    wgmma_fence();
    multiply_weights(s, descriptor(m.d_y[slot]));
    if (MORE) start_scores(s, descriptor(m.q[(turn + 1) % STAGES]));
    wgmma_commit();
    uint32_t slopes[4][4];
    form_slopes(s, m.statistics[slot][1], slopes);
    pass_slopes(s, m, turn, slopes, lane);
    wgmma_wait<0>();
    wgmma_hold(s.scores);
    wgmma_fence();
    const uint64_t q = descriptor(m.q[slot]);
#pragma unroll
    for (int i = 0; i < 4; i++) product<64, 0, 1>::rs(s.d_k, slopes[i], q + i * 128, 1);
    if (MORE) start_slopes(s, descriptor(m.d_y[(turn + 1) % STAGES]));
    wgmma_commit();
}

__device__ __forceinline__ void begin_head(score_state &s, memory &m, uint32_t turn) {
    const int slot = turn % STAGES;
    barrier_wait(&m.loaded[slot], turn / STAGES & 1);
    wgmma_fence();
    start_scores(s, descriptor(m.q[slot]));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(s.scores);
    wgmma_fence();
    start_slopes(s, descriptor(m.d_y[slot]));
    wgmma_commit();
}

/* All query blocks of one head that see these keys; other warpgroups' turns are passed on. */
__device__ __forceinline__ void score_head(score_state &s, memory &m, const parameters &p,
                                           const walk &now, uint32_t turn, int lane) {
    const bool backwards = now.backwards(p);
    const int first = s.key0 / QUERIES, last = last_query_block(p, s.key0 + 63);
    const int step = backwards ? -1 : 1, n = max(0, last - first + 1);
    const int before = n == 0      ? 0
                       : backwards ? 2 * now.key_block + now.n - 1 - last
                                   : first - 2 * now.key_block;
    int block = backwards ? last : first;
    for (int i = 0; i < before; i++) pass_slopes(s, m, turn + i, nullptr, lane);
    if (n > 0) {
        begin_head(s, m, turn + before);
        for (int i = 0; i < n - 1; i++, block += step)
            score_turn<true>(s, m, p, block, turn + before + i, lane);
        score_turn<false>(s, m, p, block, turn + before + n - 1, lane);
        wgmma_wait<0>();
        wgmma_hold(s.d_v);
        wgmma_hold(s.d_k);
    }
    for (int i = before + n; i < now.n; i++) pass_slopes(s, m, turn + i, nullptr, lane);
}

/* ---- dK and dV on their way out: 16 rows for each warp, which needs no one else ---- */

/* Where this warp's 16 rows wait in shared memory, and in the tensor. */
struct strip {
    __nv_bfloat16 *rows;
    int position, group, sequence, lane;
    __device__ __forceinline__ uint32_t address() const { /* of blocks of columns 0 and 1 */
        return shared_address(rows) + lane % 16 * 128 + (((lane >> 4) ^ (lane & 7)) << 4);
    }
};

__device__ __forceinline__ void finish_strip(const strip &at, const CUtensorMap *map,
                                             const float (&c)[32], float factor, bool add) {
    if (!add && at.lane == 0) bulk_wait_read<0>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t r[4] = {0, 0, 0, 0};
        if (add) load_blocks(r, at.address() ^ (i << 5));
        const float *x = c + 8 * i;
#pragma unroll
        for (int j = 0; j < 4; j++)
            r[j] = pack(fmaf(x[2 * j], factor, __uint_as_float(r[j] << 16)),
                        fmaf(x[2 * j + 1], factor, __uint_as_float(r[j] & 0xffff0000u)));
        store_blocks(at.address() ^ (i << 5), r);
    }
    fence_async();
    __syncwarp();
    if (at.lane == 0) {
        store_4d(map, at.rows, 0, at.position, at.group, at.sequence);
        bulk_commit();
    }
}

/* Give `away` to the neighbour, who adds it to what it keeps, and add what it gives to `keep`. */
__device__ __forceinline__ void exchange(memory &m, const float (&away)[32], float (&keep)[32],
                                         int warp, int lane, int rank, int key_block) {
    float *buffer = m.exchange[warp];
    const uint32_t there = address_in(buffer, rank ^ 1) + lane * 16;
    barrier_wait_cluster(&m.exchange_empty[warp], (key_block & 1) ^ 1);
#pragma unroll
    for (int j = 0; j < 8; j++)
        store_in(there + j * 512, away[4 * j], away[4 * j + 1], away[4 * j + 2], away[4 * j + 3]);
    __syncwarp();
    if (lane == 0) barrier_arrive_in(address_in(&m.exchange_full[warp], rank ^ 1));
    barrier_wait_cluster(&m.exchange_full[warp], key_block & 1);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float4 x = *reinterpret_cast<const float4 *>(buffer + j * 128 + lane * 4);
        keep[4 * j] += x.x, keep[4 * j + 1] += x.y, keep[4 * j + 2] += x.z, keep[4 * j + 3] += x.w;
    }
    __syncwarp();
    if (lane == 0) barrier_arrive_in(address_in(&m.exchange_empty[warp], rank ^ 1));
}

template <int CLUSTER>
__device__ __forceinline__ void finish_keys(score_state &s, memory &m, const parameters &p,
                                            strip &out, int key_block, int warp) {
    const int lane = out.lane;
    if (CLUSTER == 2) {
        if (m.at.rank == 0)
            exchange(m, s.d_v, s.d_k, warp, lane, 0, key_block);
        else
            exchange(m, s.d_k, s.d_v, warp, lane, 1, key_block);
    }
    if (CLUSTER == 1 || m.at.rank == 1) {
        if (p.add_to_d_v) barrier_wait(&m.d_v_loaded[warp], key_block & 1);
        finish_strip(out, &p.d_v, s.d_v, 1.0f, p.add_to_d_v);
    }
    if (CLUSTER == 1) {
        strip d_k = out;
        d_k.rows = reinterpret_cast<__nv_bfloat16 *>(m.exchange[warp]);
        finish_strip(d_k, &p.d_k, s.d_k, p.scale, false);
    } else if (m.at.rank == 0) {
        finish_strip(out, &p.d_k, s.d_k, p.scale, false);
    }
}

/* 64 keys as left operand: 16 rows for this warp, 16 columns to a step. */
__device__ __forceinline__ void load_left(uint32_t (&k)[4][4], uint32_t address) {
#pragma unroll
    for (int i = 0; i < 4; i++) load_blocks(k[i], address ^ (i << 5));
}

/* Begin a block of keys: operands, zeros, and what d_v holds already. */
template <int CLUSTER>
__device__ __forceinline__ void begin_keys(score_state &s, memory &m, const parameters &p,
                                           strip &out, int key_block, int warp) {
    const int buffer = key_block & 1, half = warp / 4, lane = out.lane;
    s.key0 = key_block * KEYS + half * 64;
    s.key = s.key0 + warp % 4 * 16 + lane / 4;
    out.position = s.key0 + warp % 4 * 16;
    if (p.add_to_d_v && (CLUSTER == 1 || m.at.rank == 1) && lane == 0) {
        bulk_wait_read<0>();
        barrier_expect(&m.d_v_loaded[warp], 16 * WIDTH * sizeof(__nv_bfloat16));
        load_4d(out.rows, &p.d_v, &m.d_v_loaded[warp], 0, out.position, m.at.group, m.at.sequence);
    }
    __syncwarp();
    barrier_wait(&m.keys_loaded[buffer], key_block / 2 & 1);
    s.v = descriptor(m.v[buffer] + half * TILE);
    strip keys = out;
    keys.rows = m.k[buffer] + half * TILE + warp % 4 * 16 * WIDTH;
    load_left(s.k, keys.address());
#pragma unroll
    for (int i = 0; i < 32; i++) s.d_k[i] = s.d_v[i] = 0.0f;
}

template <int CLUSTER>
__device__ __forceinline__ void score_warpgroup(memory &m, const parameters &p, int warp,
                                                int lane) {
    score_state s;
    strip out = {m.finished[warp / 4] + warp % 4 * 16 * WIDTH, 0, m.at.group, m.at.sequence, lane};
    strip slopes = out;
    slopes.rows = m.slopes[0] + warp * 16 * WIDTH;
    s.slopes_at = slopes.address();
    s.column = lane % 4 * 2;
    walk now;
    uint32_t turn = 0;
    now.begin(p);
    while (!now.done(p)) {
        const int key_block = now.key_block;
        begin_keys<CLUSTER>(s, m, p, out, key_block, warp);
        for (; now.key_block == key_block; turn += now.n, now.at = now.n - 1, now.next(p))
            score_head(s, m, p, now, turn, lane);
        finish_keys<CLUSTER>(s, m, p, out, key_block, warp);
    }
    if (lane == 0) bulk_wait<0>();
}

__device__ __forceinline__ void init_barriers(memory &m) {
    for (int i = 0; i < STAGES; i++) barrier_init(&m.loaded[i], 1);
    for (int i = 0; i < 2; i++) barrier_init(&m.keys_loaded[i], 1);
    for (int i = 0; i < SLOPE_STAGES; i++) {
        barrier_init(&m.slopes_full[i], SCORE_WARPS);
        barrier_init(&m.slopes_empty[i], 4);
    }
    for (int i = 0; i < SCORE_WARPS; i++) {
        barrier_init(&m.exchange_full[i], 1);
        barrier_init(&m.exchange_empty[i], 1);
        barrier_init(&m.d_v_loaded[i], 1);
    }
    barrier_fence_init();
}

#endif /* FAIRWAY_HOPPER_CODE */

/* Grid: B * G * CLUSTER blocks of threads. */
template <int CLUSTER, bool ADD_IN_REGISTERS>
__global__ void __launch_bounds__(THREADS, 1)
    attention_backward_tiles(const __grid_constant__ parameters p) {
#ifdef FAIRWAY_HOPPER_CODE
    extern __shared__ __align__(1024) char raw[];
    memory &m = *reinterpret_cast<memory *>(raw);
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        m.at = find_place<CLUSTER>(p);
        init_barriers(m);
    }
    __syncthreads();
    if (CLUSTER > 1) cluster_sync();
    if (warp >= SCORE_WARPS) {
        registers_fewer<QUERY_REGISTERS>();
        query_warpgroup<ADD_IN_REGISTERS>(m, p, warp - SCORE_WARPS, lane);
    } else {
        registers_more<SCORE_REGISTERS>();
        score_warpgroup<CLUSTER>(m, p, warp, lane);
    }
    if (CLUSTER > 1) cluster_sync();
#endif
}

/* ---- host ---- */

/* Scratch, in this order. */
struct layout {
    int64_t query_blocks;
    size_t partial, statistics, d_y, bytes;
};

layout lay_out(const fw_flash_attention *a) {
    const int64_t heads = a->q.shape[0] * a->q.shape[2];
    layout l;
    l.query_blocks = cuda_divide_up(a->q.shape[1], QUERIES);
    l.partial = (size_t)(heads * l.query_blocks) * QUERIES * WIDTH * sizeof(float);
    l.statistics = (size_t)(heads * l.query_blocks) * 2 * QUERIES * sizeof(float);
    l.d_y = a->exclude_self ? (size_t)(heads * a->q.shape[1]) * WIDTH * sizeof(__nv_bfloat16) : 0;
    l.bytes = l.partial + l.statistics + l.d_y;
    return l;
}

/* Whether the copy engine takes a tensor [B,T,heads,64]. */
bool takes_tensor(const fw_tensor *x) {
    if (x->dtype != FW_BF16 || (reinterpret_cast<uintptr_t>(x->data) & 15) != 0) return false;
    for (int i = 0; i < 3; i++)
        if (x->shape[i] > 1 &&
            (x->stride[i] % 8 != 0 || x->stride[i] <= 0 || x->stride[i] >= (int64_t)1 << 38))
            return false;
    return true;
}

/* [B,T,heads,64] as 64 x positions x heads x sequences, boxes of `rows` positions. A stride that is
 * never used may hold anything and is replaced. */
fw_status map_heads(cuda_device *cuda, CUtensorMap *map, const fw_tensor *x, uint32_t rows,
                    fw_error *error) {
    const int order[3] = {1, 2, 0};
    uint64_t sizes[4] = {WIDTH}, strides[3];
    for (int i = 0; i < 3; i++) {
        sizes[i + 1] = (uint64_t)x->shape[order[i]];
        strides[i] = sizes[i + 1] > 1 ? (uint64_t)x->stride[order[i]] * 2 : WIDTH * 2;
    }
    const uint32_t box[4] = {WIDTH, rows, 1, 1};
    return cuda_tensor_map(cuda, map, x->data, 4, sizes, strides, box, error);
}

attention_rows::heads rows_of(const fw_tensor *x) {
    return {static_cast<__nv_bfloat16 *>(x->data), x->stride[0], x->stride[1], x->stride[2]};
}

fw_status prepare_rows(cuda_device *cuda, const fw_flash_attention *a, const layout *l,
                       fw_error *error) {
    char *scratch = static_cast<char *>(a->scratch);
    attention_rows::parameters p = {};
    p.v = rows_of(&a->v), p.out = rows_of(&a->out);
    p.d_out = rows_of(&a->d_out), p.d_v = rows_of(&a->d_v);
    p.log_sum_exp = static_cast<const float *>(a->log_sum_exp.data);
    p.self_dot = static_cast<const float *>(a->self_dot.data);
    p.statistics = reinterpret_cast<float *>(scratch + l->partial);
    p.d_y = reinterpret_cast<__nv_bfloat16 *>(scratch + l->partial + l->statistics);
    p.positions = (int)a->q.shape[1], p.blocks = (int)l->query_blocks;
    p.n_heads = (int)a->q.shape[2], p.groups = (int)a->k.shape[2];
    p.accumulate = a->accumulate_dv != 0;
    const int64_t grid = a->q.shape[0] * p.groups * p.blocks * 2;
    using attention_rows::attention_rows_kernel;
    const bool pairs = p.n_heads / p.groups % 2 == 0;
    auto *kernel =
        a->exclude_self
            ? (pairs ? attention_rows_kernel<true, 2> : attention_rows_kernel<true, 1>)
            : (pairs ? attention_rows_kernel<false, 2> : attention_rows_kernel<false, 1>);
    kernel<<<(unsigned)grid, attention_rows::THREADS, 0, cuda->stream>>>(p);
    return cuda_launched(cuda, "attention_backward", "attention_rows", error);
}

fw_status map_tensors(cuda_device *cuda, const fw_flash_attention *a, const layout *l,
                      parameters *p, fw_error *error) {
    fw_tensor d_y = a->d_out;
    if (a->exclude_self) {
        const int64_t *shape = a->q.shape;
        d_y.data = static_cast<char *>(a->scratch) + l->partial + l->statistics;
        d_y.stride[0] = shape[1] * shape[2] * WIDTH;
        d_y.stride[1] = WIDTH;
        d_y.stride[2] = shape[1] * WIDTH;
    }
    FW_TRY(map_heads(cuda, &p->q, &a->q, 64, error));
    FW_TRY(map_heads(cuda, &p->k, &a->k, 64, error));
    FW_TRY(map_heads(cuda, &p->v, &a->v, 64, error));
    FW_TRY(map_heads(cuda, &p->d_y, &d_y, 64, error));
    FW_TRY(map_heads(cuda, &p->d_q, &a->d_q, 64, error));
    FW_TRY(map_heads(cuda, &p->d_k, &a->d_k, 16, error));
    return map_heads(cuda, &p->d_v, &a->d_v, 16, error);
}

template <int CLUSTER, bool ADD_IN_REGISTERS>
fw_status launch_tiles(cuda_device *cuda, const parameters *p, int64_t blocks, fw_error *error) {
    const auto kernel = attention_backward_tiles<CLUSTER, ADD_IN_REGISTERS>;
    static const cudaError_t allowed =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, MEMORY_BYTES);
    CUDA_TRY(cuda, allowed, "attention_backward", error);
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = CLUSTER;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = MEMORY_BYTES;
    config.stream = cuda->stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    CUDA_TRY(cuda, cudaLaunchKernelEx(&config, kernel, *p), "attention_backward", error);
    return cuda_launched(cuda, "attention_backward", "attention_backward_tiles", error);
}

template <bool ADD_IN_REGISTERS>
fw_status run_tiles(cuda_device *cuda, const fw_flash_attention *a, const layout *l,
                    fw_error *error) {
    char *scratch = static_cast<char *>(a->scratch);
    parameters p = {};
    FW_TRY(map_tensors(cuda, a, l, &p, error));
    const int64_t group = a->q.shape[2] / a->k.shape[2], keyed = a->k.shape[0] * a->k.shape[2];
    const int cluster = group % 2 == 0 ? 2 : 1;
    p.d_q_partial = reinterpret_cast<float4 *>(scratch);
    p.statistics = reinterpret_cast<const float *>(scratch + l->partial);
    p.query_blocks = (int)l->query_blocks;
    p.key_blocks = (int)cuda_divide_up(a->q.shape[1], KEYS);
    p.groups = (int)a->k.shape[2];
    p.heads_each = (int)group / cluster;
    p.window = a->window > 0 && a->window < a->q.shape[1] ? (int)a->window : INT_MAX;
    p.scale = a->scale;
    p.add_to_d_v = a->exclude_self || a->accumulate_dv;
    return cluster == 2 ? launch_tiles<2, ADD_IN_REGISTERS>(cuda, &p, keyed * 2, error)
                        : launch_tiles<1, ADD_IN_REGISTERS>(cuda, &p, keyed, error);
}

} /* namespace */

bool cuda_attention_backward_hopper_takes(const cuda_device *cuda, const fw_flash_attention *a) {
    const int64_t *q = a->q.shape, *k = a->k.shape;
    if (!cuda->hopper || cuda->shared_bytes < MEMORY_BYTES) return false;
    if (q[3] != WIDTH || q[1] != k[1] || a->cu_seqlens.data != NULL) return false;
    if (q[0] * q[1] * q[2] == 0 || q[1] >= INT_MAX / 2 || q[0] * q[2] >= INT_MAX / q[1] * 32)
        return false;
    return takes_tensor(&a->q) && takes_tensor(&a->k) && takes_tensor(&a->v) &&
           takes_tensor(&a->out) && takes_tensor(&a->d_out) && takes_tensor(&a->d_q) &&
           takes_tensor(&a->d_k) && takes_tensor(&a->d_v);
}

size_t cuda_attention_backward_hopper_scratch(const cuda_device *cuda,
                                              const fw_flash_attention *a) {
    (void)cuda;
    return lay_out(a).bytes;
}

fw_status cuda_attention_backward_hopper(cuda_device *cuda, const fw_flash_attention *a,
                                         fw_error *error) {
    const layout l = lay_out(a);
    if (a->scratch == NULL || a->scratch_bytes < l.bytes)
        return fw_fail(error, FW_E_ARGUMENT, "attention_backward: %zu bytes of scratch, needs %zu",
                       a->scratch_bytes, l.bytes);
    FW_TRY(prepare_rows(cuda, a, &l, error));
    return run_tiles<false>(cuda, a, &l, error);
}
