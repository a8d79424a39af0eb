/* The layers, forward and backward. Backward functions take what flows back along the residual
 * stream in model->d_stream and leave theirs there; model->d_branch holds what comes out of a
 * sublayer's input. */
#include "model_pass.h"

/* ---- the sums of a layer, in the order of the forward pass ---- */

static bool begins_with_sum(const struct layer *layer) {
    return layer->skip >= 0 || layer->mix != NO_WEIGHT;
}

/* The last sum before attention is followed by the norm. */
static void norm_for_attention(struct residual *sum, const struct layer *layer) {
    sum->out = layer->attention_in;
    sum->inverse_rms = layer->attention_rms;
    sum->scale = layer->norm_scale;
}

/* The layer whose output `layer` takes up: last pushed, first popped. */
static struct layer *skip_source(const struct model *model, const struct layer *layer) {
    return &model->layer[model->encoders - 1 - layer->skip];
}

static struct residual skip_sum(const struct model *model, const struct layer *layer) {
    const struct layer *source = skip_source(model, layer);
    struct residual sum = {.a = {layer->entry, NO_WEIGHT, 0},
                           .b = {source[1].entry, model->skip_weights, layer->skip},
                           .columns = model->width,
                           .sum = layer->skipped};
    if (layer->mix == NO_WEIGHT) norm_for_attention(&sum, layer);
    return sum;
}

static struct residual mix_sum(const struct model *model, const struct layer *layer) {
    struct residual sum = {.a = {layer->skipped, layer->mix, 0},
                           .b = {model->x0, layer->mix, 1},
                           .columns = model->width,
                           .sum = layer->stream};
    norm_for_attention(&sum, layer);
    return sum;
}

/* The first layer of a model without mixes: nothing to add, only the norm. */
static struct residual first_norm(const struct model *model, const struct layer *layer) {
    struct residual sum = {.a = {layer->stream, NO_WEIGHT, 0},
                           .b = {NULL, NO_WEIGHT, 0},
                           .columns = model->width,
                           .sum = layer->stream};
    norm_for_attention(&sum, layer);
    return sum;
}

/* Where the attention plugin adds to the residual stream itself, only the norm is left. */
static struct residual attention_sum(const struct model *model, const struct layer *layer) {
    const bool added = layer->output != NO_WEIGHT;
    return (struct residual){.a = {added ? layer->middle : layer->stream, NO_WEIGHT, 0},
                             .b = {added ? NULL : layer->attention_out, layer->attention_scale, 0},
                             .columns = model->width,
                             .sum = layer->middle,
                             .out = layer->mlp_in,
                             .inverse_rms = layer->mlp_rms,
                             .scale = layer->norm_scale};
}

static bool is_last(const struct model *model, const struct layer *layer) {
    return layer == &model->layer[model->layers - 1];
}

/* Where the layer leaves the residual stream: the MLP adds to it itself, so that this is a norm, or
 * nothing (out = NULL) in front of a layer that begins with a sum of its own. */
static struct residual layer_end(const struct model *model, const struct layer *layer) {
    const bool last = is_last(model, layer);
    void *stream = last ? model->final_stream : layer[1].entry;
    struct residual end = {.a = {stream, NO_WEIGHT, 0}, .columns = model->width, .sum = stream};
    if (last) {
        end.out = model->final_in;
        end.inverse_rms = model->final_rms;
        end.scale = 1;
    } else if (!begins_with_sum(&layer[1])) {
        norm_for_attention(&end, &layer[1]);
    }
    return end;
}

/* ---- sublayers ---- */

static fw_attention_call attention_call(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    const bool values = layer->value_scale != NO_WEIGHT, added = layer->output != NO_WEIGHT;
    return (fw_attention_call){
        .struct_size = sizeof(fw_attention_call),
        .phase = pass->phase,
        .batch = pass->batch,
        .tokens = pass->tokens,
        .position_offset = pass->decoding != NULL ? pass->decoding->position : 0,
        .window = pass->decoding != NULL ? pass->decoding->window : 0,
        .accumulate = pass->accumulate ? 1 : 0,
        .n_weights = layer->n_attention,
        .weights = &model->call_weights[layer->first_weight],
        .input = pass_stream(pass, layer->attention_in),
        .output = pass_stream(pass, added ? layer->middle : layer->attention_out),
        .residual = added ? pass_stream(pass, layer->stream) : fw_absent(),
        .value_add =
            values ? pass_matrix(pass, layer->value_add, model->value.columns) : fw_absent(),
        .d_output = fw_absent(),
        .d_input = fw_absent(),
        .d_value_add = fw_absent(),
        .cu_seqlens = fw_absent(),
        .saved = layer->attention_saved,
        .scratch = model->scratch};
}

