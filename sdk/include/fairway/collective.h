/* Collectives of a run on several ranks: NCCL, MPI. Operations are in place on device memory,
 * issued in the same order on every rank, in stream order with the device's work. */
#ifndef FAIRWAY_COLLECTIVE_H
#define FAIRWAY_COLLECTIVE_H

#include "host.h"

FW_BEGIN_DECLS

typedef enum fw_collective_op { FW_ALL_SUM = 1, FW_ALL_MEAN = 2, FW_ALL_MAX = 3 } fw_collective_op;

typedef struct fw_collective {
    uint32_t struct_size;
    uint32_t reserved;

    /* Join the job that the launcher describes in the environment. E_CONFIG, E_DEVICE. */
    fw_status (*create)(const fw_host *host, const fw_value *values, void **self, fw_error *error);
    void (*destroy)(void *self);
    uint32_t (*rank)(void *self);
    uint32_t (*size)(void *self);

    /* tensor <- op over ranks, element by element. F32 or BF16, contiguous. */
    fw_status (*all_reduce)(void *self, const fw_tensor *tensor, uint32_t op, fw_error *error);

    /* Rank r's slice (element range r*n/size .. (r+1)*n/size) <- op over ranks of that slice. */
    fw_status (*reduce_scatter)(void *self, const fw_tensor *tensor, uint32_t op, fw_error *error);

    /* Every rank gets every rank's slice, slices as above. */
    fw_status (*all_gather)(void *self, const fw_tensor *tensor, fw_error *error);

    /* Every rank gets `root`'s tensor. */
    fw_status (*broadcast)(void *self, const fw_tensor *tensor, uint32_t root, fw_error *error);

    /* All ranks have reached this point; host-synchronous. */
    fw_status (*barrier)(void *self, fw_error *error);
} fw_collective;

FW_END_DECLS

#endif
