/* Claims to be built for 32-bit pointers. */
#include "tiny.h"

TINY_PLUGIN(plugin, "pointer");
static const fw_plugin *const plugins[] = {&plugin};
const fw_module fairway_module_v0 = {.magic = FW_MODULE_MAGIC,
                                     .struct_size = sizeof(fw_module),
                                     .pointer_size = 4,
                                     .abi_minor = FW_ABI_MINOR,
                                     .n_plugins = 1,
                                     .plugins = plugins};