static fw_tensor hidden_view(const struct pass *pass, void *data) {
    return pass_matrix(pass, data, pass->model->mlp_width);
}

/* The first linear layer with its activation, in one op where the device has it. */
static fw_linear_activation joined_call(const struct pass *pass, const struct layer *layer) {
    const struct model *model = pass->model;
    return (fw_linear_activation){.struct_size = sizeof(fw_linear_activation),
                                  .kind = FW_LEAKY_RELU_SQUARED,
                                  .slope = MODEL_LEAKY_SLOPE,
                                  .x = pass_stream(pass, layer->mlp_in),
                                  .weight = model->compute[layer->up],
                                  .out = hidden_view(pass, layer->activated),
                                  .d_y = fw_absent(),
                                  .next_weight = fw_absent(),
                                  .d_hidden = fw_absent(),
                                  .saved = layer->mlp_saved,
                                  .saved_bytes =
                                      layer->mlp_saved != NULL ? model->mlp_saved_bytes : 0};
}

static fw_activation activation_call(const struct pass *pass, const struct layer *layer) {
    return (fw_activation){.struct_size = sizeof(fw_activation),
                           .kind = FW_LEAKY_RELU_SQUARED,
                           .slope = MODEL_LEAKY_SLOPE,
                           .x = hidden_view(pass, layer->hidden),
                           .out = fw_absent(),
                           .d_out = fw_absent(),
                           .d_x = fw_absent()};
}

static fw_status up_forward(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    if (model->linear_activation) {
        const fw_linear_activation joined = joined_call(pass, layer);
        FW_TRY(observe_rows(pass, layer->up, &joined.x));
        return model->ops->linear_activation_forward(model->device, &joined, pass->error);
    }
    fw_activation activation = activation_call(pass, layer);
    activation.out = hidden_view(pass, layer->activated);
    FW_TRY(linear(pass, pass_stream(pass, layer->mlp_in), layer->up, activation.x));
    return model->ops->activation_forward(model->device, &activation, pass->error);
}

/* From d_output to d_hidden: back through the second linear layer and the activation. */
static fw_status down_backward(const struct pass *pass, const struct layer *layer,
                               fw_tensor d_output, fw_tensor d_hidden) {
    struct model *model = pass->model;
    fw_tensor down;
    FW_TRY(scaled_weight(pass, layer->down, layer->mlp_scale, &down));
    if (model->linear_activation) {
        fw_linear_activation joined = joined_call(pass, layer);
        joined.d_y = d_output;
        joined.next_weight = down;
        joined.d_hidden = d_hidden;
        return model->ops->linear_activation_backward(model->device, &joined, pass->error);
    }
    fw_activation activation = activation_call(pass, layer);
    activation.d_out = activation.d_x = d_hidden;
    FW_TRY(linear_input_gradient(pass, d_output, down, d_hidden));
    return model->ops->activation_backward(model->device, &activation, pass->error);
}

/* To the residual stream at `to`. */
static fw_status mlp_forward(const struct pass *pass, const struct layer *layer, void *to) {
    const fw_tensor activated = hidden_view(pass, layer->activated);
    fw_tensor down;
    FW_TRY(up_forward(pass, layer));
    FW_TRY(observe_rows(pass, layer->down, &activated));
    FW_TRY(scaled_weight(pass, layer->down, layer->mlp_scale, &down));
    return linear_add(pass, activated, down, pass_stream(pass, layer->middle),
                      pass_stream(pass, to));
}

/* From d_stream, the gradient of what the MLP added, to d_branch. */
static fw_status mlp_backward(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    const fw_tensor d_out = pass_stream(pass, model->d_stream);
    const fw_tensor d_hidden = hidden_view(pass, model->d_hidden);
    FW_TRY(linear_scaled_gradient(pass, d_out, hidden_view(pass, layer->activated), layer->down,
                                  layer->mlp_scale));
    FW_TRY(down_backward(pass, layer, d_out, d_hidden));
    FW_TRY(linear_weight_gradient(pass, d_hidden, pass_stream(pass, layer->mlp_in), layer->up));
    return linear_input_gradient(pass, d_hidden, model->compute[layer->up],
                                 pass_stream(pass, model->d_branch));
}

