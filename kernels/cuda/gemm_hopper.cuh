/* A matrix product of our own for Hopper, made to be fused: c = a b^T stays in the registers that
 * summed it, and an epilogue makes of it what it likes. a [rows, depth] and b [columns, depth] are
 * bfloat16, K-major.
 *
 * Two blocks of a cluster share tiles of b: each fetches half and sends it to both. In a block one
 * warp feeds a ring of stages by TMA, and two warpgroups multiply, each its 64 rows of the tile of
 * 128. One may be as far ahead of the other as the ring is long, so that it has its epilogue while
 * the other has the tensor cores.
 *
 * Rows of b are permuted on their way to shared memory (gemm_map_b), so that a thread holds 8
 * consecutive columns of c, 16 bytes of bfloat16, and epilogues read and write memory directly:
 * c[16 g + 4 i + 2 h + e] is row `row + 8 h`, column `column + 32 g + 2 i + e`, where gemm_place
 * gives row and column of the thread. */
#ifndef FAIRWAY_CUDA_GEMM_HOPPER_CUH
#define FAIRWAY_CUDA_GEMM_HOPPER_CUH

#include "tensor_map.h"
#include "wgmma.cuh"

#define GEMM_ROWS 128
#define GEMM_DEPTH 64 /* of a stage: 128 bytes */
#define GEMM_CLUSTER 2
/* An epilogue prepares this many steps before the end. */
#define GEMM_EARLY 5
#define GEMM_THREADS 384
/* Columns of c that four neighbouring threads hold, 8 each. */
#define GEMM_GROUP 32

namespace hopper {

typedef __nv_bfloat16 bf16;

struct gemm_sizes {
    int rows, columns, depth;
};

/* Where a thread's accumulators lie in c: see above. `block_row` and `block_column` are those of
 * the warpgroup's first element. */
struct gemm_place {
    int row, column, block_row, block_column, thread;
};

template <int COLUMNS, int STAGES> struct gemm_memory {
    struct {
        bf16 a[GEMM_ROWS * GEMM_DEPTH];
        bf16 b[COLUMNS * GEMM_DEPTH];
    } stage[STAGES];
    uint64_t full[STAGES], empty[STAGES];
};

/* A stage of the ring and how often the ring has gone round, modulo 2. */
template <int STAGES> struct gemm_ring {
    int stage = 0;
    uint32_t round = 0;
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, round ^= 1;
    }
};

#ifdef FAIRWAY_HOPPER_CODE

/* ---- clusters ---- */

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* All threads of the cluster meet, whatever their warps have done before. */
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/* Arrive at the same barrier of block `rank` of the cluster. Not `.release.cluster`: what precedes
 * it here are reads by wgmma, which have ended, and that would wait for all stores to memory as
 * well. */
__device__ __forceinline__ void barrier_arrive_at(uint64_t *barrier, uint32_t rank) {
    asm volatile(
        "{\n.reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
}

/* To the same place in each block of `mask`, announced at each one's barrier. */
__device__ __forceinline__ void load_5d_multicast(void *to, const CUtensorMap *map,
                                                  uint64_t *barrier, uint16_t mask, int x0, int x1,
                                                  int x2, int x3, int x4) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5, %6, %7, %8}], [%2], %3;" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(barrier)), "h"(mask), "r"(x0), "r"(x1), "r"(x2), "r"(x3),
        "r"(x4)
        : "memory");
}

/* ---- the product ---- */

/* The tiles of this cluster, one after the other; tiles of the same rows are neighbours, so that
 * their a is fetched from memory once. */
template <int COLUMNS> struct gemm_tiles {
    int across, count, at, step;
    __device__ __forceinline__ explicit gemm_tiles(const gemm_sizes &sizes) {
        across = (sizes.columns + COLUMNS - 1) / COLUMNS;
        const int rows = GEMM_ROWS * GEMM_CLUSTER;
        count = (sizes.rows + rows - 1) / rows * across;
        at = blockIdx.x / GEMM_CLUSTER;
        step = gridDim.x / GEMM_CLUSTER;
    }
    __device__ __forceinline__ bool more() const { return at < count; }
    __device__ __forceinline__ void next() { at += step; }
    __device__ __forceinline__ int row(uint32_t rank) const {
        return (at / across * GEMM_CLUSTER + (int)rank) * GEMM_ROWS;
    }
    __device__ __forceinline__ int column() const { return at % across * COLUMNS; }
};

