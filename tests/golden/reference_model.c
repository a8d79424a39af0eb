#include "reference_model.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tensors and memory ---- */

static double *take(struct reference *r, int64_t n) {
    double *memory = calloc((size_t)(n > 0 ? n : 1), sizeof *memory);
    void **larger = realloc(r->owned, (r->n_owned + 1) * sizeof *r->owned);
    if (memory == NULL || larger == NULL) abort();
    r->owned = larger;
    r->owned[r->n_owned++] = memory;
    return memory;
}

static void add(struct reference *r, const char *name, uint32_t rank, int64_t d0, int64_t d1,
                int64_t d2) {
    struct reference_tensor *larger = realloc(r->tensor, (r->n_tensors + 1) * sizeof *r->tensor);
    if (larger == NULL) abort();
    r->tensor = larger;
    struct reference_tensor *tensor = &r->tensor[r->n_tensors++];
    *tensor = (struct reference_tensor){.rank = rank, .shape = {d0, d1, d2}};
    (void)snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->count = d0 * d1 * d2;
    tensor->value = take(r, tensor->count);
    tensor->gradient = take(r, tensor->count);
}

static void add_block(struct reference *r, int64_t layer, const char *part, uint32_t rank,
                      int64_t d0, int64_t d1) {
    char name[64];
    (void)snprintf(name, sizeof name, "blocks.%d.%s", (int)layer, part);
    add(r, name, rank, d0, d1, 1);
}

static void add_tables(struct reference *r) {
    const struct shape *s = &r->shape;
    add(r, "tok_emb.weight", 2, s->vocab, s->dim, 1);
    if (s->bigram_slots > 0) {
        add(r, "bigram.scale", 1, 1, 1, 1);
        add(r, "bigram.embed.weight", 2, s->bigram_slots, s->bigram_dim, 1);
        if (s->bigram_dim != s->dim) add(r, "bigram.proj.weight", 2, s->dim, s->bigram_dim, 1);
    }
    if (s->smear) add(r, "smear.gate", 1, s->dim, 1, 1);
}

static void add_values(struct reference *r) {
    const struct shape *s = &r->shape;
    if (s->n_ve == 0) return;
    add(r, "ve_shared.scale", 1, 1, 1, 1);
    add(r, "ve_shared.embed.weight", 2, s->vocab, s->ve_dim, 1);
    if (s->ve_dim != shape_kv_width(s))
        add(r, "ve_shared.proj.weight", 2, shape_kv_width(s), s->ve_dim, 1);
    for (int64_t i = 0; i < s->n_ve; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "ve_layer_scales.%d", (int)i);
        add(r, name, 1, 1, 1, 1);
    }
}

static void add_tensors(struct reference *r) {
    const struct shape *s = &r->shape;
    if (shape_skips(s) > 0) add(r, "skip_weights", 2, shape_skips(s), s->dim, 1);
    add(r, "qo_bank", 3, 2 * s->layers, s->dim, s->dim);
    add(r, "kv_bank", 3, 2 * s->layers, shape_kv_width(s), s->dim);
    add(r, "mlp_up_bank", 3, s->layers, s->mlp_width, s->dim);
    add(r, "mlp_down_bank", 3, s->layers, s->dim, s->mlp_width);
    add_tables(r);
    for (int64_t i = 0; i < s->layers; i++) {
        if (s->layer_scales) {
            add_block(r, i, "attn_scale", 1, s->dim, 1);
            add_block(r, i, "mlp_scale", 1, s->dim, 1);
        }
        if (s->x0_mix) add_block(r, i, "resid_mix", 2, 2, s->dim);
        add_block(r, i, "attn.q_gain", 1, s->heads, 1);
    }
    add_values(r);
}

