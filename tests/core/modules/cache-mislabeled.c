/* The file's name promises a cache that the module does not list. */
#include "tiny.h"

TINY_PLUGIN(plugin, "othername");
FW_DEFINE_MODULE(&plugin);
