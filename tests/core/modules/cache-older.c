/* Built when structs ended earlier: a description without `extension`, a vtable that ends before
 * the optional snapshot(). What lies behind is poison that the host must not read. */
#include "tiny.h"

static const fw_cache table = {.struct_size = offsetof(fw_cache, snapshot),
                               TINY_MEMBERS,
                               .snapshot = (fw_status(*)(void *, void *, size_t *, fw_error *))1};
static const fw_plugin plugin = {.struct_size = offsetof(fw_plugin, extension),
                                 .kind = FW_CACHE,
                                 .id = "older",
                                 .vtable = &table,
                                 TINY_TEXTS,
                                 .extension = (const void *(*)(const char *))1};
FW_DEFINE_MODULE(&plugin);
