/* Guarded host buffers; see guarded.h. */
#include "guarded.h"

#include "support.h"

enum { GUARD_BYTES = 64, GUARD_BYTE = 0x5a };

guarded guarded_new(size_t bytes) {
    const size_t total = (bytes + 3 * GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
    guarded g = {.base = aligned_alloc(GUARD_BYTES, total), .bytes = bytes};
    assert_non_null(g.base);
    memset(g.base, GUARD_BYTE, total);
    g.data = g.base + GUARD_BYTES;
    return g;
}

void guarded_free(guarded *g) {
    free(g->base);
    *g = (guarded){0};
}

void guarded_check(const guarded *g) {
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (g->base[i] != GUARD_BYTE || g->data[g->bytes + i] != GUARD_BYTE)
            fail_msg("a write outside a buffer of %zu bytes", g->bytes);
}

int guarded_untouched(const guarded *g) {
    for (size_t i = 0; i < g->bytes; i++)
        if (g->data[i] != GUARD_BYTE) return 0;
    return 1;
}
