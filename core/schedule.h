/* The clock of training: when it ends, and the learning-rate scale of each step.
 *
 * The scale rises linearly over the warm-up, stays 1, and falls linearly to 0 over the warmdown.
 * With a step limit the warmdown is the last `warmdown_steps` steps; with a time limit it is the
 * last `warmdown_steps` steps' worth of wall clock at the average pace so far. With both, the one
 * that ends first. */
#ifndef FAIRWAY_SCHEDULE_H
#define FAIRWAY_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct schedule {
    int64_t steps;  /* 0: no step limit */
    double seconds; /* 0: no time limit */
    int64_t warmup_steps, warmdown_steps;
};

/* Scale for step `step` (0 first) after `elapsed` seconds of training. */
double schedule_scale(const struct schedule *schedule, int64_t step, double elapsed);

/* The lowest scale that any step after the warm-up can have; 0 when the wall clock decides. */
double schedule_lowest(const struct schedule *schedule);

/* True when no further step should begin. */
bool schedule_done(const struct schedule *schedule, int64_t step, double elapsed);

/* Seconds until the end as far as can be told, negative when unknown. */
double schedule_seconds_left(const struct schedule *schedule, int64_t step, double elapsed);

#endif
