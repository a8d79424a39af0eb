/* Turns on flush-to-zero while it is loaded, as libraries built with -ffast-math do. */
#include "tiny.h"
#if defined(__SSE__)
#include <xmmintrin.h>

static void flush_to_zero(void) __attribute__((constructor));
static void flush_to_zero(void) { _mm_setcsr(_mm_getcsr() | 0x8000u); }
#endif

TINY_PLUGIN(plugin, "mxcsr");
FW_DEFINE_MODULE(&plugin);
