/* What the two roles of Hopper's attention forward share, and the producer: the problem as the
 * kernel sees it, the tiles in shared memory, how work is handed out. */
#ifndef FAIRWAY_CUDA_ATTENTION_FORWARD_HOPPER_CUH
#define FAIRWAY_CUDA_ATTENTION_FORWARD_HOPPER_CUH

#include "wgmma.cuh"

namespace {

using namespace hopper;

constexpr int WARPGROUP = 128;
constexpr int ROWS = 64; /* of a warpgroup */

/* What a kernel is built for. KEYS: of a block; STAGES of keys and values in shared memory; BUFFERS
 * of query tiles. */
template <int WIDTH_, int WARPGROUPS_, int KEYS_, int STAGES_, int BUFFERS_> struct configuration {
    static constexpr int WIDTH = WIDTH_, WARPGROUPS = WARPGROUPS_, KEYS = KEYS_, STAGES = STAGES_;
    static constexpr int BUFFERS = BUFFERS_;
    static constexpr int THREADS = (WARPGROUPS + 1) * WARPGROUP;
    static constexpr int CHUNKS = WIDTH / 64; /* tiles of 128-byte rows side by side */
    static constexpr int PRODUCER_REGISTERS = WARPGROUPS == 2 ? 40 : 32;
    static constexpr int CONSUMER_REGISTERS = WARPGROUPS == 2 ? 232 : 160;
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

/* The copies to shared memory; one thread runs it. */
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

#endif /* FAIRWAY_HOPPER_CODE */

} /* namespace */

#endif
