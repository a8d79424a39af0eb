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
    struct log *log; /* may be NULL */
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

/* Errors: E_NUMERIC names the step and the first tensor whose gradient is not finite; E_LIMIT when
 * the averager took no part; E_CONFIG. */
fw_status train(const struct train_options *options, struct train_result *result, fw_error *error);

#endif
