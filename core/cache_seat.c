#include "cache_seat.h"

static fw_status open_remote(const struct plugin_choice *choice, const fw_host *host,
                             const fw_cache_shape *shape, struct cache_seat *seat,
                             fw_error *error) {
    struct cache_remote *remote = NULL;
    FW_TRY(cache_remote_create(choice, host, shape, &remote, error));
    *seat =
        (struct cache_seat){.cache = cache_remote_table(remote), .self = remote, .remote = remote};
    return FW_OK;
}

fw_status cache_seat_open(const struct plugin_choice *choice, const fw_host *host,
                          const fw_cache_shape *shape, struct cache_seat *seat, fw_error *error) {
    if (choice->apart != NULL) return open_remote(choice, host, shape, seat, error);
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

fw_status cache_seat_check(const struct cache_seat *seat, fw_error *error) {
    return seat->remote != NULL ? cache_remote_check(seat->remote, error) : FW_OK;
}
