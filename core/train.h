/* Training, top to bottom: batches, gradient accumulation, clipping, one
 * optimizer for each group of weights, averaging; then the raw and the averaged weights on the
 * host. */
#ifndef FAIRWAY_TRAIN_H
#define FAIRWAY_TRAIN_H

#include "corpus.h"
#include "log.h"
#include "model.h"
#include "progress.h"

struct train_options {
    const struct experiment *experiment;
    const fw_host *host;
    struct model *model; /* initialised */
    const struct corpus *corpus;
    struct progress *progress;
    /* Called every run.validate_every steps with a host arena of the raw weights; may be NULL. */
    fw_status (*validate)(void *argument, int64_t step, const float *weights, fw_error *error);
    void *validate_argument;
};

/* Sequences of one forward and backward pass: run.micro_batch, at most those of a step. */
int64_t train_micro_batch(const struct experiment *experiment);

struct train_result {
    int64_t steps;
    uint64_t tokens;
    double seconds;        /* wall clock of the steps, without validation */
    double loss;           /* nats per token, mean of the last steps */
    double average_effect; /* |averaged - raw| / |raw| */
    float *raw, *averaged; /* host arenas; the caller frees both */
};

struct trainer;

/* Everything that training needs, so that what cannot work is refused before anything is written.
 * `options` must outlive the trainer. Errors: what the optimizers' and the averager's create() and
 * plan() say, E_FORMAT when the corpus is shorter than a sequence, E_MEMORY. */
fw_status trainer_create(const struct train_options *options, struct trainer **trainer,
                         fw_error *error);
void trainer_destroy(struct trainer *trainer); /* NULL is fine */

/* Train to the end of the schedule, once. `log` may be NULL. Errors: E_NUMERIC names the step and
 * the first tensor whose gradient is not finite; E_LIMIT when the averager took no part. */
fw_status trainer_run(struct trainer *trainer, struct log *log, struct train_result *result,
                      fw_error *error);

#endif
