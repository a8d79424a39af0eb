/* What scoring asks of a language model, so that anything with these functions can be scored: the
 * transformer of model.h, or numbers whose score is known. */
#ifndef FAIRWAY_LANGUAGE_MODEL_H
#define FAIRWAY_LANGUAGE_MODEL_H

#include <fairway/error.h>

struct decoder;
struct model;

struct language_model {
    void *self;
    /* Read `batch` windows of `tokens` inputs each, [batch, tokens]. A position's row may depend on
     * its own window alone, and there on nothing behind it. */
    fw_status (*infer)(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                       fw_error *error);
    /* Log-probabilities of `n` positions of what was read last, from `first` on, counted through
     * all windows; n is at most most_rows, or `tokens` where that is 0. [n, V], normalised as well
     * as float32 can be. */
    fw_status (*log_probabilities)(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *error);
    int64_t most_rows;

    /* Optional, all or none: of a model on a device that works by itself; neither waits.
     * infer_some: no more than positions [firsts[b], firsts[b] + n) of each window b will be asked
     * for, and these alone are counted. send: to memory of the device's allocate_host, at most
     * most_rows; of at most LANGUAGE_MODEL_SENDS in a row the rows may be on their way. */
    fw_status (*infer_some)(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                            const int64_t *firsts, int64_t n, fw_error *error);
    fw_status (*send)(void *self, int64_t first, int64_t n, float *pinned, fw_error *error);

    /* Optional, all or none: reading one stream piece by piece. restart: go to its beginning.
     * read_on: the `tokens` inputs, at most most_read, behind those read before; log_probabilities
     * and send then count through these. A position's row may depend on what was read since the
     * restart, itself included. Neither waits on a device that works by itself. */
    void *stream;
    int64_t most_read;
    fw_status (*restart)(void *stream, fw_error *error);
    fw_status (*read_on)(void *stream, const int32_t *inputs, int64_t tokens, fw_error *error);
};

enum { LANGUAGE_MODEL_SENDS = 8 };

/* The transformer, with its weights set. It stays the caller's. */
struct language_model language_model_of(struct model *model);

/* The same, and reads on with `decoder`, which is the model's and stays the caller's. */
struct language_model language_model_with(struct model *model, struct decoder *decoder);

#endif
