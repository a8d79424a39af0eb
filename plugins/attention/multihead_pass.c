/* The passes of multi-head attention: buffers are carved in one order from what the host planned,
 * forward and backward are sequences of device ops on views of them. */
#include "multihead.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* float32's epsilon, as the networks that this project reproduces use in every norm. */
#define NORM_EPSILON 1.1920929e-7f

/* What a forward call computes, in `saved` while training and in `scratch` otherwise. */
typedef struct activations {
    fw_tensor qkv;                   /* [N, (H+2G)D] as projected, v including value_add */
    fw_tensor raw_q, raw_k, v;       /* [B,T,heads,D] views of it */
    fw_tensor q, k;                  /* normed and rotated */
    fw_tensor attended;              /* [B,T,H,D] */
    fw_tensor q_rms, k_rms;          /* F32 [B,T,heads] inverse */
    fw_tensor log_sum_exp, self_dot; /* F32 [B,H,T] */
    size_t bytes;
} activations;

/* The scratch of a backward call. */
typedef struct gradients {
    fw_tensor qkv;     /* [N, (H+2G)D] */
    fw_tensor q, k, v; /* [B,T,heads,D] views of it */
    fw_tensor attended;
    void *scratch;
    size_t bytes;
} gradients;

/* Take `bytes` of the memory at base (NULL: only count), aligned as device memory is. */
static void *carve(char *base, size_t *used, size_t bytes) {
    void *memory = base == NULL ? NULL : base + *used;
    *used += (bytes + 255) / 256 * 256;
    return memory;
}

static fw_tensor carve_tensor(char *base, size_t *used, uint32_t dtype, uint32_t rank, int64_t d0,
                              int64_t d1, int64_t d2, int64_t d3) {
    fw_tensor tensor = fw_tensor_view(NULL, dtype, rank, d0, d1, d2, d3);
    tensor.data = carve(base, used, (size_t)fw_tensor_count(&tensor) * fw_dtype_size(dtype));
    return tensor;
}

/* [B,T,heads,D] within the rows of `matrix`, starting at `column`. */
static fw_tensor heads_of(const fw_tensor *matrix, int64_t column, int64_t batch, int64_t tokens,
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

/* Columns [column, column + n) of a matrix. */
static fw_tensor columns_of(const fw_tensor *matrix, int64_t column, int64_t n) {
    fw_tensor view = *matrix;
    view.data = (char *)matrix->data + (size_t)column * fw_dtype_size(matrix->dtype);
    view.shape[1] = n;
    return view;
}

static int64_t q_width(const multihead *m) { return m->heads * m->head_width; }
static int64_t kv_width(const multihead *m) { return m->kv_heads * m->head_width; }
static int64_t qkv_width(const multihead *m) { return q_width(m) + 2 * kv_width(m); }

static activations carve_activations(const multihead *m, int64_t b, int64_t t, void *base) {
    const uint32_t compute = m->device->compute_dtype;
    const int64_t h = m->heads, g = m->kv_heads, d = m->head_width;
    activations a = {.bytes = 0};
    size_t *used = &a.bytes;
    a.qkv = carve_tensor(base, used, compute, 2, b * t, qkv_width(m), 1, 1);
    a.raw_q = heads_of(&a.qkv, 0, b, t, h, d);
    a.raw_k = heads_of(&a.qkv, q_width(m), b, t, g, d);
    a.v = heads_of(&a.qkv, q_width(m) + kv_width(m), b, t, g, d);
    a.q = carve_tensor(base, used, compute, 4, b, t, h, d);
    a.k = carve_tensor(base, used, compute, 4, b, t, g, d);
    a.attended = carve_tensor(base, used, compute, 4, b, t, h, d);
    a.q_rms = carve_tensor(base, used, FW_F32, 3, b, t, h, 1);
    a.k_rms = carve_tensor(base, used, FW_F32, 3, b, t, g, 1);
    a.log_sum_exp = carve_tensor(base, used, FW_F32, 3, b, h, t, 1);
    a.self_dot = m->exclude_self ? carve_tensor(base, used, FW_F32, 3, b, h, t, 1) : fw_absent();
    return a;
}

static fw_flash_attention attention_of(const multihead *m, const activations *a,
                                       const gradients *d) {
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
                                .d_out = d == NULL ? fw_absent() : d->attended,
                                .d_q = d == NULL ? fw_absent() : d->q,
                                .d_k = d == NULL ? fw_absent() : d->k,
                                .d_v = d == NULL ? fw_absent() : d->v};
}

