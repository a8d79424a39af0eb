/* Optimizer: declares state slots for each tensor; the host allocates, checkpoints and shards them.
 * One instance serves one group ([optimizer.matrix], .embed or .scalar). */
#ifndef FAIRWAY_OPTIMIZER_H
#define FAIRWAY_OPTIMIZER_H

#include "host.h"
#include "ops.h"
#include "weight.h"

FW_BEGIN_DECLS

#define FW_MAX_SLOTS 4

/* One tensor during a step. All are device memory of the tensor's shape. */
typedef struct fw_optimizer_tensor {
    uint32_t struct_size;
    uint32_t reserved;
    const fw_weight *weight;
    fw_tensor parameter;          /* F32 master, in and out */
    fw_tensor gradient;           /* F32; may be used as scratch */
    fw_tensor compute;            /* compute copy to refresh, or absent */
    fw_tensor slot[FW_MAX_SLOTS]; /* F32, zero before the first step */
} fw_optimizer_tensor;

typedef struct fw_optimizer_call {
    uint32_t struct_size;
    uint32_t n_tensors;
    const fw_optimizer_tensor *tensors; /* the group's, in the model's order */
    const fw_step *step;                /* device memory */
    void *scratch;
} fw_optimizer_call;

typedef struct fw_optimizer {
    uint32_t struct_size;
    uint32_t reserved;
    fw_status (*create)(const fw_host *host, const fw_value *values, void **self, fw_error *error);
    void (*destroy)(void *self);

    /* State tensors (F32, shape of the weight) that `weight` needs, at most FW_MAX_SLOTS. */
    uint32_t (*slots)(void *self, const fw_weight *weight);

    /* Scratch for a step over these tensors. E_UNSUPPORTED names a tensor it cannot train. */
    fw_status (*plan)(void *self, const fw_weight *const *weights, uint32_t n_weights,
                      size_t *scratch_bytes, fw_error *error);

    /* Refine the scalars of the next step on the host. On entry: step, schedule, quantize are set;
     * learning_rate, momentum, weight_decay are this call's to fill. Never touches the device. */
    void (*prepare)(void *self, fw_step *step);

    /* Issue one update of the group. [no-alloc] [deterministic] No synchronisation. The host may
     * capture what is issued and launch it for later steps (device.h), without another call: it may
     * depend on shapes and settings alone; what changes from step to step is read from call->step.
     */
    fw_status (*step)(void *self, const fw_optimizer_call *call, fw_error *error);

    /* Optional: tensor `index` of the group has its gradient; communication may begin. */
    fw_status (*grad_ready)(void *self, const fw_optimizer_call *call, uint32_t index,
                            fw_error *error);
} fw_optimizer;

FW_END_DECLS

#endif
