/* The soft cap of logits: z = cap * tanh(x / cap), for the kernels of the loss.
 *
 * It goes through r = 1 / (1 + e^(2x/cap)): z = cap (1 - 2r), and its slope 1 - (z/cap)^2 =
 * 4 e^(2x/cap) r^2 keeps its relative precision where z rounds to the cap. Exponentials and
 * quotients, not memory, would limit the forward pass, so two elements share one quotient. */
#ifndef FAIRWAY_CUDA_SOFTCAP_CUH
#define FAIRWAY_CUDA_SOFTCAP_CUH

#include "vector.cuh"

#define LOG2_E 1.44269504f

/* 2^60 and its square are far from overflow; there the cap is reached and the slope is 3e-18. */
#define MOST_BENT 60.0f

__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * LOG2_E); }

__device__ __forceinline__ float fast_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The smaller of the two, NaN if x is. */
__device__ __forceinline__ float at_most(float x, float bound) {
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(bound));
    return y;
}

/* power = e^(2x/cap), rest = 1 / (1 + power), of a piece. */
struct bent8 {
    floats8 power, rest;
};

__device__ __forceinline__ bent8 bend8(const floats8 &x, float rate) {
    bent8 b;
#pragma unroll
    for (int i = 0; i < PIECE; i += 2) {
        b.power.at[i] = fast_exp2(at_most(x.at[i] * rate, MOST_BENT));
        b.power.at[i + 1] = fast_exp2(at_most(x.at[i + 1] * rate, MOST_BENT));
        const float first = 1.0f + b.power.at[i], second = 1.0f + b.power.at[i + 1];
        const float both = fast_reciprocal(first * second);
        b.rest.at[i] = both * second;
        b.rest.at[i + 1] = both * first;
    }
    return b;
}

struct softcap {
    float cap;  /* 0: none */
    float rate; /* 2 log2(e) / cap */
};

static inline softcap softcap_of(float cap) {
    return {cap, cap > 0.0f ? 2.0f * LOG2_E / cap : 0.0f};
}

template <bool CAPPED> __device__ __forceinline__ floats8 capped(const floats8 &x, softcap s) {
    if (!CAPPED) return x;
    const bent8 b = bend8(x, s.rate);
    floats8 z;
#pragma unroll
    for (int i = 0; i < PIECE; i++) z.at[i] = fmaf(-2.0f * s.cap, b.rest.at[i], s.cap);
    return z;
}

__device__ __forceinline__ float capped_one(float x, softcap s) {
    if (!(s.cap > 0.0f)) return x;
    const float rest = fast_reciprocal(1.0f + fast_exp2(at_most(x * s.rate, MOST_BENT)));
    return fmaf(-2.0f * s.cap, rest, s.cap);
}

#endif
