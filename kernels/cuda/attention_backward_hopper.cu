/* Attention backward on Hopper (Dao 2023; Shah et al. 2024): heads of 64, as many keys as queries.
 *
 * A cluster of two blocks of threads owns one key/value head of one sequence and the query heads
 * that share it, so that every sum has one order: it walks spans of 256 keys, 128 to a block, and,
 * for each, the heads and the blocks of 64 queries that see them. Two warpgroups of 64 keys each
 * form S^T = K Q^T and dP^T = V dY^T, hence P^T and dS^T in the registers where the products
 * dV += P^T dY and dK += dS^T Q want them; dS^T also goes to shared memory, where a third warpgroup
 * forms dQ^T += K^T dS^T. The two blocks exchange halves of it, so that each has 32 queries' sum
 * over the whole span, and add that to float32 scratch, always from the same thread: this traffic
 * through the second-level cache is what limits narrower spans. The third warpgroup's first thread
 * also feeds the tiles of queries by TMA.
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

constexpr int WIDTH = 64, QUERIES = 64, KEYS = 128, SPAN = 2 * KEYS;
constexpr int STAGES = 4, SLOPE_STAGES = 2;
constexpr int TILE = 64 * WIDTH; /* elements: 64 rows of 128 bytes */
constexpr int SCORE_WARPS = 8, THREADS = 3 * 128;

struct parameters {
    CUtensorMap queries[2], keys[2]; /* q and dY, k and v: boxes of 64 positions of one head */
    CUtensorMap d_q;                 /* boxes of 32 */
    CUtensorMap d_k, d_v;            /* boxes of 16 */
    float4 *d_q_partial;             /* [B,H,query blocks][8][128]: one float4 of every thread */
    const float *statistics;         /* attention_rows::parameters */
    int query_blocks, spans, groups, heads_each; /* heads_each: query heads of a key/value head */
    int window;                                  /* INT_MAX: none */
    float scale;
    bool add_to_d_v; /* d_v holds something to add to */
};

/* The sequence, key/value head and first query head of a cluster. */
struct place {
    int sequence, group, first_head;
    int rank;     /* of the block in its cluster */
    int64_t unit; /* sequence * heads + first_head */
};

/* Tiles come first: swizzled, each a multiple of 1024 bytes. */
struct memory {
    __nv_bfloat16 queries[2][STAGES][TILE];       /* q and dY */
    __nv_bfloat16 keys[2][2][2 * TILE];           /* k and v, of even spans and of odd ones */
    __nv_bfloat16 slopes[SLOPE_STAGES][2 * TILE]; /* dS^T: a row of 64 queries for each key */
    __nv_bfloat16 d_k[2][TILE], d_v[2][TILE];     /* of each warpgroup, on the way out */
    __nv_bfloat16 d_q[TILE / 2];
    float4 exchange[2][4][128]; /* of every other turn: four float4 of every thread */
    float statistics[STAGES][2][QUERIES];
    place at;
    uint64_t loaded[STAGES], keys_loaded[2];
    uint64_t slopes_full[SLOPE_STAGES], slopes_empty[SLOPE_STAGES];
    uint64_t exchange_full[2][4], exchange_empty[2][4]; /* of the warps */
    uint64_t d_v_loaded[SCORE_WARPS];
};
constexpr int MEMORY_BYTES = (int)sizeof(memory);

#ifdef FAIRWAY_HOPPER_CODE

using namespace hopper;

constexpr int HELD_STEPS = 3; /* of 8 steps of 16 keys, as left operand of dQ in registers */
constexpr bool LATE_FENCE = false;
constexpr int SCORE_REGISTERS = 208, QUERY_REGISTERS = 88; /* 2 x 208 + 88 = 3 x 168 */

__device__ __forceinline__ place find_place(const parameters &p) {
    const int shared = blockIdx.x / 2;
    place at;
    at.sequence = shared / p.groups;
    at.group = shared % p.groups;
    at.first_head = at.group * p.heads_each;
    at.rank = blockIdx.x % 2;
    at.unit = (int64_t)shared * p.heads_each;
    return at;
}

