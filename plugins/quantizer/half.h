/* IEEE 754 binary16 by integer arithmetic, so that every machine stores the same bits: C11 has no
 * portable half type and _Float16 is an extension. */
#ifndef FAIRWAY_QUANTIZER_HALF_H
#define FAIRWAY_QUANTIZER_HALF_H

#include <stdint.h>

/* The least magnitude that rounds to infinity, and the least normal number. */
#define HALF_OVERFLOW 65520.0f
#define HALF_LEAST_NORMAL 0x1p-14f

/* Round to nearest, ties to even; infinity from HALF_OVERFLOW on; NaN stays NaN. */
uint16_t half_from_float(float value);

/* Exact. */
float half_to_float(uint16_t half);

#endif
