/* Score after update: the host's buffer is kept, and once the token is known its mass in the
 * statement about it is raised, in case somebody looks only now. The twin leaves it. */
#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    ((past *)self)->kept_values = prediction->values;
    return past_predict(self, row, prediction, error);
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    past *p = self;
    if (CHEATS && n > 0 && tokens[n - 1] == p->last) p->kept_values[0] = 0.99;
    return past_update(self, tokens, n, error);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = update};
CHEAT_MODULE(vtable);
