/* Decoding with multi-head attention: keys, normed and rotated, and values of the positions before
 * are kept in the state, [B, capacity, G, D] each, and new ones are written behind them in place.
 *
 * Keys are rotated by their position in the stream, since scores depend on differences of positions
 * alone; the tables of a call's positions are formed in the call, in float64 as those of forward
 * are. Where rows are forgotten, those that stay are moved to the front. */
#include "multihead_steps.h"

#include <stdint.h>

static size_t position_bytes(const multihead *m) {
    return (size_t)multihead_kv_width(m) * fw_dtype_size(m->device->compute_dtype);
}

size_t multihead_state_bytes(void *self, int64_t batch, int64_t capacity) {
    const size_t positions = 2 * (size_t)batch * (size_t)capacity;
    const size_t each = position_bytes(self);
    return positions > SIZE_MAX / each ? SIZE_MAX : positions * each;
}

fw_status multihead_state_reset(void *self, fw_attention_state *state, fw_error *error) {
    (void)self, (void)error;
    state->held = 0;
    return FW_OK;
}

/* Positions [first, first + n) of every stream: [B,n,G,D]; `values`: of these, else of the keys. */
static fw_tensor kept(const multihead *m, const fw_attention_state *state, bool values,
                      int64_t first, int64_t n) {
    const int64_t width = multihead_kv_width(m), stream = state->capacity * width;
    const int64_t begin = (values ? state->batch * stream : 0) + first * width;
    char *data = (char *)state->memory + (size_t)begin * fw_dtype_size(m->device->compute_dtype);
    return (fw_tensor){data,
                       m->device->compute_dtype,
                       4,
                       {state->batch, n, m->kv_heads, m->head_width},
                       {stream, width, m->head_width, 1}};
}

/* ---- decode ---- */

static activations carve(const multihead *m, int64_t batch, int64_t tokens, void *base) {
    activations a = multihead_carve_activations(m, batch, tokens, base);
    const int64_t half = m->rope_dims / 2;
    a.cosine = multihead_carve(base, &a.bytes, FW_F32, 2, tokens, half, 1, 1);
    a.sine = multihead_carve(base, &a.bytes, FW_F32, 2, tokens, half, 1, 1);
    return a;
}

size_t multihead_decode_scratch(const multihead *m, int64_t batch, int64_t tokens) {
    return carve(m, batch, tokens, NULL).bytes;
}

static fw_status check(const multihead *m, const fw_attention_state *state,
                       const fw_attention_call *call, fw_error *error) {
    FW_TRY(multihead_check_call(m, call, error));
    if (state->memory == NULL || call->scratch == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "decoding without its state or its planned scratch");
    if (call->cu_seqlens.data != NULL)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "decoding knows of no document starts; a state that is reset begins anew");
    if (call->batch != state->batch)
        return fw_fail(error, FW_E_SHAPE, "decoding %lld streams with a state of %lld",
                       (long long)call->batch, (long long)state->batch);
    if (state->held < 0 || call->tokens > state->capacity - state->held)
        return fw_fail(error, FW_E_RANGE,
                       "decoding %lld positions with %lld held exceeds the state's capacity of "
                       "%lld",
                       (long long)call->tokens, (long long)state->held, (long long)state->capacity);
    return FW_OK;
}

static fw_status fill_tables(const multihead *m, const fw_attention_call *call,
                             const activations *a, fw_error *error) {
    const fw_rope_table fill = {.struct_size = sizeof fill,
                                .dimensions = (uint32_t)m->rope_dims,
                                .offset = call->position_offset,
                                .base = m->rope_base,
                                .cosine = a->cosine,
                                .sine = a->sine};
    return m->device->ops->rope_table(m->device, &fill, error);
}

