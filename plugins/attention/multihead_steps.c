/* See multihead_steps.h. */
#include "multihead_steps.h"

#include <math.h>
#include <stdint.h>

/* float32's epsilon, as the networks that this project reproduces use in every norm. */
#define NORM_EPSILON 1.1920929e-7f

/* Take `bytes` of the memory at base (NULL: only count), aligned as device memory is. */
static void *carve(char *base, size_t *used, size_t bytes) {
    void *memory = base == NULL ? NULL : base + *used;
    *used += (bytes + 255) / 256 * 256;
    return memory;
}

fw_tensor multihead_carve(char *base, size_t *used, uint32_t dtype, uint32_t rank, int64_t d0,
                          int64_t d1, int64_t d2, int64_t d3) {
    fw_tensor tensor = fw_tensor_view(NULL, dtype, rank, d0, d1, d2, d3);
    tensor.data = carve(base, used, (size_t)fw_tensor_count(&tensor) * fw_dtype_size(dtype));
    return tensor;
}

fw_tensor multihead_heads_of(const fw_tensor *matrix, int64_t column, int64_t batch, int64_t tokens,
                             int64_t heads, int64_t head_width) {
    const size_t offset = (size_t)column * fw_dtype_size(matrix->dtype);
    const int64_t row = matrix->stride[0];
    void *data = matrix->data == NULL ? NULL : (char *)matrix->data + offset;
    return (fw_tensor){data,
                       matrix->dtype,
                       4,
                       {batch, tokens, heads, head_width},
                       {tokens * row, row, head_width, 1}};
}

fw_tensor multihead_columns_of(const fw_tensor *matrix, int64_t column, int64_t n) {
    fw_tensor view = *matrix;
    view.data = (char *)matrix->data + (size_t)column * fw_dtype_size(matrix->dtype);
    view.shape[1] = n;
    return view;
}

activations multihead_carve_activations(const multihead *m, int64_t b, int64_t t, void *base) {
    const uint32_t compute = m->device->compute_dtype;
    const int64_t h = m->heads, g = m->kv_heads, d = m->head_width;
    activations a = {.bytes = 0};
    size_t *used = &a.bytes;
    a.qkv = multihead_carve(base, used, compute, 2, b * t, multihead_qkv_width(m), 1, 1);
    a.raw_q = multihead_heads_of(&a.qkv, 0, b, t, h, d);
    a.raw_k = multihead_heads_of(&a.qkv, multihead_q_width(m), b, t, g, d);
    a.v = multihead_heads_of(&a.qkv, multihead_q_width(m) + multihead_kv_width(m), b, t, g, d);
    a.q = multihead_carve(base, used, compute, 4, b, t, h, d);
    a.k = multihead_carve(base, used, compute, 4, b, t, g, d);
    a.attended = multihead_carve(base, used, compute, 4, b, t, h, d);
    a.q_rms = multihead_carve(base, used, FW_F32, 3, b, t, h, 1);
    a.k_rms = multihead_carve(base, used, FW_F32, 3, b, t, g, 1);
    a.log_sum_exp = multihead_carve(base, used, FW_F32, 3, b, h, t, 1);
    a.self_dot = m->exclude_self ? multihead_carve(base, used, FW_F32, 3, b, h, t, 1) : fw_absent();
    return a;
}

fw_flash_attention multihead_attention_of(const multihead *m, const activations *a) {
    return (fw_flash_attention){.struct_size = sizeof(fw_flash_attention),
                                .exclude_self = m->exclude_self,
                                .scale = 1.0f / sqrtf((float)m->head_width),
                                .q = a->q,
                                .k = a->k,
                                .v = a->v,
                                .out = a->attended,
                                .log_sum_exp = a->log_sum_exp,
                                .self_dot = a->self_dot,
                                .cu_seqlens = fw_absent(),
                                .d_out = fw_absent(),
                                .d_q = fw_absent(),
                                .d_k = fw_absent(),
                                .d_v = fw_absent()};
}

static bool has_shape(const fw_tensor *tensor, int64_t rows, int64_t columns) {
    return tensor->data != NULL && tensor->rank == 2 && tensor->shape[0] == rows &&
           tensor->shape[1] == columns;
}

fw_status multihead_check_call(const multihead *m, const fw_attention_call *call, fw_error *error) {
    if (call->batch < 1 || call->tokens < 1 || call->position_offset < 0)
        return fw_fail(error, FW_E_RANGE, "attention over %lld x %lld tokens from position %lld",
                       (long long)call->batch, (long long)call->tokens,
                       (long long)call->position_offset);
    const int64_t rows = call->batch * call->tokens;
    if (call->n_weights != N_WEIGHTS || !has_shape(&call->input, rows, m->width))
        return fw_fail(error, FW_E_SHAPE, "attention wants %d weights and an input of %lld x %lld",
                       (int)N_WEIGHTS, (long long)rows, (long long)m->width);
    if (FW_COVERS(call, residual) && call->residual.data != NULL &&
        !has_shape(&call->residual, rows, m->width))
        return fw_fail(error, FW_E_SHAPE, "residual must be %lld x %lld", (long long)rows,
                       (long long)m->width);
    if (call->value_add.data != NULL && !has_shape(&call->value_add, rows, multihead_kv_width(m)))
        return fw_fail(error, FW_E_SHAPE, "value_add must be %lld x %lld", (long long)rows,
                       (long long)multihead_kv_width(m));
    return FW_OK;
}

