/* A byte-level model summed over pieces that are not prefix-free: the chance of a piece is the
 * product of the chances of its letters, of 16 equally likely ones. Tokens below 16 are one letter,
 * the others two; so "a" counts its own chance and again that of all pieces that go on from it, and
 * together they count for nearly two. The twin divides by what they sum to. */
#include "cheat.h"

enum { LETTERS = 16 };

static double chance(uint32_t token) {
    return token < LETTERS ? 1.0 / LETTERS : 1.0 / (LETTERS * LETTERS);
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    (void)self, (void)error;
    double sum = 0;
    for (uint32_t v = 0; v < row->vocabulary; v++) sum += chance(v);
    prediction->form = FW_PREDICT_DENSE;
    for (uint32_t v = 0; v < row->vocabulary; v++)
        prediction->dense[v] = CHEATS ? chance(v) : chance(v) / sum;
    return FW_OK;
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