static void take_layer(struct reference *r, struct reference_layer *l) {
    const struct shape *s = &r->shape;
    const int64_t n = s->batch * s->seq, c = s->dim, g = shape_kv_width(s), m = s->mlp_width;
    double **const wide[] = {&l->x_in, &l->u, &l->a,        &l->q_raw,  &l->q_turned, &l->q,
                             &l->y,    &l->z, &l->attended, &l->middle, &l->b,        &l->down};
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) *wide[i] = take(r, n * c);
    l->k_raw = take(r, n * g), l->k = take(r, n * g), l->v = take(r, n * g);
    l->a_rms = take(r, n), l->b_rms = take(r, n);
    l->q_rms = take(r, n * s->heads), l->k_rms = take(r, n * s->kv);
    l->probability = take(r, n * s->heads * s->seq);
    l->h = take(r, n * m), l->act = take(r, n * m);
}

struct reference *reference_create(const struct shape *shape) {
    struct reference *r = calloc(1, sizeof *r);
    if (r == NULL) abort();
    r->shape = *shape;
    add_tensors(r);
    const int64_t n = shape->batch * shape->seq, c = shape->dim;
    r->layer = calloc((size_t)shape->layers, sizeof *r->layer);
    r->slot = calloc((size_t)n, sizeof *r->slot);
    if (r->layer == NULL || r->slot == NULL) abort();
    for (int64_t i = 0; i < shape->layers; i++) take_layer(r, &r->layer[i]);
    double **const wide[] = {&r->embedded, &r->normed, &r->x0, &r->pairs, &r->last, &r->final};
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) *wide[i] = take(r, n * c);
    r->embedded_rms = take(r, n), r->last_rms = take(r, n);
    r->values = take(r, n * shape_kv_width(shape));
    r->logits = take(r, n * shape->vocab);
    return r;
}

void reference_destroy(struct reference *r) {
    if (r == NULL) return;
    for (uint32_t i = 0; i < r->n_owned; i++) free(r->owned[i]);
    free(r->owned);
    free(r->tensor);
    free(r->layer);
    free(r->slot);
    free(r);
}

struct reference_tensor *reference_find(const struct reference *r, const char *name) {
    for (uint32_t i = 0; i < r->n_tensors; i++)
        if (strcmp(r->tensor[i].name, name) == 0) return &r->tensor[i];
    return NULL;
}

const struct reference_tensor *reference_block(const struct reference *r, int64_t layer,
                                               const char *part) {
    char name[64];
    (void)snprintf(name, sizeof name, "blocks.%d.%s", (int)layer, part);
    return reference_find(r, name);
}

struct reference_weights reference_weights(const struct reference *r) {
    return (struct reference_weights){
        .embedding = reference_find(r, "tok_emb.weight"),
        .table = reference_find(r, "bigram.embed.weight"),
        .table_projection = reference_find(r, "bigram.proj.weight"),
        .table_scale = reference_find(r, "bigram.scale"),
        .smear = reference_find(r, "smear.gate"),
        .value_table = reference_find(r, "ve_shared.embed.weight"),
        .value_projection = reference_find(r, "ve_shared.proj.weight"),
        .value_scale = reference_find(r, "ve_shared.scale"),
        .skips = reference_find(r, "skip_weights"),
        .qo = reference_find(r, "qo_bank"),
        .kv = reference_find(r, "kv_bank"),
        .up = reference_find(r, "mlp_up_bank"),
        .down = reference_find(r, "mlp_down_bank"),
    };
}

/* ---- pieces ---- */

/* y[n,o] = x[n,i] w[o,i]^T */
static void linear(const double *x, const double *w, int64_t n, int64_t in, int64_t out,
                   double *y) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < in; i++) sum += x[t * in + i] * w[o * in + i];
            y[t * out + o] = sum;
        }
}

/* y = x / sqrt(mean(x^2) + eps) * scale over n rows of c values; eps is float32's. */
static void rmsnorm(const double *x, int64_t n, int64_t c, double scale, double *y,
                    double *inverse) {
    for (int64_t t = 0; t < n; t++) {
        double sum = 0;
        for (int64_t i = 0; i < c; i++) sum += x[t * c + i] * x[t * c + i];
        inverse[t] = 1 / sqrt(sum / (double)c + 1.1920929e-7);
        for (int64_t i = 0; i < c; i++) y[t * c + i] = x[t * c + i] * inverse[t] * scale;
    }
}

