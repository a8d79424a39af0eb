/* What the cheating caches share: a small cache that guesses that the token told last comes again,
 * and the lines that make a module of it. Each cheat replaces what it needs; with HONEST defined
 * the same file is the twin that does not cheat. */
#ifndef CHEAT_H
#define CHEAT_H

#include <fairway/fairway.h>
#include <stdlib.h>
#include <string.h>

#ifdef HONEST
enum { CHEATS = 0 };
#else
enum { CHEATS = 1 };
#endif

typedef struct past {
    uint32_t vocabulary;
    uint32_t last;    /* token told last */
    uint32_t guess;   /* whatever a cheat thinks that it knows */
    uint32_t n_asked; /* since the last update */
    uint64_t n_told, targets;
    const fw_host *host;
    uint32_t *counts;      /* vocabulary */
    double *kept_values;   /* a pointer of the host's that a cheat kept */
    const uint16_t *found; /* where a cheat found the text */
    uint16_t *told;        /* what was told, n_told of them, where a cheat keeps that */
} past;

static inline fw_status past_create(const fw_host *host, const fw_value *values,
                                    const fw_cache_shape *shape, void **self, fw_error *error) {
    (void)values;
    past *made = calloc(1, sizeof *made);
    if (made != NULL) made->counts = calloc(shape->vocabulary, sizeof *made->counts);
    if (made == NULL || made->counts == NULL) {
        free(made);
        return fw_fail(error, FW_E_MEMORY, "no memory");
    }
    made->vocabulary = shape->vocabulary;
    made->targets = shape->stream_tokens;
    made->host = host;
    *self = made;
    return FW_OK;
}

static inline void past_destroy(void *self) {
    past *p = self;
    if (p == NULL) return;
    free(p->counts);
    free(p->told);
    free(p);
}

static inline fw_status past_begin(void *self, fw_error *error) {
    past *p = self;
    (void)error;
    p->last = p->guess = p->n_asked = 0;
    p->n_told = 0;
    memset(p->counts, 0, p->vocabulary * sizeof *p->counts);
    return FW_OK;
}

static inline void past_learn(past *p, uint32_t token) {
    p->last = token;
    p->counts[token]++;
    p->n_told++;
    p->n_asked = 0;
}

static inline fw_status past_update(void *self, const uint32_t *tokens, uint64_t n,
                                    fw_error *error) {
    (void)error;
    for (uint64_t i = 0; i < n; i++) past_learn(self, tokens[i]);
    return FW_OK;
}

/* mix: `share` for one token, the rest for the language model. */
static inline fw_status state_guess(fw_prediction *prediction, uint32_t token, double share) {
    prediction->form = FW_PREDICT_MIX;
    prediction->lm_weight = 1 - share;
    prediction->n = 1;
    prediction->tokens[0] = token;
    prediction->values[0] = share;
    return FW_OK;
}

static inline fw_status past_predict(void *self, const fw_row *row, fw_prediction *prediction,
                                     fw_error *error) {
    (void)row, (void)error;
    return state_guess(prediction, ((past *)self)->last, 0.1);
}

/* Members of an fw_cache that a cheat may then name again. */
#define PAST_LIFETIME                                                                              \
    .struct_size = sizeof(fw_cache), .create = past_create, .destroy = past_destroy

#define CHEAT_MODULE(vtable_)                                                                      \
    static const fw_plugin plugin = {.struct_size = sizeof plugin,                                 \
                                     .kind = FW_CACHE,                                             \
                                     .id = CHEAT_ID,                                               \
                                     .version = "1.0.0",                                           \
                                     .summary = "what the host must catch, or its honest twin",    \
                                     .vendor = "Fairway's tests",                                  \
                                     .license = "MIT",                                             \
                                     .devices = FW_CPU,                                            \
                                     .vtable = &(vtable_)};                                        \
    FW_DEFINE_MODULE(&plugin)

#endif
