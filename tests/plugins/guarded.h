/* Host buffers between guard zones, filled with a pattern, so that a test sees writes outside and
 * can tell that nothing was written inside. */
#ifndef GUARDED_H
#define GUARDED_H

#include <stddef.h>
#include <stdint.h>

typedef struct guarded {
    uint8_t *base;
    uint8_t *data; /* `bytes` bytes, aligned to 64 */
    size_t bytes;
} guarded;

guarded guarded_new(size_t bytes);
void guarded_free(guarded *g);

/* Fails the test when a guard was overwritten. */
void guarded_check(const guarded *g);

/* 1 when the data still holds the pattern alone. */
int guarded_untouched(const guarded *g);

#endif
