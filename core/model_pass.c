/* A pass over a batch, from the host's tokens to the loss and back to the gradients. */
#include "model_pass.h"

static fw_status forward(const struct pass *pass) {
    FW_TRY(inputs_forward(pass));
    return layers_forward(pass);
}

/* ---- loss ---- */

static fw_status loss_forward(const struct pass *pass) {
    struct model *model = pass->model;
    const fw_tensor logits = fw_matrix(model->logits, model->dtype, pass->rows, model->vocabulary);
    FW_TRY(linear(pass, pass_stream(pass, model->final_in), 0, logits));
    const fw_cross_entropy loss = {.struct_size = sizeof loss,
                                   .softcap = model->softcap,
                                   .logits = logits,
                                   .targets = fw_vector(pass->at.targets, FW_I32, pass->rows),
                                   .loss = pass_vector(pass, model->losses),
                                   .log_sum_exp = pass_vector(pass, model->log_sum_exp)};
    FW_TRY(model->ops->cross_entropy_forward(model->device, &loss, pass->error));
    const fw_reduce sum = {.struct_size = sizeof sum,
                           .reduction = FW_SUM,
                           .accumulate = pass->accumulate ? 1 : 0,
                           .x = pass_vector(pass, model->losses),
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
                                   .targets = fw_vector(pass->at.targets, FW_I32, pass->rows),
                                   .log_sum_exp = pass_vector(pass, model->log_sum_exp),
                                   .d_logits = logits};
    FW_TRY(model->ops->cross_entropy_backward(model->device, &loss, pass->error));
    FW_TRY(linear_weight_gradient(pass, logits, pass_stream(pass, model->final_in), 0));
    return linear_input_gradient(pass, logits, model->compute[0],
                                 pass_stream(pass, model->d_branch));
}

