#include "staging.h"

#include <stdlib.h>

struct slot {
    void *memory, *fence; /* fence NULL: every copy waits */
};

struct staging {
    fw_device *device;
    uint32_t n;
    struct slot *slots;
    bool pinned;
};

bool staging_is_possible(const fw_device *device) {
    return FW_HAS(device, allocate_host) && FW_HAS(device, release_host) &&
           FW_HAS(device, copy_to_host_async) && FW_HAS(device, fence_create) &&
           FW_HAS(device, fence_destroy) && FW_HAS(device, fence_record) &&
           FW_HAS(device, fence_wait);
}

static fw_status create_slot(const struct staging *s, size_t bytes, struct slot *slot,
                             fw_error *error) {
    if (s->pinned) {
        FW_TRY(s->device->allocate_host(s->device, bytes, &slot->memory, error));
        return s->device->fence_create(s->device, &slot->fence, error);
    }
    slot->memory = malloc(bytes > 0 ? bytes : 1);
    if (slot->memory != NULL) return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory for %zu bytes beside the device", bytes);
}

fw_status staging_create(fw_device *device, uint32_t slots, size_t bytes, struct staging **staging,
                         fw_error *error) {
    struct staging *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a staging area");
    made->device = device;
    made->pinned = staging_is_possible(device);
    made->n = made->pinned ? slots : 1;
    made->slots = calloc(made->n, sizeof *made->slots);
    fw_status status =
        made->slots != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "no memory for a staging area");
    for (uint32_t i = 0; status == FW_OK && i < made->n; i++)
        status = create_slot(made, bytes, &made->slots[i], error);
    if (status == FW_OK)
        *staging = made;
    else
        staging_destroy(made);
    return status;
}

void staging_destroy(struct staging *s) {
    if (s == NULL) return;
    for (uint32_t i = 0; s->slots != NULL && i < s->n; i++) {
        const struct slot *slot = &s->slots[i];
        if (slot->fence != NULL) {
            (void)s->device->fence_wait(s->device, slot->fence, NULL);
            s->device->fence_destroy(s->device, slot->fence);
        }
        if (!s->pinned)
            free(slot->memory);
        else if (slot->memory != NULL)
            s->device->release_host(s->device, slot->memory);
    }
    free(s->slots);
    free(s);
}

uint32_t staging_slots(const struct staging *s) { return s->n; }

void *staging_memory(const struct staging *s, uint32_t slot) { return s->slots[slot].memory; }

fw_status staging_receive(const struct staging *s, void *to, const void *from, size_t bytes,
                          fw_error *error) {
    return s->pinned ? s->device->copy_to_host_async(s->device, to, from, bytes, error)
                     : s->device->copy_to_host(s->device, to, from, bytes, error);
}

fw_status staging_mark(const struct staging *s, uint32_t slot, fw_error *error) {
    return s->pinned ? s->device->fence_record(s->device, s->slots[slot].fence, error) : FW_OK;
}

fw_status staging_wait(const struct staging *s, uint32_t slot, fw_error *error) {
    return s->pinned ? s->device->fence_wait(s->device, s->slots[slot].fence, error) : FW_OK;
}
