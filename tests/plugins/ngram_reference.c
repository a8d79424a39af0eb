#include "ngram_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double RESERVE = 1.0 / 1048576;

enum { ORDERS = 33, LONGEST_MATCH = 64, LEVELS = 6 };

typedef struct follower {
    uint32_t token, count;
} follower;

/* A context is named by where it was first seen: the `order` tokens before `end`. */
typedef struct context {
    uint32_t end, n;
    follower *followers; /* V at most, most frequent first */
} context;

typedef struct dictionary {
    context *contexts;
    uint32_t n;
} dictionary;

typedef struct weight {
    double value, uses;
} weight;

typedef struct expert {
    uint32_t order; /* 0: match */
    double weight;
    weight *learned;
    double *distribution; /* V */
} expert;

struct reference {
    reference_options options;
    uint32_t *tokens;
    uint32_t n_tokens, max_tokens;
    dictionary orders[ORDERS];
    uint32_t match, match_length;
    /* [order][times seen][followers][model][right last time], and by length for the match */
    weight lists[ORDERS][5][LEVELS][LEVELS][2];
    weight matches[LONGEST_MATCH + 1][LEVELS][2];
    bool right[ORDERS];
    expert experts[ORDERS];
    uint32_t n_experts;
    double *model;
    bool pending;
};

struct reference *reference_create(reference_options options, uint32_t max_tokens) {
    struct reference *r = calloc(1, sizeof *r);
    if (r == NULL) abort();
    r->options = options;
    r->max_tokens = max_tokens;
    r->tokens = calloc(max_tokens, sizeof *r->tokens);
    r->model = calloc(options.vocabulary, sizeof *r->model);
    weight *all = &r->lists[0][0][0][0][0];
    for (size_t i = 0; i < sizeof r->lists / sizeof *all; i++) all[i].value = options.weight;
    all = &r->matches[0][0][0];
    for (size_t i = 0; i < sizeof r->matches / sizeof *all; i++) all[i].value = options.weight;
    for (uint32_t o = 1; o <= options.max_order; o++)
        r->orders[o].contexts = calloc(max_tokens, sizeof(context));
    for (uint32_t i = 0; i < ORDERS; i++)
        r->experts[i].distribution = calloc(options.vocabulary, sizeof(double));
    return r;
}

void reference_destroy(struct reference *r) {
    for (uint32_t o = 1; o <= r->options.max_order; o++) {
        for (uint32_t i = 0; i < r->orders[o].n; i++) free(r->orders[o].contexts[i].followers);
        free(r->orders[o].contexts);
    }
    for (uint32_t i = 0; i < ORDERS; i++) free(r->experts[i].distribution);
    free(r->tokens);
    free(r->model);
    free(r);
}

static context *find(struct reference *r, uint32_t order, bool add) {
    const uint32_t now = r->n_tokens;
    if (now < order) return NULL;
    dictionary *d = &r->orders[order];
    for (uint32_t i = 0; i < d->n; i++)
        if (memcmp(r->tokens + d->contexts[i].end - order, r->tokens + now - order,
                   order * sizeof *r->tokens) == 0)
            return &d->contexts[i];
    if (!add) return NULL;
    d->contexts[d->n] = (context){now, 0, calloc(r->options.vocabulary, sizeof(follower))};
    return &d->contexts[d->n++];
}

static uint32_t level(double x, const double *steps, uint32_t n) {
    uint32_t l = 0;
    while (l < n && x > steps[l]) l++;
    return l;
}

static uint32_t model_level(double p) {
    return level(p, (const double[]){0.001, 0.01, 0.05, 0.2, 0.5}, 5);
}

static uint32_t min_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

static uint32_t total_of(const context *c) {
    uint32_t total = 0;
    for (uint32_t i = 0; i < c->n; i++) total += c->followers[i].count;
    return total;
}

static expert *add_expert(struct reference *r, uint32_t order) {
    expert *e = &r->experts[r->n_experts++];
    e->order = order;
    memset(e->distribution, 0, r->options.vocabulary * sizeof *e->distribution);
    return e;
}

static void add_match(struct reference *r, const double *model) {
    const uint32_t length = min_of(r->match_length, r->options.match_length);
    if (length == 0) return;
    const uint32_t token = r->tokens[r->match];
    expert *e = add_expert(r, 0);
    e->distribution[token] = 1;
    e->learned = &r->matches[length][model_level(model[token])][r->right[0]];
    e->weight = r->options.learn ? e->learned->value : r->options.weight * length / (length + 10);
}

static void add_list(struct reference *r, uint32_t order, const double *model) {
    const reference_options *o = &r->options;
    const context *c = find(r, order, false);
    if (c == NULL || c->n == 0 || total_of(c) < o->min_count) return;
    expert *e = add_expert(r, order);
    double sum = 0;
    for (uint32_t i = 0; i < min_of(c->n, o->max_followers); i++)
        sum += e->distribution[c->followers[i].token] = c->followers[i].count - o->discount;
    for (uint32_t v = 0; v < o->vocabulary; v++) e->distribution[v] /= sum;
    const uint32_t seen = level(total_of(c), (const double[]){1.5, 3.5, 7.5, 15.5}, 4);
    const uint32_t width = level(c->n, (const double[]){1.5, 2.5, 4.5, 7.5, 31.5}, 5);
    const uint32_t view = model_level(model[c->followers[0].token]);
    e->learned = &r->lists[order][seen][width][view][r->right[order]];
    e->weight = o->learn ? e->learned->value : o->weight * (1 - o->discount * c->n / total_of(c));
}

