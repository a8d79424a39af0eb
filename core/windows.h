/* Which positions each evaluation window covers and which of them it scores. Window k begins at
 * k * stride; the first scores all it covers, the others their last `stride`, so that over all
 * windows every target is scored once.
 *
 * Faithful to record 993, windows go on beginning until the stream ends: those that would run past
 * its end are cut there and score their last `stride` targets again, so the final ones count up to
 * length / stride times. */
#ifndef FAIRWAY_WINDOWS_H
#define FAIRWAY_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

struct windows {
    uint64_t targets;        /* of the stream: its tokens less one */
    uint64_t length, stride; /* stride = length: windows do not overlap */
    bool faithful;
};

struct window {
    uint64_t start; /* of its inputs in the stream */
    uint64_t n;     /* inputs, at most `length` */
    uint64_t first; /* inputs [first, n) are scored */
};

uint64_t windows_count(const struct windows *windows);
struct window windows_get(const struct windows *windows, uint64_t index);

/* Whether window `index` begins one of `parts` runs of windows, as record 993 hands them to its
 * ranks: part r begins at window count * r / parts. */
bool windows_begin_part(const struct windows *windows, uint64_t parts, uint64_t index);

#endif
