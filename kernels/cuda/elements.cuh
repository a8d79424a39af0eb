/* Element-wise kernels over contiguous tensors. An op is a small struct that the kernel holds by
 * value; the loop, the tail and unaligned tensors are written once, here. All reads of a round come
 * before its writes, so that enough bytes are on their way even where an output is an input too.
 *
 *   struct op {
 *       static constexpr int WIDTH = 4;   neighbouring elements of one access, when aligned
 *       static constexpr int ROUNDS = 4;  accesses to each tensor that a thread has in flight
 *       template <int WIDTH> struct held; what is read before anything is written
 *       bool begin();                     once a block, all threads; false: nothing to do
 *       template <int WIDTH> void read(int64_t at, held<WIDTH> *to) const;
 *       template <int WIDTH> void write(int64_t at, const held<WIDTH> &from) const;
 *   }; */
#ifndef FAIRWAY_CUDA_ELEMENTS_CUH
#define FAIRWAY_CUDA_ELEMENTS_CUH

#include "cuda_device.h"

#include <cstdint>
#include <cuda_fp16.h>
#include <type_traits>

#define ELEMENT_THREADS 256

/* ---- WIDTH neighbours of one tensor in one access, as they lie in memory ---- */

template <int BYTES> struct word_of;
template <> struct word_of<2> { using type = uint16_t; };
template <> struct word_of<4> { using type = uint32_t; };
template <> struct word_of<8> { using type = uint2; };
template <> struct word_of<16> { using type = uint4; };

template <int WIDTH, class T> struct packed { typename word_of<WIDTH * sizeof(T)>::type word; };

template <int WIDTH> struct floats { float at[WIDTH]; };

/* `from` and `to` are multiples of the access's size, or WIDTH is 1. */
template <int WIDTH, class T> __device__ __forceinline__ packed<WIDTH, T> load(const T *from) {
    using word = typename word_of<WIDTH * sizeof(T)>::type;
    return {*reinterpret_cast<const word *>(from)};
}

template <class T> __device__ __forceinline__ float widen(T x) { return static_cast<float>(x); }
template <> __device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
template <> __device__ __forceinline__ float widen(__half x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T narrow(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 narrow(float x) {
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ __half narrow(float x) { return __float2half_rn(x); }

template <int WIDTH, class T>
__device__ __forceinline__ floats<WIDTH> unpack(const packed<WIDTH, T> &from) {
    const T *elements = reinterpret_cast<const T *>(&from.word);
    floats<WIDTH> out;
#pragma unroll
    for (int i = 0; i < WIDTH; i++) out.at[i] = widen(elements[i]);
    return out;
}

template <int WIDTH, class T>
__device__ __forceinline__ void store(T *to, const floats<WIDTH> &from) {
    using word = typename word_of<WIDTH * sizeof(T)>::type;
    union {
        word whole;
        T elements[WIDTH];
        __nv_bfloat162 pairs[WIDTH > 1 ? WIDTH / 2 : 1];
    } out = {};
    if constexpr (std::is_same_v<T, __nv_bfloat16> && WIDTH > 1) {
#pragma unroll
        for (int i = 0; i < WIDTH / 2; i++) /* two at once: one instruction */
            out.pairs[i] = __floats2bfloat162_rn(from.at[2 * i], from.at[2 * i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) out.elements[i] = narrow<T>(from.at[i]);
    }
    *reinterpret_cast<word *>(to) = out.whole;
}

/* ---- the loop ---- */

template <int WIDTH, class Op>
__global__ void __launch_bounds__(ELEMENT_THREADS) over_elements(Op op, int64_t n) {
    if (!op.begin()) return;
    const int64_t accesses = n / WIDTH;
    const int64_t first = blockIdx.x * int64_t(ELEMENT_THREADS * Op::ROUNDS) + threadIdx.x;
    typename Op::template held<WIDTH> held[Op::ROUNDS];
#pragma unroll
    for (int i = 0; i < Op::ROUNDS; i++)
        if (first + i * ELEMENT_THREADS < accesses)
            op.template read<WIDTH>((first + i * ELEMENT_THREADS) * WIDTH, &held[i]);
#pragma unroll
    for (int i = 0; i < Op::ROUNDS; i++)
        if (first + i * ELEMENT_THREADS < accesses)
            op.template write<WIDTH>((first + i * ELEMENT_THREADS) * WIDTH, held[i]);
    const int64_t rest = accesses * WIDTH + threadIdx.x;
    if (blockIdx.x > 0 || rest >= n) return;
    typename Op::template held<1> last;
    op.template read<1>(rest, &last);
    op.template write<1>(rest, last);
}

/* Whether accesses of `width` elements of this tensor are aligned; what is absent is. */
static inline bool elements_aligned(const fw_tensor *tensor, int width) {
    return reinterpret_cast<uintptr_t>(tensor->data) % (width * fw_dtype_size(tensor->dtype)) == 0;
}

/* n > 0 elements; `aligned`: all tensors are, for accesses of Op::WIDTH elements. */
template <class Op>
static void launch_elements(const cuda_device *cuda, const Op &op, int64_t n, bool aligned) {
    const int64_t tile = ELEMENT_THREADS * Op::ROUNDS * (aligned ? Op::WIDTH : 1);
    const unsigned blocks = static_cast<unsigned>(cuda_divide_up(n, tile));
    if (aligned)
        over_elements<Op::WIDTH><<<blocks, ELEMENT_THREADS, 0, cuda->stream>>>(op, n);
    else
        over_elements<1><<<blocks, ELEMENT_THREADS, 0, cuda->stream>>>(op, n);
}

#endif
