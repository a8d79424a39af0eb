/* Built with later headers whose structs are longer, and listing a kind of the future besides. */
#include "tiny.h"

struct longer_param {
    fw_param now;
    const char *later[3];
};

static const struct longer_param params[] = {
    {{sizeof(struct longer_param), FW_PARAM_INT, "order", "5", 1, 9, NULL, "tokens", "context"},
     {"x", "y", "z"}},
    {{sizeof(struct longer_param), FW_PARAM_BOOL, "fold", "yes", 1, 0, NULL, NULL, "fold case"},
     {"x", "y", "z"}}};

static const struct {
    fw_cache now;
    void (*later)(void);
} table = {.now = {.struct_size = sizeof table, TINY_MEMBERS}, .later = NULL};

static const fw_plugin plugin = {.struct_size = sizeof(fw_plugin),
                                 .kind = FW_CACHE,
                                 .id = "longer",
                                 .n_params = 2,
                                 .params = &params[0].now,
                                 .vtable = &table,
                                 TINY_TEXTS};
static const fw_plugin future = {
    .struct_size = sizeof(fw_plugin), .kind = 99, .id = "future", .vtable = &table, TINY_TEXTS};
static const fw_plugin *const plugins[] = {&future, &plugin};
const fw_module fairway_module_v0 = {.magic = FW_MODULE_MAGIC,
                                     .struct_size = sizeof(fw_module) + 16,
                                     .pointer_size = sizeof(void *),
                                     .abi_minor = FW_ABI_MINOR + 7,
                                     .min_host_minor = FW_ABI_MINOR,
                                     .n_plugins = 2,
                                     .plugins = plugins};