/* The embedding serves as the head too, so the loss leaves a gradient there first. */
static fw_status backward(const struct pass *pass, float scale) {
    FW_TRY(loss_backward(pass, scale));
    FW_TRY(layers_backward(pass));
    return inputs_backward(pass);
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

/* Where a pass has its tokens unless the caller says otherwise. */
static struct model_tokens own_tokens(const struct model *model) {
    return (struct model_tokens){model->inputs, model->targets, model->pairs};
}

fw_status model_train_pass_at(struct model *model, const struct model_tokens *at, int64_t batch,
                              int64_t tokens, float scale, bool accumulate, fw_error *error) {
    FW_TRY(check_rows(model, batch, tokens, error));
    const struct pass pass = {
        .model = model,
        .batch = batch,
        .tokens = tokens,
        .rows = batch * tokens,
        .at = *at,
        .phase = FW_TRAIN,
        .accumulate = accumulate,
        .error = error,
    };
    FW_TRY(forward(&pass));
    FW_TRY(loss_forward(&pass));
    return backward(&pass, scale);
}

fw_status model_train_pass(struct model *model, const struct model_batch *batch, float scale,
                           bool accumulate, fw_error *error) {
    FW_TRY(check_rows(model, batch->batch, batch->tokens, error));
    const struct pass pass = {.model = model,
                              .batch = batch->batch,
                              .tokens = batch->tokens,
                              .rows = batch->batch * batch->tokens,
                              .at = own_tokens(model),
                              .error = error};
    FW_TRY(inputs_upload(&pass, batch->inputs, batch->targets));
    return model_train_pass_at(model, &pass.at, batch->batch, batch->tokens, scale, accumulate,
                               error);
}

const float *model_loss_sum(const struct model *model) { return model->loss_sum; }

fw_status model_read_loss(struct model *model, double *nats, fw_error *error) {
    float sum = 0;
    FW_TRY(model->device->copy_to_host(model->device, &sum, model->loss_sum, sizeof sum, error));
    *nats = (double)sum;
    return FW_OK;
}

static fw_status infer(struct model *model, const int32_t *inputs, int64_t batch, int64_t tokens,
                       const int64_t *firsts, int64_t n, fw_error *error) {
    FW_TRY(check_rows(model, batch, tokens, error));
    const struct pass pass = {.model = model,
                              .batch = batch,
                              .tokens = tokens,
                              .rows = batch * tokens,
                              .firsts = firsts,
                              .n = n,
                              .at = own_tokens(model),
                              .phase = FW_INFER,
                              .error = error};
    FW_TRY(inputs_upload(&pass, inputs, NULL));
    return forward(&pass);
}

fw_status model_observe(struct model *model, const int32_t *inputs, int64_t batch, int64_t tokens,
                        const struct model_observer *observer, fw_error *error) {
    FW_TRY(check_rows(model, batch, tokens, error));
    FW_TRY(plan_observation(model, batch, tokens, error));
    const struct pass pass = {.model = model,
                              .batch = batch,
                              .tokens = tokens,
                              .rows = batch * tokens,
                              .n = tokens,
                              .observer = observer,
                              .at = own_tokens(model),
                              .phase = FW_CALIBRATE,
                              .error = error};
    FW_TRY(inputs_upload(&pass, inputs, NULL));
    FW_TRY(forward(&pass));
    const fw_tensor read = pass_stream(&pass, model->final_in);
    return observe_rows(&pass, 0, &read);
}

fw_status model_infer(struct model *model, const int32_t *inputs, int64_t batch, int64_t tokens,
                      fw_error *error) {
    return infer(model, inputs, batch, tokens, NULL, tokens, error);
}

fw_status model_infer_some(struct model *model, const int32_t *inputs, int64_t batch,
                           int64_t tokens, const int64_t *firsts, int64_t n, fw_error *error) {
    for (int64_t b = 0; b < batch; b++)
        if (firsts[b] < 0 || n < 1 || firsts[b] + n > tokens)
            return fw_fail(error, FW_E_RANGE, "positions %lld .. %lld are not within 0 .. %lld",
                           (long long)firsts[b], (long long)(firsts[b] + n - 1),
                           (long long)tokens - 1);
    return infer(model, inputs, batch, tokens, n < tokens ? firsts : NULL, n, error);
}

fw_status model_decode(struct model *model, struct decoding *decoding, const int32_t *inputs,
                       int64_t n, fw_error *error) {
    if (n < 1 || n > model->options.feed)
        return fw_fail(error, FW_E_SHAPE,
                       "reading %lld tokens on; the model was made for 1 to %lld", (long long)n,
                       (long long)model->options.feed);
    const struct pass pass = {.model = model,
                              .batch = 1,
                              .tokens = n,
                              .rows = n,
                              .n = n,
                              .decoding = decoding,
                              .at = own_tokens(model),
                              .phase = FW_DECODE,
                              .error = error};
    FW_TRY(inputs_upload(&pass, inputs, NULL));
    FW_TRY(forward(&pass));
    decoding->position += n;
    decoding->held += n;
    decoding->previous = inputs[n - 1];
    return FW_OK;
}

int64_t model_most_rows(const struct model *model) { return model->most_rows; }

bool model_works_ahead(const struct model *model) { return staging_is_possible(model->device); }

/* The next place for rows. */
static float *next_place(struct model *model) {
    const uint32_t place = model->sends++ % model->places;
    return model->log_probabilities + (int64_t)place * model->most_rows * model->vocabulary;
}

static fw_status compute_log_probabilities(struct model *model, int64_t first_row, int64_t n_rows,
                                           float *to, fw_error *error) {
    const struct pass pass = {.model = model, .rows = n_rows, .error = error};
    const size_t width_bytes = (size_t)model->width * fw_dtype_size(model->dtype);
    if (n_rows < 1 || n_rows > model->most_rows || first_row < 0 ||
        first_row + n_rows > model->max_rows)
        return fw_fail(error, FW_E_RANGE, "%lld rows from %lld on, of %lld; at most %lld at a time",
                       (long long)n_rows, (long long)first_row, (long long)model->max_rows,
                       (long long)model->most_rows);
    char *rows = (char *)model->final_in + (size_t)first_row * width_bytes;
    const fw_tensor logits = fw_matrix(model->logits, model->dtype, n_rows, model->vocabulary);
    FW_TRY(linear(&pass, pass_stream(&pass, rows), 0, logits));
    const fw_log_softmax softmax = {.struct_size = sizeof softmax,
                                    .softcap = model->softcap,
                                    .logits = logits,
                                    .log_probabilities =
                                        fw_matrix(to, FW_F32, n_rows, model->vocabulary),
                                    .entropy = fw_absent()};
    return model->ops->log_softmax(model->device, &softmax, error);
}

static size_t row_bytes(const struct model *model) {
    return (size_t)model->vocabulary * sizeof(float);
}

fw_status model_log_probabilities(struct model *model, int64_t first_row, int64_t n_rows,
                                  float *host, fw_error *error) {
    float *rows = next_place(model);
    FW_TRY(compute_log_probabilities(model, first_row, n_rows, rows, error));
    return model->device->copy_to_host(model->device, host, rows, (size_t)n_rows * row_bytes(model),
                                       error);
}

fw_status model_send_log_probabilities(struct model *model, int64_t first_row, int64_t n_rows,
                                       float *pinned, fw_error *error) {
    fw_device *device = model->device;
    const size_t bytes = (size_t)n_rows * row_bytes(model);
    float *rows = next_place(model);
    FW_TRY(compute_log_probabilities(model, first_row, n_rows, rows, error));
    if (model->places == 1) return device->copy_to_host_async(device, pinned, rows, bytes, error);
    return device->copy_to_host_beside(device, pinned, rows, bytes, error);
}
