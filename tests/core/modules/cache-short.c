/* A vtable that ends before update(), although the pointers behind it would be fine. */
#include "tiny.h"

static const fw_cache table = {.struct_size = offsetof(fw_cache, update), TINY_MEMBERS};
static const fw_plugin plugin = {.struct_size = sizeof(fw_plugin),
                                 .kind = FW_CACHE,
                                 .id = "short",
                                 .vtable = &table,
                                 TINY_TEXTS};
FW_DEFINE_MODULE(&plugin);
