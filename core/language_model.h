/* What scoring asks of a language model, so that anything with these functions can be scored: the
 * transformer of model.h, or numbers whose score is known. */
#ifndef FAIRWAY_LANGUAGE_MODEL_H
#define FAIRWAY_LANGUAGE_MODEL_H

#include <fairway/error.h>

struct model;

struct language_model {
    void *self;
    /* Read `batch` windows of `tokens` inputs each, [batch, tokens]. A position's row may depend on
     * its own window alone, and there on nothing behind it. */
    fw_status (*infer)(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                       fw_error *error);
    /* Log-probabilities of `n` positions of what was read last, from `first` on, counted through
     * all windows; n is at most `tokens`. [n, V], normalised as well as float32 can be. */
    fw_status (*log_probabilities)(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *error);

    /* Optional, all or none: of a model on a device that works by itself; neither waits.
     * infer_some: no more than positions [firsts[b], firsts[b] + n) of each window b will be asked
     * for, and these alone are counted. send: to memory of the device's allocate_host, at most
     * most_rows. */
    fw_status (*infer_some)(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                            const int64_t *firsts, int64_t n, fw_error *error);
    fw_status (*send)(void *self, int64_t first, int64_t n, float *pinned, fw_error *error);
    int64_t most_rows;
};

/* The transformer, with its weights set. It stays the caller's. */
struct language_model language_model_of(struct model *model);

#endif
