/* What breaks at the edges: a share that is divided among all targets but the first. A stream of
 * one target leaves none, and the statement is no number. The twin divides by what there is. */
#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const past *p = self;
    (void)row, (void)error;
    const double others = (double)p->targets - (CHEATS ? 1 : 0);
    return state_guess(prediction, p->last, 0.1 / others);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