/* One thread: fills stages as soon as both blocks have emptied them. */
template <int COLUMNS, int STAGES>
__device__ __forceinline__ void gemm_fetch(gemm_memory<COLUMNS, STAGES> *memory,
                                           const CUtensorMap *a, const CUtensorMap *b,
                                           const gemm_sizes &sizes, uint32_t rank) {
    constexpr int HALF = COLUMNS / GEMM_CLUSTER;
    constexpr uint32_t BYTES = sizeof memory->stage[0];
    gemm_ring<STAGES> ring;
    for (gemm_tiles<COLUMNS> tiles(sizes); tiles.more(); tiles.next()) {
        const int row = tiles.row(rank), group = (tiles.column() + (int)rank * HALF) / GEMM_GROUP;
        for (int k = 0; k < sizes.depth; k += GEMM_DEPTH, ring.next()) {
            auto &stage = memory->stage[ring.stage];
            uint64_t *full = &memory->full[ring.stage];
            barrier_wait(&memory->empty[ring.stage], ring.round ^ 1);
            barrier_expect(full, BYTES);
            load_2d(stage.a, a, full, k, row);
            load_5d_multicast(stage.b + rank * HALF * GEMM_DEPTH, b, full, (1 << GEMM_CLUSTER) - 1,
                              k, 0, 0, 0, group);
        }
    }
}

/* A warpgroup's products of one stage, as one group. */
template <int COLUMNS>
__device__ __forceinline__ void gemm_step(float (&c)[COLUMNS / 2], const bf16 *a, const bf16 *b,
                                          bool first) {
    const uint64_t from_a = descriptor(a), from_b = descriptor(b);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < GEMM_DEPTH / 16; i++)
        product<COLUMNS>::ss(c, from_a + 2 * i, from_b + 2 * i, i > 0 || !first);
    wgmma_commit();
}

/* A stage's operands are read: either block may overwrite its part of them. */
template <int COLUMNS, int STAGES>
__device__ __forceinline__ void gemm_release(gemm_memory<COLUMNS, STAGES> *memory, int stage) {
    if (threadIdx.x % 128 < GEMM_CLUSTER)
        barrier_arrive_at(&memory->empty[stage], threadIdx.x % 128);
}

/* The products of a warpgroup, `group` 0 or 1 of the block. */
template <int COLUMNS, int STAGES> struct gemm_worker {
    gemm_memory<COLUMNS, STAGES> *memory;
    gemm_ring<STAGES> ring;
    int group;
    int last = 0; /* the stage whose products were issued last */

    /* Steps first .. end - 1 of a tile; the last one's products are still under way. */
    __device__ __forceinline__ void multiply(float (&c)[COLUMNS / 2], int first, int end) {
        for (int k = first; k < end; k++, ring.next()) {
            auto &stage = memory->stage[ring.stage];
            barrier_wait(&memory->full[ring.stage], ring.round);
            gemm_step<COLUMNS>(c, stage.a + group * 64 * GEMM_DEPTH, stage.b, k == 0);
            if (k > 0) {
                wgmma_wait<1>();
                gemm_release(memory, last);
            }
            last = ring.stage;
        }
    }

    __device__ __forceinline__ void complete(float (&c)[COLUMNS / 2]) {
        wgmma_wait<0>();
        wgmma_hold(c);
        gemm_release(memory, last);
    }

    __device__ __forceinline__ gemm_place place(int row, int column) const {
        const int thread = threadIdx.x % 128, lane = thread % 32;
        return {row + 64 * group + 16 * (thread / 32) + lane / 4, column + 8 * (lane % 4),
                row + 64 * group, column, thread};
    }
};

/* The epilogue prepares between two loops and not inside of one: values that are on their way from
 * memory to registers would be waited for where a loop begins again. */
template <int COLUMNS, int STAGES, class EPILOGUE>
__device__ __forceinline__ void gemm_multiply(gemm_memory<COLUMNS, STAGES> *memory,
                                              const gemm_sizes &sizes, uint32_t rank,
                                              const typename EPILOGUE::arguments &arguments) {
    const int steps = (sizes.depth + GEMM_DEPTH - 1) / GEMM_DEPTH;
    const int early = steps > GEMM_EARLY ? steps - GEMM_EARLY : 0;
    gemm_worker<COLUMNS, STAGES> worker = {memory};
    worker.group = __shfl_sync(~0u, threadIdx.x / 128 - 1, 0); /* uniform, for the compiler */
    float c[COLUMNS / 2] = {};
    for (gemm_tiles<COLUMNS> tiles(sizes); tiles.more(); tiles.next()) {
        const gemm_place place = worker.place(tiles.row(rank), tiles.column());
        EPILOGUE epilogue;
        worker.multiply(c, 0, early);
        epilogue.prepare(arguments, sizes, place);
        worker.multiply(c, early, steps);
        worker.complete(c);
        epilogue.finish(arguments, sizes, place, c);
    }
}

#endif /* FAIRWAY_HOPPER_CODE */

