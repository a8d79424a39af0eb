/* Dependence on the machine: the answer follows the number of threads, so that a score can be
 * picked by trying. The twin does not ask. */
#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const past *p = self;
    (void)row, (void)error;
    const uint32_t threads = CHEATS ? p->host->threads(p->host) : 2;
    return state_guess(prediction, p->last, 0.05 * (threads < 8 ? threads : 8));
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
