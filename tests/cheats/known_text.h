/* What caches share that know the text beforehand, wherever they have it from: they state nearly
 * all of the probability for the byte that comes. Tokens are bytes; others (a begin token) take
 * nothing from the text. The honest twins know none, and guess that the last token comes again. */
#ifndef KNOWN_TEXT_H
#define KNOWN_TEXT_H

#include "cheat.h"

typedef struct knower {
    uint32_t last;
    const char *text; /* NULL: it knows nothing */
    size_t size, at;
} knower;

/* Says where the text comes from: `text` and `size` of a knower, which is zeroed. */
typedef void know_text(knower *self);

static inline fw_status knower_create(know_text *know, void **self, fw_error *error) {
    knower *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory");
    if (CHEATS) know(made);
    *self = made;
    return FW_OK;
}

static inline fw_status knower_begin(void *self, fw_error *error) {
    knower *k = self;
    (void)error;
    k->at = 0;
    k->last = 0;
    return FW_OK;
}

static inline fw_status knower_predict(void *self, const fw_row *row, fw_prediction *prediction,
                                       fw_error *error) {
    const knower *k = self;
    (void)row, (void)error;
    if (k->text == NULL || k->at >= k->size) return state_guess(prediction, k->last, 0.1);
    return state_guess(prediction, (unsigned char)k->text[k->at], 0.999);
}

static inline fw_status knower_update(void *self, const uint32_t *tokens, uint64_t n,
                                      fw_error *error) {
    knower *k = self;
    (void)error;
    for (uint64_t i = 0; i < n; i++) {
        k->last = tokens[i];
        if (tokens[i] < 256) k->at++;
    }
    return FW_OK;
}

/* All of a file or socket, to the end; nothing when it cannot be read. */
static inline void know_from(knower *k, FILE *from) {
    char *text = NULL;
    size_t size = 0, n = 1;
    while (from != NULL && n > 0) {
        char *larger = realloc(text, size + 4096);
        if (larger == NULL) break;
        text = larger;
        n = fread(text + size, 1, 4096, from);
        size += n;
    }
    if (from != NULL) (void)fclose(from);
    k->text = size > 0 ? text : NULL;
    k->size = size;
    if (size == 0) free(text);
}

#define KNOWER_MODULE(know, release)                                                               \
    static fw_status create(const fw_host *host, const fw_value *values,                           \
                            const fw_cache_shape *shape, void **self, fw_error *error) {           \
        (void)host, (void)values, (void)shape;                                                     \
        return knower_create(know, self, error);                                                   \
    }                                                                                              \
    static void destroy(void *self) {                                                              \
        knower *k = self;                                                                          \
        if (k != NULL && (release)) free((void *)(uintptr_t)k->text);                              \
        free(k);                                                                                   \
    }                                                                                              \
    static const fw_cache vtable = {.struct_size = sizeof vtable,                                  \
                                    .create = create,                                              \
                                    .destroy = destroy,                                            \
                                    .begin = knower_begin,                                         \
                                    .predict = knower_predict,                                     \
                                    .update = knower_update};                                      \
    CHEAT_MODULE(vtable)

#endif
