#include "windows.h"

uint64_t windows_count(const struct windows *windows) {
    if (windows->faithful) return (windows->targets + windows->stride - 1) / windows->stride;
    if (windows->targets <= windows->length) return windows->targets > 0 ? 1 : 0;
    return 1 + (windows->targets - windows->length + windows->stride - 1) / windows->stride;
}

struct window windows_get(const struct windows *windows, uint64_t index) {
    struct window window = {.start = index * windows->stride, .n = windows->length};
    if (window.start + window.n > windows->targets) window.n = windows->targets - window.start;
    if (index == 0) return window;
    if (windows->faithful) {
        window.first = window.n > windows->stride ? window.n - windows->stride : 0;
    } else {
        window.first = windows->length - windows->stride;
    }
    return window;
}

bool windows_begin_part(const struct windows *windows, uint64_t parts, uint64_t index) {
    const uint64_t count = windows_count(windows);
    const uint64_t part = (index * parts + count - 1) / count; /* the first that may begin here */
    return count * part / parts == index;
}
