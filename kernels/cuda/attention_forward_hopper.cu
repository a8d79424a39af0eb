/* Causal grouped-query attention, forward, for Hopper: one producer warp copies tiles by TMA, each
 * consumer warpgroup holds 64 rows of queries, multiplies by wgmma and keeps its softmax weights in
 * registers (Dao 2023; Shah et al. 2024, for the roles and the overlap of softmax and products).
 *
 * Rows are packed: the query heads that share a key/value head lie next to one another, row =
 * position * pack + head, so that a tile covers few positions and little of it is masked away.
 *
 * The running maximum is lazy. It is found exactly in the blocks that need a mask, which a row
 * meets first (keys are walked from the last to the first). Blocks without a mask take weights
 * relative to the maximum so far and only their sum is looked at: below SUM_LIMIT it is exact in
 * the sense of floating point, above it (later scores far larger) the warp forms its scores again
 * and moves its maximum. */
#include "attention.h"

#include "tensor_map.h"
#include "wgmma.cuh"

#ifdef ATTENTION_FORWARD_TRACE
__device__ unsigned trace_buffer[3 * 4096];
#define TRACE(k) do { unsigned c_; asm volatile("mov.u32 %0, %%clock;" : "=r"(c_) :: "memory"); if (blockIdx.x == 0 && threadIdx.x % 128 == 0 && trace_n < 4096) trace_buffer[warpgroup * 4096 + trace_n++] = c_ << 4 | (k); } while (0)
#else
#define TRACE(k)
#endif