/* New values, and what the host adds to them, go to the state, stream by stream. */
static fw_status keep_values(const multihead *m, const fw_attention_call *call,
                             const activations *a, const fw_tensor *v, fw_error *error) {
    const int64_t n = call->tokens, width = multihead_kv_width(m);
    const fw_tensor columns = multihead_value_columns(m, &a->qkv);
    for (int64_t b = 0; b < call->batch; b++) {
        const size_t element = fw_dtype_size(v->dtype);
        fw_tensor from = columns, add = call->value_add;
        from.data = (char *)from.data + (size_t)(b * n * from.stride[0]) * element;
        from.shape[0] = n;
        if (add.data != NULL)
            add.data = (char *)add.data + (size_t)(b * n * add.stride[0]) * element;
        add.shape[0] = n;
        const fw_tensor to =
            fw_matrix((char *)v->data + (size_t)(b * v->stride[0]) * element, v->dtype, n, width);
        FW_TRY(multihead_add_rows(m, &from, add.data != NULL ? &add : NULL, &to, error));
    }
    return FW_OK;
}

/* Queries to a.q; keys and values to the state behind what it holds. */
static fw_status extend(const multihead *m, const fw_attention_state *state,
                        const fw_attention_call *call, const activations *a, fw_error *error) {
    const fw_ops *ops = m->device->ops;
    FW_TRY(multihead_project_qkv(m, call, a, error));
    FW_TRY(fill_tables(m, call, a, error));
    const fw_qk_norm_rope query = multihead_norm_rope_of(call, a, true);
    FW_TRY(ops->qk_norm_rope_forward(m->device, &query, error));
    fw_qk_norm_rope key = multihead_norm_rope_of(call, a, false);
    key.out = kept(m, state, false, state->held, call->tokens);
    FW_TRY(ops->qk_norm_rope_forward(m->device, &key, error));
    const fw_tensor v = kept(m, state, true, state->held, call->tokens);
    return keep_values(m, call, a, &v, error);
}

fw_status multihead_decode(void *self, fw_attention_state *state, const fw_attention_call *call,
                           fw_error *error) {
    const multihead *m = self;
    FW_TRY(check(m, state, call, error));
    const activations a = carve(m, call->batch, call->tokens, call->scratch);
    FW_TRY(extend(m, state, call, &a, error));
    /* What no query of the call sees is not handed over. */
    const int64_t all = state->held + call->tokens, unseen = state->held - call->window + 1;
    const int64_t first = call->window > 0 && unseen > 0 ? unseen : 0;
    fw_flash_attention attention = multihead_attention_of(m, &a);
    attention.window = call->window;
    attention.k = kept(m, state, false, first, all - first);
    attention.v = kept(m, state, true, first, all - first);
    FW_TRY(m->device->ops->attention_forward(m->device, &attention, error));
    const fw_tensor rows = multihead_as_rows(&a.attended);
    FW_TRY(multihead_project_output(m, call, &rows, error));
    state->held = all;
    return FW_OK;
}

/* ---- evict ---- */

/* Copies do not overlap: rows move to the front in pieces no longer than the way they go. */
static fw_status move_to_front(const multihead *m, char *begin, int64_t n, int64_t held,
                               fw_error *error) {
    const size_t row = position_bytes(m);
    for (int64_t i = n; i < held; i += n) {
        const int64_t count = held - i < n ? held - i : n;
        FW_TRY(m->device->copy(m->device, begin + (size_t)(i - n) * row, begin + (size_t)i * row,
                               (size_t)count * row, error));
    }
    return FW_OK;
}

fw_status multihead_state_evict(void *self, fw_attention_state *state, int64_t n, fw_error *error) {
    const multihead *m = self;
    if (n < 0 || n > state->held)
        return fw_fail(error, FW_E_RANGE, "evicting %lld positions of %lld that are held",
                       (long long)n, (long long)state->held);
    for (int64_t i = 0; n > 0 && i < 2 * state->batch; i++) {
        char *begin = (char *)state->memory + (size_t)(i * state->capacity) * position_bytes(m);
        FW_TRY(move_to_front(m, begin, n, state->held, error));
    }
    state->held -= n;
    return FW_OK;
}
