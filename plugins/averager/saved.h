/* Saving and loading host state of one fixed size. */
#ifndef FAIRWAY_AVERAGER_SAVED_H
#define FAIRWAY_AVERAGER_SAVED_H

#include <fairway/averager.h>

/* Copy `size` bytes of `state` to `out`, which has room for *bytes; E_BUFFER when that is less. */
fw_status saved_put(const char *id, const void *state, size_t size, void *out, size_t *bytes,
                    fw_error *error);

/* Copy them back; E_FORMAT when there are not just as many. */
fw_status saved_take(const char *id, const void *in, size_t bytes, void *state, size_t size,
                     fw_error *error);

#endif
