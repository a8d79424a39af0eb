/* Look-ahead through a pointer: the tokens told are read one further than was said, in the hope
 * that they lie in the stream and the next one follows. The twin reads what it was handed. */
#include "cheat.h"

/* Reading out of bounds is the point; a checker of addresses need not stop it first. */
__attribute__((no_sanitize("address"))) static uint32_t peek(const uint32_t *tokens, uint64_t n) {
    return tokens[n];
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    past *p = self;
    FW_TRY(past_update(self, tokens, n, error));
    p->guess = CHEATS ? peek(tokens, n) % p->vocabulary : p->last;
    return FW_OK;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    (void)row, (void)error;
    return state_guess(prediction, ((past *)self)->guess, 0.5);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = update};
CHEAT_MODULE(vtable);
