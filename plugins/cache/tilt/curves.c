/* Methods: reduction by powers of two, then a series; Muller, "Elementary Functions" (2016),
 * chapters 3 and 11. */
#include "curves.h"

#include <stdbool.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define X86 1
#define FOR_PROCESSOR(features) __attribute__((target(features)))
#define ALWAYS_INLINE __attribute__((always_inline)) inline
#include <immintrin.h>
#else
#define X86 0
#define ALWAYS_INLINE inline
#endif

/* log 2 in two parts; small multiples of the first are exact. */
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

/* e^x = 2^k e^r with |r| <= log(2) / 2: adding `shift` rounds to an integer k and leaves it in the
 * sum's last bits. */
static ALWAYS_INLINE double exp_of(double x) {
    const double shift = 0x1.8p52, log2_e = 0x1.71547652b82fep+0;
    const double shifted = x * log2_e + shift, k = shifted - shift;
    const double r = (x - k * LOG2_HIGH) - k * LOG2_LOW;
    double q = 1.0 / 3628800;
    q = q * r + 1.0 / 362880;
    q = q * r + 1.0 / 40320;
    q = q * r + 1.0 / 5040;
    q = q * r + 1.0 / 720;
    q = q * r + 1.0 / 120;
    q = q * r + 1.0 / 24;
    q = q * r + 1.0 / 6;
    q = q * r + 0.5;
    q = q * r + 1.0;
    q = q * r + 1.0;
    return q * from_bits((bits_of(shifted) + 1023) << 52);
}

/* log x = k log 2 + 2 atanh(s), s = (m - 1) / (m + 1), for x = 2^k m with m around 1. */
static ALWAYS_INLINE double log_of(double x) {
    const uint64_t root = UINT64_C(0x3fe6a09e667f3bcd), one = UINT64_C(0x3ff0000000000000);
    const uint64_t offset = bits_of(x) - root + one, exponent = offset >> 52;
    /* An integer below 2^52 behind the bits of 2^52 is that double. */
    const double k = from_bits(exponent | UINT64_C(0x4330000000000000)) - (0x1p52 + 1023);
    const double m = from_bits(bits_of(x) - ((exponent - 1023) << 52));
    const double s = (m - 1) / (m + 1), z = s * s;
    double q = 1.0 / 13;
    q = q * z + 1.0 / 11;
    q = q * z + 1.0 / 9;
    q = q * z + 1.0 / 7;
    q = q * z + 1.0 / 5;
    q = q * z + 1.0 / 3;
    q = q * z + 1.0;
    return k * LOG2_HIGH + (2 * s * q + k * LOG2_LOW);
}

/* Whole groups, without a rest that would be done one by one. */
#define FOR_GROUPS(i, k, n)                                                                        \
    for (uint32_t i = 0; i < (n); i += CURVES_AT_ONCE)                                             \
        for (uint32_t k = i; k < i + CURVES_AT_ONCE; k++)

static ALWAYS_INLINE void log_ratios(uint32_t n, const double *restrict mass,
                                     const double *restrict p, double share,
                                     double *restrict ratio) {
    FOR_GROUPS(i, k, n) {
        const double floored = p[k] > 0x1p-100 ? p[k] : 0x1p-100;
        ratio[k] = log_of(1 + mass[k] / (share * floored));
    }
}

static ALWAYS_INLINE void gains(uint32_t n, const double *restrict x, double *restrict gain) {
    FOR_GROUPS(i, k, n) gain[k] = exp_of(x[k]);
}

/* ---- search ---- */

static ALWAYS_INLINE uint32_t lowest_bit(uint64_t bits) {
#if defined(__GNUC__)
    return (uint32_t)__builtin_ctzll(bits);
#else
    uint32_t place = 0;
    while ((bits >> place & 1) == 0) place++;
    return place;
#endif
}

