/* Gradients of reference_model.c, by hand, in the reverse of its order. The tests hold them against
 * finite differences and against recorded gradients. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference_model.h"

static double *zeros(int64_t n) {
    double *memory = calloc((size_t)(n > 0 ? n : 1), sizeof *memory);
    if (memory == NULL) abort();
    return memory;
}

/* y = x w^T: d_x += d_y w, d_w += d_y^T x. Either may be NULL. */
static void linear_backward(const double *x, const double *w, const double *d_y, int64_t n,
                            int64_t in, int64_t out, double *d_x, double *d_w) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t o = 0; o < out; o++) {
            const double d = d_y[t * out + o];
            for (int64_t i = 0; i < in; i++) {
                if (d_x != NULL) d_x[t * in + i] += d * w[o * in + i];
                if (d_w != NULL) d_w[o * in + i] += d * x[t * in + i];
            }
        }
}

/* d_x += r s (d_y - n mean(d_y n)) with n = x r, r the inverse rms, s the scale. */
static void rmsnorm_backward(const double *x, const double *inverse, const double *d_y, int64_t n,
                             int64_t c, double scale, double *d_x) {
    for (int64_t t = 0; t < n; t++) {
        double mean = 0;
        for (int64_t i = 0; i < c; i++)
            mean += d_y[t * c + i] * x[t * c + i] * inverse[t] / (double)c;
        for (int64_t i = 0; i < c; i++)
            d_x[t * c + i] +=
                scale * inverse[t] * (d_y[t * c + i] - x[t * c + i] * inverse[t] * mean);
    }
}

/* The inverse rotation. */
static void rope_backward(const struct shape *s, double *d, int64_t heads) {
    const int64_t width = shape_head(s), half = shape_rope_dims(s) / 2;
    for (int64_t n = 0; n < s->batch * s->seq; n++)
        for (int64_t j = 0; j < half; j++) {
            const double angle = reference_angle(s, n % s->seq, j);
            const double c = cos(angle), e = sin(angle);
            for (int64_t h = 0; h < heads; h++) {
                double *x = d + n * heads * width + h * width + j;
                const double a = x[0], b = x[half];
                x[0] = a * c - b * e;
                x[half] = a * e + b * c;
            }
        }
}

/* d_z -> d_y in place, and what v contributed: z = y - (y . e) e, e = v / |v|. */
static void exclude_self_backward(const struct shape *s, const struct reference_layer *l, double *d,
                                  double *d_v) {
    const int64_t width = shape_head(s), row = s->dim, kv_row = shape_kv_width(s);
    for (int64_t n = 0; n < s->batch * s->seq; n++)
        for (int64_t h = 0; h < s->heads; h++) {
            const int64_t at = n * kv_row + h / (s->heads / s->kv) * width;
            const double *v = l->v + at, *y = l->y + n * row + h * width;
            double *g = d + n * row + h * width, square = 0, y_e = 0, g_e = 0;
            for (int64_t i = 0; i < width; i++) square += v[i] * v[i];
            const double length = fmax(sqrt(square), 1e-12);
            for (int64_t i = 0; i < width; i++)
                y_e += y[i] * v[i] / length, g_e += g[i] * v[i] / length;
            /* d_e = -(y.e) g - (g.e) y; through e = v/|v| its part along e is lost. */
            for (int64_t i = 0; i < width; i++) {
                const double e = v[i] / length;
                d_v[at + i] += (-y_e * g[i] - g_e * y[i] + 2 * y_e * g_e * e) / length;
            }
            for (int64_t i = 0; i < width; i++) g[i] -= g_e * v[i] / length;
        }
}