static gradients carve_gradients(const multihead *m, int64_t b, int64_t t, void *base) {
    const uint32_t compute = m->device->compute_dtype;
    const int64_t h = m->heads, g = m->kv_heads, d = m->head_width;
    gradients s = {.bytes = 0};
    s.qkv = carve_tensor(base, &s.bytes, compute, 2, b * t, qkv_width(m), 1, 1);
    s.q = heads_of(&s.qkv, 0, b, t, h, d);
    s.k = heads_of(&s.qkv, q_width(m), b, t, g, d);
    s.v = heads_of(&s.qkv, q_width(m) + kv_width(m), b, t, g, d);
    s.attended = carve_tensor(base, &s.bytes, compute, 4, b, t, h, d);
    s.scratch = base == NULL ? NULL : (char *)base + s.bytes;
    return s;
}

static size_t attention_scratch(const multihead *m, int64_t b, int64_t t) {
    const activations a = carve_activations(m, b, t, NULL);
    const gradients d = carve_gradients(m, b, t, NULL);
    const fw_flash_attention attention = attention_of(m, &a, &d);
    return m->device->ops->attention_scratch(m->device, &attention);
}

fw_status multihead_plan(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                         fw_attention_plan *plan, fw_error *error) {
    const multihead *m = self;
    if (batch < 1 || batch > m->max_batch || tokens < 1 || tokens > m->max_tokens)
        return fw_fail(error, FW_E_RANGE,
                       "attention planned for %lld x %lld tokens, outside 1 x 1 .. %lld x %lld",
                       (long long)batch, (long long)tokens, (long long)m->max_batch,
                       (long long)m->max_tokens);
    const size_t backward = attention_scratch(m, batch, tokens);
    if (backward == SIZE_MAX)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the device does not take heads of width %lld (width %lld / heads %lld); "
                       "heads = %lld or more is right",
                       (long long)m->head_width, (long long)m->width, (long long)m->heads,
                       (long long)(2 * m->heads));
    const size_t forward = carve_activations(m, batch, tokens, NULL).bytes;
    plan->value_width = kv_width(m);
    if (FW_COVERS(plan, output_weight)) plan->output_weight = 1 + WO;
    plan->saved_bytes = phase == FW_TRAIN ? forward : 0;
    plan->scratch_bytes =
        phase == FW_TRAIN ? carve_gradients(m, batch, tokens, NULL).bytes + backward : forward;
    return FW_OK;
}

static bool has_shape(const fw_tensor *tensor, int64_t rows, int64_t columns) {
    return tensor->data != NULL && tensor->rank == 2 && tensor->shape[0] == rows &&
           tensor->shape[1] == columns;
}

static fw_status check_call(const multihead *m, const fw_attention_call *call, fw_error *error) {
    const int64_t last = call->position_offset + call->tokens;
    if (call->batch < 1 || call->tokens < 1 || call->position_offset < 0 || last > m->max_tokens)
        return fw_fail(error, FW_E_RANGE,
                       "attention over %lld x %lld tokens from position %lld, but the rotation "
                       "tables cover positions 0 .. %lld",
                       (long long)call->batch, (long long)call->tokens,
                       (long long)call->position_offset, (long long)m->max_tokens - 1);
    const int64_t rows = call->batch * call->tokens;
    if (call->n_weights != N_WEIGHTS || !has_shape(&call->input, rows, m->width))
        return fw_fail(error, FW_E_SHAPE, "attention wants %d weights and an input of %lld x %lld",
                       (int)N_WEIGHTS, (long long)rows, (long long)m->width);
    if (FW_COVERS(call, residual) && call->residual.data != NULL &&
        !has_shape(&call->residual, rows, m->width))
        return fw_fail(error, FW_E_SHAPE, "residual must be %lld x %lld", (long long)rows,
                       (long long)m->width);
    if (call->value_add.data != NULL && !has_shape(&call->value_add, rows, kv_width(m)))
        return fw_fail(error, FW_E_SHAPE, "value_add must be %lld x %lld", (long long)rows,
                       (long long)kv_width(m));
    return FW_OK;
}

