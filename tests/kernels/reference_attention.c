/* Attention in float64, one query at a time, each with its whole row of scores. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The keys [first, own] that query t of sequence b sees. */
static int64_t first_key(const reference_attention_shape *s, int64_t b, int64_t own) {
    int64_t first = 0;
    if (s->window > 0 && own - s->window + 1 > first) first = own - s->window + 1;
    for (int64_t i = 0; s->starts != NULL && i < s->n_starts; i++) {
        const int64_t start = s->starts[b * s->n_starts + i];
        if (start <= own && start > first) first = start;
    }
    return first;
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* out -= (out . u) u; returns out . u as it was. */
static double exclude(double *out, const double *v, int64_t width) {
    const double length = fmax(sqrt(dot(v, v, width)), 1e-12);
    const double along = dot(out, v, width) / length;
    for (int64_t d = 0; d < width; d++) out[d] -= along * v[d] / length;
    return along;
}

/* One query against keys [first, last], `step` apart; returns the logarithm of the sum. */
static double attend(const reference_attention_shape *s, const double *q, const double *k,
                     const double *v, int64_t step, int64_t first, int64_t last, double *scores,
                     double *out) {
    double largest = -INFINITY, total = 0.0;
    for (int64_t j = first; j <= last; j++) {
        scores[j] = s->scale * dot(q, k + j * step, s->width);
        largest = fmax(largest, scores[j]);
    }
    for (int64_t j = first; j <= last; j++) {
        scores[j] = exp(scores[j] - largest);
        total += scores[j];
    }
    for (int64_t d = 0; d < s->width; d++) out[d] = 0.0;
    for (int64_t j = first; j <= last; j++)
        for (int64_t d = 0; d < s->width; d++) out[d] += scores[j] / total * v[j * step + d];
    return largest + log(total);
}

void reference_attention(const reference_attention_shape *s, const double *q, const double *k,
                         const double *v, double *out, double *log_sum_exp, double *self_dot) {
    double *scores = calloc((size_t)s->keys, sizeof *scores);
    if (scores == NULL) abort();
    const int64_t step = s->groups * s->width;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t t = 0; t < s->tokens; t++)
            for (int64_t h = 0; h < s->heads; h++) {
                const int64_t own = t + s->keys - s->tokens, first = first_key(s, b, own);
                const int64_t group = h / (s->heads / s->groups);
                const int64_t keys = b * s->keys * step + group * s->width;
                const int64_t row = ((b * s->tokens + t) * s->heads + h) * s->width;
                const int64_t statistic = (b * s->heads + h) * s->tokens + t;
                const double logarithm =
                    attend(s, q + row, k + keys, v + keys, step, first, own, scores, out + row);
                double self = 0.0;
                if (s->exclude_self) self = exclude(out + row, v + keys + own * step, s->width);
                if (log_sum_exp != NULL) log_sum_exp[statistic] = logarithm;
                if (self_dot != NULL) self_dot[statistic] = self;
            }
    free(scores);
}

/* Back through exclude(): `before` is the output as it was; d_out becomes its gradient, and v's own
 * is added to d_v. With l = |v| and u = v / l: d u = -(before . u) d_out - (d_out . u) before, and
 * d v = (d u - (d u . u) u) / l. */
static void exclude_backward(const double *before, const double *v, double *d_out, double *d_v,
                             int64_t width) {
    const double length = fmax(sqrt(dot(v, v, width)), 1e-12);
    const double along = dot(before, v, width) / length, slope = dot(d_out, v, width) / length;
    const double turn = -2.0 * along * slope; /* d u . u */
    for (int64_t d = 0; d < width; d++) {
        const double u = v[d] / length, d_u = -along * d_out[d] - slope * before[d];
        d_v[d] += (d_u - turn * u) / length;
    }
    for (int64_t d = 0; d < width; d++) d_out[d] -= slope * v[d] / length;
}

/* What one query gives to the gradients of itself and of keys [first, last]; scores hold its
 * probabilities times their sum `total`. */
static void attend_backward(const reference_attention_shape *s, const double *q, const double *k,
                            const double *v, int64_t step, int64_t first, int64_t last,
                            const double *scores, const double *out, const double *d_out,
                            double *d_q, double *d_k, double *d_v) {
    double total = 0.0;
    const double delta = dot(out, d_out, s->width);
    for (int64_t j = first; j <= last; j++) total += scores[j];
    for (int64_t j = first; j <= last; j++) {
        const double p = scores[j] / total;
        const double d_score = s->scale * p * (dot(d_out, v + j * step, s->width) - delta);
        for (int64_t d = 0; d < s->width; d++) {
            d_v[j * step + d] += p * d_out[d];
            d_k[j * step + d] += d_score * q[d];
            d_q[d] += d_score * k[j * step + d];
        }
    }
}

void reference_attention_backward(const reference_attention_shape *s, const double *q,
                                  const double *k, const double *v, const double *d_out,
                                  double *d_q, double *d_k, double *d_v) {
    const int64_t step = s->groups * s->width, queries = s->batch * s->tokens * s->heads;
    double *scores = calloc((size_t)(s->keys + 2 * s->width), sizeof *scores);
    if (scores == NULL) abort();
    double *out = scores + s->keys, *d = out + s->width;
    memset(d_q, 0, (size_t)(queries * s->width) * sizeof *d_q);
    memset(d_k, 0, (size_t)(s->batch * s->keys * step) * sizeof *d_k);
    memset(d_v, 0, (size_t)(s->batch * s->keys * step) * sizeof *d_v);
    for (int64_t i = 0; i < queries; i++) {
        const int64_t h = i % s->heads, t = i / s->heads % s->tokens, b = i / s->heads / s->tokens;
        const int64_t own = t + s->keys - s->tokens, first = first_key(s, b, own);
        const int64_t at = b * s->keys * step + h / (s->heads / s->groups) * s->width;
        const double *query = q + i * s->width;
        (void)attend(s, query, k + at, v + at, step, first, own, scores, out);
        memcpy(d, d_out + i * s->width, (size_t)s->width * sizeof *d);
        if (s->exclude_self)
            exclude_backward(out, v + at + own * step, d, d_v + at + own * step, s->width);
        attend_backward(s, query, k + at, v + at, step, first, own, scores, out, d,
                        d_q + i * s->width, d_k + at, d_v + at);
    }
    free(scores);
}
