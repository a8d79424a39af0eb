/* The two ways to the op linear_activation: linear_activation.cu checks, chooses, and has the way
 * of every GPU and shape; Hopper's fuses the activation into its own matrix product.
 *
 * What `saved` holds depends on the activation alone, so that one way's backward can follow the
 * other's forward: of the squared activations, whose value gives back |l|, the sign of every
 * pre-activation, one bit each; of the others the pre-activation, bfloat16 [N,M].
 *
 * Signs: blocks of 64 x 64 elements in row-major order, each of 128 words, one for each thread of
 * the warpgroup that holds the block. Thread t has the rows 16 (t / 32) + t % 32 / 4 + 8 h, and of
 * each the columns 32 g + 8 (t % 4) + 0 .. 7, with g and h 0 or 1. Column 2 i + e of these eight
 * has bit 31 - (16 g + 4 i + 2 h + e): the order in which a product of a warpgroup holds them. A
 * set bit is a negative pre-activation. */
#ifndef FAIRWAY_CUDA_LINEAR_ACTIVATION_H
#define FAIRWAY_CUDA_LINEAR_ACTIVATION_H

#include "cuda_device.h"

#define SIGN_SIDE 64     /* rows and columns of a block of signs */
#define SIGN_THREADS 128 /* its words */

static inline int64_t sign_words(int64_t rows, int64_t columns) {
    return cuda_divide_up(rows, SIGN_SIDE) * cuda_divide_up(columns, SIGN_SIDE) * SIGN_THREADS;
}

static inline bool is_squared(uint32_t kind) {
    return kind == FW_LEAKY_RELU_SQUARED || kind == FW_RELU_SQUARED;
}
static inline float slope_of(const fw_linear_activation *a) {
    return a->kind == FW_RELU_SQUARED ? 0.0f : a->slope;
}

/* Checked arguments; `takes` looks at kinds, shapes, strides and addresses. */
bool cuda_linear_activation_forward_hopper_takes(const cuda_device *, const fw_linear_activation *);
fw_status cuda_linear_activation_forward_hopper(cuda_device *, const fw_linear_activation *,
                                                fw_error *);
bool cuda_linear_activation_backward_hopper_takes(const cuda_device *,
                                                  const fw_linear_activation *);
fw_status cuda_linear_activation_backward_hopper(cuda_device *, const fw_linear_activation *,
                                                 fw_error *);

#endif
