/* The forward and backward passes. Each function is one sublayer; backward functions take what
 * flows back along the residual stream in model->d_stream and leave theirs there. */
#include "model_internal.h"

/* Rows of the current pass. */
struct pass {
    struct model *model;
    int64_t batch, tokens, rows;
    uint32_t phase;
    bool accumulate;
    fw_error *error;
};

static fw_tensor stream_view(const struct pass *pass, void *data) {
    return fw_matrix(data, pass->model->dtype, pass->rows, pass->model->width);
}

static fw_tensor hidden_view(const struct pass *pass, void *data) {
    return fw_matrix(data, pass->model->dtype, pass->rows, pass->model->mlp_width);
}

static fw_tensor row_vector(const struct pass *pass, float *data) {
    return fw_vector(data, FW_F32, pass->rows);
}

/* ---- linear layers: y = x w^T ---- */

static fw_status linear(const struct pass *pass, fw_tensor x, fw_tensor weight, fw_tensor y) {
    const fw_gemm gemm = {
        .struct_size = sizeof gemm, .transpose_b = 1, .alpha = 1, .a = x, .b = weight, .c = y};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

static fw_status linear_input_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor weight,
                                       fw_tensor d_x) {
    const fw_gemm gemm = {.struct_size = sizeof gemm, .alpha = 1, .a = d_y, .b = weight, .c = d_x};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

static fw_status linear_weight_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor x,
                                        fw_tensor d_weight) {
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_a = 1,
                          .alpha = 1,
                          .beta = pass->accumulate ? 1 : 0,
                          .a = d_y,
                          .b = x,
                          .c = d_weight};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

/* ---- forward ---- */

static fw_status embed(const struct pass *pass) {
    struct model *model = pass->model;
    const fw_embedding embedding = {.struct_size = sizeof embedding,
                                    .tokens = fw_vector(model->inputs, FW_I32, pass->rows),
                                    .table = model->compute[0],
                                    .out = stream_view(pass, model->embedded)};
    FW_TRY(model->ops->embedding_forward(model->device, &embedding, pass->error));
    const fw_rmsnorm norm = {.struct_size = sizeof norm,
                             .epsilon = MODEL_EPSILON,
                             .scale = 1,
                             .x = stream_view(pass, model->embedded),
                             .out = stream_view(pass, model->layer[0].stream),
                             .inverse_rms = row_vector(pass, model->embedded_rms)};
    return model->ops->rmsnorm_forward(model->device, &norm, pass->error);
}

/* sum = a + b (b may be absent: sum = a), out = rmsnorm(sum). */
static fw_status add_and_norm(const struct pass *pass, void *a, void *b, void *sum, void *out,
                              float *inverse_rms) {
    const fw_residual_norm norm = {.struct_size = sizeof norm,
                                   .epsilon = MODEL_EPSILON,
                                   .scale = 1,
                                   .a = stream_view(pass, a),
                                   .weight_a = fw_absent(),
                                   .b = stream_view(pass, b),
                                   .weight_b = fw_absent(),
                                   .sum = stream_view(pass, sum),
                                   .out = stream_view(pass, out),
                                   .inverse_rms = row_vector(pass, inverse_rms)};
    return pass->model->ops->residual_norm_forward(pass->model->device, &norm, pass->error);
}

static fw_attention_call attention_call(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    return (fw_attention_call){.struct_size = sizeof(fw_attention_call),
                               .phase = pass->phase,
                               .batch = pass->batch,
                               .tokens = pass->tokens,
                               .accumulate = pass->accumulate ? 1 : 0,
                               .n_weights = layer->n_attention,
                               .weights = &model->compute[layer->first_weight],
                               .input = stream_view(pass, layer->attention_in),
                               .output = stream_view(pass, model->branch),
                               .value_add = fw_absent(),
                               .d_output = fw_absent(),
                               .d_input = fw_absent(),
                               .d_value_add = fw_absent(),
                               .cu_seqlens = fw_absent(),
                               .saved = layer->attention_saved,
                               .scratch = model->scratch};
}

