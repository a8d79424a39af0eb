/* Dependence on the host's batching: how much memory the process has allocated gives the size of
 * the batch away. The twin does not look. */
#include <malloc.h>

#include "cheat.h"

/* There where a checker of addresses is built in, whose malloc it is then. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t allocated(void) {
    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const past *p = self;
    (void)row, (void)error;
    const double share = CHEATS ? (double)(allocated() / 512 % 16) : 4;
    return state_guess(prediction, p->last, 0.01 + 0.05 * share);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
