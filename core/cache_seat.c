#include "cache_seat.h"

fw_status cache_seat_open(const struct plugin_choice *choice, const fw_host *host,
                          const fw_cache_shape *shape, struct cache_seat *seat, fw_error *error) {
    const fw_cache *cache = choice->entry->plugin->vtable;
    void *self = NULL;
    FW_TRY(cache->create(host, choice->values, shape, &self, error));
    *seat = (struct cache_seat){.cache = cache, .self = self};
    return FW_OK;
}

void cache_seat_close(struct cache_seat *seat) {
    if (seat->self != NULL) seat->cache->destroy(seat->self);
    *seat = (struct cache_seat){0};
}
