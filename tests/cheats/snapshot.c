/* A state that is not all: the snapshot leaves out the token told last, so that a stream that was
 * interrupted and goes on is scored otherwise. The twin's is complete. */
#include "cheat.h"

static fw_status snapshot(void *self, void *state, size_t *bytes, fw_error *error) {
    const past *p = self;
    const size_t counts = p->vocabulary * sizeof *p->counts, needed = sizeof p->last + counts;
    const size_t room = *bytes;
    *bytes = needed;
    if (room < needed) return fw_fail(error, FW_E_BUFFER, "%zu bytes are needed", needed);
    const uint32_t last = CHEATS ? 0 : p->last;
    memcpy(state, &last, sizeof last);
    memcpy((char *)state + sizeof last, p->counts, counts);
    return FW_OK;
}

static fw_status restore(void *self, const void *state, size_t bytes, fw_error *error) {
    past *p = self;
    const size_t counts = p->vocabulary * sizeof *p->counts;
    if (bytes != sizeof p->last + counts) return fw_fail(error, FW_E_FORMAT, "another cache's");
    memcpy(&p->last, state, sizeof p->last);
    memcpy(p->counts, (const char *)state + sizeof p->last, counts);
    return FW_OK;
}

static const fw_cache vtable = {PAST_LIFETIME,           .begin = past_begin,
                                .predict = past_predict, .update = past_update,
                                .snapshot = snapshot,    .restore = restore};
CHEAT_MODULE(vtable);