__device__ __forceinline__ int last_query_block(const parameters &p, int last_key) {
    const int last = p.query_blocks - 1;
    return p.window == INT_MAX ? last : min(last, (last_key + p.window - 1) / QUERIES);
}

/* One span with one head: n blocks of queries, from the first that sees the span's first key. */
struct pass {
    int span, order, n; /* the order-th head of the span */

    __device__ __forceinline__ void begin(const parameters &p, int of_span) {
        span = of_span;
        order = 0;
        n = last_query_block(p, span * SPAN + SPAN - 1) - first() + 1;
    }
    __device__ __forceinline__ bool done(const parameters &p) const { return span >= p.spans; }
    __device__ __forceinline__ int first() const { return span * (SPAN / QUERIES); }
    /* Every other span is walked backwards: what was used last is still in the second-level cache.
     */
    __device__ __forceinline__ int step() const { return span % 2 == 0 ? 1 : -1; }
    __device__ __forceinline__ int start() const { return first() + (span % 2 == 0 ? 0 : n - 1); }
    __device__ __forceinline__ int head(const parameters &p) const {
        return span % 2 == 0 ? order : p.heads_each - 1 - order;
    }
    __device__ __forceinline__ void next(const parameters &p) {
        if (++order == p.heads_each) begin(p, span + 1);
    }
};

/* ---- feeding, by the warps of dQ: q by the first, dY and statistics by the second, keys by the
 * third and values by the fourth ---- */

__device__ __forceinline__ void feed_keys(memory &m, const parameters &p, int span, int warp) {
    if (warp < 2 || span >= p.spans) return;
    uint64_t *barrier = &m.keys_loaded[span & 1];
    __nv_bfloat16 *to = m.keys[warp - 2][span & 1];
    const int position = span * SPAN + m.at.rank * KEYS;
    barrier_expect_once(barrier, 2 * TILE * sizeof(__nv_bfloat16));
    for (int half = 0; half < 2; half++)
        load_4d_once(to + half * TILE, &p.keys[warp - 2], barrier, 0, position + half * 64,
                     m.at.group, m.at.sequence);
}

/* Where the loads of queries are: the pass, the block and how many are left in the pass. */
struct feeder {
    pass at;
    int block, left;
    uint32_t loads;

    __device__ __forceinline__ void start() {
        block = at.start();
        left = at.n;
    }
    __device__ __forceinline__ void begin(const parameters &p) {
        at.begin(p, 0);
        loads = 0;
        start();
    }
};

