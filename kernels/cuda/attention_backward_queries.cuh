/* Hopper's attention backward, the warpgroup of dQ: it feeds the tiles of both roles, turns slopes
 * into dQ, and sums that over the spans of keys, half of the queries in each block of the cluster.
 */
#ifndef FAIRWAY_CUDA_ATTENTION_BACKWARD_QUERIES_CUH
#define FAIRWAY_CUDA_ATTENTION_BACKWARD_QUERIES_CUH

#include "attention_backward_hopper.cuh"

#ifdef FAIRWAY_HOPPER_CODE

namespace {

constexpr int HELD_STEPS = 3; /* of 8 steps of 16 keys, as left operand of dQ in registers */

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

/* ---- dQ ---- */

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

} /* namespace */

#endif /* FAIRWAY_HOPPER_CODE */

#endif
