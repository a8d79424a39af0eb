/* What the two roles of Hopper's attention backward share: the problem as the kernel sees it, what
 * lies in shared memory, the order of the walk. The algorithm: attention_backward_hopper.cu. */
#ifndef FAIRWAY_CUDA_ATTENTION_BACKWARD_HOPPER_CUH
#define FAIRWAY_CUDA_ATTENTION_BACKWARD_HOPPER_CUH

#include "fragments.cuh"
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

__device__ __forceinline__ uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

#endif /* FAIRWAY_HOPPER_CODE */

} /* namespace */

#endif