/* The next block into its place, if there is one. */
__device__ __forceinline__ void feed_queries(memory &m, const parameters &p, feeder &f, int warp) {
    if (warp >= 2 || f.at.done(p)) return;
    const int slot = f.loads++ % STAGES, head = f.at.head(p);
    uint64_t *barrier = &m.loaded[slot];
    const uint32_t statistics = warp == 1 ? sizeof m.statistics[0] : 0;
    barrier_expect_once(barrier, TILE * sizeof(__nv_bfloat16) + statistics);
    load_4d_once(m.queries[warp][slot], &p.queries[warp], barrier, 0, f.block * QUERIES,
                 m.at.first_head + head, m.at.sequence);
    if (warp == 1) {
        const int64_t row = (m.at.unit + head) * p.query_blocks + f.block;
        load_bytes_once(m.statistics[slot], p.statistics + row * 2 * QUERIES, statistics, barrier);
    }
    f.block += f.at.step();
    if (--f.left > 0) return;
    f.at.next(p);
    f.start();
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

/* d_q of 32 queries, complete: scaled, turned into rows, and out. */
__device__ __forceinline__ void finish_d_q(memory &m, const parameters &p, const float (&x)[16],
                                           int head, int position, int warp, int lane) {
    if (threadIdx.x % 128 == 0) bulk_wait_read<0>();
    named_sync(1, 128);
    const int block = lane / 8, row = (block >> 1) * 8 + lane % 8;
    const int piece = (2 * warp + (block & 1)) ^ (lane % 8);
    const uint32_t address = shared_address(m.d_q) + row * 128 + piece * 16;
#pragma unroll
    for (int j = 0; j < 16; j += 8) {
        uint32_t r[4];
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = pack(x[j + 2 * i] * p.scale, x[j + 2 * i + 1] * p.scale);
        store_blocks_transposed(address + j * 256, r);
    }
    fence_async();
    named_sync(1, 128);
    if (threadIdx.x % 128 == 0) {
        store_4d(&p.d_q, m.d_q, 0, position, m.at.first_head + head, m.at.sequence);
        bulk_commit();
    }
}

/* Start dQ^T += K^T dS^T, in steps of 16 keys. */
__device__ __forceinline__ void multiply_slopes(float (&c)[32], const uint32_t (&k)[HELD_STEPS][4],
                                                uint64_t keys, uint64_t slopes) {
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++)
        if (i < HELD_STEPS)
            product<64, 0, 1>::rs(c, k[i < HELD_STEPS ? i : 0], slopes + i * 128, 1);
        else
            product<64, 1, 1>::ss(c, keys + i * 128, slopes + i * 128, 1);
    wgmma_commit();
}

/* dQ^T of 64 queries over this block's keys becomes that of 32 over both blocks' in two steps, with
 * the next turn's products between: what the neighbour needs is sent, this block's half is kept. */
struct half_sum {
    float x[16];     /* this thread's part of columns 32 RANK and on */
    float4 *partial; /* where the sum over the spans grows: four float4, 128 apart */
    int block;       /* of 64 queries */
    bool first, last;
};

template <int RANK>
__device__ __forceinline__ void send_half(memory &m, const float (&c)[32], half_sum &half,
                                          uint32_t turn, int warp, int lane) {
    const int slot = turn % 2;
    uint64_t *full = &m.exchange_full[slot][warp];
    const uint32_t there = address_in(&m.exchange[slot][0][threadIdx.x % 128], RANK ^ 1);
    const uint32_t full_there = address_in(full, RANK ^ 1);
    if (lane == 0) barrier_expect(full, 4 * 32 * sizeof(float4));
    barrier_wait(&m.exchange_empty[slot][warp], (turn / 2 & 1) ^ 1);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float *x = c + 16 * (RANK ^ 1) + 4 * j;
        store_in(there + j * sizeof m.exchange[0][0], x[0], x[1], x[2], x[3], full_there);
    }
#pragma unroll
    for (int j = 0; j < 16; j++) half.x[j] = c[16 * RANK + j];
}

/* Receive the neighbour's half of that turn, and store, add or finish the sum. */
template <int RANK>
__device__ __forceinline__ void finish_half(memory &m, const parameters &p, half_sum &half,
                                            int head, uint32_t turn, int warp, int lane) {
    const int slot = turn % 2;
    barrier_wait(&m.exchange_full[slot][warp], turn / 2 & 1);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float4 y = m.exchange[slot][j][threadIdx.x % 128];
        float *x = half.x + 4 * j;
        x[0] += y.x, x[1] += y.y, x[2] += y.z, x[3] += y.w;
    }
    __syncwarp();
    if (lane == 0) barrier_arrive_in(address_in(&m.exchange_empty[slot][warp], RANK ^ 1));
    if (half.last) {
        finish_d_q(m, p, half.x, head, half.block * QUERIES + RANK * 32, warp, lane);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float *x = half.x + 4 * j;
        const float4 sum = make_float4(x[0], x[1], x[2], x[3]);
        if (half.first)
            __stcg(half.partial + j * 128, sum);
        else
            add_to(half.partial + j * 128, sum);
    }
}

