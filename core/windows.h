/* Which positions each evaluation window covers and which of them it scores. Over all windows every
 * target is scored once: window k begins at k * stride; the first scores all it covers, the others
 * their last `stride`. */
#ifndef FAIRWAY_WINDOWS_H
#define FAIRWAY_WINDOWS_H

#include <stdint.h>

struct windows {
    uint64_t targets;        /* of the stream: its tokens less one */
    uint64_t length, stride; /* stride = length: windows do not overlap */
};

struct window {
    uint64_t start; /* of its inputs in the stream */
    uint64_t n;     /* inputs, at most `length` */
    uint64_t first; /* inputs [first, n) are scored */
};

uint64_t windows_count(const struct windows *windows);
struct window windows_get(const struct windows *windows, uint64_t index);

#endif
