/* An id that cannot be a file name. */
#include "tiny.h"

TINY_PLUGIN(plugin, "../Id");
FW_DEFINE_MODULE(&plugin);
