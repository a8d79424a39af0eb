/* Multi-head attention with grouped key/value heads, composed of device ops: the shared body of the
 * plugins gqa and xsa. One instance serves one layer:
 *
 *   q, k, v = input Wq^T, input Wk^T, input Wv^T;  v += value_add
 *   q, k    = rope(rmsnorm(q)) * gain, rope(rmsnorm(k))
 *   output  = attention(q, k, v) Wo^T
 *
 * N = B*T rows, C model width, H query heads, G key/value heads, D = C/H, R rotated dimensions. */
#ifndef MULTIHEAD_H
#define MULTIHEAD_H

#include <fairway/attention.h>

/* The order of the weights that an instance declares. */
enum multihead_weight { WQ, WK, WV, WO, Q_GAIN, N_WEIGHTS };

typedef struct multihead {
    const fw_host *host;
    fw_device *device;
    int64_t width, heads, kv_heads, head_width, rope_dims;
    int64_t max_batch, max_tokens;
    double q_gain;         /* initial value */
    double rope_base;      /* adapted to the reference length */
    uint32_t exclude_self; /* XSA */
    void *rope;            /* device memory: cosine, then sine, F32 [max_tokens, R/2] each */
} multihead;

/* The keys that both plugins share, first in their tables and in this order. */
#define MULTIHEAD_PARAMS                                                                           \
    FW_PARAM_RANGE(FW_PARAM_INT, "heads", "8", 1, 1024, "",                                        \
                   "query heads, a divisor of the width"),                                         \
        FW_PARAM_RANGE(FW_PARAM_INT, "kv_heads", "4", 1, 1024, "",                                 \
                       "key and value heads, a divisor of heads"),                                 \
        FW_PARAM_RANGE(FW_PARAM_INT, "rope_dims", "16", 0, 4096, "",                               \
                       "rotated dimensions of each head, even; 0: all"),                           \
        FW_PARAM_RANGE(FW_PARAM_FLOAT, "rope_base", "10000", 1, 1e12, "", "base of the rotation"), \
        FW_PARAM_RANGE(FW_PARAM_INT, "rope_train_length", "1024", 0, 1 << 30, "tokens",            \
                       "sequence length beyond which the base grows, 0: it never does"),           \
        FW_PARAM_RANGE(FW_PARAM_FLOAT, "q_gain", "1.5", -1000, 1000, "",                           \
                       "initial gain of every query head")
enum { MULTIHEAD_N_PARAMS = 6 };

/* As fw_attention describes them. */
fw_status multihead_create(const fw_host *host, const fw_value *values,
                           const fw_attention_shape *shape, uint32_t exclude_self, void **self,
                           fw_error *error);
void multihead_destroy(void *self);
uint32_t multihead_n_weights(void *self);
void multihead_weight(void *self, uint32_t index, fw_weight *weight);
double multihead_forward_flops(void *self, int64_t batch, int64_t tokens);
fw_status multihead_plan(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                         fw_attention_plan *plan, fw_error *error);
fw_status multihead_forward(void *self, const fw_attention_call *call, fw_error *error);
fw_status multihead_backward(void *self, const fw_attention_call *call, fw_error *error);
size_t multihead_state_bytes(void *self, int64_t batch, int64_t capacity);
fw_status multihead_state_reset(void *self, fw_attention_state *state, fw_error *error);
fw_status multihead_decode(void *self, fw_attention_state *state, const fw_attention_call *call,
                           fw_error *error);
fw_status multihead_state_evict(void *self, fw_attention_state *state, int64_t n, fw_error *error);

#define MULTIHEAD_VTABLE(create_)                                                                  \
    {                                                                                              \
        .struct_size = sizeof(fw_attention), .create = create_, .destroy = multihead_destroy,      \
        .n_weights = multihead_n_weights, .weight = multihead_weight, .plan = multihead_plan,      \
        .forward = multihead_forward, .backward = multihead_backward,                              \
        .forward_flops = multihead_forward_flops, .state_bytes = multihead_state_bytes,            \
        .state_reset = multihead_state_reset, .decode = multihead_decode,                          \
        .state_evict = multihead_state_evict                                                       \
    }

#endif
