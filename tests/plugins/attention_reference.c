/* See attention_reference.h: one element at a time, nothing shared with a device. */
#include "attention_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EPSILON 1.1920929e-7

/* y[rows] = W[rows, columns] x */
static void project(const double *weight, const double *x, int64_t rows, int64_t columns,
                    double *y) {
    for (int64_t i = 0; i < rows; i++) {
        y[i] = 0;
        for (int64_t j = 0; j < columns; j++) y[i] += weight[i * columns + j] * x[j];
    }
}

/* One head's vector: divided by its root mean square, its first R dimensions rotated. */
static void norm_and_rotate(const attention_reference *a, double *x, int64_t d, int64_t position) {
    double mean_square = 0;
    for (int64_t i = 0; i < d; i++) mean_square += x[i] * x[i] / (double)d;
    for (int64_t i = 0; i < d; i++) x[i] /= sqrt(mean_square + EPSILON);
    const int64_t half = a->rope_dims / 2;
    for (int64_t j = 0; j < half; j++) {
        const double frequency = pow(a->rope_base, -2.0 * (double)j / (double)a->rope_dims);
        const double angle = (double)position * frequency;
        const double first = x[j], second = x[j + half];
        x[j] = first * cos(angle) + second * sin(angle);
        x[j + half] = -first * sin(angle) + second * cos(angle);
    }
}

/* The document that position t of sequence b lies in. */
static int64_t document_of(const attention_reference *a, int64_t b, int64_t t) {
    int64_t document = 0;
    for (int64_t i = 0; a->documents != NULL && i < a->n_documents; i++)
        if (a->documents[b * (a->n_documents + 1) + i] <= t) document = i;
    return document;
}

static bool sees(const attention_reference *a, int64_t b, int64_t query, int64_t key) {
    if (key > query || (a->window > 0 && key <= query - a->window)) return false;
    return document_of(a, b, query) == document_of(a, b, key);
}

/* y = softmax(q . k / sqrt(D)) v over the keys that query t sees. k, v: [T, stride]. */
static void attend(const attention_reference *a, int64_t b, int64_t t, int64_t d, const double *q,
                   const double *k, const double *v, int64_t stride, double *y) {
    double total = 0, highest = -INFINITY;
    double *score = calloc((size_t)a->tokens, sizeof *score);
    for (int64_t s = 0; s < a->tokens; s++) {
        for (int64_t i = 0; i < d; i++) score[s] += q[i] * k[s * stride + i] / sqrt((double)d);
        if (sees(a, b, t, s) && score[s] > highest) highest = score[s];
    }
    memset(y, 0, (size_t)d * sizeof *y);
    for (int64_t s = 0; s < a->tokens; s++)
        if (sees(a, b, t, s)) total += exp(score[s] - highest);
    for (int64_t s = 0; s < a->tokens; s++)
        for (int64_t i = 0; i < d && sees(a, b, t, s); i++)
            y[i] += exp(score[s] - highest) / total * v[s * stride + i];
    free(score);
}

static void remove_own_value(double *y, const double *v, int64_t d) {
    double norm = 0, dot = 0;
    for (int64_t i = 0; i < d; i++) norm += v[i] * v[i];
    norm = fmax(sqrt(norm), 1e-12);
    for (int64_t i = 0; i < d; i++) dot += y[i] * v[i] / norm;
    for (int64_t i = 0; i < d; i++) y[i] -= dot * v[i] / norm;
}

/* Queries, keys and values of one sequence: q [T,H*D], k, v [T,G*D]. */
static void project_all(const attention_reference *a, int64_t b, double *q, double *k, double *v) {
    const int64_t d = a->width / a->heads, qw = a->heads * d, kw = a->kv_heads * d;
    for (int64_t t = 0; t < a->tokens; t++) {
        const double *x = a->input + (b * a->tokens + t) * a->width;
        project(a->wq, x, qw, a->width, q + t * qw);
        project(a->wk, x, kw, a->width, k + t * kw);
        project(a->wv, x, kw, a->width, v + t * kw);
        for (int64_t i = 0; i < kw && a->value_add != NULL; i++)
            v[t * kw + i] += a->value_add[(b * a->tokens + t) * kw + i];
        for (int64_t h = 0; h < a->heads; h++) {
            norm_and_rotate(a, q + t * qw + h * d, d, a->offset + t);
            for (int64_t i = 0; i < d; i++) q[t * qw + h * d + i] *= a->q_gain[h];
        }
        for (int64_t g = 0; g < a->kv_heads; g++)
            norm_and_rotate(a, k + t * kw + g * d, d, a->offset + t);
    }
}

void attention_reference_forward(const attention_reference *a, double *output) {
    const int64_t d = a->width / a->heads, qw = a->heads * d, kw = a->kv_heads * d;
    double *q = calloc((size_t)(a->tokens * qw), sizeof *q);
    double *k = calloc((size_t)(a->tokens * kw), sizeof *k);
    double *v = calloc((size_t)(a->tokens * kw), sizeof *v);
    double *y = calloc((size_t)qw, sizeof *y);
    for (int64_t b = 0; b < a->batch; b++) {
        project_all(a, b, q, k, v);
        for (int64_t t = 0; t < a->tokens; t++) {
            for (int64_t h = 0; h < a->heads; h++) {
                const int64_t g = h / (a->heads / a->kv_heads);
                attend(a, b, t, d, q + t * qw + h * d, k + g * d, v + g * d, kw, y + h * d);
                if (a->exclude_self) remove_own_value(y + h * d, v + t * kw + g * d, d);
            }
            project(a->wo, y, a->width, qw, output + (b * a->tokens + t) * a->width);
        }
    }
    free(q), free(k), free(v), free(y);
}