namespace {

using namespace hopper;

constexpr int WARPGROUP = 128;
constexpr int ROWS = 64; /* of a warpgroup */
constexpr int MAX_PACK = 8;

/* What a kernel is built for. KEYS: of a block; STAGES of keys and values in shared memory; BUFFERS
 * of query tiles; TURNS: warpgroups issue their products one after the other. */
template <int WIDTH_, int WARPGROUPS_, int KEYS_, int STAGES_, int BUFFERS_, int PASS_,
          int ORDER_ = 1,
          bool QREG_ = false, bool TRIM_ = false>
struct configuration {
    static constexpr int WIDTH = WIDTH_, WARPGROUPS = WARPGROUPS_, KEYS = KEYS_, STAGES = STAGES_;
    static constexpr int BUFFERS = BUFFERS_;
    static constexpr bool TURNS = PASS_ > 0, QREG = QREG_, TRIM = TRIM_;
    static constexpr int PASS = PASS_, ORDER = ORDER_;
    static constexpr int THREADS = (WARPGROUPS + 1) * WARPGROUP;
    static constexpr int CHUNKS = WIDTH / 64; /* tiles of 128-byte rows side by side */
    static constexpr int PRODUCER_REGISTERS = WARPGROUPS == 3 ? 32 : 24;
    static constexpr int CONSUMER_REGISTERS = WARPGROUPS == 2 ? 240 : WARPGROUPS == 3 ? 160 : 112;
};

/* The problem as the kernel sees it; every count is in range of an int. */
struct problem {
    int tokens, keys, heads, shift, window; /* window: 0 for none */
    int pack_bits, heads_per_group;         /* query heads of a key/value head */
    int tiles, items, item_heads;           /* of positions; of (sequence, pack of heads) */
    int chunk, total;                       /* items whose keys and values fit the cache */
    int positions;                          /* of a tile */
    bool exclude_self;
    float scale;
    float *log_sum_exp, *self_dot;
    int *taken; /* of the work beyond the first round */
};

struct maps {
    CUtensorMap q, k, v, own, out;
};

#ifdef FAIRWAY_HOPPER_CODE

constexpr float NO_MAXIMUM = -1e30f;
constexpr float SUM_LIMIT = 1e12f;

/* One unit of work: a pack of heads of one sequence from a position on; batch < 0: the end. */
struct alignas(16) work {
    int batch, head, group, position;
};

template <class C> struct shared_memory {
    alignas(1024) __nv_bfloat16 q[C::BUFFERS][C::WARPGROUPS][C::CHUNKS][ROWS * 64];
    alignas(1024) __nv_bfloat16 own[C::BUFFERS][C::WARPGROUPS][C::CHUNKS][ROWS * 64];
    alignas(1024) __nv_bfloat16 k[C::STAGES][C::CHUNKS][C::KEYS * 64];
    alignas(1024) __nv_bfloat16 v[C::STAGES][C::CHUNKS][C::KEYS * 64];
    uint64_t q_full[C::BUFFERS], q_empty[C::BUFFERS];
    work todo[C::BUFFERS]; /* what the query tile is for */
    uint64_t k_full[C::STAGES], k_empty[C::STAGES];
    uint64_t v_full[C::STAGES], v_empty[C::STAGES];
};

/* A place in a ring of buffers and the parity of its barrier's phase. */
template <int N> struct ring {
    int index = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void advance() {
        if (++index == N) {
            index = 0;
            parity ^= 1;
        }
    }
};

/* Keys [first, last] in blocks. */
struct block_range {
    int first, last;
};

template <class C>
__device__ __forceinline__ block_range blocks_of(const problem &p, int from, int positions) {
    const int last = min(from + positions, p.tokens) - 1 + p.shift;
    const int first = p.window > 0 ? max(0, from + p.shift - p.window + 1) : 0;
    return {first / C::KEYS, last / C::KEYS};
}

/* Work in the order of time: chunk by chunk of items, in each the tiles with most keys first. */
__device__ __forceinline__ work find_work(const problem &p, int n) {
    work w;
    const int chunk = n / (p.chunk * p.tiles), within = n - chunk * p.chunk * p.tiles;
    const int length = min(p.chunk, p.items - chunk * p.chunk);
    const int item = chunk * p.chunk + within % length;
    w.batch = item / p.item_heads;
    w.head = (item % p.item_heads) << p.pack_bits;
    w.group = w.head / p.heads_per_group;
    w.position = (p.tiles - 1 - within / length) * p.positions;
    return w;
}

/* ---- the producer: one thread ---- */

template <class C> struct producer {
    shared_memory<C> &shared;
    const problem &p;
    const maps &m;
    ring<C::STAGES> stage;
    ring<C::BUFFERS> buffer;

    __device__ __forceinline__ void queries(const work &w) {
        const int positions = ROWS >> p.pack_bits;
        const uint32_t rows = ROWS + (p.exclude_self ? positions : 0);
        uint64_t *full = &shared.q_full[buffer.index];
        barrier_wait(&shared.q_empty[buffer.index], buffer.parity ^ 1);
        shared.todo[buffer.index] = w;
        barrier_expect(full, rows * C::WARPGROUPS * C::WIDTH * 2);
        for (int i = 0; i < C::WARPGROUPS; i++) {
            const int position = w.position + i * positions;
            for (int c = 0; c < C::CHUNKS; c++) {
                load_4d(shared.q[buffer.index][i][c], &m.q, full, 64 * c, w.head, position,
                        w.batch);
                if (p.exclude_self)
                    load_4d(shared.own[buffer.index][i][c], &m.own, full, 64 * c, w.group,
                            position + p.shift, w.batch);
            }
        }
        buffer.advance();
    }

    __device__ __forceinline__ void block(const work &w, int n) {
        constexpr uint32_t BYTES = C::KEYS * C::WIDTH * 2;
        const int s = stage.index;
        barrier_wait(&shared.k_empty[s], stage.parity ^ 1);
        barrier_expect(&shared.k_full[s], BYTES);
        for (int c = 0; c < C::CHUNKS; c++)
            load_4d(shared.k[s][c], &m.k, &shared.k_full[s], 64 * c, w.group, n * C::KEYS, w.batch);
        barrier_wait(&shared.v_empty[s], stage.parity ^ 1);
        barrier_expect(&shared.v_full[s], BYTES);
        for (int c = 0; c < C::CHUNKS; c++)
            load_4d(shared.v[s][c], &m.v, &shared.v_full[s], 64 * c, w.group, n * C::KEYS, w.batch);
        stage.advance();
    }

    __device__ __forceinline__ int next() {
        return static_cast<int>(gridDim.x) + atomicAdd(p.taken, 1);
    }

    __device__ __forceinline__ void run() {
        int n = static_cast<int>(blockIdx.x);
        while (n < p.total) {
            const int following = next(); /* early, for it takes a while */
            const work w = find_work(p, n);
            queries(w);
            const block_range blocks = blocks_of<C>(p, w.position, p.positions);
            for (int i = blocks.last; i >= blocks.first; i--) block(w, i);
            n = following;
        }
        barrier_wait(&shared.q_empty[buffer.index], buffer.parity ^ 1);
        shared.todo[buffer.index].batch = -1;
        barrier_arrive(&shared.q_full[buffer.index]);
    }
};

/* ---- the consumers: a warpgroup each ---- */

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
#ifdef ATTENTION_FORWARD_TRACE
    int trace_n = 0;
#endif
    int stored = 0; /* the buffer from which this thread's store reads */
    int position;   /* of the warpgroup's first row */
    float scores[SCORES];
    uint32_t weights[STEPS][4];
    float out[OUT];
    uint32_t queries[C::WIDTH / 16][4];
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