static fw_status attention_forward(const struct pass *pass, struct layer *layer) {
    const fw_attention_call call = attention_call(pass, layer);
    FW_TRY(layer->attention->forward(layer->self, &call, pass->error));
    return add_and_norm(pass, layer->stream, pass->model->branch, layer->middle, layer->mlp_in,
                        layer->mlp_rms);
}

static fw_status mlp_forward(const struct pass *pass, struct layer *layer) {
    struct model *model = pass->model;
    FW_TRY(linear(pass, stream_view(pass, layer->mlp_in), model->compute[layer->up],
                  hidden_view(pass, layer->hidden)));
    const fw_activation activation = {.struct_size = sizeof activation,
                                      .kind = FW_LEAKY_RELU_SQUARED,
                                      .slope = MODEL_LEAKY_SLOPE,
                                      .x = hidden_view(pass, layer->hidden),
                                      .out = hidden_view(pass, layer->activated)};
    FW_TRY(model->ops->activation_forward(model->device, &activation, pass->error));
    return linear(pass, hidden_view(pass, layer->activated), model->compute[layer->down],
                  stream_view(pass, model->branch));
}

/* Tokens to model->final_in. */
static fw_status forward(const struct pass *pass) {
    struct model *model = pass->model;
    FW_TRY(embed(pass));
    const struct layer *first = &model->layer[0];
    const fw_rmsnorm norm = {.struct_size = sizeof norm,
                             .epsilon = MODEL_EPSILON,
                             .scale = 1,
                             .x = stream_view(pass, first->stream),
                             .out = stream_view(pass, first->attention_in),
                             .inverse_rms = row_vector(pass, first->attention_rms)};
    FW_TRY(model->ops->rmsnorm_forward(model->device, &norm, pass->error));
    for (int64_t i = 0; i < model->layers; i++) {
        struct layer *layer = &model->layer[i];
        struct layer *next = i + 1 < model->layers ? layer + 1 : NULL;
        FW_TRY(attention_forward(pass, layer));
        FW_TRY(mlp_forward(pass, layer));
        FW_TRY(add_and_norm(pass, layer->middle, model->branch,
                            next != NULL ? next->stream : model->final_stream,
                            next != NULL ? next->attention_in : model->final_in,
                            next != NULL ? next->attention_rms : model->final_rms));
    }
    return FW_OK;
}

/* ---- loss ---- */

static fw_status loss_forward(const struct pass *pass) {
    struct model *model = pass->model;
    const fw_tensor logits = fw_matrix(model->logits, model->dtype, pass->rows, model->vocabulary);
    FW_TRY(linear(pass, stream_view(pass, model->final_in), model->compute[0], logits));
    const fw_cross_entropy loss = {.struct_size = sizeof loss,
                                   .softcap = model->softcap,
                                   .logits = logits,
                                   .targets = fw_vector(model->targets, FW_I32, pass->rows),
                                   .loss = row_vector(pass, model->losses),
                                   .log_sum_exp = row_vector(pass, model->log_sum_exp)};
    FW_TRY(model->ops->cross_entropy_forward(model->device, &loss, pass->error));
    const fw_reduce sum = {.struct_size = sizeof sum,
                           .reduction = FW_SUM,
                           .accumulate = pass->accumulate ? 1 : 0,
                           .x = row_vector(pass, model->losses),
                           .y = fw_absent(),
                           .result = fw_vector(model->loss_sum, FW_F32, 1)};
    return model->ops->reduce(model->device, &sum, pass->error);
}

/* From the loss to d_branch: the gradient at the final norm's output. */
static fw_status loss_backward(const struct pass *pass, float scale) {
    struct model *model = pass->model;
    const fw_tensor logits = fw_matrix(model->logits, model->dtype, pass->rows, model->vocabulary);
    const fw_cross_entropy loss = {.struct_size = sizeof loss,
                                   .softcap = model->softcap,
                                   .d_loss = scale,
                                   .logits = logits,
                                   .targets = fw_vector(model->targets, FW_I32, pass->rows),
                                   .log_sum_exp = row_vector(pass, model->log_sum_exp),
                                   .d_logits = logits};
    FW_TRY(model->ops->cross_entropy_backward(model->device, &loss, pass->error));
    FW_TRY(linear_weight_gradient(pass, logits, stream_view(pass, model->final_in),
                                  model->gradient_views[0]));
    return linear_input_gradient(pass, logits, model->compute[0],
                                 stream_view(pass, model->d_branch));
}

