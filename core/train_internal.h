/* What the files of training share. Not for other modules: they use train.h. */
#ifndef FAIRWAY_TRAIN_INTERNAL_H
#define FAIRWAY_TRAIN_INTERNAL_H

#include "average.h"
#include "batches.h"
#include "checkpoint.h"
#include "optimize.h"
#include "qat.h"
#include "schedule.h"
#include "train.h"

struct trainer {
    const struct train_options *options;
    struct log *log;
    struct schedule schedule;
    struct optimizers *optimizers;
    struct averaging *averaging;
    struct qat *qat;   /* NULL: off */
    int64_t tokens;    /* T */
    int64_t sequences; /* of one step */
    int64_t micro;     /* sequences of one pass */
    struct batches *batches;
    int32_t *inputs, *targets;
    int64_t step;
    bool priming;                    /* the step under way will be undone */
    double elapsed;                  /* training seconds so far */
    double mean_loss;                /* running mean, for the progress line and the result */
    struct checkpoint_file *resumed; /* verified; until training goes on from it */
    int64_t resumed_at;              /* its step; 0: none */
    int64_t saved_at;                /* step of the last good checkpoint; 0: none */
    double checkpoint_seconds;
};

/* One step: forward and backward passes, update, average. `loss` in nats per token. E_NUMERIC names
 * the step, the tensor and the last good checkpoint. */
fw_status train_step(struct trainer *trainer, double scale, bool quantize, double *loss,
                     fw_step *outcome, fw_error *error);

/* Take run.priming_steps steps and undo them. */
fw_status train_prime(struct trainer *trainer, fw_error *error);

/* Write a checkpoint if one is due. What cannot be written costs a warning; the last good one
 * stays. */
fw_status train_maybe_checkpoint(struct trainer *trainer, fw_error *error);

/* Open and verify the checkpoint to resume from: it must be this run's. */
fw_status train_find_checkpoint(struct trainer *trainer, fw_error *error);

/* Go back to it, and close it. Nothing without one. */
fw_status train_restore(struct trainer *trainer, fw_error *error);

/* Events and the progress line. */
fw_status train_log_step(const struct trainer *trainer, double loss, const fw_step *outcome,
                         double scale, fw_error *error);
fw_status train_log_at(const struct trainer *trainer, const char *event, fw_error *error);
void train_show_progress(const struct trainer *trainer);

#endif
