/* Attention backward on Hopper (Dao 2023; Shah et al. 2024): heads of 64, as many keys as queries.
 *
 * A cluster of two blocks of threads owns one key/value head of one sequence and the query heads
 * that share it, so that every sum has one order: it walks spans of 256 keys, 128 to a block, and,
 * for each, the heads and the blocks of 64 queries that see them. Two warpgroups of 64 keys each
 * form S^T = K Q^T and dP^T = V dY^T, hence P^T and dS^T in the registers where the products
 * dV += P^T dY and dK += dS^T Q want them; dS^T also goes to shared memory, where a third warpgroup
 * forms dQ^T += K^T dS^T. The two blocks exchange halves of it, so that each has 32 queries' sum
 * over the whole span, and add that to float32 scratch, always from the same thread: this traffic
 * through the second-level cache is what limits narrower spans. The third warpgroup also
 * feeds the tiles of all by TMA.
 *
 * Per 128 x 128 scores: 2560 cycles of the matrix units, 1024 of the exponentials, about 2700 of
 * shared memory. */
#include "attention.h"
#include "attention_backward_queries.cuh"
#include "attention_backward_rows.cuh"
#include "attention_backward_scores.cuh"
#include "tensor_map.h"

namespace {

#ifdef FAIRWAY_HOPPER_CODE

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
