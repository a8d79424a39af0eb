/* Attention in float64, one query at a time, each with its whole row of scores. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>

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