/* An EPILOGUE has a type `arguments`, passed by value, prepare(arguments, sizes, place), called
 * some steps before the last, where what it needs from memory sets out, and finish(arguments,
 * sizes, place, c). */
template <int COLUMNS, int STAGES, class EPILOGUE>
__global__ void __launch_bounds__(GEMM_THREADS, 1)
    gemm(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
         const gemm_sizes sizes, const __grid_constant__ typename EPILOGUE::arguments arguments) {
#ifdef FAIRWAY_HOPPER_CODE
    extern __shared__ char raw[];
    auto *memory = reinterpret_cast<gemm_memory<COLUMNS, STAGES> *>(
        raw + (1024 - shared_address(raw) % 1024) % 1024);
    const uint32_t rank = cluster_rank();
    if (threadIdx.x == 0) {
        prefetch_map(&a);
        prefetch_map(&b);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&memory->full[i], 1);
            barrier_init(&memory->empty[i], 2 * GEMM_CLUSTER);
        }
        barrier_fence_init();
    }
    cluster_sync();
    if (threadIdx.x < 128) {
        registers_fewer<40>();
        if (threadIdx.x == 0) gemm_fetch<COLUMNS, STAGES>(memory, &a, &b, sizes, rank);
    } else {
        registers_more<232>();
        gemm_multiply<COLUMNS, STAGES, EPILOGUE>(memory, sizes, rank, arguments);
    }
    cluster_sync(); /* no block leaves while the other may still arrive at its barriers */
#endif
}

/* ---- the host's side ---- */

static inline fw_status gemm_map_a(cuda_device *cuda, CUtensorMap *map, const void *a, int64_t rows,
                                   int64_t depth, int64_t ld, fw_error *error) {
    const uint64_t sizes[2] = {(uint64_t)depth, (uint64_t)rows}, strides[1] = {(uint64_t)ld * 2};
    const uint32_t box[2] = {GEMM_DEPTH, GEMM_ROWS};
    return cuda_tensor_map(cuda, map, a, 2, sizes, strides, box, error);
}

/* Row 32 g + 8 q + 2 i + e of b goes to row 32 g + 8 i + 2 q + e of its tile. */
static inline fw_status gemm_map_b(cuda_device *cuda, CUtensorMap *map, const void *b,
                                   int64_t columns, int64_t depth, int64_t ld, int tile_columns,
                                   fw_error *error) {
    const uint64_t row = (uint64_t)ld * 2;
    const uint64_t sizes[5] = {(uint64_t)depth, 2, 4, 4, (uint64_t)(columns / GEMM_GROUP)};
    const uint64_t strides[4] = {row, 8 * row, 2 * row, GEMM_GROUP * row};
    const uint32_t box[5] = {GEMM_DEPTH, 2, 4, 4,
                             (uint32_t)(tile_columns / GEMM_CLUSTER / GEMM_GROUP)};
    return cuda_tensor_map(cuda, map, b, 5, sizes, strides, box, error);
}

/* What the product takes: sizes are multiples of a group of columns and of 16 bytes. */
static inline bool gemm_takes(const cuda_device *cuda, int64_t rows, int64_t columns,
                              int64_t depth) {
    return cuda->hopper && rows < (1 << 30) && columns < (1 << 30) && depth < (1 << 30) &&
           rows > 0 && columns > 0 && depth > 0 && columns % GEMM_GROUP == 0 && depth % 8 == 0;
}

static inline bool gemm_takes_matrix(const void *data, int64_t ld) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && ld % 8 == 0;
}

template <int COLUMNS, int STAGES, class EPILOGUE>
static fw_status gemm_launch(cuda_device *cuda, const char *op, const CUtensorMap &a,
                             const CUtensorMap &b, const gemm_sizes &sizes,
                             const typename EPILOGUE::arguments &arguments, fw_error *error) {
    const int64_t tiles = cuda_divide_up(sizes.rows, GEMM_ROWS * GEMM_CLUSTER) *
                          cuda_divide_up(sizes.columns, COLUMNS);
    const int64_t clusters = cuda_min(tiles, cuda->multiprocessors / GEMM_CLUSTER);
    const int bytes = (int)sizeof(gemm_memory<COLUMNS, STAGES>) + 1024;
    auto *kernel = gemm<COLUMNS, STAGES, EPILOGUE>;
    CUDA_TRY(cuda, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
             op, error);
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = GEMM_CLUSTER;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(clusters * GEMM_CLUSTER));
    config.blockDim = dim3(GEMM_THREADS);
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = cuda->stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    CUDA_TRY(cuda, cudaLaunchKernelEx(&config, kernel, a, b, sizes, arguments), op, error);
    return cuda_launched(cuda, op, "gemm of Hopper", error);
}

} /* namespace hopper */

#endif
