/* exp and tanh that a compiler can vectorise: no branches, no tables, no calls.
 *
 * e^x = 2^n e^r with |r| <= ln(2)/2; (e^r - 1)/r is a polynomial of degree 5, interpolated at the
 * Chebyshev nodes of that interval (relative error 3e-8). NaN goes in and comes out. */
#ifndef FAIRWAY_CPU_MATH_H
#define FAIRWAY_CPU_MATH_H

#include <math.h>
#include <stdint.h>

/* One rounding where the processor has it; fmaf() in software would be far slower than two. */
static inline float cpu_fma(float a, float b, float c) {
#ifdef FP_FAST_FMAF
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

typedef union cpu_bits {
    float real;
    uint32_t word;
} cpu_bits;

typedef struct cpu_power {
    float scale;    /* 2^n */
    float fraction; /* e^r - 1 */
} cpu_power;

/* For |x| <= 89. Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum. */
static inline cpu_power cpu_split_exp(float x) {
    const float round = 12582912.0f;
    const cpu_bits shifted = {.real = cpu_fma(x, 1.44269504f, round)};
    const float n = shifted.real - round;
    const float r = cpu_fma(n, 2.12194440e-4f, cpu_fma(n, -0.693359375f, x));
    float p = 0.00139336428f;
    p = cpu_fma(p, r, 0.00836914964f);
    p = cpu_fma(p, r, 0.0416664667f);
    p = cpu_fma(p, r, 0.166665047f);
    p = cpu_fma(p, r, 0.5f);
    p = cpu_fma(p, r, 1.0f);
    const cpu_bits scale = {.word = (shifted.word << 23) + 0x3f800000u};
    return (cpu_power){scale.real, p * r};
}

/* Zero below -87; infinity above 88.37, where the scale itself overflows. */
static inline float cpu_exp(float x) {
    const float bounded = x > 88.37f ? 88.37f : x;
    const cpu_power power = cpu_split_exp(bounded < -88.0f ? -88.0f : bounded);
    const float y = cpu_fma(power.scale, power.fraction, power.scale);
    const float above = x > 88.37f ? INFINITY : y;
    return x < -87.0f ? 0.0f : above;
}

typedef struct cpu_bend {
    float value; /* tanh(x) */
    float slope; /* 1 - tanh(x)^2 */
} cpu_bend;

/* Through e = e^(2|x|) - 1, which keeps its relative accuracy near zero. 1 - |tanh| = 2 / (e + 2),
 * so the slope keeps its own where tanh rounds to 1; it is never below the one at 40, 7e-35. */
static inline cpu_bend cpu_tanh_bend(float x) {
    const float magnitude = fabsf(x);
    const cpu_power power = cpu_split_exp(2.0f * (magnitude > 40.0f ? 40.0f : magnitude));
    const float e = cpu_fma(power.scale, power.fraction, power.scale - 1.0f);
    const float t = e / (e + 2.0f);
    return (cpu_bend){copysignf(t, x), 2.0f / (e + 2.0f) * (1.0f + t)};
}

static inline float cpu_tanh(float x) { return cpu_tanh_bend(x).value; }

static inline float cpu_sigmoid(float x) { return 1.0f / (1.0f + cpu_exp(-x)); }

#endif
