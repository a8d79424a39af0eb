/* What memory-bound kernels share: sixteen bytes of bfloat16 a time as eight float32, and sums over
 * warps and blocks in a fixed order, so that results repeat bit for bit.
 *
 * A "piece" is eight neighbouring elements. Kernels that may meet odd widths or unaligned rows take
 * their pieces with the number of elements that are there: load_piece<false> goes one by one. */
#ifndef FAIRWAY_CUDA_VECTOR_CUH
#define FAIRWAY_CUDA_VECTOR_CUH

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <fairway/tensor.h>

#define WARP_LANES 32
#define PIECE 8 /* elements of 16 bytes of bfloat16 */

struct floats8 {
    float at[PIECE];
};

/* ---- pieces: 16 bytes of bfloat16, still packed, and as float32 ---- */

__device__ __forceinline__ floats8 unpack8(const uint4 &packed) {
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
    floats8 out;
#pragma unroll
    for (int i = 0; i < 4; i++) { /* bfloat16 is the upper half of a float32 */
        out.at[2 * i] = __uint_as_float(words[i] << 16);
        out.at[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return out;
}

__device__ __forceinline__ uint32_t pack2(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

__device__ __forceinline__ uint4 pack8(const floats8 &x) {
    return make_uint4(pack2(x.at[0], x.at[1]), pack2(x.at[2], x.at[3]), pack2(x.at[4], x.at[5]),
                      pack2(x.at[6], x.at[7]));
}

/* From and to addresses that are multiples of 16 bytes. */
__device__ __forceinline__ uint4 load_packed8(const __nv_bfloat16 *from) {
    return *reinterpret_cast<const uint4 *>(from);
}
__device__ __forceinline__ void store_packed8(__nv_bfloat16 *to, const uint4 &packed) {
    *reinterpret_cast<uint4 *>(to) = packed;
}
__device__ __forceinline__ floats8 load8(const __nv_bfloat16 *from) {
    return unpack8(load_packed8(from));
}
__device__ __forceinline__ void store8(__nv_bfloat16 *to, const floats8 &x) {
    store_packed8(to, pack8(x));
}
__device__ __forceinline__ floats8 load8(const float *from) {
    const float4 low = reinterpret_cast<const float4 *>(from)[0];
    const float4 high = reinterpret_cast<const float4 *>(from)[1];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
__device__ __forceinline__ void store8(float *to, const floats8 &x) {
    reinterpret_cast<float4 *>(to)[0] = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
    reinterpret_cast<float4 *>(to)[1] = make_float4(x.at[4], x.at[5], x.at[6], x.at[7]);
}

__device__ __forceinline__ floats8 zeros8() { return {{0, 0, 0, 0, 0, 0, 0, 0}}; }

/* ---- pieces of which `count` elements (0 or less .. 8 or more) are there; the others load as zero
 * and are not stored. ALIGNED: addresses are multiples of 16 bytes and a piece is whole or not
 * there at all. ---- */

template <bool ALIGNED>
__device__ __forceinline__ uint4 load_packed_piece(const __nv_bfloat16 *from, int64_t count) {
    if constexpr (ALIGNED) {
        return count > 0 ? load_packed8(from) : make_uint4(0, 0, 0, 0);
    } else {
        const uint16_t *bits = reinterpret_cast<const uint16_t *>(from);
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t low = 2 * i < count ? bits[2 * i] : 0;
            const uint32_t high = 2 * i + 1 < count ? bits[2 * i + 1] : 0;
            words[i] = low | high << 16;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
}

template <bool ALIGNED>
__device__ __forceinline__ void store_packed_piece(__nv_bfloat16 *to, const uint4 &packed,
                                                   int64_t count) {
    if constexpr (ALIGNED) {
        if (count > 0) store_packed8(to, packed);
    } else {
        uint16_t *bits = reinterpret_cast<uint16_t *>(to);
        const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            if (i < count) bits[i] = static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16));
    }
}

template <bool ALIGNED>
__device__ __forceinline__ floats8 load_piece(const __nv_bfloat16 *from, int64_t count) {
    return unpack8(load_packed_piece<ALIGNED>(from, count));
}
template <bool ALIGNED>
__device__ __forceinline__ void store_piece(__nv_bfloat16 *to, const floats8 &x, int64_t count) {
    store_packed_piece<ALIGNED>(to, pack8(x), count);
}

template <bool ALIGNED>
__device__ __forceinline__ floats8 load_piece(const float *from, int64_t count) {
    if constexpr (ALIGNED) {
        return count > 0 ? load8(from) : zeros8();
    } else {
        floats8 out;
#pragma unroll
        for (int i = 0; i < PIECE; i++) out.at[i] = i < count ? from[i] : 0.0f;
        return out;
    }
}
template <bool ALIGNED>
__device__ __forceinline__ void store_piece(float *to, const floats8 &x, int64_t count) {
    if constexpr (ALIGNED) {
        if (count > 0) store8(to, x);
    } else {
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            if (i < count) to[i] = x.at[i];
    }
}

/* ---- sums: every thread gets the total, the same bits in all of them ---- */

template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int step = WARP_LANES / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int step = WARP_LANES / 2; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

/* Of one-dimensional blocks of whole warps; every thread of the block calls. */
template <class T> __device__ __forceinline__ T block_sum(T value) {
    __shared__ T parts[WARP_LANES];
    const unsigned lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    value = warp_sum(value);
    __syncthreads(); /* a block_sum before this one may still be read */
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    return warp_sum(lane < blockDim.x / WARP_LANES ? parts[lane] : T(0));
}

__device__ __forceinline__ float block_max(float value) {
    __shared__ float parts[WARP_LANES];
    const unsigned lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    value = warp_max(value);
    __syncthreads();
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    return warp_max(parts[lane < blockDim.x / WARP_LANES ? lane : 0]);
}

/* ---- second stage of sums over rows: partials[block][column], one row from each block. A block of
 * 32 x SUM_ROWS threads sums 32 columns: thread (x, y) every SUM_ROWS-th partial, many on the way
 * at a time, then a warp the sums of a column. The total of column x is the return value of thread
 * (x, 0); others get nothing of use. ---- */

#define SUM_ROWS 32

__device__ __forceinline__ double sum_column(const float *partials, int blocks, int64_t columns,
                                             int64_t column) {
    __shared__ double parts[SUM_ROWS][WARP_LANES + 1], totals[WARP_LANES];
    static_assert(SUM_ROWS == WARP_LANES, "warp y sums what threads (y, *) have of column y");
    double total = 0.0;
    if (column < columns) {
#pragma unroll 16
        for (int block = threadIdx.y; block < blocks; block += SUM_ROWS)
            total += static_cast<double>(partials[block * columns + column]);
    }
    parts[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    total = warp_sum(parts[threadIdx.x][threadIdx.y]);
    if (threadIdx.x == 0) totals[threadIdx.y] = total;
    __syncthreads();
    return totals[threadIdx.x];
}

/* ---- on the host ---- */

/* Whether every row of a view can be taken in pieces of 16 bytes: what is absent can. */
static inline bool rows_aligned(const fw_tensor *view) {
    if (view->data == nullptr) return true;
    const int64_t bytes = static_cast<int64_t>(fw_dtype_size(view->dtype));
    bool good = reinterpret_cast<uintptr_t>(view->data) % 16 == 0 &&
                view->shape[view->rank - 1] % PIECE == 0;
    for (uint32_t i = 0; i + 1 < view->rank; i++)
        good = good && (view->shape[i] <= 1 || view->stride[i] * bytes % 16 == 0);
    return good;
}

#endif
