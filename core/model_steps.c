/* The steps that passes are made of, each one call of the device. */
#include "model_pass.h"

fw_tensor pass_matrix(const struct pass *pass, void *data, int64_t columns) {
    return fw_matrix(data, pass->model->dtype, pass->rows, columns);
}

fw_tensor pass_stream(const struct pass *pass, void *data) {
    return pass_matrix(pass, data, pass->model->width);
}

fw_tensor pass_vector(const struct pass *pass, float *data) {
    return fw_vector(data, FW_F32, pass->rows);
}

/* ---- linear layers ---- */

fw_status linear(const struct pass *pass, fw_tensor x, uint32_t weight, fw_tensor y) {
    FW_TRY(observe_rows(pass, weight, &x));
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_b = 1,
                          .alpha = 1,
                          .a = x,
                          .b = pass->model->compute[weight],
                          .c = y};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

fw_status linear_add(const struct pass *pass, fw_tensor x, fw_tensor w, fw_tensor addend,
                     fw_tensor y) {
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_b = 1,
                          .alpha = 1,
                          .beta = 1,
                          .a = x,
                          .b = w,
                          .c = y,
                          .addend = addend};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

fw_status linear_input_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor w,
                                fw_tensor d_x) {
    const fw_gemm gemm = {.struct_size = sizeof gemm, .alpha = 1, .a = d_y, .b = w, .c = d_x};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

static fw_status weight_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor x, bool add,
                                 fw_tensor d_w) {
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_a = 1,
                          .alpha = 1,
                          .beta = add ? 1 : 0,
                          .a = d_y,
                          .b = x,
                          .c = d_w};
    return pass->model->ops->gemm(pass->model->device, &gemm, pass->error);
}

fw_status linear_weight_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor x,
                                 uint32_t weight) {
    return weight_gradient(pass, d_y, x, pass->accumulate, pass->model->gradient_views[weight]);
}

/* ---- matrices that take up a scale ---- */

static fw_scale_rows scale_call(const struct pass *pass, uint32_t weight, uint32_t scale) {
    const struct model *model = pass->model;
    return (fw_scale_rows){.struct_size = sizeof(fw_scale_rows),
                           .accumulate = pass->accumulate ? 1 : 0,
                           .x = model->compute[weight],
                           .scale = model->compute[scale],
                           .out = fw_absent(),
                           .d_out = fw_absent(),
                           .d_x = fw_absent(),
                           .d_scale = fw_absent()};
}

fw_status scaled_weight(const struct pass *pass, uint32_t weight, uint32_t scale,
                        fw_tensor *scaled) {
    const struct model *model = pass->model;
    *scaled = model->compute[weight];
    if (scale == NO_WEIGHT) return FW_OK;
    scaled->data = model->scaled[weight];
    if (model->is_scaled[weight]) return FW_OK;
    fw_scale_rows call = scale_call(pass, weight, scale);
    call.out = *scaled;
    FW_TRY(model->ops->scale_rows_forward(model->device, &call, pass->error));
    model->is_scaled[weight] = !model->options.training;
    return FW_OK;
}

static fw_tensor scaled_weight_gradient(const struct pass *pass, uint32_t weight) {
    fw_tensor view = pass->model->gradient_views[weight];
    view.data = pass->model->d_scaled_weight;
    return view;
}

fw_status scaled_weight_backward(const struct pass *pass, uint32_t weight, uint32_t scale) {
    const struct model *model = pass->model;
    fw_scale_rows call = scale_call(pass, weight, scale);
    call.d_out = scaled_weight_gradient(pass, weight);
    call.d_x = model->gradient_views[weight];
    call.d_scale = model->gradient_views[scale];
    return model->ops->scale_rows_backward(model->device, &call, pass->error);
}

fw_status linear_scaled_gradient(const struct pass *pass, fw_tensor d_y, fw_tensor x,
                                 uint32_t weight, uint32_t scale) {
    if (scale == NO_WEIGHT) return linear_weight_gradient(pass, d_y, x, weight);
    FW_TRY(weight_gradient(pass, d_y, x, false, scaled_weight_gradient(pass, weight)));
    return scaled_weight_backward(pass, weight, scale);
}

