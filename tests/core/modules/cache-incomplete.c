/* A cache without predict(). */
#include "tiny.h"

static const fw_cache table = {.struct_size = sizeof(fw_cache),
                               .create = tiny_create,
                               .destroy = tiny_destroy,
                               .begin = tiny_begin,
                               .update = tiny_update};
static const fw_plugin plugin = {.struct_size = sizeof(fw_plugin),
                                 .kind = FW_CACHE,
                                 .id = "incomplete",
                                 .vtable = &table,
                                 TINY_TEXTS};
FW_DEFINE_MODULE(&plugin);
