/* Where a cache sits: in the host's own process, or in one of its own (eval.isolate). All who ask a
 * cache something ask it here, so that nobody else need know which.
 *
 * A seat is a table of functions and what to call them with. In the host's process these are the
 * plugin's own, so a call costs what it would cost without a seat. Else they ask the child, whose
 * cache gets rows and, after each prediction, the token, and whose process holds nothing else of
 * the host's; scores are the same, bit for bit. */
#ifndef FAIRWAY_CACHE_SEAT_H
#define FAIRWAY_CACHE_SEAT_H

#include <fairway/cache.h>

#include "cache_remote.h"
#include "config.h"

/* What the cache declares (update_every, context_tokens, ...) is in `cache` as well. */
struct cache_seat {
    const fw_cache *cache;
    void *self;                  /* NULL: nobody sits here */
    struct cache_remote *remote; /* NULL: in the host's process */
};

/* Create the cache of a bound choice. The tables that `shape` points to must outlive the seat.
 * Errors: what create() says. */
fw_status cache_seat_open(const struct plugin_choice *choice, const fw_host *host,
                          const fw_cache_shape *shape, struct cache_seat *seat, fw_error *error);
void cache_seat_close(struct cache_seat *seat); /* an empty one is fine */

/* Whether the cache can still be asked: FW_OK, or what has become of its process. To be called at
 * the end, and when an unverified prediction is not a number, which is how that form hears of it.
 */
fw_status cache_seat_check(const struct cache_seat *seat, fw_error *error);

#endif
