/* Single elements of tensors that were copied to the host. */
#ifndef FAIRWAY_ELEMENT_H
#define FAIRWAY_ELEMENT_H

#include <fairway/tensor.h>
#include <string.h>

/* Element `i` of float32 or bfloat16 data. */
static inline float element_at(const void *data, uint32_t dtype, int64_t i) {
    float value;
    if (dtype == FW_F32) {
        memcpy(&value, (const char *)data + i * 4, sizeof value);
        return value;
    }
    uint16_t half; /* bfloat16: the upper half of a float32 */
    memcpy(&half, (const char *)data + i * 2, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
