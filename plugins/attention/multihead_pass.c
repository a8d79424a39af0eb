/* The passes of multi-head attention: buffers are carved in one order from what the host planned,
 * forward and backward are sequences of device ops on views of them. */
#include "multihead_steps.h"

#include <stdint.h>

/* The scratch of a backward call. */
typedef struct gradients {
    fw_tensor qkv;     /* [N, (H+2G)D] */
    fw_tensor q, k, v; /* [B,T,heads,D] views of it */
    fw_tensor attended;
    void *scratch;
    size_t bytes;
} gradients;

static gradients carve_gradients(const multihead *m, int64_t b, int64_t t, void *base) {
    const uint32_t compute = m->device->compute_dtype;
    const int64_t h = m->heads, g = m->kv_heads, d = m->head_width;
    gradients s = {.bytes = 0};
    s.qkv = multihead_carve(base, &s.bytes, compute, 2, b * t, multihead_qkv_width(m), 1, 1);
    s.q = multihead_heads_of(&s.qkv, 0, b, t, h, d);
    s.k = multihead_heads_of(&s.qkv, multihead_q_width(m), b, t, g, d);
    s.v = multihead_heads_of(&s.qkv, multihead_q_width(m) + multihead_kv_width(m), b, t, g, d);
    s.attended = multihead_carve(base, &s.bytes, compute, 4, b, t, h, d);
    s.scratch = base == NULL ? NULL : (char *)base + s.bytes;
    return s;
}

static fw_flash_attention attention_with(const multihead *m, const activations *a,
                                         const gradients *d) {
    fw_flash_attention attention = multihead_attention_of(m, a);
    attention.d_out = d->attended;
    attention.d_q = d->q;
    attention.d_k = d->k;
    attention.d_v = d->v;
    return attention;
}

static size_t attention_scratch(const multihead *m, int64_t b, int64_t t) {
    const activations a = multihead_carve_activations(m, b, t, NULL);
    const gradients d = carve_gradients(m, b, t, NULL);
    const fw_flash_attention attention = attention_with(m, &a, &d);
    return m->device->ops->attention_scratch(m->device, &attention);
}

fw_status multihead_plan(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                         fw_attention_plan *plan, fw_error *error) {
    const multihead *m = self;
    const bool decode = phase == FW_DECODE;
    if (batch < 1 || tokens < 1 || (!decode && (batch > m->max_batch || tokens > m->max_tokens)))
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
    const size_t forward = multihead_carve_activations(m, batch, tokens, NULL).bytes;
    plan->value_width = multihead_kv_width(m);
    if (FW_COVERS(plan, output_weight)) plan->output_weight = 1 + WO;
    plan->saved_bytes = phase == FW_TRAIN ? forward : 0;
    plan->scratch_bytes =
        phase == FW_TRAIN ? carve_gradients(m, batch, tokens, NULL).bytes + backward : forward;
    if (decode) plan->scratch_bytes = multihead_decode_scratch(m, batch, tokens);
    return FW_OK;
}

/* Those of a call, with the rotation tables of its positions. */
static activations activations_of(const multihead *m, const fw_attention_call *call, void *base) {
    activations a = multihead_carve_activations(m, call->batch, call->tokens, base);
    const int64_t half = m->rope_dims / 2;
    float *cosine = (float *)m->rope + call->position_offset * half;
    float *sine = cosine + m->max_tokens * half;
    a.cosine = fw_matrix(cosine, FW_F32, call->tokens, half);
    a.sine = fw_matrix(sine, FW_F32, call->tokens, half);
    return a;
}

static fw_status check_call(const multihead *m, const fw_attention_call *call, fw_error *error) {
    FW_TRY(multihead_check_call(m, call, error));
    if (call->position_offset + call->tokens <= m->max_tokens) return FW_OK;
    return fw_fail(error, FW_E_RANGE,
                   "attention over %lld tokens from position %lld, but the rotation tables cover "
                   "positions 0 .. %lld",
                   (long long)call->tokens, (long long)call->position_offset,
                   (long long)m->max_tokens - 1);
}

static void observe(const fw_attention_call *call, uint32_t weight, const fw_tensor *rows) {
    if (call->phase == FW_CALIBRATE && call->observe != NULL)
        call->observe(call->observe_context, weight, rows);
}

static fw_status add_values(const multihead *m, const fw_attention_call *call, const activations *a,
                            fw_error *error) {
    if (call->value_add.data == NULL) return FW_OK;
    const fw_tensor v = multihead_value_columns(m, &a->qkv);
    return multihead_add_rows(m, &v, &call->value_add, &v, error);
}