    __device__ __forceinline__ void take_turn() {
        if (C::TURNS) named_sync(1 + warpgroup, 2 * WARPGROUP);
    }
    __device__ __forceinline__ void pass_turn() {
        if (C::TURNS) named_arrive(1 + (warpgroup + 1) % C::WARPGROUPS, 2 * WARPGROUP);
    }

    /* -- products -- */

    __device__ __forceinline__ void load_queries() {
#pragma unroll
        for (int i = 0; i < C::WIDTH / 16; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                queries[i][j] = *tile_word(shared.q[buffer.index][warpgroup][i / 4],
                                           row + j % 2 * 8, i % 4 * 2 + j / 2, pair);
    }

    template <int USED = C::KEYS> __device__ __forceinline__ void issue_scores() {
        const uint64_t a = descriptor(shared.q[buffer.index][warpgroup]);
        const uint64_t b = descriptor(shared.k[stage.index]);
        float(&c)[USED / 2] = reinterpret_cast<float(&)[USED / 2]>(scores);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < C::WIDTH / 16; i++)
            if (C::QREG)
                product<USED>::rs(c, queries[i], b + i / 4 * (C::KEYS * 8) + i % 4 * 2, i > 0);
            else
                product<USED>::ss(c, a + i / 4 * (ROWS * 8) + i % 4 * 2,
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
            maximum[r] = fmaxf(before, ceilf(row_maximum(most) * p.scale));
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
        wgmma_hold(reinterpret_cast<float(&)[USED / 2]>(scores));
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
        if (C::QREG) load_queries();
        const int positions = ROWS >> p.pack_bits;
        const int used = min(position + positions, p.tokens) + p.shift - n * C::KEYS;
        if (C::TRIM && used <= 32)
            first_keys<32>(n);
        else if (C::TRIM && C::KEYS > 64 && used <= 64)
            first_keys<64>(n);
        else
            first_keys<C::KEYS>(n);
    }

    __device__ __forceinline__ void values_product(bool add) {
        barrier_wait(&shared.v_full[value_stage.index], value_stage.parity);
        issue_out(add);
    }
    __device__ __forceinline__ void scores_product() {
        barrier_wait(&shared.k_full[stage.index], stage.parity);
        issue_scores();
    }

    /* Scores of block n together with the values of block n + 1. */
    template <bool MASKED> __device__ __forceinline__ void next_block(int n, bool add) {
        TRACE(0);
        take_turn();
        TRACE(1);
        if (C::ORDER == 0) {
            scores_product();
            TRACE(2);
            values_product(add);
        } else {
            values_product(add);
            TRACE(2);
            if (C::PASS == 2) pass_turn();
            scores_product();
        }
        TRACE(3);
        if (C::PASS == 1) pass_turn();
        wgmma_wait<0>();
        wgmma_hold(out);
        wgmma_hold(scores);
        release_values();
        TRACE(4);
        float factor[2];
        if (MASKED) {
            mask(n);
            exponentiate_safely(factor);
            rescale(factor);
        } else if (!exponentiate_lazily()) {
            form_scores_again();
            exponentiate_safely(factor);
            rescale(factor);
        }
        TRACE(5);
        release_keys();
        TRACE(6);
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
            const float inverse = 1.0f / fmaxf(sqrtf(row_sum(square)), 1e-12f);
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
            p.log_sum_exp[at] = (maximum[r] + log2f(sum[r])) * 0.69314718056f;
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
     * not so late that the producer does. */
    __device__ __forceinline__ void finish_store() {
        if (!storing) return;
        storing = false;
        if (threadIdx.x % WARPGROUP != 0) return;
        bulk_wait_read<0>();
        barrier_arrive(&shared.q_empty[stored]);
    }

    __device__ __forceinline__ void finish_rows(const work &w) {
        float sum[2], along[2];
#pragma unroll
        for (int r = 0; r < 2; r++) sum[r] = row_sum(total[r]);
        const float inverse[2] = {1.0f / sum[0], 1.0f / sum[1]};
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
        const block_range mine = any ? blocks_of<C>(p, position, positions)
                                     : block_range{every.first, every.first - 1};
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

    __device__ __forceinline__ void run() {
        if (C::TURNS && warpgroup == C::WARPGROUPS - 1) named_arrive(1, 2 * WARPGROUP);
        for (;;) {
            barrier_wait(&shared.q_full[buffer.index], buffer.parity);
            const work w = shared.todo[buffer.index];
            if (w.batch < 0) break;
            tile(w);
            TRACE(7);
        }
        finish_store();
        if (C::TURNS && warpgroup == 0) named_sync(1, 2 * WARPGROUP);
    }
};

template <class C> __device__ __forceinline__ void prepare(shared_memory<C> &shared) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < C::BUFFERS; i++) {
            barrier_init(&shared.q_full[i], 1);
            barrier_init(&shared.q_empty[i], C::WARPGROUPS);
        }
        for (int i = 0; i < C::STAGES; i++) {
            barrier_init(&shared.k_full[i], 1);
            barrier_init(&shared.v_full[i], 1);
            barrier_init(&shared.k_empty[i], C::WARPGROUPS * 4);
            barrier_init(&shared.v_empty[i], C::WARPGROUPS * 4);
        }
        barrier_fence_init();
    }
    __syncthreads();
}