/* Whether attention is called with a matrix that has taken up the scale of its output. */
static bool scales_output(const struct layer *layer) {
    return layer->output != NO_WEIGHT && layer->attention_scale != NO_WEIGHT;
}

static fw_status attention_forward(const struct pass *pass, const struct layer *layer) {
    const struct model *model = pass->model;
    fw_tensor scaled;
    if (scales_output(layer))
        FW_TRY(scaled_weight(pass, layer->output, layer->attention_scale, &scaled));
    fw_attention_call call = attention_call(pass, layer);
    if (pass->observer != NULL) return attention_observed(pass, layer, &call);
    if (pass->decoding == NULL) return layer->attention->forward(layer->self, &call, pass->error);
    fw_attention_state *state = &pass->decoding->states[layer - model->layer];
    return layer->attention->decode(layer->self, state, &call, pass->error);
}

/* The gradient of the scaled matrix is formed afresh; the plugin adds where it accumulates. */
static fw_status prepare_scaled_output(const struct pass *pass, const struct layer *layer) {
    const struct model *model = pass->model;
    const fw_tensor *gradient = &model->gradient_views[layer->output];
    const size_t bytes = (size_t)fw_tensor_count(gradient) * sizeof(float);
    fw_tensor scaled;
    FW_TRY(scaled_weight(pass, layer->output, layer->attention_scale, &scaled));
    if (!pass->accumulate) return FW_OK;
    return model->device->zero(model->device, model->d_scaled_weight, bytes, pass->error);
}

/* From d_output, the gradient of what attention gave, to d_branch. */
static fw_status attention_backward(const struct pass *pass, const struct layer *layer,
                                    void *d_output) {
    struct model *model = pass->model;
    fw_attention_call call = attention_call(pass, layer);
    call.grads = &model->call_grads[layer->first_weight];
    call.d_output = pass_stream(pass, d_output);
    call.d_input = pass_stream(pass, model->d_branch);
    if (layer->value_scale != NO_WEIGHT)
        call.d_value_add = pass_matrix(pass, model->d_value_add, model->value.columns);
    if (scales_output(layer)) FW_TRY(prepare_scaled_output(pass, layer));
    FW_TRY(layer->attention->backward(layer->self, &call, pass->error));
    if (!scales_output(layer)) return FW_OK;
    return scaled_weight_backward(pass, layer->output, layer->attention_scale);
}

/* ---- forward ---- */

static fw_status begin_layer(const struct pass *pass, const struct layer *layer) {
    const struct model *model = pass->model;
    struct residual sum;
    if (layer->skip >= 0) {
        sum = skip_sum(model, layer);
        FW_TRY(residual_forward(pass, &sum));
    }
    if (layer->mix != NO_WEIGHT) {
        sum = mix_sum(model, layer);
        return residual_forward(pass, &sum);
    }
    if (layer != model->layer) return FW_OK; /* normed by the layer before */
    sum = first_norm(model, layer);
    return residual_forward(pass, &sum);
}

/* A sum that was formed already lacks its norm alone. */
static fw_status sum_or_norm(const struct pass *pass, const struct residual *sum) {
    if (sum->a.data != sum->sum || sum->b.data != NULL) return residual_forward(pass, sum);
    if (sum->out == NULL) return FW_OK;
    return norm_stream(pass, sum->sum, sum->out, sum->inverse_rms, sum->scale);
}

static fw_status mlp_sublayer(const struct pass *pass, const struct layer *layer,
                              const struct residual *end) {
    const struct residual middle = attention_sum(pass->model, layer);
    FW_TRY(sum_or_norm(pass, &middle));
    FW_TRY(mlp_forward(pass, layer, end->sum));
    return sum_or_norm(pass, end);
}

/* The positions of each sequence that matter, one sequence behind the other. */
static fw_status gather(const struct pass *pass, const void *from, void *to) {
    fw_device *device = pass->model->device;
    const size_t row = (size_t)pass->model->width * fw_dtype_size(pass->model->dtype);
    const size_t bytes = (size_t)pass->n * row;
    for (int64_t b = 0; b < pass->batch; b++) {
        const char *begin = (const char *)from + (size_t)(b * pass->tokens + pass->firsts[b]) * row;
        FW_TRY(device->copy(device, (char *)to + (size_t)b * bytes, begin, bytes, pass->error));
    }
    return FW_OK;
}

