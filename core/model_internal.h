/* What the model's own files share. Not for other modules: they use model.h. */
#ifndef FAIRWAY_MODEL_INTERNAL_H
#define FAIRWAY_MODEL_INTERNAL_H

#include "model.h"

#define MODEL_EPSILON 1.1920929e-7f /* float32's machine epsilon, as in the reference record */
#define MODEL_LEAKY_SLOPE 0.5f

/* One layer: its attention instance, its weights and what it saves for the backward pass. */
struct layer {
    const fw_attention *attention;
    void *self;
    uint32_t first_weight; /* attention's weights, then up, then down */
    uint32_t n_attention;
    uint32_t up, down;
    fw_attention_plan plan;
    float *attention_rms, *mlp_rms; /* [N] */
    void *stream;                   /* [N,C] residual stream at the layer's input */
    void *attention_in;             /* [N,C] */
    void *attention_saved;
    void *middle;             /* [N,C] residual stream between attention and MLP */
    void *mlp_in;             /* [N,C] */
    void *hidden, *activated; /* [N,M] */
};

struct model {
    struct model_options options;
    fw_device *device;
    const fw_ops *ops;
    uint32_t dtype; /* compute dtype */
    int64_t layers, width, mlp_width, vocabulary;
    float softcap;
    int64_t max_rows; /* largest B*T */

    uint32_t n_weights;
    fw_weight *weights;
    int64_t *offsets;
    int64_t arena_count, parameters;
    float *masters, *gradients;
    void *compute_arena; /* NULL when masters serve */
    fw_tensor *compute;  /* one view per weight */
    fw_tensor *gradient_views;

    struct layer *layer; /* `layers` of them */
    void *activations;   /* one allocation that everything below is carved from */
    void *embedded;      /* [N,C] */
    float *embedded_rms;
    void *final_stream, *final_in; /* [N,C] */
    float *final_rms;
    void *branch;                /* [N,C] output of a sublayer */
    void *d_stream, *d_branch;   /* [N,C] */
    void *d_hidden;              /* [N,M] */
    void *logits;                /* [N,V] in training, [T,V] otherwise */
    float *log_probabilities;    /* [T,V] outside training */
    float *losses, *log_sum_exp; /* [N] */
    float *loss_sum;             /* scalar */
    int32_t *inputs, *targets;   /* [N] */
    void *scratch;               /* attention's, shared by the layers */
};

#endif
