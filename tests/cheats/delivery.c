/* Dependence on how tokens are delivered: of each block only the last token counts, so that a warm
 * start, which hands over many at once, is another cache than the same text told one by one. The
 * twin takes all. */
#include "cheat.h"

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    const uint64_t skipped = CHEATS && n > 0 ? n - 1 : 0;
    return past_update(self, tokens + skipped, n - skipped, error);
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const past *p = self;
    (void)row, (void)error;
    const double share = (double)p->counts[p->last] / (double)(p->n_told + 1);
    return state_guess(prediction, p->last, 0.5 * share);
}

static const fw_cache vtable = {PAST_LIFETIME,     .counts_only = 1,   .begin = past_begin,
                                .prefill = update, .predict = predict, .update = update};
CHEAT_MODULE(vtable);
