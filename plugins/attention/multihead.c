/* An instance of multi-head attention: its checked shape, its weights and its rotation tables. The
 * passes are in multihead_pass.c and multihead_decode.c. */
#include "multihead.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS, KV_HEADS, ROPE_DIMS, ROPE_BASE, ROPE_TRAIN_LENGTH, GAIN };

/* The divisor of n that is nearest to `wanted`, the smaller one of two. */
static int64_t nearest_divisor(int64_t n, int64_t wanted) {
    int64_t best = 1;
    for (int64_t d = 1; d <= n; d++)
        if (n % d == 0 && llabs(d - wanted) < llabs(best - wanted)) best = d;
    return best;
}

static fw_status check_rope(const multihead *m, int64_t wanted, fw_error *error) {
    const int64_t width = m->head_width;
    if (wanted == 0 && width % 2 != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "rope_dims = 0 rotates all of the head width, but %lld (width %lld / heads "
                       "%lld) is odd; set rope_dims = %lld",
                       (long long)width, (long long)m->width, (long long)m->heads,
                       (long long)(width - 1));
    if (wanted > width || wanted % 2 != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "rope_dims = %lld must be even and at most the head width %lld (width %lld "
                       "/ heads %lld); the nearest is %lld",
                       (long long)wanted, (long long)width, (long long)m->width,
                       (long long)m->heads,
                       (long long)(wanted > width ? width - width % 2 : wanted - 1));
    return FW_OK;
}

static fw_status check_heads(const multihead *m, fw_error *error) {
    if (m->width % m->heads != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "heads = %lld does not divide the width %lld; the nearest divisor is %lld",
                       (long long)m->heads, (long long)m->width,
                       (long long)nearest_divisor(m->width, m->heads));
    if (m->heads % m->kv_heads != 0)
        return fw_fail(error, FW_E_CONFIG,
                       "kv_heads = %lld does not divide heads = %lld; the nearest divisor is %lld",
                       (long long)m->kv_heads, (long long)m->heads,
                       (long long)nearest_divisor(m->heads, m->kv_heads));
    return FW_OK;
}

static fw_status check_device(const fw_device *device, fw_error *error) {
    if (device == NULL)
        return fw_fail(error, FW_E_UNSUPPORTED, "attention needs a device, and the host gave none");
    const fw_ops *ops = device->ops;
    if (!FW_HAS(ops, gemm) || !FW_HAS(ops, rope_table) || !FW_HAS(ops, residual_norm_forward) ||
        !FW_HAS(ops, qk_norm_rope_forward) || !FW_HAS(ops, qk_norm_rope_backward) ||
        !FW_HAS(ops, attention_scratch) || !FW_HAS(ops, attention_forward) ||
        !FW_HAS(ops, attention_backward))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the device lacks an op that attention needs: gemm, rope_table, "
                       "residual_norm, qk_norm_rope or attention");
    return FW_OK;
}

/* For sequences longer than in training the slowest rotation still spans the sequence when the base
 * grows by (T / train_length)^(R / (R-2)). With R = 2 the base has no effect. */
static double rope_base(const multihead *m, const fw_value *values, int64_t reference) {
    const double base = values[ROPE_BASE].real;
    const double train_length = (double)values[ROPE_TRAIN_LENGTH].integer;
    const double r = (double)m->rope_dims;
    if (train_length <= 0 || (double)reference <= train_length || r <= 2) return base;
    return base * pow((double)reference / train_length, r / (r - 2));
}

static fw_status fill_rope(multihead *m, fw_error *error) {
    const size_t table = (size_t)(m->max_tokens * m->rope_dims / 2) * sizeof(float);
    FW_TRY(m->device->allocate(m->device, 2 * table, &m->rope, error));
    const fw_rope_table fill = {
        .struct_size = sizeof fill,
        .dimensions = (uint32_t)m->rope_dims,
        .base = m->rope_base,
        .cosine = fw_matrix(m->rope, FW_F32, m->max_tokens, m->rope_dims / 2),
        .sine = fw_matrix((char *)m->rope + table, FW_F32, m->max_tokens, m->rope_dims / 2)};
    return m->device->ops->rope_table(m->device, &fill, error);
}

