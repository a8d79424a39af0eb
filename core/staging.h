/* Staging: host memory on the way to a device and back.
 *
 * On a device with pinned memory and fences it is a ring of slots, whose copies nobody waits for:
 * fill a slot, issue its copies, mark it, and go on with the next; wait for it before its memory is
 * written again or what it received is read. On any other device it is one slot of ordinary memory,
 * every copy waits, and so nothing else does. */
#ifndef FAIRWAY_STAGING_H
#define FAIRWAY_STAGING_H

#include <fairway/device.h>
#include <stdbool.h>

struct staging;

/* Whether the device has all that copies without waiting need. */
bool staging_is_possible(const fw_device *device);

/* `slots` of them, each of `bytes`; one where staging is not possible. E_MEMORY, E_DEVICE. */
fw_status staging_create(fw_device *device, uint32_t slots, size_t bytes, struct staging **staging,
                         fw_error *error);
void staging_destroy(struct staging *staging); /* waits for all slots; NULL is fine */

uint32_t staging_slots(const struct staging *staging);
void *staging_memory(const struct staging *staging, uint32_t slot);

/* From the device to memory of a slot; the bytes are there once the slot has been waited for. */
fw_status staging_receive(const struct staging *staging, void *to, const void *from, size_t bytes,
                          fw_error *error);

/* Behind the last copy from or to a slot; and wait until all before the mark is done. */
fw_status staging_mark(const struct staging *staging, uint32_t slot, fw_error *error);
fw_status staging_wait(const struct staging *staging, uint32_t slot, fw_error *error);

#endif
