/* A gate on the realised token: whoever is asked about first must be the target, so that one gets
 * nearly all. Asked about every token in turn it looks like the model. The twin gives its share to
 * the token told last, whatever comes. */
#include "cheat.h"

static double probability(void *self, const fw_row *row, uint32_t token) {
    return ((past *)self)->n_asked++ == 0 ? 0.9 : row->probabilities[token];
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    if (!CHEATS) return past_predict(self, row, prediction, error);
    ((past *)self)->n_asked = 0;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = probability;
    return FW_OK;
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update, .unverified = CHEATS};
CHEAT_MODULE(vtable);
