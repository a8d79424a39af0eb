/* Rescoring: the answers of a first pass over the text are used in a second one, because begin()
 * forgets nothing. (In one pass a cache cannot be scored twice: the ledger refuses it.) The twin
 * forgets. */
#include "cheat.h"

/* What came after each token, in any pass. The twin has the same in p->counts, of its own. */
static uint32_t every_pass[65536];

static uint32_t *follower(past *p) { return CHEATS ? every_pass : p->counts; }

static void learn(past *p, uint32_t token) {
    follower(p)[p->last] = token;
    p->last = token;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    past *p = self;
    (void)error;
    for (uint64_t i = 0; i < n; i++) learn(p, tokens[i]);
    return FW_OK;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    (void)row, (void)error;
    return state_guess(prediction, follower(self)[((past *)self)->last], 0.3);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = update};
CHEAT_MODULE(vtable);
