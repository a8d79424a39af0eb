/* Plans of several matrices through quantizer int6_mixed, and what came out. */
#ifndef INT6_RUN_H
#define INT6_RUN_H

#include "support.h"

enum { RUN_TENSORS = 4 };

typedef struct int6_run {
    const fw_quantizer *quantizer;
    void *self;
    uint32_t n; /* tensors */
    fw_weight weight[RUN_TENSORS];
    float *values[RUN_TENSORS]; /* the test's */
    int8_t *symbols[RUN_TENSORS];
    uint16_t *scales[RUN_TENSORS];
} int6_run;

/* An instance whose host counts in int6_effects how often an effect was stated, and keeps the last
 * size. */
int6_run int6_run_new(const char *const *overrides);
extern int int6_effects;
extern double int6_effect_size;

/* Add a matrix; `values` stay the caller's. */
void int6_run_add(int6_run *run, uint32_t part, int64_t rows, int64_t columns, float *values);

fw_status int6_run_plan(int6_run *run, double rate, fw_error *error);

/* Plan at `rate` and encode all tensors, which must succeed. */
void int6_run_encode(int6_run *run, double rate);
void int6_run_free(int6_run *run);

#endif