/* One matrix that spans Wq, Wk and Wv when the host laid them side by side; data NULL otherwise. */
static fw_tensor spanned(const multihead *m, const fw_tensor *tensors) {
    const fw_tensor *q = &tensors[WQ], *k = &tensors[WK], *v = &tensors[WV];
    const size_t row = (size_t)m->width * fw_dtype_size(q->dtype);
    const char *k_expected = (const char *)q->data + (size_t)q_width(m) * row;
    const char *v_expected = k_expected + (size_t)kv_width(m) * row;
    const bool packed = q->stride[0] == m->width && k->stride[0] == m->width &&
                        v->stride[0] == m->width && k->dtype == q->dtype && v->dtype == q->dtype;
    if (!packed || k->data != k_expected || v->data != v_expected) return fw_absent();
    return fw_matrix(q->data, q->dtype, qkv_width(m), m->width);
}

/* The projections that share an input: the weights (and gradients) with the columns that each fills
 * in the rows of qkv. One entry when the weights lie side by side, three otherwise. */
typedef struct projection {
    fw_tensor weight;
    int64_t column, width;
} projection;

static int projections_of(const multihead *m, const fw_tensor *tensors, projection list[3]) {
    const fw_tensor all = spanned(m, tensors);
    if (all.data != NULL) {
        list[0] = (projection){all, 0, qkv_width(m)};
        return 1;
    }
    list[0] = (projection){tensors[WQ], 0, q_width(m)};
    list[1] = (projection){tensors[WK], q_width(m), kv_width(m)};
    list[2] = (projection){tensors[WV], q_width(m) + kv_width(m), kv_width(m)};
    return 3;
}