static fw_status configure(multihead *m, const fw_value *values, const fw_attention_shape *shape,
                           fw_error *error) {
    FW_TRY(check_device(m->device, error));
    if (shape->width < 1 || shape->max_batch < 1 || shape->max_tokens < 1)
        return fw_fail(error, FW_E_ARGUMENT,
                       "attention of width %lld for %lld x %lld tokens: all must be positive",
                       (long long)shape->width, (long long)shape->max_batch,
                       (long long)shape->max_tokens);
    FW_TRY(check_heads(m, error));
    m->head_width = m->width / m->heads;
    FW_TRY(check_rope(m, values[ROPE_DIMS].integer, error));
    m->rope_dims = values[ROPE_DIMS].integer == 0 ? m->head_width : values[ROPE_DIMS].integer;
    m->rope_base = rope_base(m, values, shape->rope_reference);
    return fill_rope(m, error);
}

fw_status multihead_create(const fw_host *host, const fw_value *values,
                           const fw_attention_shape *shape, uint32_t exclude_self, void **self,
                           fw_error *error) {
    multihead *m = host->allocate(host, sizeof *m);
    if (m == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for an attention layer (%zu bytes)",
                       sizeof *m);
    *m = (multihead){.host = host,
                     .device = host->device,
                     .width = shape->width,
                     .heads = values[HEADS].integer,
                     .kv_heads = values[KV_HEADS].integer,
                     .max_batch = shape->max_batch,
                     .max_tokens = shape->max_tokens,
                     .q_gain = values[GAIN].real,
                     .exclude_self = exclude_self};
    const fw_status status = configure(m, values, shape, error);
    if (status != FW_OK) {
        multihead_destroy(m);
        return status;
    }
    *self = m;
    return FW_OK;
}

void multihead_destroy(void *self) {
    multihead *m = self;
    if (m == NULL) return;
    if (m->rope != NULL) m->device->release(m->device, m->rope);
    m->host->release(m->host, m);
}

uint32_t multihead_n_weights(void *self) {
    (void)self;
    return N_WEIGHTS;
}

void multihead_weight(void *self, uint32_t index, fw_weight *weight) {
    const multihead *m = self;
    static const char *const names[N_WEIGHTS] = {"wq", "wk", "wv", "wo", "q_gain"};
    const int64_t q_width = m->heads * m->head_width, kv_width = m->kv_heads * m->head_width;
    const int64_t rows[N_WEIGHTS] = {q_width, kv_width, kv_width, m->width, m->heads};
    const bool gain = index == Q_GAIN;
    if (index >= N_WEIGHTS) return;

    weight->role = gain ? FW_ROLE_SCALAR : FW_ROLE_MATRIX;
    weight->init = gain ? FW_INIT_CONSTANT : index == WO ? FW_INIT_ZERO : FW_INIT_ORTHOGONAL;
    weight->init_value = gain ? m->q_gain : index == WO ? 0.0 : 1.0;
    weight->rank = gain ? 1 : 2;
    weight->shape[0] = rows[index];
    weight->shape[1] = gain ? 1 : index == WO ? q_width : m->width;
    weight->shape[2] = weight->shape[3] = 1;
    weight->pack_group = index <= WV ? 1 : 0;
    memset(weight->name, 0, sizeof weight->name);
    memcpy(weight->name, names[index], strlen(names[index]));
}

double multihead_forward_flops(void *self, int64_t batch, int64_t tokens) {
    const multihead *m = self;
    const double b = (double)batch, t = (double)tokens, c = (double)m->width;
    const double q_width = (double)(m->heads * m->head_width);
    const double kv_width = (double)(m->kv_heads * m->head_width);
    const double projections = 2 * b * t * c * (q_width + 2 * kv_width + q_width);
    const double pairs = b * t * (t + 1) / 2; /* query and key, causal */
    return projections + 2 * 2 * pairs * q_width;
}
