/* Conversions between float32, bfloat16 and IEEE half, rounding to nearest even, in integers: the
 * same bits on every processor. NaN stays NaN (made quiet), infinities and denormals are kept. */
#include "cpu.h"

#include "cpu_math.h"

#include <omp.h>
#include <string.h>

static inline uint16_t to_bf16(float x) {
    const uint32_t word = ((cpu_bits){.real = x}).word;
    const uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
    const uint32_t quiet = word | 0x00400000u;
    return (uint16_t)(((word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded) >> 16);
}

static inline float from_bf16(uint16_t x) { return ((cpu_bits){.word = (uint32_t)x << 16}).real; }

/* Normal halves: rebias the exponent by 112 and round off 13 bits. Denormal halves: let the
 * float adder align and round, by adding 0.5, whose last bit is worth 2^-24. */
static inline uint16_t to_f16(float x) {
    const uint32_t word = ((cpu_bits){.real = x}).word, sign = (word >> 16) & 0x8000u;
    const uint32_t magnitude = word & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const cpu_bits aligned = {.real = ((cpu_bits){.word = magnitude}).real + 0.5f};
    uint32_t half = magnitude < 0x38800000u ? aligned.word - 0x3f000000u : normal;
    half = magnitude >= 0x47800000u ? 0x7c00u : half; /* 65536 and beyond */
    half = magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : half;
    return (uint16_t)(sign | half);
}

static inline float from_f16(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, magnitude = x & 0x7fffu;
    const uint32_t normal = (magnitude << 13) + 0x38000000u;
    const uint32_t special = (magnitude << 13) + 0x70000000u;
    const cpu_bits denormal = {.real = (float)(int32_t)magnitude * 0x1p-24f};
    uint32_t word = magnitude < 0x400u ? denormal.word : normal;
    word = magnitude >= 0x7c00u ? special : word;
    word = magnitude > 0x7c00u ? word | 0x00400000u : word;
    return ((cpu_bits){.word = word | sign}).real;
}

enum { CHUNK = 1024 };

static void load(const fw_tensor *from, int64_t begin, int64_t n, float *to) {
    const uint16_t *half = (const uint16_t *)from->data + begin;
    if (from->dtype == FW_F32) {
        memcpy(to, (const float *)from->data + begin, (size_t)n * sizeof *to);
    } else if (from->dtype == FW_BF16) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = from_bf16(half[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = from_f16(half[i]);
    }
}

static void store(const fw_tensor *to, int64_t begin, int64_t n, const float *from) {
    uint16_t *half = (uint16_t *)to->data + begin;
    if (to->dtype == FW_F32) {
        memcpy((float *)to->data + begin, from, (size_t)n * sizeof *from);
    } else if (to->dtype == FW_BF16) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) half[i] = to_bf16(from[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) half[i] = to_f16(from[i]);
    }
}

static int is_real(uint32_t dtype) {
    return dtype == FW_F32 || dtype == FW_BF16 || dtype == FW_F16;
}

fw_status cpu_cast(fw_device *device, const fw_cast *p, fw_error *error) {
    CPU_ARGUMENTS("cast", device, p, error);
    if (!is_real(p->from.dtype) || !is_real(p->to.dtype))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "cast: dtypes %u and %u; F32, BF16 and F16 can be converted", p->from.dtype,
                       p->to.dtype);
    FW_TRY(cpu_check_packed("cast", "from", &p->from, p->from.dtype, -1, error));
    const int64_t n = fw_tensor_count(&p->from);
    FW_TRY(cpu_check_packed("cast", "to", &p->to, p->to.dtype, n, error));
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (n > CPU_PARALLEL_ELEMENTS)
    for (int64_t begin = 0; begin < n; begin += CHUNK) {
        float values[CHUNK];
        const int64_t count = cpu_min(CHUNK, n - begin);
        load(&p->from, begin, count, values);
        store(&p->to, begin, count, values);
    }
    return FW_OK;
}
