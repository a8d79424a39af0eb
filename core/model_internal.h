/* What the model's own files share. Not for other modules: they use model.h. */
#ifndef FAIRWAY_MODEL_INTERNAL_H
#define FAIRWAY_MODEL_INTERNAL_H

#include "model.h"
#include "staging.h"

#define MODEL_EPSILON 1.1920929e-7f /* float32's machine epsilon, as in the reference record */
#define MODEL_LEAKY_SLOPE 0.5f

/* The index of a weight that this model does not have. */
#define NO_WEIGHT UINT32_MAX

/* A hashed or plain table of narrow embeddings with its projection and scale. */
struct table {
    uint32_t weight, projection, scale; /* projection: NO_WEIGHT when the widths are equal */
    int64_t width, columns;             /* of a row, and of what it is projected to */
    void *rows;                         /* [N,width] looked up */
    void *out;                          /* [N,columns] projected; = rows without a projection */
};

/* One layer: its attention instance, its weights and what it saves for the backward pass. The
 * residual stream on its way: entry, with skip: skipped, mixed with x0: stream; after attention:
 * middle. Where a switch is off, neighbouring names are one buffer. */
struct layer {
    const fw_attention *attention;
    void *self;
    uint32_t first_weight; /* of attention's */
    uint32_t n_attention;
    uint32_t output; /* of attention: the weight whose rows its scale multiplies, NO_WEIGHT: none */
    uint32_t up, down;
    uint32_t mix, attention_scale, mlp_scale, value_scale;
    int32_t skip; /* row of skip_weights, -1: none */
    bool takes_values;
    bool decodes;                   /* with scratch for it, where the model is made for feeds; */
    char cannot_decode[512];        /* else why not */
    float norm_scale;               /* of both norms */
    fw_attention_plan plan;         /* scratch for decoding and calibration included */
    float *attention_rms, *mlp_rms; /* [N] */
    void *entry, *skipped, *stream; /* [N,C] */
    void *attention_in;             /* [N,C] */
    void *attention_saved;
    void *attention_out;      /* [N,C], where attention knows of no residual */
    void *middle;             /* [N,C] residual stream between attention and MLP */
    void *mlp_in;             /* [N,C] */
    void *hidden, *activated; /* [N,M]; hidden only without the device's linear_activation, */
    void *mlp_saved;          /* which saves this instead, in training alone */
    void *value_add;          /* [N,G*D], with value_scale only */
    void *d_output;           /* [N,C] gradient of what a skip took from this layer's output; lies
                                 where the layer that took it had its mlp_in */
};

struct model {
    struct model_options options;
    fw_device *device;
    const fw_ops *ops;
    uint32_t dtype; /* compute dtype */
    int64_t layers, width, mlp_width, vocabulary;
    int64_t encoders; /* layers whose outputs are skipped to later ones; 0: no skips */
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
    fw_tensor *call_weights; /* `compute` and `gradient_views` as attention is called with them: */
    fw_tensor *call_grads;   /* a layer's output is scaled by its last matrix */
    uint32_t smear_gate, skip_weights;
    struct table bigram, value; /* weight = NO_WEIGHT: none */

    struct layer *layer;    /* `layers` of them */
    bool linear_activation; /* the device has it */
    size_t mlp_saved_bytes; /* of one layer */
    void *activations;      /* one allocation that everything below is carved from */
    size_t activation_bytes;
    void *embedded; /* [N,C] */
    float *embedded_rms;
    void *normed, *x0;             /* [N,C]; one buffer without smear, else with room for a row in
                                      front of each, where a decoder may read on */
    void *value_base;              /* [N,G*D] */
    void *final_stream, *final_in; /* [N,C] */
    float *final_rms;
    void *branch;                     /* [N,C] output of attention, where nobody saves it */
    void **scaled;                    /* by weight: where it lies with its rows scaled, [C,...]; */
    bool *is_scaled;                  /* and whether it does, where weights stay as they are */
    float *d_scaled_weight;           /* its gradient */
    void *d_stream, *d_branch;        /* [N,C] */
    void *d_scaled, *d_x0;            /* [N,C], for scales and mixes */
    void *d_value_add, *d_value_base; /* [N,G*D] */
    void *d_rows;                     /* [N, width of a table] */
    /* One piece of memory, as no two of them are needed at a time: attention's scratch, */
    void *scratch;
    void *d_hidden;                    /* [N,M] */
    void *logits;                      /* [N,V] in training, [most_rows,V] otherwise */
    int64_t most_rows;                 /* of one call for log-probabilities */
    float *log_probabilities;          /* [places][most_rows,V] outside training */
    uint32_t places, sends;            /* 1, or as many as may be under way; so far */
    float *losses, *log_sum_exp;       /* [N] */
    float *loss_sum;                   /* scalar */
    int32_t *inputs, *targets, *pairs; /* [N]; pairs: slots of the bigram table */
    struct staging *staging;           /* a pass's inputs, pairs and targets, [N] each */
    uint32_t uploads;                  /* so far */
};

/* model_weights.c: declare all weights, in a stable order; allocate masters, gradients, copies. */
fw_status model_declare_weights(struct model *model, fw_error *error);
fw_status model_allocate_weights(struct model *model, fw_error *error);

/* model_memory.c: carve the buffers of a pass. */
fw_status model_allocate_activations(struct model *model, fw_error *error);

#endif