/* ---- backward ---- */

/* d_stream = d_stream (absent at the top) + backward of rmsnorm(sum) for d_branch. */
static fw_status norm_backward(const struct pass *pass, void *sum, float *inverse_rms, bool top) {
    struct model *model = pass->model;
    const fw_residual_norm norm = {.struct_size = sizeof norm,
                                   .epsilon = MODEL_EPSILON,
                                   .scale = 1,
                                   .a = fw_absent(),
                                   .weight_a = fw_absent(),
                                   .b = fw_absent(),
                                   .weight_b = fw_absent(),
                                   .sum = stream_view(pass, sum),
                                   .out = fw_absent(),
                                   .inverse_rms = row_vector(pass, inverse_rms),
                                   .d_sum = top ? fw_absent() : stream_view(pass, model->d_stream),
                                   .d_out = stream_view(pass, model->d_branch),
                                   .d_a = stream_view(pass, model->d_stream),
                                   .d_b = fw_absent(),
                                   .d_weight_a = fw_absent(),
                                   .d_weight_b = fw_absent()};
    return model->ops->residual_norm_backward(model->device, &norm, pass->error);
}

static fw_status mlp_backward(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    const fw_tensor d_out = stream_view(pass, model->d_stream);
    const fw_tensor d_hidden = hidden_view(pass, model->d_hidden);
    FW_TRY(linear_weight_gradient(pass, d_out, hidden_view(pass, layer->activated),
                                  model->gradient_views[layer->down]));
    FW_TRY(linear_input_gradient(pass, d_out, model->compute[layer->down], d_hidden));
    const fw_activation activation = {.struct_size = sizeof activation,
                                      .kind = FW_LEAKY_RELU_SQUARED,
                                      .slope = MODEL_LEAKY_SLOPE,
                                      .x = hidden_view(pass, layer->hidden),
                                      .d_out = d_hidden,
                                      .d_x = d_hidden};
    FW_TRY(model->ops->activation_backward(model->device, &activation, pass->error));
    FW_TRY(linear_weight_gradient(pass, d_hidden, stream_view(pass, layer->mlp_in),
                                  model->gradient_views[layer->up]));
    FW_TRY(linear_input_gradient(pass, d_hidden, model->compute[layer->up],
                                 stream_view(pass, model->d_branch)));
    return norm_backward(pass, layer->middle, layer->mlp_rms, false);
}

static fw_status attention_backward(const struct pass *pass, const struct layer *layer) {
    struct model *model = pass->model;
    fw_attention_call call = attention_call(pass, layer);
    call.grads = &model->gradient_views[layer->first_weight];
    call.d_output = stream_view(pass, model->d_stream);
    call.d_input = stream_view(pass, model->d_branch);
    FW_TRY(layer->attention->backward(layer->self, &call, pass->error));
    return norm_backward(pass, layer->stream, layer->attention_rms, false);
}

/* The embedding's gradient adds to the head's, which is there already. */
static fw_status embed_backward(const struct pass *pass) {
    struct model *model = pass->model;
    const fw_rmsnorm norm = {.struct_size = sizeof norm,
                             .epsilon = MODEL_EPSILON,
                             .scale = 1,
                             .x = stream_view(pass, model->embedded),
                             .inverse_rms = row_vector(pass, model->embedded_rms),
                             .d_out = stream_view(pass, model->d_stream),
                             .d_x = stream_view(pass, model->d_stream)};
    FW_TRY(model->ops->rmsnorm_backward(model->device, &norm, pass->error));
    const fw_embedding embedding = {.struct_size = sizeof embedding,
                                    .accumulate = 1,
                                    .tokens = fw_vector(model->inputs, FW_I32, pass->rows),
                                    .d_out = stream_view(pass, model->d_stream),
                                    .d_table = model->gradient_views[0]};
    return model->ops->embedding_backward(model->device, &embedding, pass->error);
}

