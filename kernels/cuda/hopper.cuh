/* Hopper's own instructions, one short function each: barriers in shared memory, the bulk tensor
 * copy engine (TMA), and products of a warpgroup (wgmma). Source: NVIDIA's PTX ISA, sections on
 * mbarrier, cp.async.bulk.tensor and wgmma. Only code for sm_90a holds them; FAIRWAY_HOPPER_CODE is
 * defined there, and kernels are empty elsewhere.
 *
 * Tiles in shared memory are K-major or MN-major matrices of bfloat16 whose rows are 128 bytes (64
 * elements) long, in the 128-byte swizzle that TMA writes and wgmma reads: 8 rows x 128 bytes are
 * an atom of 1024 bytes, in which 16-byte piece p of row r lies at piece p ^ (r % 8). Bases are
 * aligned to 1024 bytes. */
#ifndef FAIRWAY_HOPPER_CUH
#define FAIRWAY_HOPPER_CUH

#include <cstdint>
#include <cuda.h>
#include <cuda_bf16.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FAIRWAY_HOPPER_CODE 1
#endif

namespace hopper {

__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

#ifdef FAIRWAY_HOPPER_CODE

/* ---- barriers ---- */

__device__ __forceinline__ void barrier_init(uint64_t *barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals));
}

/* After barrier_init and before TMA or other threads use the barriers (a __syncthreads follows). */
__device__ __forceinline__ void barrier_fence_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* One arrival that also announces `bytes` to come by TMA. */
__device__ __forceinline__ void barrier_expect(uint64_t *barrier, uint32_t bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

/* The same where `yes`, without a branch. */
__device__ __forceinline__ void barrier_arrive_if(uint64_t *barrier, bool yes) {
    asm volatile("{\n"
                 ".reg .pred yes;\n"
                 "setp.ne.u32 yes, %1, 0;\n"
                 "@yes mbarrier.arrive.shared::cta.b64 _, [%0];\n"
                 "}\n" ::"r"(shared_address(barrier)),
                 "r"(static_cast<uint32_t>(yes))
                 : "memory");
}

/* Wait until the phase of that parity is complete. A fresh barrier is in phase 0: wait(0) waits for
 * the first completion, wait(1) returns at once. */
__device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

/* A barrier of `threads` threads (whole warps) under the number `id`, 1 .. 15. */
__device__ __forceinline__ void named_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Ordinary stores to shared memory before it are seen by wgmma and TMA behind the next barrier. */
__device__ __forceinline__ void fence_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- TMA: boxes of a tensor map to shared memory and back; one thread calls ---- */

__device__ __forceinline__ void prefetch_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ __forceinline__ void load_2d(void *to, const CUtensorMap *map, uint64_t *barrier, int x0,
                                        int x1) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(x0), "r"(x1)
                 : "memory");
}

__device__ __forceinline__ void load_4d(void *to, const CUtensorMap *map, uint64_t *barrier, int x0,
                                        int x1, int x2, int x3) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
                 : "memory");
}

__device__ __forceinline__ void store_2d(const CUtensorMap *map, const void *from, int x0, int x1) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(shared_address(from)), "r"(x0), "r"(x1)
        : "memory");
}

__device__ __forceinline__ void store_4d(const CUtensorMap *map, const void *from, int x0, int x1,
                                         int x2, int x3) {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group "
                 "[%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
                 "r"(shared_address(from)), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
                 : "memory");
}

/* Add `bytes` of float32 (a multiple of 16) from shared to global memory. */
__device__ __forceinline__ void reduce_add(float *to, const void *from, uint32_t bytes) {
    asm volatile(
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
        "r"(shared_address(from)), "r"(bytes)
        : "memory");
}

__device__ __forceinline__ void bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Wait until at most N groups still read their shared memory; until they are written. */
template <int N> __device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
template <int N> __device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- registers of a warpgroup's role ---- */

template <int N> __device__ __forceinline__ void registers_more() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_fewer() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma ---- */

/* Where a swizzled tile lies, for a product's operand. K-major (rows of 64 elements along K): the
 * 8-row atoms follow one another, `stride` = 1024; `leading` is not used. A step of 16 along K is
 * 32 bytes further: descriptor + 2. MN-major (rows of 64 elements along M or N, one row for each
 * K): `stride` = 1024 leads to the next 8 K, `leading` to the next 64 of M or N; a step of 16 along
 * K is 2048 bytes further: descriptor + 128. */
__device__ __forceinline__ uint64_t descriptor(const void *tile, uint32_t leading = 16,
                                               uint32_t stride = 1024) {
    uint64_t d = (shared_address(tile) & 0x3ffff) >> 4;
    d |= static_cast<uint64_t>(leading >> 4) << 16;
    d |= static_cast<uint64_t>(stride >> 4) << 32;
    d |= static_cast<uint64_t>(1) << 62; /* 128-byte swizzle */
    return d;
}

__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Keeps the compiler from moving uses of accumulators across a wait. */
template <int N> __device__ __forceinline__ void wgmma_hold(float (&c)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i])::"memory");
}

/* wgmma.cuh has the products themselves. */

#endif /* FAIRWAY_HOPPER_CODE */

} /* namespace hopper */

#endif