static void attend_backward(const struct shape *s, const struct reference_layer *l,
                            const double *d_y, double *d_q, double *d_k, double *d_v) {
    const int64_t d = shape_head(s), T = s->seq, row = s->dim, kv_row = shape_kv_width(s);
    double *d_p = zeros(T);
    for (int64_t n = 0; n < s->batch * T; n++)
        for (int64_t h = 0; h < s->heads; h++) {
            const int64_t b = n / T, t = n % T, group = h / (s->heads / s->kv);
            const double *p = l->probability + ((b * s->heads + h) * T + t) * T;
            double mean = 0;
            for (int64_t u = 0; u <= t; u++) {
                const int64_t other = (b * T + u) * kv_row + group * d;
                d_p[u] = 0;
                for (int64_t i = 0; i < d; i++) {
                    d_p[u] += d_y[n * row + h * d + i] * l->v[other + i];
                    d_v[other + i] += p[u] * d_y[n * row + h * d + i];
                }
                mean += p[u] * d_p[u];
            }
            for (int64_t u = 0; u <= t; u++) {
                const int64_t other = (b * T + u) * kv_row + group * d;
                const double d_score = p[u] * (d_p[u] - mean) / sqrt((double)d);
                for (int64_t i = 0; i < d; i++) {
                    d_q[n * row + h * d + i] += d_score * l->k[other + i];
                    d_k[other + i] += d_score * l->q[n * row + h * d + i];
                }
            }
        }
    free(d_p);
}

/* d_v [N,G*D] to the value embedding's scales and to d_values, the gradient of its rows. */
static void value_backward(struct reference *r, const struct reference_weights *w, int64_t index,
                           const double *d_v, double *d_values) {
    const int64_t slot = shape_value_slot(&r->shape, index);
    if (slot < 0) return;
    char name[64];
    (void)snprintf(name, sizeof name, "ve_layer_scales.%d", (int)slot);
    const struct reference_tensor *own = reference_find(r, name), *shared = w->value_scale;
    const int64_t count = r->shape.batch * r->shape.seq * shape_kv_width(&r->shape);
    double dot = 0;
    for (int64_t i = 0; i < count; i++) {
        dot += d_v[i] * r->values[i];
        d_values[i] += shared->value[0] * own->value[0] * d_v[i];
    }
    own->gradient[0] += shared->value[0] * dot;
    shared->gradient[0] += own->value[0] * dot;
}

/* From d_y, the gradient of attention's output, to that of its input d_a. */
static void qkv_backward(struct reference *r, const struct reference_weights *w, int64_t index,
                         double *d_y, double *d_values, double *d_a) {
    const struct shape *s = &r->shape;
    const struct reference_layer *l = &r->layer[index];
    const int64_t n = s->batch * s->seq, c = s->dim, kv = shape_kv_width(s), d = shape_head(s);
    const int64_t values = (s->layers + index) * kv * c;
    const struct reference_tensor *gain = reference_block(r, index, "attn.q_gain");
    double *d_q = zeros(n * c), *d_k = zeros(n * kv), *d_v = zeros(n * kv);
    double *d_q_raw = zeros(n * c), *d_k_raw = zeros(n * kv);
    if (shape_excludes_self(s, index)) exclude_self_backward(s, l, d_y, d_v);
    attend_backward(s, l, d_y, d_q, d_k, d_v);
    for (int64_t i = 0; i < n * c; i++) {
        gain->gradient[i % c / d] += d_q[i] * l->q_turned[i];
        d_q[i] *= gain->value[i % c / d];
    }
    rope_backward(s, d_q, s->heads);
    rope_backward(s, d_k, s->kv);
    rmsnorm_backward(l->q_raw, l->q_rms, d_q, n * s->heads, d, 1, d_q_raw);
    rmsnorm_backward(l->k_raw, l->k_rms, d_k, n * s->kv, d, 1, d_k_raw);
    value_backward(r, w, index, d_v, d_values);
    linear_backward(l->a, w->qo->value + index * c * c, d_q_raw, n, c, c, d_a,
                    w->qo->gradient + index * c * c);
    linear_backward(l->a, w->kv->value + index * kv * c, d_k_raw, n, c, kv, d_a,
                    w->kv->gradient + index * kv * c);
    linear_backward(l->a, w->kv->value + values, d_v, n, c, kv, d_a, w->kv->gradient + values);
    free(d_q), free(d_k), free(d_v), free(d_q_raw), free(d_k_raw);
}

/* x = residual + scale * branch: d_branch = scale * d_x; the scale's gradient. */
static void scale_backward(const struct reference_tensor *scale, const double *branch,
                           const double *d_x, int64_t n, int64_t c, double *d_branch) {
    for (int64_t i = 0; i < n * c; i++) {
        d_branch[i] = (scale != NULL ? scale->value[i % c] : 1) * d_x[i];
        if (scale != NULL) scale->gradient[i % c] += d_x[i] * branch[i];
    }
}

