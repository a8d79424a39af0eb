/* Conversions between binary32 and binary16: the exponent bias differs by 112, the mantissa by 13
 * bits. Source: IEEE 754-2019, sections 3.4 and 4.3.1. */
#include "half.h"

#include <math.h>
#include <string.h>

uint16_t half_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (fabsf(value) >= HALF_OVERFLOW) return (uint16_t)(sign | 0x7c00u);
    if (fabsf(value) < HALF_LEAST_NORMAL) /* a multiple of 2^-24; the product is exact */
        return (uint16_t)(sign | (uint32_t)rintf(fabsf(value) * 0x1p24f));
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}

float half_to_float(uint16_t half) {
    const uint32_t exponent = (half >> 10) & 31u, mantissa = half & 0x3ffu;
    const float sign = (half & 0x8000u) != 0 ? -1.0f : 1.0f;
    if (exponent == 0) return sign * (float)mantissa * 0x1p-24f;
    const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    const uint32_t bits = (half & 0x8000u) << 16 | wide << 23 | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
