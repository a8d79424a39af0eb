/* Dense output that is not normalised: the model's row, plus a tenth for the token told last. The
 * twin takes that tenth from all others. */
#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const double left = CHEATS ? 1 : 0.9;
    (void)error;
    prediction->form = FW_PREDICT_DENSE;
    for (uint32_t v = 0; v < row->vocabulary; v++)
        prediction->dense[v] = left * row->probabilities[v];
    prediction->dense[((past *)self)->last] += 0.1;
    return FW_OK;
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
