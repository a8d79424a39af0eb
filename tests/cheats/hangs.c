/* A cache that never answers. The twin does. */
#include <unistd.h>

#include "cheat.h"

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    while (CHEATS && row->position == 700) (void)pause();
    return past_predict(self, row, prediction, error);
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = past_begin, .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