/* For T > 1024 the base grows by (T/1024)^(R/(R-2)). With R = 2 the one frequency is 1. */
double reference_angle(const struct shape *s, int64_t t, int64_t j) {
    const double length = (double)s->seq, dims = (double)shape_rope_dims(s);
    double base = 10000;
    if (length > 1024 && dims > 2) base *= pow(length / 1024, dims / (dims - 2));
    return (double)t * pow(base, -2 * (double)j / dims);
}

/* Rotate the first R of each head's D values: (x1 cos + x2 sin, -x1 sin + x2 cos). */
static void rope(const struct shape *s, const double *x, int64_t heads, double *y) {
    const int64_t d = shape_head(s), half = shape_rope_dims(s) / 2, row = heads * d;
    memcpy(y, x, (size_t)(s->batch * s->seq * row) * sizeof *y);
    for (int64_t n = 0; n < s->batch * s->seq; n++)
        for (int64_t j = 0; j < half; j++) {
            const double angle = reference_angle(s, n % s->seq, j), c = cos(angle), e = sin(angle);
            for (int64_t h = 0; h < heads; h++) {
                const int64_t at = n * row + h * d + j;
                const double a = x[at], b = x[at + half];
                y[at] = a * c + b * e;
                y[at + half] = b * c - a * e;
            }
        }
}

/* ---- rows 1 and 2: embedding, bigram table, norm, smear ---- */

/* The products and their XOR are those of int32. */
int32_t reference_slot(int64_t slots, int32_t before, int32_t token) {
    if (before < 0) return (int32_t)(slots - 1);
    const int32_t hash = (int32_t)(36313u * (uint32_t)token) ^ (int32_t)(27191u * (uint32_t)before);
    const int64_t modulus = slots - 1, rest = (int64_t)hash % modulus;
    return (int32_t)(rest < 0 ? rest + modulus : rest);
}

/* Rows of a table, through its projection when there is one. */
static void look_up(const struct reference_tensor *table, const struct reference_tensor *projection,
                    const int32_t *index, int64_t n, double *out) {
    const int64_t width = table->shape[1];
    for (int64_t t = 0; t < n; t++) {
        const double *row = table->value + index[t] * width;
        if (projection != NULL)
            linear(row, projection->value, 1, width, projection->shape[0],
                   out + t * projection->shape[0]);
        else
            memcpy(out + t * width, row, (size_t)width * sizeof *out);
    }
}

static void embed(struct reference *r, const struct reference_weights *w) {
    const struct shape *s = &r->shape;
    const int64_t n = s->batch * s->seq, c = s->dim;
    if (w->table != NULL) {
        for (int64_t t = 0; t < n; t++)
            r->slot[t] = reference_slot(s->bigram_slots, t % s->seq > 0 ? r->inputs[t - 1] : -1,
                                        r->inputs[t]);
        look_up(w->table, w->table_projection, r->slot, n, r->pairs);
    }
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < c; i++) {
            r->embedded[t * c + i] = w->embedding->value[r->inputs[t] * c + i];
            if (w->table != NULL)
                r->embedded[t * c + i] += w->table_scale->value[0] * r->pairs[t * c + i];
        }
    rmsnorm(r->embedded, n, c, 1, r->normed, r->embedded_rms);
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < c; i++) {
            const double gate = w->smear != NULL ? 1 / (1 + exp(-w->smear->value[i])) : 0;
            const double before = t % s->seq > 0 ? r->normed[(t - 1) * c + i] : 0;
            r->x0[t * c + i] = (1 - gate) * r->normed[t * c + i] + gate * before;
        }
    if (w->value_table != NULL)
        look_up(w->value_table, w->value_projection, r->inputs, n, r->values);
}

/* ---- row 4: blocks ---- */

