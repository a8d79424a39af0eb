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

/* One query and the keys and values [first, last] that it sees, of one head, `step` apart. */
typedef struct view {
    int64_t query; /* where its row begins in q and out */
    int64_t keys;  /* where those of its head begin in k and v */
    int64_t step, first, last;
    int64_t statistic; /* its place in log_sum_exp and self_dot */
} view;

/* Of query i of [batch, tokens, heads]; the last key seen is its own position's. */
static view view_of(const reference_attention_shape *s, int64_t i) {
    const int64_t h = i % s->heads, t = i / s->heads % s->tokens, b = i / s->heads / s->tokens;
    const int64_t step = s->groups * s->width, group = h / (s->heads / s->groups);
    const int64_t own = t + s->keys - s->tokens;
    return (view){.query = i * s->width,
                  .keys = b * s->keys * step + group * s->width,
                  .step = step,
                  .first = first_key(s, b, own),
                  .last = own,
                  .statistic = (b * s->heads + h) * s->tokens + t};
}

/* scores: probabilities of the keys seen; returns the logarithm of the sum that they were divided
 * by. */
static double attend(const reference_attention_shape *s, const view *seen, const double *q,
                     const double *k, const double *v, double *scores, double *out) {
    double largest = -INFINITY, total = 0.0;
    k += seen->keys, v += seen->keys;
    for (int64_t j = seen->first; j <= seen->last; j++) {
        scores[j] = s->scale * dot(q + seen->query, k + j * seen->step, s->width);
        largest = fmax(largest, scores[j]);
    }
    for (int64_t j = seen->first; j <= seen->last; j++) {
        scores[j] = exp(scores[j] - largest);
        total += scores[j];
    }
    for (int64_t d = 0; d < s->width; d++) out[d] = 0.0;
    for (int64_t j = seen->first; j <= seen->last; j++) {
        scores[j] /= total;
        for (int64_t d = 0; d < s->width; d++) out[d] += scores[j] * v[j * seen->step + d];
    }
    return largest + log(total);
}

void reference_attention(const reference_attention_shape *s, const double *q, const double *k,
                         const double *v, double *out, double *log_sum_exp, double *self_dot) {
    double *scores = calloc((size_t)s->keys, sizeof *scores);
    if (scores == NULL) abort();
    for (int64_t i = 0; i < s->batch * s->tokens * s->heads; i++) {
        const view seen = view_of(s, i);
        double *row = out + seen.query, self = 0.0;
        const double logarithm = attend(s, &seen, q, k, v, scores, row);
        if (s->exclude_self) self = exclude(row, v + seen.keys + seen.last * seen.step, s->width);
        if (log_sum_exp != NULL) log_sum_exp[seen.statistic] = logarithm;
        if (self_dot != NULL) self_dot[seen.statistic] = self;
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

/* d_score = scale * p * (d_out . v - d_out . out) for each key seen, from its probability. */
static void score_gradients(const reference_attention_shape *s, const view *seen, const double *v,
                            const double *out, const double *d_out, const double *scores,
                            double *d_scores) {
    const double delta = dot(out, d_out, s->width);
    for (int64_t j = seen->first; j <= seen->last; j++)
        d_scores[j] =
            s->scale * scores[j] * (dot(d_out, v + seen->keys + j * seen->step, s->width) - delta);
}

/* to[j] += weights[j] * from, for all keys seen; and to += weights[j] * from[j]. */
static void scatter(const reference_attention_shape *s, const view *seen, const double *weights,
                    const double *from, double *to) {
    for (int64_t j = seen->first; j <= seen->last; j++)
        for (int64_t d = 0; d < s->width; d++)
            to[seen->keys + j * seen->step + d] += weights[j] * from[d];
}

static void gather(const reference_attention_shape *s, const view *seen, const double *weights,
                   const double *from, double *to) {
    for (int64_t j = seen->first; j <= seen->last; j++)
        for (int64_t d = 0; d < s->width; d++)
            to[d] += weights[j] * from[seen->keys + j * seen->step + d];
}

void reference_attention_backward(const reference_attention_shape *s, const double *q,
                                  const double *k, const double *v, const double *d_out,
                                  double *d_q, double *d_k, double *d_v) {
    const int64_t queries = s->batch * s->tokens * s->heads;
    const int64_t keys = s->batch * s->keys * s->groups;
    double *scores = calloc((size_t)(2 * s->keys + 2 * s->width), sizeof *scores);
    if (scores == NULL) abort();
    double *d_scores = scores + s->keys, *out = d_scores + s->keys, *d = out + s->width;
    memset(d_q, 0, (size_t)(queries * s->width) * sizeof *d_q);
    memset(d_k, 0, (size_t)(keys * s->width) * sizeof *d_k);
    memset(d_v, 0, (size_t)(keys * s->width) * sizeof *d_v);
    for (int64_t i = 0; i < queries; i++) {
        const view seen = view_of(s, i);
        const int64_t own = seen.keys + seen.last * seen.step;
        (void)attend(s, &seen, q, k, v, scores, out);
        memcpy(d, d_out + seen.query, (size_t)s->width * sizeof *d);
        if (s->exclude_self) exclude_backward(out, v + own, d, d_v + own, s->width);
        score_gradients(s, &seen, v, out, d, scores, d_scores);
        scatter(s, &seen, scores, d, d_v);
        scatter(s, &seen, d_scores, q + seen.query, d_k);
        gather(s, &seen, d_scores, k, d_q + seen.query);
    }
    free(scores);
}
