/* Where a weight of the host's model stands in a recorded case, whose tensors have the names of
 * record 993 and whose matrices are stacked in banks. */
#ifndef GOLDEN_NAMES_H
#define GOLDEN_NAMES_H

#include <fairway/weight.h>

#include "shape.h"

struct place {
    char name[64];  /* "qo_bank", "blocks.3.attn_scale": without "param/" */
    int64_t offset; /* first value within that tensor */
    int64_t count;
};

/* E_NOT_FOUND for a weight that no recorded case has. */
fw_status place_of(const struct shape *shape, const fw_weight *weight, struct place *place,
                   fw_error *error);

#endif
