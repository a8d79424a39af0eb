/* The host's end of a cache in a process of its own: an fw_cache whose functions ask the child.
 *
 * update() posts what the host knows anyway and returns at once; every other call waits for the
 * answer. What the child states is copied out of the shared memory before anyone looks at it, and
 * until then the child knows nothing of the target, so that what it writes at the wrong moment can
 * only be its own statement. */
#ifndef FAIRWAY_CACHE_REMOTE_H
#define FAIRWAY_CACHE_REMOTE_H

#include <fairway/cache.h>

#include "config.h"

struct cache_remote;

/* What having the cache elsewhere took. */
struct cache_waiting {
    double seconds; /* that the host waited for answers */
    uint64_t answers;
};

/* Start a process and create the cache in it. Errors: E_IO (no process), E_UNSUPPORTED (no jail),
 * E_PROTOCOL (it died or did not answer in time), what create() says. */
fw_status cache_remote_create(const struct plugin_choice *choice, const fw_host *host,
                              const fw_cache_shape *shape, struct cache_remote **remote,
                              fw_error *error);
void cache_remote_destroy(struct cache_remote *remote); /* NULL is fine; the process is gone */

/* Its functions, to be called with the remote as `self`; what it declares is the plugin's. */
const fw_cache *cache_remote_table(const struct cache_remote *remote);

/* FW_OK while all is well; else why nothing more can be asked, and with which request that began.
 * Waits for an update that was posted. */
fw_status cache_remote_check(struct cache_remote *remote, fw_error *error);

struct cache_waiting cache_remote_waiting(const struct cache_remote *remote);

#endif
