/* Two caches in one module. */
#include "tiny.h"

TINY_PLUGIN(alpha, "alpha");
TINY_PLUGIN(several, "several");
FW_DEFINE_MODULE(&several, &alpha);
