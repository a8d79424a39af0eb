/* Hopper's attention backward, the warpgroups of scores: each forms the weights and the slopes of
 * 64 keys, sums dK and dV of them in registers, and hands the slopes to the warpgroup of dQ. */
#ifndef FAIRWAY_CUDA_ATTENTION_BACKWARD_SCORES_CUH
#define FAIRWAY_CUDA_ATTENTION_BACKWARD_SCORES_CUH

#include "attention_backward_hopper.cuh"

#ifdef FAIRWAY_HOPPER_CODE

namespace {

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
    announce_slopes(m, turn, lane);
    if (MORE) load_statistics(s.logarithms, m.statistics[next][0], s.column);
    wgmma_wait<0>();
    wgmma_hold(s.scores);
    wgmma_fence();
    const uint64_t q = descriptor(m.queries[0][slot]);
#pragma unroll
    for (int i = 0; i < 4; i++) product<64, 0, 1>::rs(s.d_k, slopes[i], q + i * 128, 1);
    if (MORE) start_slopes(s, descriptor(m.queries[1][next]));
    wgmma_commit();
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

} /* namespace */

#endif /* FAIRWAY_HOPPER_CODE */

#endif