/* Zero, or for the last turn of these queries what the turns before have summed. */
template <int RANK>
__device__ __forceinline__ void begin_sum(float (&c)[32], const half_sum &half) {
#pragma unroll
    for (int j = 0; j < 32; j++) c[j] = 0.0f;
    if (half.first || !half.last) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float4 x = load_again(half.partial + j * 128);
        float *to = c + 16 * RANK + 4 * j;
        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    }
}

/* All turns of a pass, `turn` and on. Slopes of a turn are written after all products of the turn
 * before, so that its tiles may be loaded over; after its second turn everyone has left the span
 * before. */
template <int RANK>
__device__ __forceinline__ void query_pass(memory &m, const parameters &p, const pass &now,
                                           feeder &ahead, uint32_t turn,
                                           const uint32_t (&k)[HELD_STEPS][4], int warp, int lane) {
    const int step = now.step(), head = now.head(p);
    /* The first block whose queries see no key of an earlier span. */
    const int fresh = now.span == 0         ? 0
                      : p.window == INT_MAX ? INT_MAX
                                            : (now.span * SPAN + p.window + QUERIES - 2) / QUERIES;
    half_sum half;
    int block = now.start();
    float4 *partial = p.d_q_partial + ((m.at.unit + head) * p.query_blocks + block) * 1024 +
                      RANK * 512 + threadIdx.x % 128;
    for (int i = 0; i < now.n; i++, turn++, block += step, partial += step * 1024) {
        const int slot = turn % SLOPE_STAGES;
        half_sum next;
        next.partial = partial;
        next.block = block;
        next.first = block >= fresh;
        next.last = block < now.first() + SPAN / QUERIES;
        float c[32];
        begin_sum<RANK>(c, next);
        const uint64_t slopes = descriptor(m.slopes[slot]);
        uint64_t keys = descriptor(m.keys[0][now.span & 1]);
        asm volatile("" : "+l"(keys)); /* computed anew: there are no registers to keep it in */
        barrier_wait(&m.slopes_full[slot], turn / SLOPE_STAGES & 1);
        multiply_slopes(c, k, keys, slopes);
        if (i > 0) finish_half<RANK>(m, p, half, head, turn - 1, warp, lane);
        wgmma_wait<0>();
        wgmma_hold(c);
        if (lane == 0) barrier_arrive(&m.slopes_empty[slot]);
        half = next;
        send_half<RANK>(m, c, half, turn, warp, lane);
        if (turn > 0) feed_queries(m, p, ahead, warp);
        if (i == 1 && now.order == 0) feed_keys(m, p, now.span + 1, warp);
    }
    finish_half<RANK>(m, p, half, head, turn - 1, warp, lane);
}

template <int RANK>
__device__ __forceinline__ void query_warpgroup(memory &m, const parameters &p, int warp,
                                                int lane) {
    feeder ahead;
    ahead.begin(p);
    feed_keys(m, p, 0, warp);
    for (int i = 0; i < STAGES; i++) feed_queries(m, p, ahead, warp);
    uint32_t turn = 0;
    pass now;
    now.begin(p, 0);
    while (!now.done(p)) {
        uint32_t k[HELD_STEPS][4];
        const int span = now.span;
        barrier_wait(&m.keys_loaded[span & 1], span / 2 & 1);
        load_transposed_keys(k, m.keys[0][span & 1], warp, lane);
        for (; now.span == span; turn += now.n, now.next(p))
            query_pass<RANK>(m, p, now, ahead, turn, k, warp, lane);
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
    float2 logarithms[8];  /* of this thread's queries, with a minus sign */
    float scale;           /* of scores, in base 2 */
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

/* What belongs to this thread's queries, from the statistics of a tile. Before products are
 * started: behind them it would wait in the queue that both go through. */
__device__ __forceinline__ void load_statistics(float2 (&x)[8], const float *from, int column) {
#pragma unroll
    for (int j = 0; j < 8; j++)
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                     : "=f"(x[j].x), "=f"(x[j].y)
                     : "r"(shared_address(from + 8 * j + column)));
}

__device__ __forceinline__ void form_weights(score_state &s) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float *x = s.scores + 4 * j;
        const float2 l = s.logarithms[j];
        uint32_t *w = s.weights[j / 2] + j % 2 * 2;
        w[0] = pack(power_of_two(fmaf(x[0], s.scale, l.x)), power_of_two(fmaf(x[1], s.scale, l.y)));
        w[1] = pack(power_of_two(fmaf(x[2], s.scale, l.x)), power_of_two(fmaf(x[3], s.scale, l.y)));
    }
}

