#include "sampling.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    double weight; /* exp((l - largest) / temperature) */
    uint32_t token;
};

struct sampler {
    struct sampling_options options;
    uint32_t vocabulary;
    struct random random;
    struct candidate *candidates;
    double *probabilities;
};

static fw_status check_options(const struct sampling_options *o, fw_error *error) {
    if (!(o->temperature >= 0) || !isfinite(o->temperature))
        return fw_fail(error, FW_E_RANGE, "a temperature of %g; 0 or more is right",
                       o->temperature);
    if (!(o->top_p > 0 && o->top_p <= 1))
        return fw_fail(error, FW_E_RANGE, "top-p is %g; more than 0, at most 1 is right", o->top_p);
    return FW_OK;
}

fw_status sampler_create(const struct sampling_options *options, uint32_t vocabulary,
                         struct sampler **sampler, fw_error *error) {
    FW_TRY(check_options(options, error));
    struct sampler *made = calloc(1, sizeof *made);
    if (made != NULL) {
        *made = (struct sampler){
            .options = *options, .vocabulary = vocabulary, .random = random_seeded(options->seed)};
        made->candidates = malloc(vocabulary * sizeof *made->candidates);
        made->probabilities = malloc(vocabulary * sizeof *made->probabilities);
        if (made->candidates != NULL && made->probabilities != NULL) {
            *sampler = made;
            return FW_OK;
        }
    }
    sampler_destroy(made);
    return fw_fail(error, FW_E_MEMORY, "no memory to choose among %u tokens", vocabulary);
}

void sampler_destroy(struct sampler *s) {
    if (s == NULL) return;
    free(s->candidates);
    free(s->probabilities);
    free(s);
}

static fw_status most_probable(const struct sampler *s, const float *l, uint32_t *token,
                               fw_error *error) {
    *token = 0;
    for (uint32_t v = 0; v < s->vocabulary; v++) {
        if (isnan(l[v]) || l[v] > 1)
            return fw_fail(error, FW_E_NUMERIC,
                           "the model's log-probability of token %u is %g, which is none", v,
                           (double)l[v]);
        if (l[v] > l[*token]) *token = v;
    }
    return FW_OK;
}

/* Heaviest first; of equals the lower token first. */
static int by_weight(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

/* How many of the sorted candidates are left. */
static uint32_t cut(const struct sampler *s, uint32_t n) {
    if (s->options.top_k > 0 && s->options.top_k < n) n = s->options.top_k;
    double total = 0, so_far = 0;
    for (uint32_t i = 0; i < n; i++) total += s->candidates[i].weight;
    for (uint32_t i = 0; i < n; i++) {
        so_far += s->candidates[i].weight;
        if (so_far >= s->options.top_p * total) return i + 1;
    }
    return n;
}

fw_status sampler_take(struct sampler *s, const float *l, uint32_t *token, fw_error *error) {
    uint32_t best = 0;
    FW_TRY(most_probable(s, l, &best, error));
    *token = best;
    if (s->options.temperature == 0) return FW_OK;
    for (uint32_t v = 0; v < s->vocabulary; v++)
        s->candidates[v] =
            (struct candidate){exp(((double)l[v] - (double)l[best]) / s->options.temperature), v};
    qsort(s->candidates, s->vocabulary, sizeof *s->candidates, by_weight);
    const uint32_t n = cut(s, s->vocabulary);
    double total = 0;
    for (uint32_t i = 0; i < n; i++) total += s->candidates[i].weight;
    for (uint32_t i = 0; i < n; i++) s->probabilities[i] = s->candidates[i].weight / total;
    *token = s->candidates[random_pick(&s->random, s->probabilities, n)].token;
    return FW_OK;
}
