#include "elementary.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define X86 1
#define FOR_PROCESSOR(features) __attribute__((target(features)))
#define ALWAYS_INLINE __attribute__((always_inline)) inline
#else
#define X86 0
#define ALWAYS_INLINE inline
#endif

/* log 2 in two parts; multiples of the first up to 2^11 are exact. */
static const double LOG2_HIGH = 0x1.62e42fefa2p-1, LOG2_LOW = 0x1.9ef35793c7673p-41;

static ALWAYS_INLINE double from_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static ALWAYS_INLINE uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- rows ---- */

static const float LEAST = -708, MOST = 709; /* what exp_of is made for */

/* e^x = 2^k e^r, |r| <= log(2) / 2, and e^r = 1 + (r + r^2 q(r)) with q of degree 10, which is
 * Chebyshev interpolation of (e^r - 1 - r) / r^2: off by less than 4e-19. Adding `shift` rounds to
 * an integer k and leaves it in the sum's last bits. */
static ALWAYS_INLINE double exp_of(double x) {
    const double shift = 0x1.8p52, log2_e = 0x1.71547652b82fep+0;
    const double shifted = fma(x, log2_e, shift), k = shifted - shift;
    const double r = fma(k, -LOG2_LOW, fma(k, -LOG2_HIGH, x));
    double q = 0x1.1f730349868cep-29;
    q = fma(q, r, 0x1.af4de97ca4194p-26);
    q = fma(q, r, 0x1.27e4db646b17ep-22);
    q = fma(q, r, 0x1.71de0231960ebp-19);
    q = fma(q, r, 0x1.a01a01a6d889cp-16);
    q = fma(q, r, 0x1.a01a01abe7fe1p-13);
    q = fma(q, r, 0x1.6c16c16c162d4p-10);
    q = fma(q, r, 0x1.11111111100dcp-7);
    q = fma(q, r, 0x1.5555555555556p-5);
    q = fma(q, r, 0x1.5555555555557p-3);
    q = fma(q, r, 0.5);
    const double power = from_bits((bits_of(shifted) + 1023) << 52);
    return power * (1 + fma(r * r, q, r));
}

static double exp_or_limit(float x) {
    if (x < LEAST) return 0.0;
    if (x > MOST) return (double)INFINITY;
    return isnan(x) ? (double)NAN : exp_of((double)x);
}

/* Almost always nothing is out of range, and the loop vectorises without a branch in it. */
static ALWAYS_INLINE void exp_all(const float *restrict x, uint32_t n, double *restrict y) {
    uint32_t outside = 0;
    for (uint32_t i = 0; i < n; i++) outside |= !(x[i] >= LEAST) | !(x[i] <= MOST);
    if (outside == 0)
        for (uint32_t i = 0; i < n; i++) y[i] = exp_of((double)x[i]);
    else
        for (uint32_t i = 0; i < n; i++) y[i] = exp_or_limit(x[i]);
}

enum { LANES = 16 };

static ALWAYS_INLINE double add_lanes(const double *lanes) {
    double sum = 0;
    for (uint32_t k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
}

static ALWAYS_INLINE double sum_all(const double *y, uint32_t n) {
    double lanes[LANES] = {0};
    uint32_t i = 0;
    for (; n - i >= LANES; i += LANES)
        for (uint32_t k = 0; k < LANES; k++) lanes[k] += y[i + k];
    for (uint32_t k = 0; i + k < n; k++) lanes[k] += y[i + k];
    return add_lanes(lanes);
}

static ALWAYS_INLINE double dot_all(const double *y, const float *x, uint32_t n) {
    double lanes[LANES] = {0};
    uint32_t i = 0;
    for (; n - i >= LANES; i += LANES)
        for (uint32_t k = 0; k < LANES; k++) lanes[k] += y[i + k] * (double)x[i + k];
    for (uint32_t k = 0; i + k < n; k++) lanes[k] += y[i + k] * (double)x[i + k];
    return add_lanes(lanes);
}

static ALWAYS_INLINE void scale_all(double *y, uint32_t n, double factor) {
    for (uint32_t i = 0; i < n; i++) y[i] *= factor;
}

/* The same four loops, compiled for one kind of processor. */
#define ROWS_FOR(name, processor)                                                                  \
    processor static void exp_##name(const float *x, uint32_t n, double *y) { exp_all(x, n, y); }  \
    processor static double sum_##name(const double *y, uint32_t n) { return sum_all(y, n); }      \
    processor static double dot_##name(const double *y, const float *x, uint32_t n) {              \
        return dot_all(y, x, n);                                                                   \
    }                                                                                              \
    processor static void scale_##name(double *y, uint32_t n, double factor) {                     \
        scale_all(y, n, factor);                                                                   \
    }