__device__ __forceinline__ uint32_t multiply_pairs(uint32_t a, uint32_t b) {
    const __nv_bfloat162 c = __hmul2(*reinterpret_cast<const __nv_bfloat162 *>(&a),
                                     *reinterpret_cast<const __nv_bfloat162 *>(&b));
    return *reinterpret_cast<const uint32_t *>(&c);
}

/* dS = P (dP - delta), without the scale, which d_q and d_k get at the end. */
__device__ __forceinline__ void form_slopes(const score_state &s, const float2 (&delta)[8],
                                            uint32_t (&slopes)[4][4]) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float *x = s.slopes + 4 * j;
        const uint32_t *w = s.weights[j / 2] + j % 2 * 2;
        uint32_t *to = slopes[j / 2] + j % 2 * 2;
        to[0] = multiply_pairs(w[0], pack(x[0] - delta[j].x, x[1] - delta[j].y));
        to[1] = multiply_pairs(w[1], pack(x[2] - delta[j].x, x[3] - delta[j].y));
    }
}

/* Hand a turn's slopes to the warpgroup of dQ, and with them the tiles of the turn before. */
__device__ __forceinline__ void announce_slopes(memory &m, uint32_t turn, int lane) {
    fence_async();
    __syncwarp();
    if (lane == 0) barrier_arrive(&m.slopes_full[turn % SLOPE_STAGES]);
}

__device__ __forceinline__ void put_slopes(const score_state &s, uint32_t turn,
                                           const uint32_t (&slopes)[4][4]) {
    const uint32_t address = s.slopes_at + turn % SLOPE_STAGES * (2 * TILE * 2);
#pragma unroll
    for (int i = 0; i < 4; i++) store_blocks(address ^ (i << 5), slopes[i]);
}

/* One block of queries, in two phases of which each has products under way while the other pipes
 * work: those of dK and the next slopes while scores become weights, those of dV and the next
 * scores while slopes are formed. On entry scores are complete. */
template <bool MORE>
__device__ __forceinline__ void score_turn(score_state &s, memory &m, const parameters &p,
                                           int query_block, uint32_t turn, int lane) {
    const int slot = turn % STAGES, next = (turn + 1) % STAGES, query0 = query_block * QUERIES;
    uint64_t *empty = &m.slopes_empty[turn % SLOPE_STAGES];
    if (query0 < s.key0 + 63 || query0 + 63 - s.key0 >= p.window) mask(s, query0, p.window);
    form_weights(s);
    /* A branch, which keeps the compiler from moving the exponentials behind the next wait. */
    if (MORE) barrier_wait(&m.loaded[next], (turn + 1) / STAGES & 1);
    float2 delta[8];
    load_statistics(delta, m.statistics[slot][1], s.column);
    wgmma_wait<0>();
    wgmma_hold(s.slopes);
    wgmma_fence();
    multiply_weights(s, descriptor(m.queries[1][slot]));
    if (MORE) start_scores(s, descriptor(m.queries[0][next]));
    wgmma_commit();
    uint32_t slopes[4][4];
    form_slopes(s, delta, slopes);
    barrier_wait(empty, (turn / SLOPE_STAGES & 1) ^ 1);
    put_slopes(s, turn, slopes);
    if (!LATE_FENCE) announce_slopes(m, turn, lane);
    if (MORE) load_statistics(s.logarithms, m.statistics[next][0], s.column);
    wgmma_wait<0>();
    wgmma_hold(s.scores);
    wgmma_fence();
    const uint64_t q = descriptor(m.queries[0][slot]);
#pragma unroll
    for (int i = 0; i < 4; i++) product<64, 0, 1>::rs(s.d_k, slopes[i], q + i * 128, 1);
    if (MORE) start_slopes(s, descriptor(m.queries[1][next]));
    wgmma_commit();
    if (LATE_FENCE) announce_slopes(m, turn, lane);
}

