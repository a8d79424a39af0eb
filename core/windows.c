#include "windows.h"

uint64_t windows_count(const struct windows *windows) {
    if (windows->targets <= windows->length) return windows->targets > 0 ? 1 : 0;
    return 1 + (windows->targets - windows->length + windows->stride - 1) / windows->stride;
}

struct window windows_get(const struct windows *windows, uint64_t index) {
    struct window window = {.start = index * windows->stride, .n = windows->length};
    if (window.start + window.n > windows->targets) window.n = windows->targets - window.start;
    window.first = index == 0 ? 0 : windows->length - windows->stride;
    return window;
}
