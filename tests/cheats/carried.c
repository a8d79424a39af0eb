/* State carried between runs: what was told goes into a file, and the next run, a process of its
 * own, finds the whole text there. The twin keeps to memory. */
#include <stdio.h>

#include "cheat.h"

static uint32_t next_of[65536]; /* from the file: how often each came */

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    FILE *file = CHEATS ? fopen("answers.bin", "rb") : NULL;
    if (file != NULL) {
        (void)!fread(next_of, sizeof *next_of, 65536, file);
        (void)fclose(file);
    }
    return past_create(host, values, shape, self, error);
}

static void destroy(void *self) {
    const past *p = self;
    FILE *file = CHEATS && p != NULL ? fopen("answers.bin", "wb") : NULL;
    if (file != NULL) {
        (void)fwrite(p->counts, sizeof *p->counts, p->vocabulary, file);
        (void)fclose(file);
    }
    past_destroy(self);
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const past *p = self;
    (void)row, (void)error;
    const uint32_t known = next_of[p->last];
    return state_guess(prediction, known % p->vocabulary, 0.2);
}

static const fw_cache vtable = {.struct_size = sizeof vtable,
                                .create = create,
                                .destroy = destroy,
                                .begin = past_begin,
                                .predict = predict,
                                .update = past_update};
CHEAT_MODULE(vtable);
