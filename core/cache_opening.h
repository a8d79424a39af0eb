/* What a cache in a process of its own is created from, as bytes: which plugin, its parameters'
 * values, and the shape. Nothing here depends on the text to be scored but how long it is. */
#ifndef FAIRWAY_CACHE_OPENING_H
#define FAIRWAY_CACHE_OPENING_H

#include <fairway/cache.h>
#include <fairway/plugin.h>

#include "bytes.h"

struct cache_opening {
    char *path, *id; /* of the module and the plugin */
    uint64_t seed;   /* of the run, for fw_host.seed */
    uint32_t threads;
    fw_cache_shape shape;
    uint8_t *token_bytes, *token_is_boundary; /* what `shape` points to; NULL when unknown */
    uint32_t n_values;
    fw_value *values;
    char **texts; /* what text values point to */
};

/* `shape`, `values` (of `plugin`'s table) and texts stay the caller's. `bytes.failed`: no memory.
 */
void cache_opening_write(struct bytes *bytes, const char *path, const fw_plugin *plugin,
                         const fw_value *values, const fw_cache_shape *shape, uint64_t seed,
                         uint32_t threads);

/* E_FORMAT, E_MEMORY. */
fw_status cache_opening_read(const void *data, size_t size, struct cache_opening *opening,
                             fw_error *error);
void cache_opening_free(struct cache_opening *opening);

#endif
