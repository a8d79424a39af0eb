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

    /* -- Since 0.3, all optional: without them the host works in step with the device. -- */

    /* Host memory that copies reach without waiting. What copy_from_host reads from it must stay
     * as it is until a fence recorded behind that copy has been waited for; other host memory may
     * be used again as soon as copy_from_host returns. E_MEMORY. */
    fw_status (*allocate_host)(struct fw_device *device, size_t bytes, void **memory,
                               fw_error *error);
    void (*release_host)(struct fw_device *device, void *memory);

    /* To memory of allocate_host, in stream order, without waiting: the bytes are there once a
     * fence recorded behind the call has been waited for. E_DEVICE. */
    fw_status (*copy_to_host_async)(struct fw_device *device, void *to, const void *from,
                                    size_t bytes, fw_error *error);

    /* A fence marks a place in the stream; waiting returns when all work before the last record is
     * done, at once if it was never recorded. E_DEVICE, also for work that failed by then. */
    fw_status (*fence_create)(struct fw_device *device, void **fence, fw_error *error);
    void (*fence_destroy)(struct fw_device *device, void *fence);
    fw_status (*fence_record)(struct fw_device *device, void *fence, fw_error *error);
    fw_status (*fence_wait)(struct fw_device *device, void *fence, fw_error *error);

    /* Between capture_begin and capture_end, ops and copies (from_host: of allocate_host memory
     * only) are recorded instead of executed; graph_launch executes the record as often as wanted,
     * with the same addresses and whatever they hold by then. Nothing that waits may be called in
     * between. Every op must have run once with the same shapes before, so that what a device
     * decides by timing is decided. After a failure between them capture_end must still be called;
     * it then gives NULL. E_UNSUPPORTED, E_DEVICE. */
    fw_status (*capture_begin)(struct fw_device *device, fw_error *error);
    fw_status (*capture_end)(struct fw_device *device, void **graph, fw_error *error);
    fw_status (*graph_launch)(struct fw_device *device, void *graph, fw_error *error);
    void (*graph_destroy)(struct fw_device *device, void *graph);

    /* Since 0.4, optional. As copy_to_host_async, but on a way of its own: the copy begins when all
     * that was issued before is done, and what is issued later may be done beside it. So `from`
     * must stay as it is until a fence recorded behind the call has been waited for. Not while
     * capturing. E_DEVICE. */
    fw_status (*copy_to_host_beside)(struct fw_device *device, void *to, const void *from,
                                     size_t bytes, fw_error *error);
} fw_device;

/* The vtable of a plugin of kind FW_DEVICE. */
typedef struct fw_device_driver {
    uint32_t struct_size;
    uint32_t reserved;

    /* How many devices there are, 0 with a reason in `error` (and FW_OK) when there is none. */
    fw_status (*count)(uint32_t *count, fw_error *error);

    /* What device `ordinal` is. E_NOT_FOUND. */
    fw_status (*describe)(int32_t ordinal, fw_device_info *info, fw_error *error);

    /* `values` as in the plugin's parameter table. The caller destroys what it creates. A flag
     * whose key begins with "time_" lets the device decide something by timing, so that results may
     * differ in their last bits from run to run; the host sets it to 0 for run.deterministic. */
    fw_status (*create)(const struct fw_host *host, const fw_value *values, int32_t ordinal,
                        fw_device **device, fw_error *error);
    void (*destroy)(fw_device *device);
} fw_device_driver;

FW_END_DECLS

#endif