__device__ __forceinline__ void begin_head(score_state &s, memory &m, uint32_t turn) {
    const int slot = turn % STAGES;
    barrier_wait(&m.loaded[slot], turn / STAGES & 1);
    load_statistics(s.logarithms, m.statistics[slot][0], s.column);
    wgmma_fence();
    start_scores(s, descriptor(m.queries[0][slot]));
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(s.scores);
    wgmma_fence();
    start_slopes(s, descriptor(m.queries[1][slot]));
    wgmma_commit();
}

/* Turns of queries that do not see these keys: their slopes are zero. Their tiles are waited for
 * all the same: a wait knows a barrier's phases by parity alone and must not miss one. */
__device__ __forceinline__ void skip_turns(const score_state &s, memory &m, uint32_t from,
                                           uint32_t to, int lane) {
    const uint32_t zeros[4][4] = {};
    for (uint32_t turn = from; turn < to; turn++) {
        barrier_wait(&m.loaded[turn % STAGES], turn / STAGES & 1);
        barrier_wait(&m.slopes_empty[turn % SLOPE_STAGES], (turn / SLOPE_STAGES & 1) ^ 1);
        put_slopes(s, turn, zeros);
        announce_slopes(m, turn, lane);
    }
}

/* All query blocks of one head that see these keys; other warpgroups' turns are passed on. */
__device__ __forceinline__ void score_head(score_state &s, memory &m, const parameters &p,
                                           const pass &now, uint32_t turn, int lane) {
    const bool backwards = now.step() < 0;
    const int first = s.key0 / QUERIES, last = last_query_block(p, s.key0 + 63);
    const int n = max(0, last - first + 1);
    const int before = n == 0      ? 0
                       : backwards ? now.first() + now.n - 1 - last
                                   : first - now.first();
    int block = backwards ? last : first;
    skip_turns(s, m, turn, turn + before, lane);
    if (n > 0) {
        begin_head(s, m, turn + before);
        for (int i = 0; i < n - 1; i++, block += now.step())
            score_turn<true>(s, m, p, block, turn + before + i, lane);
        score_turn<false>(s, m, p, block, turn + before + n - 1, lane);
        wgmma_wait<0>();
        wgmma_hold(s.d_v);
        wgmma_hold(s.d_k);
    }
    skip_turns(s, m, turn + before + n, turn + now.n, lane);
}

/* ---- dK and dV on their way out: 16 rows for each warp, which needs no one else ---- */

/* Of 16 rows of 128 bytes, swizzled: the address that this lane gives for blocks of columns 0, 1.
 */
__device__ __forceinline__ uint32_t strip_address(const __nv_bfloat16 *rows, int lane) {
    return shared_address(rows) + lane % 16 * 128 + (((lane >> 4) ^ (lane & 7)) << 4);
}

/* Rows [position, position + 16) of dK or dV through `rows` in shared memory, which hold what to
 * add to or, without `add`, may still be on their way out from before. */
__device__ __forceinline__ void finish_strip(const memory &m, const CUtensorMap *map,
                                             __nv_bfloat16 *rows, const float (&c)[32],
                                             float factor, bool add, int position, int lane) {
    const uint32_t address = strip_address(rows, lane);
    if (!add && lane == 0) bulk_wait_read<0>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t r[4] = {0, 0, 0, 0};
        if (add) load_blocks(r, address ^ (i << 5));
        const float *x = c + 8 * i;
#pragma unroll
        for (int j = 0; j < 4; j++)
            r[j] = pack(fmaf(x[2 * j], factor, __uint_as_float(r[j] << 16)),
                        fmaf(x[2 * j + 1], factor, __uint_as_float(r[j] & 0xffff0000u)));
        store_blocks(address ^ (i << 5), r);
    }
    fence_async();
    __syncwarp();
    if (lane == 0) {
        store_4d(map, rows, 0, position, m.at.group, m.at.sequence);
        bulk_commit();
    }
}