/* The last MLP for these positions alone, in buffers that are free by then. */
static fw_status last_mlp_sublayer(const struct pass *pass, const struct layer *layer,
                                   const struct residual *end) {
    struct pass some = *pass;
    struct layer gathered = *layer;
    some.rows = pass->batch * pass->n;
    if (layer->output != NO_WEIGHT) {
        gathered.middle = layer->attention_in;
        FW_TRY(gather(pass, layer->middle, gathered.middle));
        return mlp_sublayer(&some, &gathered, end);
    }
    gathered.stream = layer->middle; /* the sum is formed in place */
    gathered.attention_out = layer->attention_in;
    FW_TRY(gather(pass, layer->stream, gathered.stream));
    FW_TRY(gather(pass, layer->attention_out, gathered.attention_out));
    return mlp_sublayer(&some, &gathered, end);
}

static fw_status layer_forward(const struct pass *pass, const struct layer *layer) {
    FW_TRY(begin_layer(pass, layer));
    if (layer->value_scale != NO_WEIGHT) FW_TRY(value_forward(pass, layer));
    FW_TRY(attention_forward(pass, layer));
    const struct residual end = layer_end(pass->model, layer);
    if (is_last(pass->model, layer) && pass->firsts != NULL)
        return last_mlp_sublayer(pass, layer, &end);
    return mlp_sublayer(pass, layer, &end);
}

fw_status layers_forward(const struct pass *pass) {
    for (int64_t i = 0; i < pass->model->layers; i++)
        FW_TRY(layer_forward(pass, &pass->model->layer[i]));
    return FW_OK;
}

/* ---- backward ---- */

/* Through a sum at a sublayer's end, or the norm that is left of it; where the sublayer's output
 * was scaled there, its gradient is apart from the stream's, in d_scaled. */
static fw_status end_backward(const struct pass *pass, const struct residual *sum, bool top) {
    struct model *model = pass->model;
    const bool scaled = sum->b.data != NULL && sum->b.weight != NO_WEIGHT;
    if (!scaled && sum->out == NULL) return FW_OK;
    const struct residual_flow flow = {.d_sum = top ? NULL : model->d_stream,
                                       .d_out = sum->out != NULL ? model->d_branch : NULL,
                                       .d_a = model->d_stream,
                                       .d_b = scaled ? model->d_scaled : NULL};
    return residual_backward(pass, sum, &flow);
}

static void *branch_gradient(const struct model *model, const struct residual *sum) {
    const bool scaled = sum->b.data != NULL && sum->b.weight != NO_WEIGHT;
    return scaled ? model->d_scaled : model->d_stream;
}

static fw_status begin_backward(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    struct residual_flow flow = {
        .d_sum = model->d_stream, .d_out = model->d_branch, .d_a = model->d_stream};
    struct residual sum;
    if (layer->mix != NO_WEIGHT) {
        sum = mix_sum(model, layer);
        flow.d_b = model->d_x0;
        flow.accumulate_b = !is_last(model, layer);
        FW_TRY(residual_backward(pass, &sum, &flow));
        flow = (struct residual_flow){.d_sum = model->d_stream};
    }
    if (layer->skip >= 0) {
        sum = skip_sum(model, layer);
        flow.d_b = skip_source(model, layer)->d_output;
        return residual_backward(pass, &sum, &flow);
    }
    if (layer->mix != NO_WEIGHT || layer != model->layer) return FW_OK;
    sum = first_norm(model, layer);
    return residual_backward(pass, &sum, &flow);
}

static fw_status layer_backward(const struct pass *pass, const struct layer *layer,
                                bool *first_value) {
    struct model *model = pass->model;
    if (layer->d_output != NULL) FW_TRY(add_stream(pass, layer->d_output, model->d_stream));
    const struct residual end = layer_end(model, layer);
    FW_TRY(end_backward(pass, &end, is_last(model, layer)));
    FW_TRY(mlp_backward(pass, layer));
    const struct residual middle = attention_sum(model, layer);
    FW_TRY(end_backward(pass, &middle, false));
    FW_TRY(attention_backward(pass, layer, branch_gradient(model, &middle)));
    if (layer->value_scale != NO_WEIGHT) {
        FW_TRY(value_backward(pass, layer, *first_value));
        *first_value = false;
    }
    return begin_backward(pass, layer);
}

fw_status layers_backward(const struct pass *pass) {
    struct model *model = pass->model;
    bool first_value = true;
    for (int64_t i = model->layers; i-- > 0;)
        FW_TRY(layer_backward(pass, &model->layer[i], &first_value));
    return model->d_x0 != NULL ? add_stream(pass, model->d_x0, model->d_stream) : FW_OK;
}
