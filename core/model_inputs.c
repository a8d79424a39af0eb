/* From tokens to the residual stream's beginning: embedding, bigram table, norm, smear; and the
 * value embedding that attention layers add to their values. */
#include <string.h>

#include "model_pass.h"

/* ---- tables: a narrow embedding, projected ---- */

static fw_status table_forward(const struct pass *pass, const struct table *table,
                               int32_t *indices) {
    struct model *model = pass->model;
    const fw_embedding lookup = {.struct_size = sizeof lookup,
                                 .tokens = fw_vector(indices, FW_I32, pass->rows),
                                 .table = model->compute[table->weight],
                                 .out = pass_matrix(pass, table->rows, table->width)};
    FW_TRY(model->ops->embedding_forward(model->device, &lookup, pass->error));
    if (table->projection == NO_WEIGHT) return FW_OK;
    return linear(pass, pass_matrix(pass, table->rows, table->width), table->projection,
                  pass_matrix(pass, table->out, table->columns));
}

/* From d_out, the gradient of what the table gave. */
static fw_status table_backward(const struct pass *pass, const struct table *table,
                                int32_t *indices, void *d_out) {
    struct model *model = pass->model;
    void *d_rows = d_out;
    if (table->projection != NO_WEIGHT) {
        const fw_tensor d = pass_matrix(pass, d_out, table->columns);
        d_rows = model->d_rows;
        FW_TRY(linear_weight_gradient(pass, d, pass_matrix(pass, table->rows, table->width),
                                      table->projection));
        FW_TRY(linear_input_gradient(pass, d, model->compute[table->projection],
                                     pass_matrix(pass, d_rows, table->width)));
    }
    const fw_embedding lookup = {.struct_size = sizeof lookup,
                                 .accumulate = pass->accumulate ? 1 : 0,
                                 .tokens = fw_vector(indices, FW_I32, pass->rows),
                                 .d_out = pass_matrix(pass, d_rows, table->width),
                                 .d_table = model->gradient_views[table->weight]};
    return model->ops->embedding_backward(model->device, &lookup, pass->error);
}

/* ---- token pairs ---- */

/* The reference record's hash, in wrapping 32 bits with a remainder that is never negative. */
static int32_t pair_slot(int32_t previous, int32_t token, int32_t modulus) {
    const uint32_t mixed = UINT32_C(36313) * (uint32_t)token ^ UINT32_C(27191) * (uint32_t)previous;
    const int32_t rest = (int32_t)mixed % modulus;
    return rest < 0 ? rest + modulus : rest;
}

bool model_has_pairs(const struct model *model) { return model->bigram.weight != NO_WEIGHT; }

static int32_t last_slot(const struct model *model) {
    return (int32_t)(model->options.experiment->model.bigram_slots - 1);
}

/* The first token of a sequence has no pair: the last slot is its own. */
void model_pair_slots(const struct model *model, const int32_t *inputs, int64_t n, int32_t *pairs) {
    const int32_t last = last_slot(model);
    if (n > 0) pairs[0] = last;
    for (int64_t i = 1; i < n; i++) pairs[i] = pair_slot(inputs[i - 1], inputs[i], last);
}

static fw_status upload_pairs(const struct pass *pass, const int32_t *tokens, int32_t *staged) {
    const struct model *model = pass->model;
    if (!model_has_pairs(model)) return FW_OK;
    for (int64_t b = 0; b < pass->batch; b++)
        model_pair_slots(model, tokens + b * pass->tokens, pass->tokens, staged + b * pass->tokens);
    if (pass->decoding != NULL && pass->decoding->previous >= 0)
        staged[0] = pair_slot(pass->decoding->previous, tokens[0], last_slot(model));
    return model->device->copy_from_host(model->device, pass->at.pairs, staged,
                                         (size_t)pass->rows * sizeof *staged, pass->error);
}

fw_status inputs_upload(const struct pass *pass, const int32_t *tokens, const int32_t *targets) {
    struct model *model = pass->model;
    fw_device *device = model->device;
    const uint32_t slot = model->uploads++ % staging_slots(model->staging);
    int32_t *staged = staging_memory(model->staging, slot);
    const size_t bytes = (size_t)pass->rows * sizeof *staged;
    FW_TRY(staging_wait(model->staging, slot, pass->error));
    memcpy(staged, tokens, bytes);
    FW_TRY(device->copy_from_host(device, pass->at.inputs, staged, bytes, pass->error));
    FW_TRY(upload_pairs(pass, tokens, staged + model->max_rows));
    if (targets != NULL) {
        memcpy(staged + 2 * model->max_rows, targets, bytes);
        FW_TRY(device->copy_from_host(device, pass->at.targets, staged + 2 * model->max_rows, bytes,
                                      pass->error));
    }
    return staging_mark(model->staging, slot, pass->error);
}

/* ---- the stream's beginning ---- */

static struct residual embedded_sum(const struct model *model) {
    const bool pairs = model->bigram.weight != NO_WEIGHT;
    return (struct residual){.a = {model->embedded, NO_WEIGHT, 0},
                             .b = {pairs ? model->bigram.out : NULL, model->bigram.scale, 0},
                             .columns = model->width,
                             .sum = model->embedded,
                             .out = model->normed,
                             .inverse_rms = model->embedded_rms,
                             .scale = 1};
}

static fw_smear smear_call(const struct pass *pass) {
    const struct model *model = pass->model;
    const int64_t b = pass->batch, t = pass->tokens, c = model->width;
    return (fw_smear){.struct_size = sizeof(fw_smear),
                      .accumulate = pass->accumulate ? 1 : 0,
                      .x = fw_tensor_view(model->normed, model->dtype, 3, b, t, c, 1),
                      .gate = model->compute[model->smear_gate],
                      .out = fw_absent(),
                      .d_out = fw_absent(),
                      .d_x = fw_absent(),
                      .d_gate = fw_absent()};
}