void reference_predict(struct reference *r, const double *model, double *probabilities) {
    const uint32_t V = r->options.vocabulary;
    r->n_experts = 0;
    add_match(r, model);
    double left = 1 - RESERVE;
    if (r->n_experts > 0) left *= 1 - r->experts[0].weight;
    for (uint32_t o = r->options.max_order; o >= r->options.min_order; o--) {
        const uint32_t before = r->n_experts;
        if (left > r->options.stop) add_list(r, o, model);
        if (r->n_experts > before) left *= 1 - r->experts[before].weight;
    }
    memcpy(probabilities, model, V * sizeof *model);
    for (uint32_t i = r->n_experts; i-- > 0;) {
        const expert *e = &r->experts[i];
        for (uint32_t v = 0; v < V; v++)
            probabilities[v] = e->weight * e->distribution[v] + (1 - e->weight) * probabilities[v];
    }
    for (uint32_t v = 0; v < V; v++)
        probabilities[v] = RESERVE * model[v] + (1 - RESERVE) * probabilities[v];
    memcpy(r->model, model, V * sizeof *model);
    r->pending = true;
}

double reference_share(const struct reference *r) {
    double share = 1;
    for (uint32_t i = 0; i < r->n_experts; i++) share *= 1 - r->experts[i].weight;
    return RESERVE + (1 - RESERVE) * share;
}

double reference_mass(const struct reference *r, uint32_t token) {
    double mass = 0;
    for (uint32_t i = r->n_experts; i-- > 0;) {
        const expert *e = &r->experts[i];
        mass = e->weight * e->distribution[token] + (1 - e->weight) * mass;
    }
    return (1 - RESERVE) * mass;
}

bool reference_listed(struct reference *r, uint32_t token, uint32_t *order, uint32_t *count) {
    for (uint32_t i = 0; i < r->n_experts; i++) {
        if (!(r->experts[i].distribution[token] > 0)) continue;
        *order = r->experts[i].order;
        *count = 1;
        if (*order == 0) return true;
        const context *c = find(r, *order, false);
        for (uint32_t k = 0; k < c->n; k++)
            if (c->followers[k].token == token) *count = c->followers[k].count;
        return true;
    }
    return false;
}

uint32_t reference_match(const struct reference *r) { return r->match_length; }

/* Probability that the token came from expert i or from one below it. */
static double probability_from(const struct reference *r, uint32_t i, uint32_t token) {
    if (i == r->n_experts) return r->model[token];
    const expert *e = &r->experts[i];
    return e->weight * e->distribution[token] + (1 - e->weight) * probability_from(r, i + 1, token);
}

static void learn(struct reference *r, uint32_t token) {
    double reached = 1;
    for (uint32_t i = 0; i < r->n_experts; i++) {
        expert *e = &r->experts[i];
        const double all = probability_from(r, i, token);
        const double posterior = all > 0 ? e->weight * e->distribution[token] / all : 0;
        const double rate = fmax(2 / (e->learned->uses + 3), 1 / r->options.window);
        const double moved = e->weight + rate * reached * (posterior - e->weight);
        e->learned->value = fmin(fmax(moved, 1e-5), 1 - 1e-4);
        e->learned->uses += reached;
        reached *= 1 - posterior;
        const context *c = e->order > 0 ? find(r, e->order, false) : NULL;
        r->right[e->order] =
            c != NULL ? c->followers[0].token == token : r->tokens[r->match] == token;
    }
}

/* A growing count changes places with the first of those that were equal to it. */
static void count(context *c, uint32_t token) {
    uint32_t i = 0, j = 0;
    while (i < c->n && c->followers[i].token != token) i++;
    if (i == c->n) {
        c->followers[c->n++] = (follower){token, 1};
        return;
    }
    while (c->followers[j].count > c->followers[i].count) j++;
    const follower kept = c->followers[i];
    c->followers[i] = c->followers[j];
    c->followers[j] = (follower){token, kept.count + 1};
}

static void count_everywhere(struct reference *r, uint32_t token) {
    bool known = false;
    for (uint32_t o = r->options.max_order; o >= 1; o--) {
        context *c = find(r, o, true);
        if (c == NULL) continue;
        bool had = false;
        for (uint32_t i = 0; i < c->n; i++) had |= c->followers[i].token == token;
        if (!(had && known && r->options.exclusion)) count(c, token);
        known |= had;
    }
}

/* After the token is appended: where the last max_order + 1 tokens last stood before. */
static void follow(struct reference *r, bool right) {
    const uint32_t now = r->n_tokens, longest = r->options.max_order + 1;
    if (right) {
        r->match++;
        r->match_length = min_of(r->match_length + 1, LONGEST_MATCH);
        return;
    }
    r->match_length = 0;
    for (uint32_t end = now - 1; now > longest && end >= longest; end--) {
        uint32_t same = 0;
        while (same < min_of(end, LONGEST_MATCH) &&
               r->tokens[end - 1 - same] == r->tokens[now - 1 - same])
            same++;
        if (same < longest && same < LONGEST_MATCH) continue;
        r->match = end;
        r->match_length = same;
        return;
    }
}

void reference_update(struct reference *r, uint32_t token) {
    if (r->n_tokens == r->max_tokens) abort();
    if (r->pending && r->options.learn) learn(r, token);
    r->pending = false;
    count_everywhere(r, token);
    const bool right = r->match_length > 0 && r->tokens[r->match] == token;
    r->tokens[r->n_tokens++] = token;
    follow(r, right);
}
