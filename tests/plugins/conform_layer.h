/* Running one attention layer from host arrays: device memory for a call, the call, and what came
 * back. Weights of a pack group lie side by side, as the host lays them. */
#ifndef CONFORM_LAYER_H
#define CONFORM_LAYER_H

#include "conform.h"

enum { WIDTH = 128, MAX_BATCH = 3, MAX_TOKENS = 24, MAX_WEIGHTS = 32 };

/* What an accumulating call finds in the gradients of weights. */
#define GRAD_BEFORE 0.5f

/* One instance with its weights on the host; run() uploads them for each call. */
typedef struct layer {
    const conform *c;
    const fw_attention *vtable;
    void *self;
    uint32_t n;
    fw_weight weights[MAX_WEIGHTS];
    float *values[MAX_WEIGHTS];
    int64_t value_width;
    uint32_t output_weight; /* as the plan names it, 0: forward knows of no residual */
} layer;

/* The arguments of one call, on the host. d_output NULL: forward only. */
typedef struct pass {
    int64_t batch, tokens, offset, window;
    uint32_t phase;
    bool accumulate;
    const float *input, *value_add, *d_output, *residual;
    const int32_t *documents; /* [batch, n_documents + 1] */
    int64_t n_documents;
    void (*observe)(void *context, uint32_t weight, const fw_tensor *rows);
} pass;

/* What came back; the caller frees with free_outcome. */
typedef struct outcome {
    float *output, *d_input, *d_value_add, *grads[MAX_WEIGHTS];
} outcome;

/* The device memory of one call. */
typedef struct stage {
    fw_tensor weights[MAX_WEIGHTS], grads[MAX_WEIGHTS];
    fw_attention_call call;
} stage;

size_t weight_count(const fw_weight *weight);

/* The plugin's layer 1 of 2 with random weights. */
layer open_layer(const conform *c);
void close_layer(layer *l);

/* Plan, take the memory of one call and upload its inputs; release with conform_release(). */
void prepare(const layer *l, const pass *p, stage *s);

/* Forward, and backward when d_output is given. */
outcome run(const layer *l, const pass *p);
void free_outcome(outcome *o);

#endif