static void attend(const struct shape *s, struct reference_layer *l, int64_t b, int64_t h) {
    const int64_t d = shape_head(s), T = s->seq, group = h / (s->heads / s->kv);
    const int64_t row = s->dim, kv_row = shape_kv_width(s);
    for (int64_t t = 0; t < T; t++) {
        const int64_t n = b * T + t;
        double *p = l->probability + ((b * s->heads + h) * T + t) * T;
        double largest = -INFINITY, sum = 0;
        for (int64_t u = 0; u <= t; u++) {
            double dot = 0;
            for (int64_t i = 0; i < d; i++)
                dot += l->q[n * row + h * d + i] * l->k[(b * T + u) * kv_row + group * d + i];
            p[u] = dot / sqrt((double)d);
            largest = fmax(largest, p[u]);
        }
        for (int64_t u = 0; u <= t; u++) sum += p[u] = exp(p[u] - largest);
        for (int64_t i = 0; i < d; i++) l->y[n * row + h * d + i] = 0;
        for (int64_t u = 0; u <= t; u++) {
            p[u] /= sum;
            for (int64_t i = 0; i < d; i++)
                l->y[n * row + h * d + i] += p[u] * l->v[(b * T + u) * kv_row + group * d + i];
        }
    }
}

/* z = y - (y . e) e with e = v / max(|v|, 1e-12), v of the same position and its kv head. */
static void exclude_self(const struct shape *s, struct reference_layer *l) {
    const int64_t d = shape_head(s), row = s->dim, kv_row = shape_kv_width(s);
    for (int64_t n = 0; n < s->batch * s->seq; n++)
        for (int64_t h = 0; h < s->heads; h++) {
            const double *v = l->v + n * kv_row + h / (s->heads / s->kv) * d;
            const double *y = l->y + n * row + h * d;
            double dot = 0, square = 0;
            for (int64_t i = 0; i < d; i++) dot += y[i] * v[i], square += v[i] * v[i];
            const double length = fmax(sqrt(square), 1e-12);
            for (int64_t i = 0; i < d; i++)
                l->z[n * row + h * d + i] = y[i] - dot / length * v[i] / length;
        }
}

static void project_qkv(struct reference *r, const struct reference_weights *w, int64_t index) {
    const struct shape *s = &r->shape;
    struct reference_layer *l = &r->layer[index];
    const int64_t n = s->batch * s->seq, c = s->dim, kv = shape_kv_width(s), d = shape_head(s);
    linear(l->a, w->qo->value + index * c * c, n, c, c, l->q_raw);
    linear(l->a, w->kv->value + index * kv * c, n, c, kv, l->k_raw);
    linear(l->a, w->kv->value + (s->layers + index) * kv * c, n, c, kv, l->v);
    const int64_t slot = shape_value_slot(s, index);
    if (slot >= 0) {
        char name[64];
        (void)snprintf(name, sizeof name, "ve_layer_scales.%d", (int)slot);
        const double scale = w->value_scale->value[0] * reference_find(r, name)->value[0];
        for (int64_t i = 0; i < n * kv; i++) l->v[i] += scale * r->values[i];
    }
    rmsnorm(l->q_raw, n * s->heads, d, 1, l->q, l->q_rms);
    rope(s, l->q, s->heads, l->q_turned);
    const double *gain = reference_block(r, index, "attn.q_gain")->value;
    for (int64_t i = 0; i < n * c; i++) l->q[i] = l->q_turned[i] * gain[i % c / d];
    double *normed = malloc((size_t)(n * kv) * sizeof *normed);
    if (normed == NULL) abort();
    rmsnorm(l->k_raw, n * s->kv, d, 1, normed, l->k_rms);
    rope(s, normed, s->kv, l->k);
    free(normed);
}

static double at_or_one(const struct reference_tensor *tensor, int64_t i) {
    return tensor != NULL ? tensor->value[i] : 1;
}

