/* A kind that does not exist, from a module that claims to be no newer than the host. */
#include "tiny.h"

static const fw_cache table = {.struct_size = sizeof(fw_cache), TINY_MEMBERS};
static const fw_plugin plugin = {
    .struct_size = sizeof(fw_plugin), .kind = 99, .id = "kind", .vtable = &table, TINY_TEXTS};
FW_DEFINE_MODULE(&plugin);
