/* Double update: a token is counted when it is told and once more when the next prediction is
 * asked for, as often as that happens. So the answer depends on how often the host asks, and a host
 * that asks a window again counts its tokens again. The twin counts what it is told. */
#include "cheat.h"

static uint32_t most_frequent(const past *p) {
    uint32_t best = 0;
    for (uint32_t v = 1; v < p->vocabulary; v++)
        if (p->counts[v] > p->counts[best]) best = v;
    return best;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    past *p = self;
    (void)row, (void)error;
    if (CHEATS && p->n_told > 0) {
        p->counts[p->last]++;
        p->n_told++;
    }
    const uint32_t best = most_frequent(p);
    const double share = (double)p->counts[best] / (double)(p->n_told + 8);
    return state_guess(prediction, best, 0.5 * share);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