/* This warp's 16 rows in a tile of each of two warpgroups. */
__device__ __forceinline__ __nv_bfloat16 *strip_of(__nv_bfloat16 (&tiles)[2][TILE], int warp) {
    return tiles[warp / 4] + warp % 4 * 16 * WIDTH;
}

__device__ __forceinline__ void finish_keys(const score_state &s, memory &m, const parameters &p,
                                            int span, int warp, int lane) {
    const int position = s.key0 + warp % 4 * 16;
    finish_strip(m, &p.d_k, strip_of(m.d_k, warp), s.d_k, p.scale, false, position, lane);
    if (p.add_to_d_v) barrier_wait(&m.d_v_loaded[warp], span & 1);
    finish_strip(m, &p.d_v, strip_of(m.d_v, warp), s.d_v, 1.0f, p.add_to_d_v, position, lane);
}

/* 64 keys as left operand: 16 rows for this warp, 16 columns to a step. */
__device__ __forceinline__ void load_left(uint32_t (&k)[4][4], uint32_t address) {
#pragma unroll
    for (int i = 0; i < 4; i++) load_blocks(k[i], address ^ (i << 5));
}

/* Begin a span: operands, zeros, and what d_v holds already. */
__device__ __forceinline__ void begin_keys(score_state &s, memory &m, const parameters &p, int span,
                                           int warp, int lane) {
    const int half = warp / 4, strip = warp % 4 * 16;
    s.key0 = span * SPAN + m.at.rank * KEYS + half * 64;
    s.key = s.key0 + strip + lane / 4;
    if (p.add_to_d_v && lane == 0) {
        bulk_wait_read<0>();
        barrier_expect(&m.d_v_loaded[warp], 16 * WIDTH * sizeof(__nv_bfloat16));
        load_4d(strip_of(m.d_v, warp), &p.d_v, &m.d_v_loaded[warp], 0, s.key0 + strip, m.at.group,
                m.at.sequence);
    }
    __syncwarp();
    barrier_wait(&m.keys_loaded[span & 1], span / 2 & 1);
    s.v = descriptor(m.keys[1][span & 1] + half * TILE);
    load_left(s.k, strip_address(m.keys[0][span & 1] + half * TILE + strip * WIDTH, lane));
#pragma unroll
    for (int i = 0; i < 32; i++) s.d_k[i] = s.d_v[i] = 0.0f;
}

__device__ __forceinline__ void score_warpgroup(memory &m, const parameters &p, int warp,
                                                int lane) {
    score_state s;
    s.slopes_at = strip_address(m.slopes[0] + warp * 16 * WIDTH, lane);
    s.column = lane % 4 * 2;
    s.scale = p.scale * 1.44269504f;
    pass now;
    uint32_t turn = 0;
    now.begin(p, 0);
    while (!now.done(p)) {
        const int span = now.span;
        begin_keys(s, m, p, span, warp, lane);
        for (; now.span == span; turn += now.n, now.next(p)) score_head(s, m, p, now, turn, lane);
        finish_keys(s, m, p, span, warp, lane);
    }
    if (lane == 0) bulk_wait<0>();
}

