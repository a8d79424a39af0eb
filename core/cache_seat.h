/* Where a cache sits: behind this, in the host's own process. All who ask a cache something ask it
 * here, so that nobody else need know where it sits.
 *
 * A seat is a table of functions and what to call them with. In the host's process these are the
 * plugin's own, so a call costs what it would cost without a seat. */
#ifndef FAIRWAY_CACHE_SEAT_H
#define FAIRWAY_CACHE_SEAT_H

#include <fairway/cache.h>

#include "config.h"

/* What the cache declares (update_every, context_tokens, ...) is in `cache` as well. */
struct cache_seat {
    const fw_cache *cache;
    void *self; /* NULL: nobody sits here */
};

/* Create the cache of a bound choice. The tables that `shape` points to must outlive the seat.
 * Errors: what create() says. */
fw_status cache_seat_open(const struct plugin_choice *choice, const fw_host *host,
                          const fw_cache_shape *shape, struct cache_seat *seat, fw_error *error);
void cache_seat_close(struct cache_seat *seat); /* an empty one is fine */

#endif