/* `compare` says of eight numbers, in as many bits, which are above `least`. Most groups of 64 hold
 * two at most, which are written without a branch that would be mistaken. */
typedef uint64_t compare_eight(const double *p, double least);

static ALWAYS_INLINE uint32_t above(uint32_t n, const double *p, double least, uint32_t *indices,
                                    compare_eight *compare) {
    uint32_t found = 0, i = 0;
    for (; n - i >= 64; i += 64) {
        uint64_t bits = 0;
        for (uint32_t k = 0; k < 64; k += 8) bits |= compare(p + i + k, least) << k;
        for (uint32_t k = 0; k < 2; k++, bits &= bits - 1) {
            indices[found] = i + lowest_bit(bits | UINT64_C(1) << 63);
            found += bits != 0;
        }
        for (; bits != 0; bits &= bits - 1) indices[found++] = i + lowest_bit(bits);
    }
    for (; n - i >= 8; i += 8)
        for (uint64_t bits = compare(p + i, least); bits != 0; bits &= bits - 1)
            indices[found++] = i + lowest_bit(bits);
    for (; i < n; i++)
        if (p[i] > least) indices[found++] = i;
    return found;
}

static ALWAYS_INLINE uint64_t compare_anywhere(const double *p, double least) {
    uint64_t bits = 0;
    for (uint32_t k = 0; k < 8; k++) bits |= (uint64_t)(p[k] > least) << k;
    return bits;
}

#if X86
FOR_PROCESSOR("avx2") static ALWAYS_INLINE uint64_t compare_avx2(const double *p, double least) {
    const __m256d bound = _mm256_set1_pd(least);
    const __m256d low = _mm256_cmp_pd(_mm256_loadu_pd(p), bound, _CMP_GT_OQ);
    const __m256d high = _mm256_cmp_pd(_mm256_loadu_pd(p + 4), bound, _CMP_GT_OQ);
    return (uint64_t)(_mm256_movemask_pd(low) | _mm256_movemask_pd(high) << 4);
}

FOR_PROCESSOR("avx512f")
static ALWAYS_INLINE uint64_t compare_avx512(const double *p, double least) {
    return _mm512_cmp_pd_mask(_mm512_loadu_pd(p), _mm512_set1_pd(least), _CMP_GT_OQ);
}
#endif

/* The same loops, compiled for one kind of processor. */
#define CURVES_FOR(name, processor)                                                                \
    processor static void log_ratios_##name(uint32_t n, const double *mass, const double *p,       \
                                            double share, double *ratio) {                         \
        log_ratios(n, mass, p, share, ratio);                                                      \
    }                                                                                              \
    processor static void gains_##name(uint32_t n, const double *x, double *gain) {                \
        gains(n, x, gain);                                                                         \
    }                                                                                              \
    processor static uint32_t above_##name(uint32_t n, const double *p, double least,              \
                                           uint32_t *indices) {                                    \
        return above(n, p, least, indices, compare_##name);                                        \
    }                                                                                              \
    static const curves curves_##name = {log_ratios_##name, gains_##name, above_##name};

CURVES_FOR(anywhere, )
#if X86
CURVES_FOR(avx2, FOR_PROCESSOR("avx2"))
CURVES_FOR(avx512, FOR_PROCESSOR("avx512f,avx512dq,avx512vl,prefer-vector-width=512"))

static const curves *const all[] = {&curves_anywhere, &curves_avx2, &curves_avx512};

const curves *const *curves_all(uint32_t *n) {
    const bool avx2 = __builtin_cpu_supports("avx2");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    *n = !avx2 ? 1 : !avx512 ? 2 : 3;
    return all;
}
#else
static const curves *const all[] = {&curves_anywhere};

const curves *const *curves_all(uint32_t *n) {
    *n = 1;
    return all;
}
#endif

const curves *curves_here(void) {
    uint32_t n = 0;
    const curves *const *first = curves_all(&n);
    return first[n - 1];
}
