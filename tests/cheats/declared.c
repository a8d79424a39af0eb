/* A false declaration: it says counts_only, which lets ranks start warm and still be the serial
 * score, but it learns from the model's rows. The twin's state is what it says. */
#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    past *p = self;
    const uint32_t sure = p->guess;
    (void)error;
    if (row->probabilities[p->last] > row->probabilities[0]) p->guess = p->last;
    return state_guess(prediction, CHEATS ? sure : p->last, 0.1);
}

static const fw_cache vtable = {PAST_LIFETIME,          .counts_only = 1,   .begin = past_begin,
                                .prefill = past_update, .predict = predict, .update = past_update};
CHEAT_MODULE(vtable);
