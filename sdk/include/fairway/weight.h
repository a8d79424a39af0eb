/* What the host knows of one weight tensor, and how plugins declare theirs. */
#ifndef FAIRWAY_WEIGHT_H
#define FAIRWAY_WEIGHT_H

#include "tensor.h"

/* Which optimizer group trains the tensor: [optimizer.matrix], [optimizer.embed],
 * [optimizer.scalar]. */
typedef enum fw_role { FW_ROLE_MATRIX = 1, FW_ROLE_EMBED = 2, FW_ROLE_SCALAR = 3 } fw_role;

typedef enum fw_init {
    FW_INIT_ZERO = 1,
    FW_INIT_CONSTANT = 2,   /* every element = init_value */
    FW_INIT_NORMAL = 3,     /* mean 0, standard deviation init_value */
    FW_INIT_ORTHOGONAL = 4, /* rows or columns orthonormal, times init_value */
    FW_INIT_FIRST_ROW = 5   /* the first row = init_value, the others 0 */
} fw_init;

/* The part of the model that a tensor belongs to; quantizers choose formats by it. */
typedef enum fw_part {
    FW_PART_EMBEDDING = 1,
    FW_PART_ATTENTION = 2,
    FW_PART_MLP = 3,
    FW_PART_OTHER = 4
} fw_part;

#define FW_NAME_BYTES 64

/* One tensor. Filled by the plugin that declares it (name, shape, role, init, pack_group) and
 * completed by the host (full name such as "layer.3.attention.wq", part, layer, index). */
typedef struct fw_weight {
    uint32_t struct_size;
    uint32_t role; /* fw_role */
    uint32_t init; /* fw_init */
    uint32_t part; /* fw_part */
    int32_t layer; /* -1 when it belongs to none */
    uint32_t rank;
    int64_t shape[FW_MAX_RANK]; /* unused dimensions are 1 */
    double init_value;
    /* Tensors of one layer that name the same group lie side by side in memory in the order of
     * their declaration: compute copies, masters and gradients alike, so that one GEMM can span
     * them. 0: none. */
    uint32_t pack_group;
    uint32_t index; /* position in the model's list of tensors */
    char name[FW_NAME_BYTES];
} fw_weight;

#endif
