/* What the passes of the model share (model_pass.c, model_layers.c, model_inputs.c): views, linear
 * layers, sums along the residual stream. Not for other modules. */
#ifndef FAIRWAY_MODEL_PASS_H
#define FAIRWAY_MODEL_PASS_H

#include "model_internal.h"

/* What a decoder keeps of the tokens that it has read (decoder.c). */
struct decoding {
    int64_t position; /* tokens read */
    int64_t held;     /* of them, in the states */
    int64_t window;
    fw_attention_state *states; /* of each layer */
    void *before;               /* [1,C] the last token's normed embedding, zeros if none */
    int32_t previous;           /* the last token, -1: none */
};

/* One pass over B x T tokens. */
struct pass {
    struct model *model;
    int64_t batch, tokens, rows;
    /* Positions of each sequence that matter after the last attention: n from firsts[b] on; firsts
     * NULL: all. */
    const int64_t *firsts;
    int64_t n;
    struct decoding *decoding; /* the tokens go on behind those read before, B = 1; NULL: do not */
    const struct model_observer *observer; /* of phase FW_CALIBRATE, else NULL */
    struct model_tokens at;
    uint32_t phase;
    bool accumulate; /* gradients of weights add to those that are there */
    fw_error *error;
};

/* Views of a pass's rows. */
fw_tensor pass_matrix(const struct pass *pass, void *data, int64_t columns);
fw_tensor pass_stream(const struct pass *pass, void *data); /* [N,C] */
fw_tensor pass_vector(const struct pass *pass, float *data);

/* model_observe.c: tell the pass's observer, if there is one, what `weight` reads. E_PROTOCOL: it
 * cannot read that. */
fw_status observe_rows(const struct pass *pass, uint32_t weight, const fw_tensor *rows);

/* The layer's attention, which tells what its matrices read. E_PROTOCOL: it tells nothing, or of a
 * weight that it does not have. */
fw_status attention_observed(const struct pass *pass, const struct layer *layer,
                             fw_attention_call *call);

/* Whether the attention of each layer takes part. */
fw_status plan_observation(const struct model *model, int64_t batch, int64_t tokens,
                           fw_error *error);

/* y = x w^T, observed, and its gradients. */
fw_status linear(const struct pass *pass, fw_tensor x, uint32_t weight, fw_tensor y);

/* y = addend + x w^T. */
fw_status linear_add(const struct pass *pass, fw_tensor x, fw_tensor w, fw_tensor addend,
                     fw_tensor y);

/* The last matrix of a sublayer takes up the scale of its output: w'[c] = scale[c] w[c], so that
 * the sublayer adds x w'^T to the residual stream in one product and nothing of it need be kept.
 * `scaled` is w' (w itself without a scale), good until the next call; in inference, where weights
 * stay as they are, formed once. Its gradient is formed at
 * model->d_scaled_weight, from where scaled_weight_backward leads on to w and scale;
 * linear_scaled_gradient does both. */
fw_status scaled_weight(const struct pass *pass, uint32_t weight, uint32_t scale,
                        fw_tensor *scaled);
fw_status scaled_weight_backward(const struct pass *pass, uint32_t weight, uint32_t scale);
fw_status linear_scaled_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor x,
                                 uint32_t weight, uint32_t scale);

/* out = scale * rmsnorm(x), [N,C]. */
fw_status norm_stream(const struct pass *pass, void *x, void *out, float *inverse_rms, float scale);
fw_status linear_input_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor w, fw_tensor d_x);
fw_status linear_weight_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor x,
                                 uint32_t weight);

/* A term of a sum: data, times row `row` of a weight unless that is NO_WEIGHT. */
struct term {
    void *data; /* NULL: no such term */
    uint32_t weight;
    int64_t row;
};

/* sum = a + b over rows of `columns`; out = scale * rmsnorm(sum), NULL: no norm. sum may be a's
 * data. */
struct residual {
    struct term a, b;
    int64_t columns;
    void *sum, *out;
    float *inverse_rms;
    float scale;
};

/* Gradients of a residual: d_sum and d_out (NULL: zero) flow in, d_a and d_b (NULL: not wanted)
 * flow out; those of the weights go to the model's gradients. d_a may be d_sum. */
struct residual_flow {
    void *d_sum, *d_out, *d_a, *d_b;
    bool accumulate_b; /* adds to d_b */
};

fw_status residual_forward(const struct pass *pass, const struct residual *residual);
fw_status residual_backward(const struct pass *pass, const struct residual *residual,
                            const struct residual_flow *flow);

/* to += from, [N,C]. */
fw_status add_stream(const struct pass *pass, void *from, void *to);

/* model_inputs.c: from tokens to x0 and the values' base; and from d_stream, the gradient of x0, to
 * the tables. inputs_upload copies the host's tokens (targets NULL: there are none) and the pairs'
 * slots to where the pass has them. */
fw_status inputs_upload(const struct pass *pass, const int32_t *tokens, const int32_t *targets);
fw_status inputs_forward(const struct pass *pass);
fw_status inputs_backward(const struct pass *pass);

/* What layer->value_add gets; and the share of the layer in the base's gradient, from d_value_add.
 * `first`: the first layer that comes along. */
fw_status value_forward(const struct pass *pass, const struct layer *layer);
fw_status value_backward(const struct pass *pass, const struct layer *layer, bool first);

/* model_layers.c: from x0 to final_in, and back from d_branch, the gradient at final_in, to
 * d_stream, that of x0. */
fw_status layers_forward(const struct pass *pass);
fw_status layers_backward(const struct pass *pass);

/* model_pass.c: read on. On failure `decoding` is of no further use. */
fw_status model_decode(struct model *model, struct decoding *decoding, const int32_t *inputs,
                       int64_t n, fw_error *error);

#endif