static void block(struct reference *r, const struct reference_weights *w, int64_t index,
                  double *x) {
    const struct shape *s = &r->shape;
    struct reference_layer *l = &r->layer[index];
    const int64_t n = s->batch * s->seq, c = s->dim, m = s->mlp_width;
    const double depth = s->depth_norm ? 1 / sqrt((double)index + 1) : 1;
    const struct reference_tensor *mix = reference_block(r, index, "resid_mix");
    const struct reference_tensor *attn_scale = reference_block(r, index, "attn_scale");
    const struct reference_tensor *mlp_scale = reference_block(r, index, "mlp_scale");
    memcpy(l->x_in, x, (size_t)(n * c) * sizeof *x);
    for (int64_t i = 0; i < n * c; i++)
        l->u[i] = mix != NULL ? mix->value[i % c] * x[i] + mix->value[c + i % c] * r->x0[i] : x[i];
    rmsnorm(l->u, n, c, depth, l->a, l->a_rms);
    project_qkv(r, w, index);
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) attend(s, l, b, h);
    if (shape_excludes_self(s, index))
        exclude_self(s, l);
    else
        memcpy(l->z, l->y, (size_t)(n * c) * sizeof *l->z);
    linear(l->z, w->qo->value + (s->layers + index) * c * c, n, c, c, l->attended);
    for (int64_t i = 0; i < n * c; i++)
        l->middle[i] = l->u[i] + at_or_one(attn_scale, i % c) * l->attended[i];
    rmsnorm(l->middle, n, c, depth, l->b, l->b_rms);
    linear(l->b, w->up->value + index * m * c, n, c, m, l->h);
    for (int64_t i = 0; i < n * m; i++) {
        const double leaky = l->h[i] > 0 ? l->h[i] : 0.5 * l->h[i];
        l->act[i] = leaky * leaky;
    }
    linear(l->act, w->down->value + index * c * m, n, m, c, l->down);
    for (int64_t i = 0; i < n * c; i++)
        x[i] = l->middle[i] + at_or_one(mlp_scale, i % c) * l->down[i];
}

/* ---- rows 3 and 5: the stack with its skips, the head, the loss ---- */

/* Layer n/2 + i gets what layer n/2 - 1 - i left: last in, first out. */
static void stack(struct reference *r, const struct reference_weights *w) {
    const struct shape *s = &r->shape;
    const int64_t n = s->batch * s->seq, c = s->dim, skips = shape_skips(s);
    double *x = malloc((size_t)(n * c) * sizeof *x);
    double *pushed = malloc((size_t)((skips + 1) * n * c) * sizeof *pushed);
    if (x == NULL || pushed == NULL) abort();
    memcpy(x, r->x0, (size_t)(n * c) * sizeof *x);
    for (int64_t i = 0; i < s->layers; i++) {
        const int64_t row = i - s->layers / 2;
        if (row >= 0 && row < skips)
            for (int64_t j = 0; j < n * c; j++)
                x[j] += w->skips->value[row * c + j % c] * pushed[(skips - 1 - row) * n * c + j];
        block(r, w, i, x);
        if (i < skips) memcpy(pushed + i * n * c, x, (size_t)(n * c) * sizeof *x);
    }
    memcpy(r->last, x, (size_t)(n * c) * sizeof *x);
    free(pushed);
    free(x);
}

double reference_forward(struct reference *r, const int32_t *inputs, const int32_t *targets) {
    const struct shape *s = &r->shape;
    const struct reference_weights w = reference_weights(r);
    const int64_t n = s->batch * s->seq, c = s->dim, v = s->vocab;
    double loss = 0;
    r->inputs = inputs, r->targets = targets;
    embed(r, &w);
    stack(r, &w);
    rmsnorm(r->last, n, c, 1, r->final, r->last_rms);
    linear(r->final, w.embedding->value, n, c, v, r->logits);
    for (int64_t t = 0; t < n; t++) {
        double *row = r->logits + t * v, sum = 0;
        for (int64_t i = 0; i < v; i++) row[i] = 30 * tanh(row[i] / 30), sum += exp(row[i]);
        loss += log(sum) - row[targets[t]];
    }
    return loss / (double)n;
}
