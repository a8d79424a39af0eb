/* The right symbol, the wrong magic. */
#include "tiny.h"

TINY_PLUGIN(plugin, "magic");
static const fw_plugin *const plugins[] = {&plugin};
const fw_module fairway_module_v0 = {.magic = FW_MODULE_MAGIC + 1,
                                     .struct_size = sizeof(fw_module),
                                     .pointer_size = sizeof(void *),
                                     .abi_minor = FW_ABI_MINOR,
                                     .n_plugins = 1,
                                     .plugins = plugins};
