/* Needs a host that does not exist yet. */
#include "tiny.h"

TINY_PLUGIN(plugin, "newer");
static const fw_plugin *const plugins[] = {&plugin};
const fw_module fairway_module_v0 = {.magic = FW_MODULE_MAGIC,
                                     .struct_size = sizeof(fw_module),
                                     .pointer_size = sizeof(void *),
                                     .abi_minor = 999,
                                     .min_host_minor = 999,
                                     .n_plugins = 1,
                                     .plugins = plugins};
