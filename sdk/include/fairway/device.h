/* A device: memory, a native stream and a table of ops (ops.h).
 *
 * A device is created by a plugin of kind `device` and shared by every plugin of the run. Work is
 * issued in order on one stream and may be asynchronous; only `synchronize` and `copy_to_host`
 * wait. The CPU device computes in float32 and is synchronous. */
#ifndef FAIRWAY_DEVICE_H
#define FAIRWAY_DEVICE_H

#include "error.h"
#include "param.h"
#include "tensor.h"

FW_BEGIN_DECLS

struct fw_ops;
struct fw_host;

/* The scalars of one training step, resident on the device so that a step can be captured once and
 * replayed. Kernels read them through a pointer and never receive them by value. 64 bytes, frozen.
 * One exists for each optimizer group; the host fills it before the step, then the optimizer's
 * prepare() may refine it; the fields marked (device) are written by ops during the step. */
typedef struct fw_step {
    int64_t step;        /* 0 for the first step */
    float learning_rate; /* final: base rate times schedule */
    float schedule;      /* the schedule's scale, 1 at full rate */
    float momentum;      /* for optimizers with a momentum ramp */
    float weight_decay;  /* decoupled; applied as 1 - learning_rate * weight_decay */
    float clip;          /* (device) factor on gradients, 1 when the norm is within bounds */
    float gradient_norm; /* (device) global norm before clipping */
    uint32_t finite;     /* (device) 0 when a gradient is not finite: the step is not applied */
    uint32_t quantize;   /* 1 while quantization-aware training is on */
    float reserved[6];
} fw_step;

typedef struct fw_device_info {
    uint32_t struct_size;
    uint32_t type; /* FW_CPU or FW_CUDA */
    int32_t ordinal;
    uint32_t threads;      /* CPU threads used by the ops; 0 elsewhere */
    uint64_t memory_bytes; /* total memory */
    char name[128];        /* "Intel Xeon ... (2 threads)", "NVIDIA H200" */
    char libraries[128];   /* "OpenBLAS 0.3.21", "CUDA 13.0, cuBLAS 13.1" */
} fw_device_info;

typedef struct fw_device {
    uint32_t struct_size;
    uint32_t type;
    int32_t ordinal;
    uint32_t compute_dtype; /* dtype of activations and compute weights: F32 (CPU), BF16 (CUDA) */
    void *stream;           /* native stream: a cudaStream_t on CUDA, NULL on the CPU */
    void *self;             /* the device plugin's own */

    /* Device memory, aligned to 256 bytes and uninitialised. E_MEMORY names the size asked for and
     * what is free. Never called inside a training step. */
    fw_status (*allocate)(struct fw_device *device, size_t bytes, void **memory, fw_error *error);
    void (*release)(struct fw_device *device, void *memory);

    /* Copies in stream order. copy_to_host returns when the bytes are there. E_DEVICE. */
    fw_status (*copy_from_host)(struct fw_device *device, void *to, const void *from, size_t bytes,
                                fw_error *error);
    fw_status (*copy_to_host)(struct fw_device *device, void *to, const void *from, size_t bytes,
                              fw_error *error);
    fw_status (*copy)(struct fw_device *device, void *to, const void *from, size_t bytes,
                      fw_error *error);
    fw_status (*zero)(struct fw_device *device, void *memory, size_t bytes, fw_error *error);
    fw_status (*synchronize)(struct fw_device *device, fw_error *error);

    const struct fw_ops *ops;
} fw_device;

/* The vtable of a plugin of kind FW_DEVICE. */
typedef struct fw_device_driver {
    uint32_t struct_size;
    uint32_t reserved;

    /* How many devices there are, 0 with a reason in `error` (and FW_OK) when there is none. */
    fw_status (*count)(uint32_t *count, fw_error *error);

    /* What device `ordinal` is. E_NOT_FOUND. */
    fw_status (*describe)(int32_t ordinal, fw_device_info *info, fw_error *error);

    /* `values` as in the plugin's parameter table. The caller destroys what it creates. */
    fw_status (*create)(const struct fw_host *host, const fw_value *values, int32_t ordinal,
                        fw_device **device, fw_error *error);
    void (*destroy)(fw_device *device);
} fw_device_driver;

FW_END_DECLS

#endif