#endif /* FAIRWAY_HOPPER_CODE */

template <class C>
__global__ void __launch_bounds__(C::THREADS, 1)
    attention_forward(const __grid_constant__ problem p, const __grid_constant__ maps m) {
#ifdef FAIRWAY_HOPPER_CODE
    extern __shared__ char memory[];
    shared_memory<C> &shared = *reinterpret_cast<shared_memory<C> *>(
        memory + ((1024 - (shared_address(memory) & 1023)) & 1023));
    prepare<C>(shared);
    if (threadIdx.x < WARPGROUP) {
        registers_fewer<C::PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) producer<C>{shared, p, m, {}, {}}.run();
    } else {
        registers_more<C::CONSUMER_REGISTERS>();
        consumer<C>(shared, p, m).run();
    }
#else
    (void)p;
    (void)m;
#endif
}

/* Bytes of shared_memory<C>, which only device code declares, and room to align it. */
template <class C> constexpr int shared_bytes() {
    return 2 * C::WIDTH * (2 * C::BUFFERS * C::WARPGROUPS * ROWS + 2 * C::STAGES * C::KEYS) +
           32 * C::BUFFERS + 32 * C::STAGES + 1024 + 1024;
}

/* ---- the host's side ---- */

/* [B,T,heads,D] in boxes of 64 columns x `heads` x `positions`. */
fw_status map_heads(cuda_device *cuda, CUtensorMap *map, const fw_tensor *x, int heads,
                    int positions, fw_error *error) {
    const uint64_t sizes[4] = {(uint64_t)x->shape[3], (uint64_t)x->shape[2], (uint64_t)x->shape[1],
                               (uint64_t)x->shape[0]};
    uint64_t strides[3];
    for (int i = 0; i < 3; i++) /* of a dimension of 1 any stride will do */
        strides[i] = 2 * (uint64_t)(x->shape[2 - i] > 1 ? x->stride[2 - i] : x->shape[3]);
    const uint32_t box[4] = {64, (uint32_t)heads, (uint32_t)positions, 1};
    return cuda_tensor_map(cuda, map, x->data, 4, sizes, strides, box, error);
}

bool aligned(const fw_tensor *x) {
    if (x->data == NULL || reinterpret_cast<uintptr_t>(x->data) % 16 != 0) return false;
    for (int i = 0; i < 3; i++)
        if (x->shape[i] > 1 && (x->stride[i] <= 0 || x->stride[i] % 8 != 0 ||
                                x->stride[i] >= (int64_t)1 << 38 || x->shape[i] >= 1 << 30))
            return false;
    return x->stride[3] == 1;
}

/* The largest power of two that divides the query heads of a key/value head. */
int pack_bits_of(int64_t heads_per_group) {
    int bits = 0;
    while ((2 << bits) <= MAX_PACK && heads_per_group % (2 << bits) == 0) bits++;
    return bits;
}