static fw_status smear_forward(const struct pass *pass) {
    struct model *model = pass->model;
    fw_smear smear = smear_call(pass);
    smear.out = smear.x;
    smear.out.data = model->x0;
    return model->ops->smear_forward(model->device, &smear, pass->error);
}

/* With the token before in front of the rows; what the op makes of that itself is not used. */
static fw_status smear_on(const struct pass *pass) {
    struct model *model = pass->model;
    fw_device *device = model->device;
    const size_t row = (size_t)model->width * fw_dtype_size(model->dtype);
    char *normed = model->normed;
    FW_TRY(device->copy(device, normed - row, pass->decoding->before, row, pass->error));
    fw_smear smear = smear_call(pass);
    smear.x = fw_tensor_view(normed - row, model->dtype, 3, 1, pass->tokens + 1, model->width, 1);
    smear.out = smear.x;
    smear.out.data = (char *)model->x0 - row;
    FW_TRY(model->ops->smear_forward(model->device, &smear, pass->error));
    const char *last = normed + (size_t)(pass->tokens - 1) * row;
    return device->copy(device, pass->decoding->before, last, row, pass->error);
}

/* From d_stream to d_branch. */
static fw_status smear_backward(const struct pass *pass) {
    struct model *model = pass->model;
    fw_smear smear = smear_call(pass);
    smear.d_out = smear.d_x = smear.x;
    smear.d_out.data = model->d_stream;
    smear.d_x.data = model->d_branch;
    smear.d_gate = model->gradient_views[model->smear_gate];
    return model->ops->smear_backward(model->device, &smear, pass->error);
}

/* value_base = scale * table(token), which layers scale once more. */
static struct residual value_base_sum(const struct model *model) {
    return (struct residual){.a = {model->value.out, model->value.scale, 0},
                             .b = {NULL, NO_WEIGHT, 0},
                             .columns = model->value.columns,
                             .sum = model->value_base};
}

fw_status inputs_forward(const struct pass *pass) {
    struct model *model = pass->model;
    const fw_embedding lookup = {.struct_size = sizeof lookup,
                                 .tokens = fw_vector(pass->at.inputs, FW_I32, pass->rows),
                                 .table = model->compute[0],
                                 .out = pass_stream(pass, model->embedded)};
    FW_TRY(model->ops->embedding_forward(model->device, &lookup, pass->error));
    if (model->bigram.weight != NO_WEIGHT)
        FW_TRY(table_forward(pass, &model->bigram, pass->at.pairs));
    const struct residual sum = embedded_sum(model);
    FW_TRY(residual_forward(pass, &sum));
    if (model->smear_gate != NO_WEIGHT)
        FW_TRY(pass->decoding != NULL ? smear_on(pass) : smear_forward(pass));
    if (model->value.weight == NO_WEIGHT) return FW_OK;
    FW_TRY(table_forward(pass, &model->value, pass->at.inputs));
    const struct residual base = value_base_sum(model);
    return residual_forward(pass, &base);
}

static fw_status value_table_backward(const struct pass *pass) {
    struct model *model = pass->model;
    const struct residual base = value_base_sum(model);
    const struct residual_flow flow = {.d_sum = model->d_value_base, .d_a = model->d_value_base};
    FW_TRY(residual_backward(pass, &base, &flow));
    return table_backward(pass, &model->value, pass->at.inputs, model->d_value_base);
}

/* The embedding's gradient adds to the head's, which is there already. */
fw_status inputs_backward(const struct pass *pass) {
    struct model *model = pass->model;
    const bool smeared = model->smear_gate != NO_WEIGHT, pairs = model->bigram.weight != NO_WEIGHT;
    if (model->value.weight != NO_WEIGHT) FW_TRY(value_table_backward(pass));
    if (smeared) FW_TRY(smear_backward(pass));
    const struct residual sum = embedded_sum(model);
    const struct residual_flow flow = {.d_out = smeared ? model->d_branch : model->d_stream,
                                       .d_a = model->d_stream,
                                       .d_b = pairs ? model->d_scaled : NULL};
    FW_TRY(residual_backward(pass, &sum, &flow));
    if (pairs) FW_TRY(table_backward(pass, &model->bigram, pass->at.pairs, model->d_scaled));
    const fw_embedding lookup = {.struct_size = sizeof lookup,
                                 .accumulate = 1,
                                 .tokens = fw_vector(pass->at.inputs, FW_I32, pass->rows),
                                 .d_out = pass_stream(pass, model->d_stream),
                                 .d_table = model->gradient_views[0]};
    return model->ops->embedding_backward(model->device, &lookup, pass->error);
}

/* ---- values of one layer ---- */

fw_status value_forward(const struct pass *pass, const struct layer *layer) {
    const struct model *model = pass->model;
    const struct residual sum = {.a = {model->value_base, layer->value_scale, 0},
                                 .b = {NULL, NO_WEIGHT, 0},
                                 .columns = model->value.columns,
                                 .sum = layer->value_add};
    return residual_forward(pass, &sum);
}

/* As the second term of a sum, whose gradient can add up over the layers. */
fw_status value_backward(const struct pass *pass, const struct layer *layer, bool first) {
    const struct model *model = pass->model;
    const struct residual sum = {.a = {NULL, NO_WEIGHT, 0},
                                 .b = {model->value_base, layer->value_scale, 0},
                                 .columns = model->value.columns};
    const struct residual_flow flow = {
        .d_sum = model->d_value_add, .d_b = model->d_value_base, .accumulate_b = !first};
    return residual_backward(pass, &sum, &flow);
}
