#include "saved.h"

#include <string.h>

fw_status saved_put(const char *id, const void *state, size_t size, void *out, size_t *bytes,
                    fw_error *error) {
    const size_t capacity = *bytes;
    *bytes = size;
    if (capacity < size)
        return fw_fail(error, FW_E_BUFFER, "the state of %s takes %zu bytes, not %zu", id, size,
                       capacity);
    memcpy(out, state, size);
    return FW_OK;
}

fw_status saved_take(const char *id, const void *in, size_t bytes, void *state, size_t size,
                     fw_error *error) {
    if (bytes != size)
        return fw_fail(error, FW_E_FORMAT, "the state of %s is %zu bytes, but it must be %zu", id,
                       bytes, size);
    memcpy(state, in, size);
    return FW_OK;
}