__device__ __forceinline__ void init_barriers(memory &m) {
    for (int i = 0; i < STAGES; i++) barrier_init(&m.loaded[i], 2);
    for (int i = 0; i < 2; i++) barrier_init(&m.keys_loaded[i], 2);
    for (int i = 0; i < SLOPE_STAGES; i++) {
        barrier_init(&m.slopes_full[i], SCORE_WARPS);
        barrier_init(&m.slopes_empty[i], 4);
    }
    for (int i = 0; i < 8; i++) {
        barrier_init(&m.exchange_full[i / 4][i % 4], 1);
        barrier_init(&m.exchange_empty[i / 4][i % 4], 1);
    }
    for (int i = 0; i < SCORE_WARPS; i++) barrier_init(&m.d_v_loaded[i], 1);
    barrier_fence_init();
}

#endif /* FAIRWAY_HOPPER_CODE */

/* Grid: B * G clusters of two blocks of threads. */
__global__ void __launch_bounds__(THREADS, 1)
    attention_backward_tiles(const __grid_constant__ parameters p) {
#ifdef FAIRWAY_HOPPER_CODE
    extern __shared__ __align__(1024) char raw[];
    memory &m = *reinterpret_cast<memory *>(raw);
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        m.at = find_place(p);
        init_barriers(m);
    }
    __syncthreads();
    cluster_sync();
    if (warp < SCORE_WARPS) {
        registers_more<SCORE_REGISTERS>();
        score_warpgroup(m, p, warp, lane);
    } else {
        registers_fewer<QUERY_REGISTERS>();
        if (m.at.rank == 0)
            query_warpgroup<0>(m, p, warp - SCORE_WARPS, lane);
        else
            query_warpgroup<1>(m, p, warp - SCORE_WARPS, lane);
    }
    cluster_sync(); /* neither leaves while the other may still write to it */
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
    FW_TRY(map_heads(cuda, &p->queries[0], &a->q, 64, error));
    FW_TRY(map_heads(cuda, &p->keys[0], &a->k, 64, error));
    FW_TRY(map_heads(cuda, &p->keys[1], &a->v, 64, error));
    FW_TRY(map_heads(cuda, &p->queries[1], &d_y, 64, error));
    FW_TRY(map_heads(cuda, &p->d_q, &a->d_q, 32, error));
    FW_TRY(map_heads(cuda, &p->d_k, &a->d_k, 16, error));
    return map_heads(cuda, &p->d_v, &a->d_v, 16, error);
}

fw_status run_tiles(cuda_device *cuda, const fw_flash_attention *a, const layout *l,
                    fw_error *error) {
    static const cudaError_t allowed = cudaFuncSetAttribute(
        attention_backward_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize, MEMORY_BYTES);
    CUDA_TRY(cuda, allowed, "attention_backward", error);
    char *scratch = static_cast<char *>(a->scratch);
    parameters p = {};
    FW_TRY(map_tensors(cuda, a, l, &p, error));
    p.d_q_partial = reinterpret_cast<float4 *>(scratch);
    p.statistics = reinterpret_cast<const float *>(scratch + l->partial);
    p.query_blocks = (int)l->query_blocks;
    p.spans = (int)cuda_divide_up(a->q.shape[1], SPAN);
    p.groups = (int)a->k.shape[2];
    p.heads_each = (int)(a->q.shape[2] / a->k.shape[2]);
    p.window = a->window > 0 && a->window < a->q.shape[1] ? (int)a->window : INT_MAX;
    p.scale = a->scale;
    p.add_to_d_v = a->exclude_self || a->accumulate_dv;
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {2, 1, 1};
    cudaLaunchConfig_t launch = {};
    launch.gridDim = dim3((unsigned)(2 * a->k.shape[0] * a->k.shape[2]));
    launch.blockDim = dim3(THREADS);
    launch.dynamicSmemBytes = MEMORY_BYTES;
    launch.stream = cuda->stream;
    launch.attrs = &cluster;
    launch.numAttrs = 1;
    CUDA_TRY(cuda, cudaLaunchKernelEx(&launch, attention_backward_tiles, p), "attention_backward",
             error);
    return cuda_launched(cuda, "attention_backward", "attention_backward_tiles", error);
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
    return run_tiles(cuda, a, &l, error);
}
