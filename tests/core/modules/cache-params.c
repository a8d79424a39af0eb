/* A parameter whose default is out of its own range. */
#include "tiny.h"

static const fw_param params[] = {
    FW_PARAM_RANGE(FW_PARAM_INT, "order", "12", 1, 9, "tokens", "longest context")};
static const fw_cache table = {.struct_size = sizeof(fw_cache), TINY_MEMBERS};
static const fw_plugin plugin = {.struct_size = sizeof(fw_plugin),
                                 .kind = FW_CACHE,
                                 .id = "params",
                                 .n_params = 1,
                                 .params = params,
                                 .vtable = &table,
                                 TINY_TEXTS};
FW_DEFINE_MODULE(&plugin);