static fw_status backward(const struct pass *pass, float scale) {
    struct model *model = pass->model;
    FW_TRY(loss_backward(pass, scale));
    FW_TRY(norm_backward(pass, model->final_stream, model->final_rms, true));
    for (int64_t i = model->layers; i-- > 0;) {
        FW_TRY(mlp_backward(pass, &model->layer[i]));
        FW_TRY(attention_backward(pass, &model->layer[i]));
    }
    return embed_backward(pass);
}

/* ---- entry points ---- */

static fw_status check_rows(const struct model *model, int64_t batch, int64_t tokens,
                            fw_error *error) {
    if (batch >= 1 && tokens >= 1 && tokens <= model->options.tokens &&
        batch * tokens <= model->max_rows)
        return FW_OK;
    return fw_fail(error, FW_E_SHAPE,
                   "a pass over %lld x %lld tokens does not fit the model's %lld x %lld",
                   (long long)batch, (long long)tokens, (long long)model->options.batch,
                   (long long)model->options.tokens);
}

fw_status model_train_pass(struct model *model, const struct model_batch *batch, float scale,
                           bool accumulate, fw_error *error) {
    FW_TRY(check_rows(model, batch->batch, batch->tokens, error));
    const struct pass pass = {
        .model = model,
        .batch = batch->batch,
        .tokens = batch->tokens,
        .rows = batch->batch * batch->tokens,
        .phase = FW_TRAIN,
        .accumulate = accumulate,
        .error = error,
    };
    const size_t bytes = (size_t)pass.rows * sizeof(int32_t);
    fw_device *device = model->device;
    FW_TRY(device->copy_from_host(device, model->inputs, batch->inputs, bytes, error));
    FW_TRY(device->copy_from_host(device, model->targets, batch->targets, bytes, error));
    FW_TRY(forward(&pass));
    FW_TRY(loss_forward(&pass));
    return backward(&pass, scale);
}

fw_status model_read_loss(struct model *model, double *nats, fw_error *error) {
    float sum = 0;
    FW_TRY(model->device->copy_to_host(model->device, &sum, model->loss_sum, sizeof sum, error));
    *nats = (double)sum;
    return FW_OK;
}

fw_status model_infer(struct model *model, const int32_t *inputs, int64_t batch, int64_t tokens,
                      fw_error *error) {
    FW_TRY(check_rows(model, batch, tokens, error));
    const struct pass pass = {.model = model,
                              .batch = batch,
                              .tokens = tokens,
                              .rows = batch * tokens,
                              .phase = FW_INFER,
                              .error = error};
    FW_TRY(model->device->copy_from_host(model->device, model->inputs, inputs,
                                         (size_t)pass.rows * sizeof(int32_t), error));
    return forward(&pass);
}

fw_status model_log_probabilities(struct model *model, int64_t first_row, int64_t n_rows,
                                  float *host, fw_error *error) {
    const struct pass pass = {.model = model, .rows = n_rows, .error = error};
    const size_t width_bytes = (size_t)model->width * fw_dtype_size(model->dtype);
    char *rows = (char *)model->final_in + (size_t)first_row * width_bytes;
    const fw_tensor logits = fw_matrix(model->logits, model->dtype, n_rows, model->vocabulary);
    FW_TRY(linear(&pass, stream_view(&pass, rows), model->compute[0], logits));
    const fw_log_softmax softmax = {
        .struct_size = sizeof softmax,
        .softcap = model->softcap,
        .logits = logits,
        .log_probabilities = fw_matrix(model->log_probabilities, FW_F32, n_rows, model->vocabulary),
        .entropy = fw_absent()};
    FW_TRY(model->ops->log_softmax(model->device, &softmax, error));
    const size_t bytes = (size_t)n_rows * (size_t)model->vocabulary * sizeof(float);
    return model->device->copy_to_host(model->device, host, model->log_probabilities, bytes, error);
}
