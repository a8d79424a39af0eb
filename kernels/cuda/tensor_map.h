/* Descriptions of tensors for the copy engine (TMA), made on the host and passed to kernels by
 * value as __grid_constant__ parameters. */
#ifndef FAIRWAY_CUDA_TENSOR_MAP_H
#define FAIRWAY_CUDA_TENSOR_MAP_H

#include <cuda.h>

#include "cuda_device.h"

/* A bfloat16 tensor at `data` (16-byte aligned) of `rank` <= 5 dimensions, innermost first: sizes
 * in elements, strides in bytes of dimensions 1 .. rank-1 (multiples of 16), the box that one copy
 * moves, in elements, at most 256 each and 128 bytes in the innermost. Boxes land in shared memory
 * in the 128-byte swizzle of hopper.cuh; what lies outside the tensor reads as zero and is not
 * written. E_DEVICE when the driver refuses. */
fw_status cuda_tensor_map(cuda_device *cuda, CUtensorMap *map, const void *data, int rank,
                          const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                          fw_error *error);

#endif
