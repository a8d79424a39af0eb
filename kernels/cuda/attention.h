/* The two implementations of attention behind the ops: attention.cu checks and chooses, general
 * runs everywhere and takes every case, Hopper's takes the cases that matter most for speed. */
#ifndef FAIRWAY_CUDA_ATTENTION_H
#define FAIRWAY_CUDA_ATTENTION_H

#include "cuda_device.h"

/* mma.sync, compute capability 8.0 and later. */
fw_status cuda_attention_forward_general(cuda_device *, const fw_flash_attention *, fw_error *);
size_t cuda_attention_backward_general_scratch(const cuda_device *, const fw_flash_attention *);
fw_status cuda_attention_backward_general(cuda_device *, const fw_flash_attention *, fw_error *);

/* wgmma and TMA. `takes` looks at shapes and strides alone. */
bool cuda_attention_forward_hopper_takes(const cuda_device *, const fw_flash_attention *);
fw_status cuda_attention_forward_hopper(cuda_device *, const fw_flash_attention *, fw_error *);
bool cuda_attention_backward_hopper_takes(const cuda_device *, const fw_flash_attention *);
size_t cuda_attention_backward_hopper_scratch(const cuda_device *, const fw_flash_attention *);
fw_status cuda_attention_backward_hopper(cuda_device *, const fw_flash_attention *, fw_error *);

#endif