/* ---- sums along the residual stream ---- */

fw_status norm_stream(const struct pass *pass, void *x, void *out, float *inverse_rms,
                      float scale) {
    const struct model *model = pass->model;
    const fw_rmsnorm norm = {.struct_size = sizeof norm,
                             .epsilon = MODEL_EPSILON,
                             .scale = scale,
                             .x = pass_stream(pass, x),
                             .out = pass_stream(pass, out),
                             .inverse_rms = pass_vector(pass, inverse_rms),
                             .d_out = fw_absent(),
                             .d_x = fw_absent()};
    return model->ops->rmsnorm_forward(model->device, &norm, pass->error);
}

/* A weight's vector: the whole of rank 1, a row of rank 2. */
static fw_tensor weight_vector(const fw_tensor *views, const struct term *term) {
    if (term->weight == NO_WEIGHT || term->data == NULL) return fw_absent();
    const fw_tensor *view = &views[term->weight];
    if (view->rank == 1) return *view;
    return fw_vector((float *)view->data + term->row * view->stride[0], FW_F32, view->shape[1]);
}

static fw_tensor optional(const struct pass *pass, void *data, int64_t columns) {
    return data != NULL ? pass_matrix(pass, data, columns) : fw_absent();
}

fw_status residual_forward(const struct pass *pass, const struct residual *r) {
    struct model *model = pass->model;
    const fw_residual_norm norm = {.struct_size = sizeof norm,
                                   .epsilon = MODEL_EPSILON,
                                   .scale = r->scale,
                                   .a = pass_matrix(pass, r->a.data, r->columns),
                                   .weight_a = weight_vector(model->compute, &r->a),
                                   .b = optional(pass, r->b.data, r->columns),
                                   .weight_b = weight_vector(model->compute, &r->b),
                                   .sum = pass_matrix(pass, r->sum, r->columns),
                                   .out = optional(pass, r->out, r->columns),
                                   .inverse_rms = r->out != NULL ? pass_vector(pass, r->inverse_rms)
                                                                 : fw_absent()};
    return model->ops->residual_norm_forward(model->device, &norm, pass->error);
}

fw_status residual_backward(const struct pass *pass, const struct residual *r,
                            const struct residual_flow *flow) {
    struct model *model = pass->model;
    const bool scaled_a = r->a.data != NULL && r->a.weight != NO_WEIGHT;
    const bool scaled_b = r->b.data != NULL && r->b.weight != NO_WEIGHT;
    const bool normed = flow->d_out != NULL;
    const fw_residual_norm norm = {.struct_size = sizeof norm,
                                   .accumulate = pass->accumulate ? 1 : 0,
                                   .accumulate_b = flow->accumulate_b ? 1 : 0,
                                   .epsilon = MODEL_EPSILON,
                                   .scale = r->scale,
                                   .a = optional(pass, scaled_a ? r->a.data : NULL, r->columns),
                                   .weight_a = weight_vector(model->compute, &r->a),
                                   .b = optional(pass, scaled_b ? r->b.data : NULL, r->columns),
                                   .weight_b = weight_vector(model->compute, &r->b),
                                   .sum = optional(pass, normed ? r->sum : NULL, r->columns),
                                   .out = fw_absent(),
                                   .inverse_rms =
                                       normed ? pass_vector(pass, r->inverse_rms) : fw_absent(),
                                   .d_sum = optional(pass, flow->d_sum, r->columns),
                                   .d_out = optional(pass, flow->d_out, r->columns),
                                   .d_a = optional(pass, flow->d_a, r->columns),
                                   .d_b = optional(pass, flow->d_b, r->columns),
                                   .d_weight_a = weight_vector(model->gradient_views, &r->a),
                                   .d_weight_b = weight_vector(model->gradient_views, &r->b)};
    return model->ops->residual_norm_backward(model->device, &norm, pass->error);
}

fw_status add_stream(const struct pass *pass, void *from, void *to) {
    const struct model *model = pass->model;
    const fw_axpby add = {.struct_size = sizeof add,
                          .alpha = 1,
                          .beta = 1,
                          .x = pass_stream(pass, from),
                          .y = pass_stream(pass, to)};
    return model->ops->axpby(model->device, &add, pass->error);
}