static void mlp_backward(struct reference *r, const struct reference_weights *w, int64_t index,
                         double depth, double *d_x) {
    const struct shape *s = &r->shape;
    const struct reference_layer *l = &r->layer[index];
    const int64_t n = s->batch * s->seq, c = s->dim, m = s->mlp_width, at = index * m * c;
    double *d_down = zeros(n * c), *d_act = zeros(n * m), *d_b = zeros(n * c);
    scale_backward(reference_block(r, index, "mlp_scale"), l->down, d_x, n, c, d_down);
    linear_backward(l->act, w->down->value + at, d_down, n, m, c, d_act, w->down->gradient + at);
    for (int64_t i = 0; i < n * m; i++) d_act[i] *= l->h[i] > 0 ? 2 * l->h[i] : 0.5 * l->h[i];
    linear_backward(l->b, w->up->value + at, d_act, n, c, m, d_b, w->up->gradient + at);
    rmsnorm_backward(l->middle, l->b_rms, d_b, n, c, depth, d_x);
    free(d_down), free(d_act), free(d_b);
}

/* d_x: from the gradient of the block's output to that of its input; d_x0 and d_values grow. */
static void block_backward(struct reference *r, const struct reference_weights *w, int64_t index,
                           double *d_x, double *d_x0, double *d_values) {
    const struct shape *s = &r->shape;
    const struct reference_layer *l = &r->layer[index];
    const int64_t n = s->batch * s->seq, c = s->dim, out = (s->layers + index) * c * c;
    const double depth = s->depth_norm ? 1 / sqrt((double)index + 1) : 1;
    const struct reference_tensor *mix = reference_block(r, index, "resid_mix");
    double *d_attended = zeros(n * c), *d_z = zeros(n * c), *d_a = zeros(n * c);
    mlp_backward(r, w, index, depth, d_x);
    scale_backward(reference_block(r, index, "attn_scale"), l->attended, d_x, n, c, d_attended);
    linear_backward(l->z, w->qo->value + out, d_attended, n, c, c, d_z, w->qo->gradient + out);
    qkv_backward(r, w, index, d_z, d_values, d_a);
    rmsnorm_backward(l->u, l->a_rms, d_a, n, c, depth, d_x);
    for (int64_t i = 0; mix != NULL && i < n * c; i++) {
        mix->gradient[i % c] += d_x[i] * l->x_in[i];
        mix->gradient[c + i % c] += d_x[i] * r->x0[i];
        d_x0[i] += mix->value[c + i % c] * d_x[i];
        d_x[i] *= mix->value[i % c];
    }
    free(d_attended), free(d_z), free(d_a);
}

/* The output of layer k, which layer k + 1 got before its skip was added. */
static double left_by(const struct reference *r, int64_t layer, int64_t i) {
    const struct reference_layer *l = &r->layer[layer];
    const struct reference_tensor *scale = reference_block(r, layer, "mlp_scale");
    return l->middle[i] + (scale != NULL ? scale->value[i % r->shape.dim] : 1) * l->down[i];
}

static void stack_backward(struct reference *r, const struct reference_weights *w, double *d_x,
                           double *d_x0, double *d_values) {
    const struct shape *s = &r->shape;
    const int64_t count = s->batch * s->seq * s->dim, c = s->dim, skips = shape_skips(s);
    double *d_pushed = zeros(skips * count);
    for (int64_t i = s->layers; i-- > 0;) {
        for (int64_t j = 0; i < skips && j < count; j++) d_x[j] += d_pushed[i * count + j];
        block_backward(r, w, i, d_x, d_x0, d_values);
        const int64_t row = i - s->layers / 2;
        if (row < 0 || row >= skips) continue;
        for (int64_t j = 0; j < count; j++) {
            const int64_t from = skips - 1 - row;
            w->skips->gradient[row * c + j % c] += d_x[j] * left_by(r, from, j);
            d_pushed[from * count + j] += w->skips->value[row * c + j % c] * d_x[j];
        }
    }
    for (int64_t j = 0; j < count; j++) d_x0[j] += d_x[j];
    free(d_pushed);
}

