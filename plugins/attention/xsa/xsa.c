/* Exclusive self attention: grouped-query attention whose output loses its component along the
 * position's own value vector, y <- y - (y . u) u with u = v / |v|. What a token knows of itself
 * reaches the next layer through the residual stream anyway, so the heads are left to carry what
 * the other tokens say. The body is in multihead.c. */
#include "../multihead.h"

#include <fairway/plugin.h>

enum { LAST_LAYERS = MULTIHEAD_N_PARAMS };

static fw_status create(const fw_host *host, const fw_value *values,
                        const fw_attention_shape *shape, void **self, fw_error *error) {
    const int64_t last_layers = values[LAST_LAYERS].integer;
    const uint32_t exclude_self = last_layers == 0 || shape->layer >= shape->layers - last_layers;
    return multihead_create(host, values, shape, exclude_self, self, error);
}

static const fw_param params[] = {
    MULTIHEAD_PARAMS,
    FW_PARAM_RANGE(FW_PARAM_INT, "last_layers", "0", 0, 1024, "layers",
                   "exclude self in the last so many layers only, 0: in all of them")};

static const fw_attention vtable = MULTIHEAD_VTABLE(create);

static const fw_plugin plugin = {
    .struct_size = sizeof plugin,
    .kind = FW_ATTENTION,
    .id = "xsa",
    .version = "1.0.0",
    .summary = "grouped-query attention without the component along each position's own value",
    .vendor = "Fairway",
    .license = "MIT",
    .devices = FW_CPU | FW_CUDA,
    .n_params = sizeof params / sizeof params[0],
    .params = params,
    .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