static fw_status gemm(const multihead *m, const fw_tensor *a, bool transpose_a, const fw_tensor *b,
                      bool transpose_b, float beta, const fw_tensor *c, fw_error *error) {
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

/* sum = a + b over rows that may be views; b absent: a copy. The op that adds residuals is the one
 * that takes strided rows. */
static fw_status add_rows(const multihead *m, const fw_tensor *a, const fw_tensor *b,
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

static fw_tensor value_columns(const multihead *m, const fw_tensor *qkv) {
    return columns_of(qkv, q_width(m) + kv_width(m), kv_width(m));
}

static fw_status project_qkv(const multihead *m, const fw_attention_call *call,
                             const activations *a, fw_error *error) {
    projection list[3];
    const int n = projections_of(m, call->weights, list);
    for (int i = 0; i < n; i++) {
        const fw_tensor c = columns_of(&a->qkv, list[i].column, list[i].width);
        FW_TRY(gemm(m, &call->input, false, &list[i].weight, true, 0, &c, error));
    }
    if (call->value_add.data == NULL) return FW_OK;
    const fw_tensor v = value_columns(m, &a->qkv);
    return add_rows(m, &v, &call->value_add, &v, error);
}

/* The op on the query (gain, its gradient) or the key heads; the caller adds gradients. */
static fw_qk_norm_rope norm_rope_of(const multihead *m, const fw_attention_call *call,
                                    const activations *a, bool query) {
    const int64_t half = m->rope_dims / 2;
    float *cosine = (float *)m->rope + call->position_offset * half;
    float *sine = cosine + m->max_tokens * half;
    return (fw_qk_norm_rope){.struct_size = sizeof(fw_qk_norm_rope),
                             .accumulate = call->accumulate,
                             .epsilon = NORM_EPSILON,
                             .x = query ? a->raw_q : a->raw_k,
                             .out = query ? a->q : a->k,
                             .inverse_rms = query ? a->q_rms : a->k_rms,
                             .cosine = fw_matrix(cosine, FW_F32, call->tokens, half),
                             .sine = fw_matrix(sine, FW_F32, call->tokens, half),
                             .gain = query ? call->weights[Q_GAIN] : fw_absent(),
                             .d_out = fw_absent(),
                             .d_x = fw_absent(),
                             .d_gain = fw_absent()};
}

static void observe(const fw_attention_call *call, uint32_t weight, const fw_tensor *rows) {
    if (call->phase == FW_CALIBRATE && call->observe != NULL)
        call->observe(call->observe_context, weight, rows);
}

static fw_tensor as_rows(const fw_tensor *attended) {
    return fw_matrix(attended->data, attended->dtype, attended->shape[0] * attended->shape[1],
                     attended->shape[2] * attended->shape[3]);
}

/* output = rows Wo^T, and the residual where there is one. */
static fw_status project_output(const multihead *m, const fw_attention_call *call,
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

fw_status multihead_forward(void *self, const fw_attention_call *call, fw_error *error) {
    const multihead *m = self;
    const fw_ops *ops = m->device->ops;
    FW_TRY(check_call(m, call, error));
    void *memory = call->phase == FW_TRAIN ? call->saved : call->scratch;
    if (memory == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "attention forward without its planned memory");
    const activations a = carve_activations(m, call->batch, call->tokens, memory);

    for (uint32_t w = WQ; w <= WV; w++) observe(call, w, &call->input);
    FW_TRY(project_qkv(m, call, &a, error));
    const fw_qk_norm_rope query = norm_rope_of(m, call, &a, true);
    FW_TRY(ops->qk_norm_rope_forward(m->device, &query, error));
    const fw_qk_norm_rope key = norm_rope_of(m, call, &a, false);
    FW_TRY(ops->qk_norm_rope_forward(m->device, &key, error));

    fw_flash_attention attention = attention_of(m, &a, NULL);
    attention.window = call->window;
    attention.cu_seqlens = call->cu_seqlens;
    FW_TRY(ops->attention_forward(m->device, &attention, error));

    const fw_tensor rows = as_rows(&a.attended);
    observe(call, WO, &rows);
    return project_output(m, call, &rows, error);
}

static fw_status attention_backward(const multihead *m, const fw_attention_call *call,
                                    const activations *a, const gradients *d, fw_error *error) {
    fw_flash_attention attention = attention_of(m, a, d);
    attention.window = call->window;
    attention.cu_seqlens = call->cu_seqlens;
    attention.scratch = d->scratch;
    attention.scratch_bytes = attention_scratch(m, call->batch, call->tokens);
    return m->device->ops->attention_backward(m->device, &attention, error);
}

/* From the gradient of normed queries and keys to that of the projected ones, in place. */
static fw_status norm_rope_backward(const multihead *m, const fw_attention_call *call,
                                    const activations *a, const gradients *d, fw_error *error) {
    fw_qk_norm_rope query = norm_rope_of(m, call, a, true);
    query.d_out = query.d_x = d->q;
    query.d_gain = call->grads[Q_GAIN];
    FW_TRY(m->device->ops->qk_norm_rope_backward(m->device, &query, error));
    fw_qk_norm_rope key = norm_rope_of(m, call, a, false);
    key.d_out = key.d_x = d->k;
    return m->device->ops->qk_norm_rope_backward(m->device, &key, error);
}

static fw_status project_qkv_backward(const multihead *m, const fw_attention_call *call,
                                      const gradients *d, fw_error *error) {
    projection list[3];
    int n = projections_of(m, call->grads, list);
    for (int i = 0; i < n; i++) {
        const fw_tensor d_rows = columns_of(&d->qkv, list[i].column, list[i].width);
        FW_TRY(gemm(m, &d_rows, true, &call->input, false, call->accumulate ? 1 : 0,
                    &list[i].weight, error));
    }
    n = projections_of(m, call->weights, list);
    for (int i = 0; i < n; i++) {
        const fw_tensor d_rows = columns_of(&d->qkv, list[i].column, list[i].width);
        FW_TRY(
            gemm(m, &d_rows, false, &list[i].weight, false, i > 0 ? 1 : 0, &call->d_input, error));
    }
    return FW_OK;
}

fw_status multihead_backward(void *self, const fw_attention_call *call, fw_error *error) {
    const multihead *m = self;
    FW_TRY(check_call(m, call, error));
    if (call->saved == NULL || call->scratch == NULL || call->grads == NULL)
        return fw_fail(error, FW_E_ARGUMENT,
                       "attention backward without its saved memory, scratch or gradients");
    const activations a = carve_activations(m, call->batch, call->tokens, call->saved);
    const gradients d = carve_gradients(m, call->batch, call->tokens, call->scratch);
    const fw_tensor rows = as_rows(&a.attended), d_rows = as_rows(&d.attended);

    FW_TRY(gemm(m, &call->d_output, true, &rows, false, call->accumulate ? 1 : 0, &call->grads[WO],
                error));
    FW_TRY(gemm(m, &call->d_output, false, &call->weights[WO], false, 0, &d_rows, error));
    FW_TRY(attention_backward(m, call, &a, &d, error));
    if (call->value_add.data != NULL) {
        const fw_tensor d_v = value_columns(m, &d.qkv);
        FW_TRY(add_rows(m, &d_v, NULL, &call->d_value_add, error));
    }
    FW_TRY(norm_rope_backward(m, call, &a, &d, error));
    return project_qkv_backward(m, call, &d, error);
}