fw_status multihead_forward(void *self, const fw_attention_call *call, fw_error *error) {
    const multihead *m = self;
    const fw_ops *ops = m->device->ops;
    FW_TRY(check_call(m, call, error));
    void *memory = call->phase == FW_TRAIN ? call->saved : call->scratch;
    if (memory == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "attention forward without its planned memory");
    const activations a = activations_of(m, call, memory);

    for (uint32_t w = WQ; w <= WV; w++) observe(call, w, &call->input);
    FW_TRY(multihead_project_qkv(m, call, &a, error));
    FW_TRY(add_values(m, call, &a, error));
    const fw_qk_norm_rope query = multihead_norm_rope_of(call, &a, true);
    FW_TRY(ops->qk_norm_rope_forward(m->device, &query, error));
    const fw_qk_norm_rope key = multihead_norm_rope_of(call, &a, false);
    FW_TRY(ops->qk_norm_rope_forward(m->device, &key, error));

    fw_flash_attention attention = multihead_attention_of(m, &a);
    attention.window = call->window;
    attention.cu_seqlens = call->cu_seqlens;
    FW_TRY(ops->attention_forward(m->device, &attention, error));

    const fw_tensor rows = multihead_as_rows(&a.attended);
    observe(call, WO, &rows);
    return multihead_project_output(m, call, &rows, error);
}

static fw_status attention_backward(const multihead *m, const fw_attention_call *call,
                                    const activations *a, const gradients *d, fw_error *error) {
    fw_flash_attention attention = attention_with(m, a, d);
    attention.window = call->window;
    attention.cu_seqlens = call->cu_seqlens;
    attention.scratch = d->scratch;
    attention.scratch_bytes = attention_scratch(m, call->batch, call->tokens);
    return m->device->ops->attention_backward(m->device, &attention, error);
}

/* From the gradient of normed queries and keys to that of the projected ones, in place. */
static fw_status norm_rope_backward(const multihead *m, const fw_attention_call *call,
                                    const activations *a, const gradients *d, fw_error *error) {
    fw_qk_norm_rope query = multihead_norm_rope_of(call, a, true);
    query.d_out = query.d_x = d->q;
    query.d_gain = call->grads[Q_GAIN];
    FW_TRY(m->device->ops->qk_norm_rope_backward(m->device, &query, error));
    fw_qk_norm_rope key = multihead_norm_rope_of(call, a, false);
    key.d_out = key.d_x = d->k;
    return m->device->ops->qk_norm_rope_backward(m->device, &key, error);
}

static fw_status project_qkv_backward(const multihead *m, const fw_attention_call *call,
                                      const gradients *d, fw_error *error) {
    projection list[3];
    int n = multihead_projections_of(m, call->grads, list);
    for (int i = 0; i < n; i++) {
        const fw_tensor d_rows = multihead_columns_of(&d->qkv, list[i].column, list[i].width);
        FW_TRY(multihead_gemm(m, &d_rows, true, &call->input, false, call->accumulate ? 1 : 0,
                              &list[i].weight, error));
    }
    n = multihead_projections_of(m, call->weights, list);
    for (int i = 0; i < n; i++) {
        const fw_tensor d_rows = multihead_columns_of(&d->qkv, list[i].column, list[i].width);
        FW_TRY(multihead_gemm(m, &d_rows, false, &list[i].weight, false, i > 0 ? 1 : 0,
                              &call->d_input, error));
    }
    return FW_OK;
}

fw_status multihead_backward(void *self, const fw_attention_call *call, fw_error *error) {
    const multihead *m = self;
    FW_TRY(check_call(m, call, error));
    if (call->saved == NULL || call->scratch == NULL || call->grads == NULL)
        return fw_fail(error, FW_E_ARGUMENT,
                       "attention backward without its saved memory, scratch or gradients");
    const activations a = activations_of(m, call, call->saved);
    const gradients d = carve_gradients(m, call->batch, call->tokens, call->scratch);
    const fw_tensor rows = multihead_as_rows(&a.attended), d_rows = multihead_as_rows(&d.attended);

    FW_TRY(multihead_gemm(m, &call->d_output, true, &rows, false, call->accumulate ? 1 : 0,
                          &call->grads[WO], error));
    FW_TRY(multihead_gemm(m, &call->d_output, false, &call->weights[WO], false, 0, &d_rows, error));
    FW_TRY(attention_backward(m, call, &a, &d, error));
    if (call->value_add.data != NULL) {
        const fw_tensor d_v = multihead_value_columns(m, &d.qkv);
        FW_TRY(multihead_add_rows(m, &d_v, NULL, &call->d_value_add, error));
    }
    FW_TRY(norm_rope_backward(m, call, &a, &d, error));
    return project_qkv_backward(m, call, &d, error);
}
