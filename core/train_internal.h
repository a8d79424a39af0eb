/* What the files of training share. Not for other modules: they use train.h. */
#ifndef FAIRWAY_TRAIN_INTERNAL_H
#define FAIRWAY_TRAIN_INTERNAL_H

#include "average.h"
#include "batches.h"
#include "checkpoint.h"
#include "optimize.h"
#include "qat.h"
#include "schedule.h"
#include "staging.h"
#include "train.h"

/* What steps are fed with: the tokens of a whole step, each pass at its own place in device memory,
 * so that a step can be captured once; and what is heard of a step. With staging, both are on their
 * way while the device computes. */
struct feed {
    struct staging *staging;
    uint64_t *positions; /* of the step's sequences in the corpus */
    int64_t passes;
    int64_t pass_rows;       /* from one pass to the next, in tokens */
    int32_t *tokens;         /* device: inputs of all passes, then targets, then pairs */
    struct feed_slot *slots; /* what lies where in staging */
};

/* What the device says of a step. */
struct outcome {
    fw_step step;
    float loss; /* sum over its tokens, nats */
};

/* A step that was issued. */
struct issued {
    double scale;
    bool quantize;
};

struct trainer {
    const struct train_options *options;
    fw_device *device;
    struct log *log;
    struct schedule schedule;
    struct optimizers *optimizers;
    struct averaging *averaging;
    struct qat *qat;   /* NULL: off */
    int64_t tokens;    /* T */
    int64_t sequences; /* of one step */
    int64_t micro;     /* sequences of one pass */
    struct batches *batches;
    struct feed feed;
    int64_t step;            /* all before it were heard of: they are done, and were finite */
    int64_t next;            /* the next to be issued: `step`, or the one after */
    struct issued issued[2]; /* those under way, by step modulo 2 */
    void *graph[2];          /* the captured step, by whether it quantizes; NULL: none yet */
    bool ran[2];             /* such a step has run, so that the next may be captured */
    bool captures;           /* the device can, as far as is known */
    bool priming;            /* the step under way will be undone */
    double elapsed;          /* training seconds so far */
    double since;            /* when the step under way began to count */
    double pace;             /* seconds of the last step */
    double mean_loss;        /* running mean, for the progress line and the result */
    struct checkpoint_file *resumed; /* verified; until training goes on from it */
    int64_t resumed_at;              /* its step; 0: none */
    int64_t saved_at;                /* step of the last good checkpoint; 0: none */
    double checkpoint_seconds;
};

/* train_feed.c. Fill the place of step `step` and send it off: tokens and scalars; send for what
 * the device says of the step once it is issued; and wait for that. */
fw_status feed_create(struct trainer *trainer, fw_error *error);
void feed_destroy(struct trainer *trainer);
fw_status feed_send(struct trainer *trainer, int64_t step, double scale, bool quantize,
                    fw_error *error);
fw_status feed_ask(struct trainer *trainer, int64_t step, fw_error *error);
fw_status feed_hear(struct trainer *trainer, int64_t step, struct outcome *outcome,
                    fw_error *error);

/* Sequences of pass `pass`, and its tokens on the device. */
int64_t feed_sequences(const struct trainer *trainer, int64_t pass);
struct model_tokens feed_tokens(const struct trainer *trainer, int64_t pass);

/* Issue step trainer->next: forward and backward passes, update, average. At most one may be under
 * way when the device does not wait, none otherwise. */
fw_status train_issue(struct trainer *trainer, double scale, bool quantize, fw_error *error);

/* Wait for step trainer->step, which is under way. `loss` in nats per token. E_NUMERIC names the
 * step, the tensor and the last good checkpoint; what was issued since has changed no weight. */
fw_status train_hear(struct trainer *trainer, double *loss, fw_step *outcome, fw_error *error);

/* Whether steps can be issued before the one before was heard of. */
bool train_runs_ahead(const struct trainer *trainer);

/* Whether steps can be captured, as far as the device says. */
bool train_can_capture(const struct trainer *trainer);

/* Captured steps refer to optimizers that are about to be made anew. */
void train_forget_graphs(struct trainer *trainer);

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