static void look_up_backward(const struct reference_tensor *table,
                             const struct reference_tensor *projection, const int32_t *index,
                             int64_t n, const double *d_out) {
    const int64_t width = table->shape[1];
    for (int64_t t = 0; t < n; t++) {
        double *d_row = table->gradient + index[t] * width;
        if (projection != NULL)
            linear_backward(table->value + index[t] * width, projection->value,
                            d_out + t * projection->shape[0], 1, width, projection->shape[0], d_row,
                            projection->gradient);
        else
            for (int64_t i = 0; i < width; i++) d_row[i] += d_out[t * width + i];
    }
}

static void embed_backward(struct reference *r, const struct reference_weights *w,
                           const double *d_x0) {
    const struct shape *s = &r->shape;
    const int64_t n = s->batch * s->seq, c = s->dim;
    double *d_normed = zeros(n * c), *d_embedded = zeros(n * c);
    for (int64_t i = 0; i < n * c; i++) {
        const double gate = w->smear != NULL ? 1 / (1 + exp(-w->smear->value[i % c])) : 0;
        const int first = i / c % s->seq == 0;
        const double before = first ? 0 : r->normed[i - c];
        d_normed[i] += (1 - gate) * d_x0[i];
        if (!first) d_normed[i - c] += gate * d_x0[i];
        if (w->smear != NULL)
            w->smear->gradient[i % c] += d_x0[i] * (before - r->normed[i]) * gate * (1 - gate);
    }
    rmsnorm_backward(r->embedded, r->embedded_rms, d_normed, n, c, 1, d_embedded);
    for (int64_t i = 0; i < n * c; i++)
        w->embedding->gradient[r->inputs[i / c] * c + i % c] += d_embedded[i];
    if (w->table != NULL) {
        for (int64_t i = 0; i < n * c; i++) {
            w->table_scale->gradient[0] += d_embedded[i] * r->pairs[i];
            d_embedded[i] *= w->table_scale->value[0];
        }
        look_up_backward(w->table, w->table_projection, r->slot, n, d_embedded);
    }
    free(d_normed), free(d_embedded);
}

/* d_logits through the softcap: z = 30 tanh(u / 30), dz/du = 1 - (z / 30)^2. */
static void head_backward(struct reference *r, const struct reference_weights *w, double *d_x) {
    const struct shape *s = &r->shape;
    const int64_t n = s->batch * s->seq, c = s->dim, v = s->vocab;
    double *d_logits = zeros(n * v), *d_final = zeros(n * c);
    for (int64_t t = 0; t < n; t++) {
        const double *row = r->logits + t * v;
        double sum = 0;
        for (int64_t i = 0; i < v; i++) sum += exp(row[i]);
        for (int64_t i = 0; i < v; i++) {
            const double target = i == r->targets[t] ? 1 : 0;
            d_logits[t * v + i] =
                (exp(row[i]) / sum - target) * (1 - row[i] * row[i] / 900) / (double)n;
        }
    }
    linear_backward(r->final, w->embedding->value, d_logits, n, c, v, d_final,
                    w->embedding->gradient);
    rmsnorm_backward(r->last, r->last_rms, d_final, n, c, 1, d_x);
    free(d_logits), free(d_final);
}

void reference_backward(struct reference *r) {
    const struct shape *s = &r->shape;
    const struct reference_weights w = reference_weights(r);
    const int64_t n = s->batch * s->seq;
    for (uint32_t i = 0; i < r->n_tensors; i++)
        memset(r->tensor[i].gradient, 0, (size_t)r->tensor[i].count * sizeof(double));
    double *d_x = zeros(n * s->dim), *d_x0 = zeros(n * s->dim);
    double *d_values = zeros(n * shape_kv_width(s));
    head_backward(r, &w, d_x);
    stack_backward(r, &w, d_x, d_x0, d_values);
    embed_backward(r, &w, d_x0);
    if (w.value_table != NULL)
        look_up_backward(w.value_table, w.value_projection, r->inputs, n, d_values);
    free(d_x), free(d_x0), free(d_values);
}