#define ROWS_NAMED(name)                                                                           \
    { exp_##name, sum_##name, dot_##name, scale_##name }

ROWS_FOR(anywhere, )
#if X86
ROWS_FOR(avx2, FOR_PROCESSOR("avx2,fma"))
ROWS_FOR(avx512, FOR_PROCESSOR("avx512f,avx512dq,prefer-vector-width=512"))

static const struct elementary_rows all[] = {ROWS_NAMED(anywhere), ROWS_NAMED(avx2),
                                             ROWS_NAMED(avx512)};

const struct elementary_rows *elementary_all(uint32_t *n) {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    *n = !avx2 ? 1 : !avx512 ? 2 : 3;
    return all;
}
#else
static const struct elementary_rows all[] = {ROWS_NAMED(anywhere)};

const struct elementary_rows *elementary_all(uint32_t *n) {
    *n = 1;
    return all;
}
#endif

const struct elementary_rows *elementary_rows(void) {
    uint32_t n = 0;
    const struct elementary_rows *first = elementary_all(&n);
    return &first[n - 1];
}

/* ---- logarithm ---- */

/* log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)]: with s = f / (2 + f) and z = s^2 it is
 * 2 atanh(s) = 2 s + s z R(z), and 2 s = f - s f. R of degree 7 by Chebyshev interpolation: off by
 * less than 2e-18. f stands apart, as it is exact. */
static ALWAYS_INLINE double log_of_sum(double f, double k) {
    const double s = f / (2 + f), z = s * s;
    double R = 0x1.0c05166ec4148p-3;
    R = fma(R, z, 0x1.0fbe71ad855c9p-3);
    R = fma(R, z, 0x1.3b1c36b445cebp-3);
    R = fma(R, z, 0x1.745cf8fe328f9p-3);
    R = fma(R, z, 0x1.c71c720168526p-3);
    R = fma(R, z, 0x1.2492492476c42p-2);
    R = fma(R, z, 0x1.9999999999a38p-2);
    R = fma(R, z, 0x1.5555555555555p-1);
    const double half = 0.5 * f * f; /* s f = half - s half */
    const double small = fma(s, fma(z, R, half), k * LOG2_LOW);
    return fma(k, LOG2_HIGH, f - (half - small));
}

static ALWAYS_INLINE double log_of(double x) {
    if (!(x > 0)) return x == 0 ? -(double)INFINITY : (double)NAN;
    if (isinf(x)) return x;
    const bool small = x < 0x1p-1022;
    const uint64_t bits = bits_of(small ? x * 0x1p54 : x);
    /* The exponent of x / sqrt(1/2), so that what is left lies around 1. */
    const uint64_t root = UINT64_C(0x3fe6a09e667f3bcd), one = UINT64_C(0x3ff0000000000000);
    const uint64_t offset = bits - root + one;
    const int64_t exponent = (int64_t)(offset >> 52) - 1023;
    const double m = from_bits(bits - ((uint64_t)exponent << 52));
    return log_of_sum(m - 1, (double)(exponent - (small ? 54 : 0)));
}

#if X86
FOR_PROCESSOR("fma") static double log_with_fma(double x) { return log_of(x); }

double elementary_log(double x) {
    return __builtin_cpu_supports("fma") ? log_with_fma(x) : log_of(x);
}
#else
double elementary_log(double x) { return log_of(x); }
#endif