/* Items whose keys and values stay in the second-level cache together. */
int64_t chunk_of(const fw_flash_attention *a, int64_t items_per_group, int64_t items) {
#ifdef ATTENTION_FORWARD_HARNESS
    const int64_t CH = chunk_megabytes;
#else
    const int64_t CH = 24;
#endif
    const int64_t bytes = 4 * a->k.shape[1] * a->k.shape[3];
    return cuda_min(items, cuda_max(1, (CH << 20) / bytes) * items_per_group);
}

template <class C> problem describe(const fw_flash_attention *a) {
    problem p = {};
    const int64_t per_group = a->q.shape[2] / a->k.shape[2];
    p.tokens = (int)a->q.shape[1];
    p.keys = (int)a->k.shape[1];
    p.heads = (int)a->q.shape[2];
    p.shift = p.keys - p.tokens;
    p.window = (int)(a->window < a->k.shape[1] ? a->window : 0);
    p.heads_per_group = (int)per_group;
    p.pack_bits = pack_bits_of(per_group);
    p.positions = C::WARPGROUPS * ROWS >> p.pack_bits;
    p.tiles = (int)cuda_divide_up(p.tokens, p.positions);
    p.item_heads = p.heads >> p.pack_bits;
    p.items = (int)a->q.shape[0] * p.item_heads;
    p.chunk = (int)chunk_of(a, per_group >> p.pack_bits, p.items);
    p.total = p.items * p.tiles;
    p.exclude_self = a->exclude_self != 0;
    p.scale = a->scale * 1.44269504089f;
    p.log_sum_exp = static_cast<float *>(a->log_sum_exp.data);
    p.self_dot = static_cast<float *>(a->self_dot.data);
    return p;
}

template <class C>
fw_status launch(cuda_device *cuda, const fw_flash_attention *a, fw_error *error) {
    problem p = describe<C>(a);
    p.taken = reinterpret_cast<int *>(cuda->workspace);
    const int pack = 1 << p.pack_bits, positions = ROWS >> p.pack_bits;
    maps m;
    FW_TRY(map_heads(cuda, &m.q, &a->q, pack, positions, error));
    FW_TRY(map_heads(cuda, &m.k, &a->k, 1, C::KEYS, error));
    FW_TRY(map_heads(cuda, &m.v, &a->v, 1, C::KEYS, error));
    FW_TRY(map_heads(cuda, &m.own, &a->v, 1, positions, error));
    FW_TRY(map_heads(cuda, &m.out, &a->out, pack, positions, error));
    CUDA_TRY(cuda,
             cudaFuncSetAttribute(attention_forward<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes<C>()),
             "attention_forward: shared memory", error);
    CUDA_TRY(cuda, cudaMemsetAsync(p.taken, 0, sizeof *p.taken, cuda->stream),
             "attention_forward: the counter of work", error);
    const unsigned grid = (unsigned)cuda_min(p.total, cuda->multiprocessors);
    attention_forward<C><<<grid, C::THREADS, shared_bytes<C>(), cuda->stream>>>(p, m);
    return cuda_launched(cuda, "attention_forward", "attention_forward", error);
}

} /* namespace */

#ifndef ATTENTION_FORWARD_HARNESS

using narrow = configuration<64, 3, 96, 5, 2, 1>;
using wide = configuration<128, 2, 128, 2, 1, 1>;

bool cuda_attention_forward_hopper_takes(const cuda_device *cuda, const fw_flash_attention *a) {
    const int64_t width = a->q.shape[3];
    const int64_t items = a->q.shape[0] * a->q.shape[2], most = (int64_t)1 << 30;
    return cuda->hopper && (width == 64 || width == 128) && a->cu_seqlens.data == NULL &&
           a->scale > 0.0f && a->q.shape[1] > 0 && items > 0 && a->k.shape[1] < most / 2 &&
           items < most / a->q.shape[1] && aligned(&a->q) && aligned(&a->k) && aligned(&a->v) &&
           aligned(&a->out);
}

fw_status cuda_attention_forward_hopper(cuda_device *cuda, const fw_flash_attention *a,
                                        fw_error *error) {
    return a->q.shape[3] == 64 ? launch<narrow>(cuda, a, error) : launch<wide>(cuda, a, error);
}

#endif
