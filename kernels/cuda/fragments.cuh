/* Further instructions of Hopper's that move pieces of matrices: 8 x 8 blocks of bfloat16 between
 * shared memory and the registers of a warp, float32 from registers to memory that others add to,
 * and memory and barriers of the neighbour in a cluster of two blocks. Source: NVIDIA's PTX ISA,
 * ldmatrix, stmatrix, red, mapa, mbarrier. */
#ifndef FAIRWAY_FRAGMENTS_CUH
#define FAIRWAY_FRAGMENTS_CUH

#include "hopper.cuh"

namespace hopper {

#ifdef FAIRWAY_HOPPER_CODE

/* ---- 8 x 8 blocks: lane l gives the address of row l % 8 of block l / 8, and holds of each block
 * the row l / 4, columns 2 (l % 4) + {0, 1}; transposed, row and column change places in memory
 * ---- */

__device__ __forceinline__ void load_blocks(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_blocks_transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void store_blocks(uint32_t address, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
__device__ __forceinline__ void store_blocks_transposed(uint32_t address, const uint32_t (&r)[4]) {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
}

/* ---- float32 that lives in the second-level cache ---- */

__device__ __forceinline__ void add_to(float4 *to, float4 x) {
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x.x),
                 "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
}
/* What this thread stored and added before, past the first-level cache. */
__device__ __forceinline__ float4 load_again(const float4 *from) {
    float4 x;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "l"(from)
                 : "memory");
    return x;
}

/* ---- TMA from a whole warp, one lane of which is elected: no branch, and operands that the
 * compiler sees to be the same in all lanes ---- */

__device__ __forceinline__ void barrier_expect_once(uint64_t *barrier, uint32_t bytes) {
    asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\n"
                 "@one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n}" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void load_4d_once(void *to, const CUtensorMap *map, uint64_t *barrier,
                                             int x0, int x1, int x2, int x3) {
    asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\n"
                 "@one cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];\n}" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
                 : "memory");
}

/* `bytes` (a multiple of 16) of contiguous memory. */
__device__ __forceinline__ void load_bytes_once(void *to, const void *from, uint32_t bytes,
                                                uint64_t *barrier) {
    asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\n"
                 "@one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];\n}" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

/* ---- clusters ---- */

/* Every thread of every block of the cluster. */
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}
/* The same place in the shared memory of another block. */
__device__ __forceinline__ uint32_t address_in(const void *pointer, uint32_t rank) {
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"(shared_address(pointer)), "r"(rank));
    return address;
}
/* Four float to another block; its `barrier` counts 16 bytes when they are there. No fence: one
 * that reaches beyond the block would wait for everything this thread has under way. */
__device__ __forceinline__ void store_in(uint32_t address, float a, float b, float c, float d,
                                         uint32_t barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 "
                 "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(address),
                 "f"(a), "f"(b), "f"(c), "f"(d), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void barrier_arrive_in(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

#endif /* FAIRWAY_HOPPER_CODE */

} /* namespace hopper */

#endif
