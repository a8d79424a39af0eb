/* Grouped-query attention: every group of query heads shares one key/value head, which shrinks the
 * key and value projections. Source: Ainslie et al., 2023. The body is in multihead.c. */
#include "../multihead.h"

#include <fairway/plugin.h>

static fw_status create(const fw_host *host, const fw_value *values,
                        const fw_attention_shape *shape, void **self, fw_error *error) {
    return multihead_create(host, values, shape, 0, self, error);
}

static const fw_param params[] = {MULTIHEAD_PARAMS};

static const fw_attention vtable = MULTIHEAD_VTABLE(create);

static const fw_plugin plugin = {
    .struct_size = sizeof plugin,
    .kind = FW_ATTENTION,
    .id = "gqa",
    .version = "1.0.0",
    .summary = "grouped-query attention with query/key norm, partial rotation and query gain",
    .vendor = "Fairway",
    .license = "MIT",
    .devices = FW_CPU | FW_CUDA,
    .n_params = sizeof params / sizeof params[0],
    .params = params,
    .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
