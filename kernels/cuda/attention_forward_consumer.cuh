/* The consumers of Hopper's attention forward: each warpgroup walks the keys of its 64 rows from
 * the last to the first, one block's scores next to the values of the block before, and finishes
 * its rows. */
#ifndef FAIRWAY_CUDA_ATTENTION_FORWARD_CONSUMER_CUH
#define FAIRWAY_CUDA_ATTENTION_FORWARD_CONSUMER_CUH

#include "attention_forward_hopper.cuh"

namespace {

#ifdef FAIRWAY_HOPPER_CODE

constexpr float NO_MAXIMUM = -1e30f;
constexpr float SUM_LIMIT = 1e12f;

__device__ __forceinline__ float exp2_unit(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ float2 unpack_pair(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

/* Keeps what is computed from x where it is used, so that it does not hold registers before. */
__device__ __forceinline__ int opaque(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

/* Over the four threads that share a row. */
__device__ __forceinline__ float row_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Four bytes of a swizzled tile with rows of 128 bytes: columns 8 piece + 2 pair + {0, 1}. */
__device__ __forceinline__ uint32_t *tile_word(void *tile, int row, int piece, int pair) {
    return static_cast<uint32_t *>(tile) + row * 32 + ((piece ^ (row & 7)) << 2) + pair;
}

__device__ __forceinline__ void warp_product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <class C> struct consumer {
    static constexpr int SCORES = C::KEYS / 2, OUT = C::WIDTH / 2, STEPS = C::KEYS / 16;

    shared_memory<C> &shared;
    const problem &p;
    const maps &m;
    const int warpgroup, row, pair, lane; /* row: this thread's first, the second is 8 further */
    ring<C::STAGES> stage;                /* of the keys in hand */
    ring<C::STAGES> value_stage;          /* of the values in hand, one block behind */
    ring<C::BUFFERS> buffer;
    bool storing = false;
    int stored = 0; /* the buffer from which this thread's store reads */
    int position;   /* of the warpgroup's first row */
    float scores[SCORES];
    uint32_t weights[STEPS][4];
    float out[OUT];
    float maximum[2], total[2]; /* in units of log2; total: this thread's columns alone */

    __device__ __forceinline__ consumer(shared_memory<C> &s, const problem &problem_,
                                        const maps &maps_)
        : shared(s), p(problem_), m(maps_),
          warpgroup(__shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / WARPGROUP, 0) - 1),
          row(static_cast<int>(threadIdx.x) % WARPGROUP / 32 * 16 +
              static_cast<int>(threadIdx.x) % 32 / 4),
          pair(static_cast<int>(threadIdx.x) % 4), lane(static_cast<int>(threadIdx.x) % 32) {}

    __device__ __forceinline__ int own_key(int r) const {
        return position + (r >> p.pack_bits) + p.shift;
    }

    /* -- turns: named barriers 1 .. WARPGROUPS hand a token round -- */

    __device__ __forceinline__ void take_turn() { named_sync(1 + warpgroup, 2 * WARPGROUP); }
    __device__ __forceinline__ void pass_turn() {
        named_arrive(1 + (warpgroup + 1) % C::WARPGROUPS, 2 * WARPGROUP);
    }

    /* -- products; the first USED keys of a block may be all that are wanted -- */

    template <int USED> __device__ __forceinline__ float (&first_scores())[USED / 2] {
        return reinterpret_cast<float(&)[USED / 2]>(scores);
    }

    template <int USED = C::KEYS> __device__ __forceinline__ void issue_scores() {
        const uint64_t a = descriptor(shared.q[buffer.index][warpgroup]);
        const uint64_t b = descriptor(shared.k[stage.index]);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < C::WIDTH / 16; i++)
            product<USED>::ss(first_scores<USED>(), a + i / 4 * (ROWS * 8) + i % 4 * 2,
                              b + i / 4 * (C::KEYS * 8) + i % 4 * 2, i > 0);
        wgmma_commit();
    }

    __device__ __forceinline__ void issue_out(bool add) {
        const uint64_t b = descriptor(shared.v[value_stage.index], C::KEYS * 128);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            product<C::WIDTH, 0, 1>::rs(out, weights[i], b + i * 128, i > 0 || add);
        wgmma_commit();
    }

    __device__ __forceinline__ void release_keys() {
        barrier_arrive_if(&shared.k_empty[stage.index], lane == 0);
        stage.advance();
    }
    __device__ __forceinline__ void release_values() {
        barrier_arrive_if(&shared.v_empty[value_stage.index], lane == 0);
        value_stage.advance();
    }

    /* -- softmax -- */

    template <int USED = C::KEYS> __device__ __forceinline__ void mask(int n) {
        const int column = n * C::KEYS + 2 * pair;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int newest = own_key(row + 8 * r) - column;
            const int oldest = p.window > 0 ? newest - p.window + 1 : -(1 << 30);
#pragma unroll
            for (int i = 0; i < USED / 2; i++) {
                const int offset = i / 4 * 8 + i % 2;
                if (i / 2 % 2 == r && (offset > newest || offset < oldest)) scores[i] = -INFINITY;
            }
        }
    }

    /* Scores become weights relative to the maximum in hand. */
    template <int USED = C::KEYS> __device__ __forceinline__ void exponentiate(float (&sum)[2]) {
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (int i = 0; i < USED / 2; i++) {
            const int r = i / 2 % 2;
            scores[i] = exp2_unit(fmaf(scores[i], p.scale, -maximum[r]));
            sum[r] += scores[i];
            if (i % 2 == 1) weights[i / 8][i / 2 % 4] = pack_pair(scores[i - 1], scores[i]);
        }
    }

    /* With the maximum of these scores taken in; `factor` is what earlier weights are to be
     * multiplied by. */
    template <int USED = C::KEYS>
    __device__ __forceinline__ void exponentiate_safely(float (&factor)[2]) {
        float sum[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = -INFINITY;
#pragma unroll
            for (int i = 0; i < USED / 2; i++)
                if (i / 2 % 2 == r) most = fmaxf(most, scores[i]);
            const float before = maximum[r];
            maximum[r] = fmaxf(before, row_maximum(most) * p.scale);
            factor[r] = exp2_unit(before - maximum[r]);
        }
        exponentiate<USED>(sum);
#pragma unroll
        for (int r = 0; r < 2; r++) total[r] = total[r] * factor[r] + sum[r];
    }

    /* Whether the maximum in hand serves for these scores: then they are weights, and added. */
    __device__ __forceinline__ bool exponentiate_lazily() {
        float sum[2];
        exponentiate(sum);
        const bool good = sum[0] < SUM_LIMIT && sum[1] < SUM_LIMIT;
        if (__any_sync(0xffffffffu, !good)) return false;
        total[0] += sum[0];
        total[1] += sum[1];
        return true;
    }

    __device__ __forceinline__ void rescale(const float (&factor)[2]) {
#pragma unroll
        for (int i = 0; i < OUT; i++) out[i] *= factor[i / 2 % 2];
    }

    /* The scores of this warp's rows once more, by the warp's own products. */
    __device__ __forceinline__ void form_scores_again() {
#pragma unroll
        for (int i = 0; i < SCORES; i++) scores[i] = 0.0f;
        const int first = opaque(row), two = opaque(pair), key = opaque(lane) / 4;
#pragma unroll
        for (int s = 0; s < C::WIDTH / 16; s++) {
            void *q = shared.q[buffer.index][warpgroup][s / 4], *k = shared.k[stage.index][s / 4];
            const int piece = s % 4 * 2;
            const uint32_t a[4] = {
                *tile_word(q, first, piece, two), *tile_word(q, first + 8, piece, two),
                *tile_word(q, first, piece + 1, two), *tile_word(q, first + 8, piece + 1, two)};
#pragma unroll
            for (int j = 0; j < C::KEYS / 8; j++)
                warp_product(reinterpret_cast<float(&)[4]>(scores[4 * j]), a,
                             *tile_word(k, 8 * j + key, piece, two),
                             *tile_word(k, 8 * j + key, piece + 1, two));
        }
        __syncwarp();
    }

    /* -- one tile -- */

    /* Of which only the first USED keys are seen. */
    template <int USED> __device__ __forceinline__ void first_keys(int n) {
        take_turn();
        issue_scores<USED>();
        pass_turn();
        wgmma_wait<0>();
        wgmma_hold(first_scores<USED>());
        release_keys();
        float factor[2];
        maximum[0] = maximum[1] = NO_MAXIMUM;
        total[0] = total[1] = 0.0f;
        mask<USED>(n);
        exponentiate_safely<USED>(factor);
#pragma unroll
        for (int i = USED / 4; i < SCORES / 2; i++) weights[i / 4][i % 4] = 0;
    }

    __device__ __forceinline__ void first_block(int n) {
        barrier_wait(&shared.k_full[stage.index], stage.parity);
        const int positions = ROWS >> p.pack_bits;
        const int used = min(position + positions, p.tokens) + p.shift - n * C::KEYS;
        if (used <= 32)
            first_keys<32>(n);
        else if (used <= 64)
            first_keys<64>(n);
        else
            first_keys<C::KEYS>(n);
    }

    /* The values of block n + 1 and the scores of block n, in this order: a product with an operand
     * in registers holds its warps until it runs, so that the turn is passed on while the other, of
     * which that is not true, still runs. */
    template <bool MASKED> __device__ __forceinline__ void next_block(int n, bool add) {
        float factor[2];
        take_turn();
        barrier_wait(&shared.v_full[value_stage.index], value_stage.parity);
        issue_out(add);
        barrier_wait(&shared.k_full[stage.index], stage.parity);
        issue_scores();
        pass_turn();
        wgmma_wait<0>();
        wgmma_hold(out);
        wgmma_hold(scores);
        release_values();
        if (MASKED) {
            mask(n);
            exponentiate_safely(factor);
            rescale(factor);
        } else if (!exponentiate_lazily()) {
            form_scores_again();
            exponentiate_safely(factor);
            rescale(factor);
        }
        release_keys();
    }

    __device__ __forceinline__ void last_values(bool add) {
        barrier_wait(&shared.v_full[value_stage.index], value_stage.parity);
        issue_out(add);
        wgmma_wait<0>();
        wgmma_hold(out);
        release_values();
    }

    /* A block that other warpgroups of the tile need. */
    __device__ __forceinline__ void skip_block() {
        take_turn();
        pass_turn();
        barrier_wait(&shared.k_full[stage.index], stage.parity);
        release_keys();
        barrier_wait(&shared.v_full[value_stage.index], value_stage.parity);
        release_values();
    }

    __device__ __forceinline__ void walk(const block_range &mine) {
        const int positions = ROWS >> p.pack_bits;
        const int lowest = position + p.shift;
        const int highest = min(position + positions, p.tokens) - 1 + p.shift;
        const int causal = (lowest + 1) / C::KEYS; /* from this block on the future is masked */
        const int edge = p.window > 0 ? max(0, highest - p.window + C::KEYS) / C::KEYS : 0;
        int n = mine.last;
        first_block(n--);
        finish_store();
        bool add = false;
        for (; n >= mine.first && n >= causal; n--, add = true) next_block<true>(n, add);
        for (; n >= mine.first && n >= edge; n--, add = true) next_block<false>(n, add);
        for (; n >= mine.first; n--, add = true) next_block<true>(n, add);
        last_values(add);
    }

    /* -- the finished rows -- */

    /* out -= (out . u) u with u = v / |v|; returns out . u of both rows. */
    __device__ __forceinline__ void exclude_self(float (&along)[2]) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int own = opaque(row + 8 * r) >> p.pack_bits;
            float square = 0.0f, dot = 0.0f;
#pragma unroll
            for (int j = 0; j < C::WIDTH / 8; j++) {
                void *tile = shared.own[buffer.index][warpgroup][j / 8];
                const float2 v = unpack_pair(*tile_word(tile, own, j % 8, pair));
                square += v.x * v.x + v.y * v.y;
                dot += v.x * out[4 * j + 2 * r] + v.y * out[4 * j + 2 * r + 1];
            }
            const float inverse = rsqrtf(fmaxf(row_sum(square), 1e-24f));
            along[r] = row_sum(dot) * inverse;
            const float factor = along[r] * inverse;
#pragma unroll
            for (int j = 0; j < C::WIDTH / 8; j++) {
                void *tile = shared.own[buffer.index][warpgroup][j / 8];
                const float2 v = unpack_pair(*tile_word(tile, own, j % 8, pair));
                out[4 * j + 2 * r] -= factor * v.x;
                out[4 * j + 2 * r + 1] -= factor * v.y;
            }
        }
    }

    __device__ __forceinline__ void store_statistics(const work &w, const float (&sum)[2],
                                                     const float (&along)[2]) const {
        if (pair != 0) return;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int t = position + ((row + 8 * r) >> p.pack_bits);
            const int head = w.head + ((row + 8 * r) & ((1 << p.pack_bits) - 1));
            if (t >= p.tokens) continue;
            const int64_t at = (static_cast<int64_t>(w.batch) * p.heads + head) * p.tokens + t;
            p.log_sum_exp[at] = (maximum[r] + __log2f(sum[r])) * 0.69314718056f;
            if (p.exclude_self) p.self_dot[at] = along[r];
        }
    }

    /* The rows go out by way of the query tile, which nothing reads any more. */
    __device__ __forceinline__ void store_rows(const work &w) {
        const int first = opaque(row);
#pragma unroll
        for (int j = 0; j < C::WIDTH / 8; j++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                void *tile = shared.q[buffer.index][warpgroup][j / 8];
                *tile_word(tile, first + 8 * r, j % 8, pair) =
                    pack_pair(out[4 * j + 2 * r], out[4 * j + 2 * r + 1]);
            }
        fence_async();
        named_sync(1 + C::WARPGROUPS + warpgroup, WARPGROUP);
        if (threadIdx.x % WARPGROUP == 0) {
            for (int c = 0; c < C::CHUNKS; c++)
                store_4d(&m.out, shared.q[buffer.index][warpgroup][c], 64 * c, w.head, position,
                         w.batch);
            bulk_commit();
        }
    }

    /* The query tile of the last store may be filled again. Called late, so that nobody waits, but
     * not so late that the producer does. Who read the tile's work says so: one lane of each warp;
     * that of the first also issued the store. */
    __device__ __forceinline__ void finish_store() {
        if (!storing) return;
        storing = false;
        if (threadIdx.x % WARPGROUP == 0) bulk_wait_read<0>();
        barrier_arrive_if(&shared.q_empty[stored], lane == 0);
    }

    __device__ __forceinline__ void finish_rows(const work &w) {
        float sum[2], along[2];
#pragma unroll
        for (int r = 0; r < 2; r++) sum[r] = row_sum(total[r]);
        const float inverse[2] = {__fdividef(1.0f, sum[0]), __fdividef(1.0f, sum[1])};
        rescale(inverse);
        if (p.exclude_self) exclude_self(along);
        store_rows(w);
        store_statistics(w, sum, along);
    }

    __device__ __forceinline__ void tile(const work &w) {
        const int positions = ROWS >> p.pack_bits;
        const block_range every = blocks_of<C>(p, w.position, p.positions);
        position = w.position + warpgroup * positions;
        const bool any = position < p.tokens;
        const block_range mine =
            any ? blocks_of<C>(p, position, positions) : block_range{every.first, every.first - 1};
#pragma unroll 1
        for (int n = every.last; n > mine.last; n--) skip_block();
        if (any)
            walk(mine);
        else
            finish_store();
#pragma unroll 1
        for (int n = mine.first - 1; n >= every.first; n--) skip_block();
        if (any) finish_rows(w);
        storing = true;
        stored = buffer.index;
        if (C::BUFFERS == 1) finish_store();
        buffer.advance();
    }

    /* The next tile's work, read by one lane for its warp. */
    __device__ __forceinline__ work take_work() {
        barrier_wait(&shared.q_full[buffer.index], buffer.parity);
        work w = {};
        if (lane == 0) w = shared.todo[buffer.index];
        w.batch = __shfl_sync(0xffffffffu, w.batch, 0);
        w.head = __shfl_sync(0xffffffffu, w.head, 0);
        w.group = __shfl_sync(0xffffffffu, w.group, 0);
        w.position = __shfl_sync(0xffffffffu, w.position, 0);
        return w;
    }

    __device__ __forceinline__ void run() {
        if (warpgroup == C::WARPGROUPS - 1) named_arrive(1, 2 * WARPGROUP);
        for (;;) {
            const work w = take_work();
            if (w.batch < 0) break;
            tile(w);
        }
        finish_store();
        if (warpgroup == 0) named_sync(1, 2 * WARPGROUP);
    }
};

#endif /* FAIRWAY_HOPPER_CODE */

} /* namespace */

#endif