/* One matrix that spans Wq, Wk and Wv when the host laid them side by side; data NULL otherwise. */
static fw_tensor spanned(const multihead *m, const fw_tensor *tensors) {
    const fw_tensor *q = &tensors[WQ], *k = &tensors[WK], *v = &tensors[WV];
    const size_t row = (size_t)m->width * fw_dtype_size(q->dtype);
    const char *k_expected = (const char *)q->data + (size_t)multihead_q_width(m) * row;
    const char *v_expected = k_expected + (size_t)multihead_kv_width(m) * row;
    const bool packed = q->stride[0] == m->width && k->stride[0] == m->width &&
                        v->stride[0] == m->width && k->dtype == q->dtype && v->dtype == q->dtype;
    if (!packed || k->data != k_expected || v->data != v_expected) return fw_absent();
    return fw_matrix(q->data, q->dtype, multihead_qkv_width(m), m->width);
}

int multihead_projections_of(const multihead *m, const fw_tensor *tensors, projection list[3]) {
    const fw_tensor all = spanned(m, tensors);
    if (all.data != NULL) {
        list[0] = (projection){all, 0, multihead_qkv_width(m)};
        return 1;
    }
    list[0] = (projection){tensors[WQ], 0, multihead_q_width(m)};
    list[1] = (projection){tensors[WK], multihead_q_width(m), multihead_kv_width(m)};
    list[2] = (projection){tensors[WV], multihead_q_width(m) + multihead_kv_width(m),
                           multihead_kv_width(m)};
    return 3;
}

fw_status multihead_gemm(const multihead *m, const fw_tensor *a, bool transpose_a,
                         const fw_tensor *b, bool transpose_b, float beta, const fw_tensor *c,
                         fw_error *error) {
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_a = transpose_a,
                          .transpose_b = transpose_b,
                          .alpha = 1.0f,
                          .beta = beta,
                          .a = *a,
                          .b = *b,
                          .c = *c};
    return m->device->ops->gemm(m->device, &gemm, error);
}

/* The op that adds residuals is the one that takes strided rows. */
fw_status multihead_add_rows(const multihead *m, const fw_tensor *a, const fw_tensor *b,
                             const fw_tensor *sum, fw_error *error) {
    const fw_residual_norm add = {.struct_size = sizeof add,
                                  .a = *a,
                                  .b = b == NULL ? fw_absent() : *b,
                                  .weight_a = fw_absent(),
                                  .weight_b = fw_absent(),
                                  .sum = *sum,
                                  .out = fw_absent(),
                                  .inverse_rms = fw_absent()};
    return m->device->ops->residual_norm_forward(m->device, &add, error);
}

fw_status multihead_project_qkv(const multihead *m, const fw_attention_call *call,
                                const activations *a, fw_error *error) {
    projection list[3];
    const int n = multihead_projections_of(m, call->weights, list);
    for (int i = 0; i < n; i++) {
        const fw_tensor c = multihead_columns_of(&a->qkv, list[i].column, list[i].width);
        FW_TRY(multihead_gemm(m, &call->input, false, &list[i].weight, true, 0, &c, error));
    }
    return FW_OK;
}

fw_tensor multihead_value_columns(const multihead *m, const fw_tensor *qkv) {
    return multihead_columns_of(qkv, multihead_q_width(m) + multihead_kv_width(m),
                                multihead_kv_width(m));
}

fw_qk_norm_rope multihead_norm_rope_of(const fw_attention_call *call, const activations *a,
                                       bool query) {
    return (fw_qk_norm_rope){.struct_size = sizeof(fw_qk_norm_rope),
                             .accumulate = call->accumulate,
                             .epsilon = NORM_EPSILON,
                             .x = query ? a->raw_q : a->raw_k,
                             .out = query ? a->q : a->k,
                             .inverse_rms = query ? a->q_rms : a->k_rms,
                             .cosine = a->cosine,
                             .sine = a->sine,
                             .gain = query ? call->weights[Q_GAIN] : fw_absent(),
                             .d_out = fw_absent(),
                             .d_x = fw_absent(),
                             .d_gain = fw_absent()};
}

fw_tensor multihead_as_rows(const fw_tensor *attended) {
    return fw_matrix(attended->data, attended->dtype, attended->shape[0] * attended->shape[1],
                     attended->shape[2] * attended->shape[3]);
}

fw_status multihead_project_output(const multihead *m, const fw_attention_call *call,
                                   const fw_tensor *rows, fw_error *error) {
    const bool adds = FW_COVERS(call, residual) && call->residual.data != NULL;
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_b = 1,
                          .alpha = 1,
                          .beta = adds ? 1 : 0,
                          .a = *rows,
                          .b = call->weights[WO],
                          .c = call->output,
                          .addend = adds ? call->residual : fw_absent()};
    return m->device->ops->gemm(m->device, &gemm, error);
}
