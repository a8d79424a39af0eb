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

#include "attention_forward_consumer.cuh"
#include "tensor_map.h"

namespace {

constexpr int MAX_PACK = 8;
constexpr int64_t CACHE_BYTES = (int64_t)24 << 20; /* half of the second-level cache */

#ifdef FAIRWAY_HOPPER_CODE

template <class C> __device__ __forceinline__ void prepare(shared_memory<C> &shared) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < C::BUFFERS; i++) {
            barrier_init(&shared.q_full[i], 1);
            barrier_init(&shared.q_empty[i], C::WARPGROUPS * 4);
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
    const int64_t bytes = 4 * a->k.shape[1] * a->k.shape[3];
    return cuda_min(items, cuda_max(1, CACHE_BYTES / bytes) * items_per_group);
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

using narrow = configuration<64, 3, 96, 5, 2>;
using wide = configuration<128, 2, 128, 2, 1>;

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
