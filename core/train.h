/* Training, top to bottom: batches, gradient accumulation, clipping, one optimizer for each group
 * of weights, averaging, late quantization-aware training, checkpoints; then the raw and the
 * averaged weights on the host. train_step.c has one step, train_feed.c what it is fed with and
 * what is heard of it, train_state.c priming, checkpoints and resuming. */
#ifndef FAIRWAY_TRAIN_H
#define FAIRWAY_TRAIN_H

#include "corpus.h"
#include "log.h"
#include "model.h"
#include "progress.h"

struct train_options {
    const struct experiment *experiment;
    const fw_host *host;
    struct model *model; /* initialised; with compute copies where run.qat_below is set */
    const struct corpus *corpus;
    struct progress *progress;
    const char *checkpoint; /* its file; NULL: none are written */
    bool resume;            /* go on from that file */
    /* Called every run.validate_every steps with a host arena of the raw weights; may be NULL. */
    fw_status (*validate)(void *argument, int64_t step, const float *weights, fw_error *error);
    void *validate_argument;
};

/* Sequences of one forward and backward pass: run.micro_batch, at most those of a step. */
int64_t train_micro_batch(const struct experiment *experiment);

struct train_result {
    int64_t steps;
    uint64_t tokens;
    double seconds;            /* wall clock of the steps alone, those before a resume included */
    double checkpoint_seconds; /* of writing checkpoints, */
    double average_seconds;    /* of the averager's result, and of copying the weights */
    double loss;               /* nats per token, mean of the last steps */
    double average_effect;     /* |averaged - raw| / |raw| */
    /* The weights are as trained, but a feature that is on took no part: what and why. */
    fw_status shortfall;
    char shortfall_message[1016];
    bool
        *quantized; /* for each weight, see qat_check_packed; NULL: nothing was; the caller frees */
    bool averaged_is_raw;  /* nothing averages, or the averager took no part */
    float *raw, *averaged; /* host arenas, the same one if so; the caller frees */
};

/* What a trainer for a model made for training would refuse, its data aside; for a dry run. */
fw_status train_check(const struct experiment *experiment, const fw_host *host, struct model *model,
                      fw_error *error);

struct trainer;

/* Everything that training needs, so that what cannot work is refused before anything is written.
 * `options` must outlive the trainer. Errors: what the optimizers' and the averager's create() and
 * plan() say, E_LIMIT when the averager would take no part in this schedule, E_FORMAT when the
 * corpus is shorter than a sequence, those of qat_create, E_MEMORY; to resume also those of
 * checkpoint_open, E_CONFIG for a checkpoint of other settings or data, E_FORMAT for one of other
 * tensors, E_RANGE for one beyond the end. */
fw_status trainer_create(const struct train_options *options, struct trainer **trainer,
                         fw_error *error);
void trainer_destroy(struct trainer *trainer); /* NULL is fine */

/* Before the clock starts, once: take run.priming_steps steps and undo them; then go back to the
 * checkpoint, if one is to be resumed. */
fw_status trainer_start(struct trainer *trainer, fw_error *error);

/* Seconds of training behind it, from before a resume. */
double trainer_elapsed(const struct trainer *trainer);

/* Train to the end of the schedule, once. `log` may be NULL. Errors: E_NUMERIC names the step, the
 * first tensor whose gradient is not finite, and the last good checkpoint. */
fw_status trainer_run(struct trainer *trainer, struct log *log, struct train_result *result,
                      fw_error *error);

#endif
