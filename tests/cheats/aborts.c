/* A cache that takes its process down in the middle of the stream. The twin goes on. */
#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    if (CHEATS && row->position == 700) abort();
    return past_predict(self, row, prediction, error);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
