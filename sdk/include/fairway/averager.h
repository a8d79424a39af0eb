/* Weight averaging: sees the weights after every step and yields the weights that are exported. */
#ifndef FAIRWAY_AVERAGER_H
#define FAIRWAY_AVERAGER_H

#include "host.h"
#include "optimizer.h"

FW_BEGIN_DECLS

/* One tensor: `parameter` is read, `slot` is the averager's state, `result` is written by result().
 */
typedef struct fw_averager_tensor {
    uint32_t struct_size;
    uint32_t reserved;
    const fw_weight *weight;
    fw_tensor parameter;          /* F32, the raw weights; never written */
    fw_tensor slot[FW_MAX_SLOTS]; /* F32, zero before the first update */
    fw_tensor result;             /* F32, may not alias the others */
} fw_averager_tensor;

typedef struct fw_averager_call {
    uint32_t struct_size;
    uint32_t n_tensors;                /* 0: a rehearsal of the schedule, before training */
    const fw_averager_tensor *tensors; /* every tensor of the model */
    int64_t step;                      /* of the step just taken, 0 for the first */
    double schedule;                   /* learning-rate scale of that step */
} fw_averager_call;

typedef struct fw_averager {
    uint32_t struct_size;
    /* Slots per tensor, at most FW_MAX_SLOTS. 0 and update == NULL: averaging is off. */
    uint32_t n_slots;
    fw_status (*create)(const fw_host *host, const fw_value *values, void **self, fw_error *error);
    void (*destroy)(void *self);

    /* After each applied step. [no-alloc] Optional. */
    fw_status (*update)(void *self, const fw_averager_call *call, fw_error *error);

    /* Write every tensor's `result`. E_LIMIT: it never took part (a window that never opened). */
    fw_status (*result)(void *self, const fw_averager_call *call, fw_error *error);

    /* Optional: host state beyond the slots, for checkpoints. `bytes` in: capacity, out: used. */
    fw_status (*save)(void *self, void *state, size_t *bytes, fw_error *error);
    fw_status (*load)(void *self, const void *state, size_t bytes, fw_error *error);
} fw_averager;

FW_END_DECLS

#endif
