#include "tilt_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ORDERS = 33, POWERS = 16, EXPERTS = 3, MOST_USED = 4 + ORDERS };

typedef struct weight {
    double value;
    double pace; /* of trust: the sum of squared gradients */
} weight;

/* A context that stood in the stream, named by where it first did: the `order` tokens before `end`.
 */
typedef struct known_context {
    uint32_t order, end;
} known_context;

/* A place that contexts share: the last one, what followed it, and where. */
typedef struct place {
    uint32_t number, token, at;
} place;

/* What the score of a token rests on. */
typedef struct token_score {
    bool candidate;
    double ratio;
    weight *used[MOST_USED];
    uint32_t n_used;
    double score;
} token_score;

struct tilt_reference {
    tilt_options options;
    struct reference *ngram;
    uint32_t *tokens, n_tokens, begin;
    weight trust[6][8];
    weight said[32][POWERS];
    weight counted[ORDERS][8][POWERS];
    weight followed[ORDERS][POWERS];
    weight *own, *pair; /* V, and of pairs: the token before, the token */
    uint32_t n_pairs;
    known_context *contexts; /* in the order of their numbers */
    uint32_t n_contexts;
    uint32_t numbers[ORDERS]; /* of the contexts that stand now, by order; 0: none */
    place *places;
    double hedge[EXPERTS];
    token_score *scores;     /* V */
    double *stated[EXPERTS]; /* V: model, n-gram cache, tilt */
    weight *trusted;
    bool pending;
};

static void set_pace(weight *weights, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof *weights; i++) weights[i].pace = 1;
}

static uint32_t pairs_for(const tilt_options *options) {
    const uint32_t all = options->ngram.vocabulary * options->ngram.vocabulary;
    uint32_t n = 1;
    if (options->pairs == 0 || all <= options->pairs) return options->pairs == 0 ? 0 : all;
    while (2 * n <= options->pairs) n *= 2;
    return n;
}

struct tilt_reference *tilt_reference_create(tilt_options options, uint32_t max_tokens) {
    const uint32_t V = options.ngram.vocabulary;
    struct tilt_reference *r = calloc(1, sizeof *r);
    if (r == NULL) abort();
    r->options = options;
    r->ngram = reference_create(options.ngram, max_tokens);
    r->tokens = calloc(max_tokens, sizeof *r->tokens);
    r->scores = calloc(V, sizeof *r->scores);
    for (uint32_t k = 0; k < EXPERTS; k++) {
        r->stated[k] = calloc(V, sizeof(double));
        r->hedge[k] = 1.0 / EXPERTS;
    }
    r->own = calloc(V, sizeof *r->own);
    r->n_pairs = pairs_for(&r->options);
    r->pair = calloc(r->n_pairs + 1, sizeof *r->pair);
    r->contexts = calloc((size_t)max_tokens * ORDERS, sizeof *r->contexts);
    r->places = calloc((size_t)1 << options.recent_bits, sizeof *r->places);
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t j = 0; j < 8; j++) r->trust[i][j].value = 1;
    set_pace(&r->said[0][0], sizeof r->said);
    set_pace(&r->counted[0][0][0], sizeof r->counted);
    set_pace(&r->followed[0][0], sizeof r->followed);
    set_pace(r->own, V * sizeof(weight));
    set_pace(r->pair, r->n_pairs * sizeof(weight));
    return r;
}

void tilt_reference_destroy(struct tilt_reference *r) {
    reference_destroy(r->ngram);
    for (uint32_t k = 0; k < EXPERTS; k++) free(r->stated[k]);
    free(r->own);
    free(r->pair);
    free(r->contexts);
    free(r->places);
    free(r->tokens);
    free(r->scores);
    free(r);
}

static uint32_t reached(double x, const double *steps, uint32_t n) {
    uint32_t level = 0;
    while (level < n && x >= steps[level]) level++;
    return level;
}

static uint32_t power_of(double p) {
    int exponent = 0;
    (void)frexp(p, &exponent);
    if (p <= 0 || -exponent >= POWERS) return POWERS - 1;
    return exponent >= 0 ? 0 : (uint32_t)-exponent;
}

/* How lately and how often the document had the token: 6 distances by 5 counts, then 30 for earlier
 * documents and 31 for none. */
static uint32_t said_class(const struct tilt_reference *r, uint32_t token) {
    uint32_t last = UINT32_MAX, count = 0;
    for (uint32_t t = 0; t < r->n_tokens; t++)
        if (r->tokens[t] == token) {
            last = t;
            count += t >= r->begin;
        }
    if (last == UINT32_MAX) return 31;
    if (count == 0) return 30;
    const double distance = r->n_tokens - last;
    return reached(distance, (const double[]){8, 32, 128, 512, 2048}, 5) * 5 +
           reached(count, (const double[]){2, 4, 8, 20}, 4);
}

/* The upper `bits` bits of the product. */
static uint32_t hashed(uint32_t number, uint32_t bits) {
    const uint32_t product = number * UINT32_C(0x9e3779b1);
    return (uint32_t)((uint64_t)product << bits >> 32);
}

static uint32_t number_of(struct tilt_reference *r, uint32_t order) {
    const uint32_t now = r->n_tokens;
    for (uint32_t i = 0; i < r->n_contexts; i++)
        if (r->contexts[i].order == order &&
            memcmp(r->tokens + r->contexts[i].end - order, r->tokens + now - order,
                   order * sizeof *r->tokens) == 0)
            return i + 1;
    r->contexts[r->n_contexts] = (known_context){order, now};
    return ++r->n_contexts;
}

/* `token` comes after the contexts that stand now; others stand then. */
static void fill_places(struct tilt_reference *r, uint32_t token) {
    const uint32_t bits = r->options.recent_bits, longest = r->options.ngram.max_order;
    for (uint32_t o = 1; o <= longest && bits > 0; o++)
        if (r->numbers[o] > 0)
            r->places[hashed(r->numbers[o], bits)] = (place){r->numbers[o], token, r->n_tokens};
}

static void number_contexts(struct tilt_reference *r) {
    for (uint32_t o = r->options.ngram.max_order; o >= 1 && r->options.recent_bits > 0; o--)
        r->numbers[o] = o <= r->n_tokens ? number_of(r, o) : 0;
}

/* Did `token` follow the last `order` tokens when they last stood before a place in this document?
 * Nobody knows where another context has taken the place of this one. */
static bool followed_last(const struct tilt_reference *r, uint32_t order, uint32_t token) {
    const uint32_t now = r->n_tokens;
    if (r->options.recent_bits > 0) {
        const place *at = &r->places[hashed(r->numbers[order], r->options.recent_bits)];
        return at->number == r->numbers[order] && at->at >= r->begin && at->token == token;
    }
    for (uint32_t t = now; t-- > r->begin && t >= order;)
        if (memcmp(r->tokens + t - order, r->tokens + now - order, order * sizeof *r->tokens) == 0)
            return r->tokens[t] == token;
    return false;
}

static uint32_t match_level(const struct tilt_reference *r) {
    return reached(reference_match(r->ngram), (const double[]){1, 8, 12, 16, 24, 32, 64}, 7);
}

static void use(token_score *one, weight *w) { one->used[one->n_used++] = w; }

static weight *pair_weight(struct tilt_reference *r, uint32_t before, uint32_t token) {
    const uint32_t V = r->options.ngram.vocabulary, number = before * V + token;
    uint32_t bits = 0;
    if (r->n_pairs == V * V) return &r->pair[number];
    while (1u << bits < r->n_pairs) bits++;
    return &r->pair[hashed(number, bits)];
}

static void score_candidate(struct tilt_reference *r, uint32_t token, double p) {
    token_score *one = &r->scores[token];
    const uint32_t power = power_of(p);
    uint32_t order = 0, count = 0, level = 0;
    if (reference_listed(r->ngram, token, &order, &count))
        level = order == 0 ? match_level(r)
                           : reached(count, (const double[]){2, 3, 4, 6, 10, 20, 50}, 7);
    use(one, &r->said[said_class(r, token)][power]);
    use(one, &r->counted[order][level][power]);
    use(one, &r->own[token]);
    const uint32_t before = r->n_tokens > 0 ? r->tokens[r->n_tokens - 1] : 0;
    if (r->n_pairs > 0) use(one, pair_weight(r, before, token));
    for (uint32_t o = 1; o <= r->options.ngram.max_order && o <= r->n_tokens; o++)
        if (followed_last(r, o, token)) use(one, &r->followed[o][power]);
    one->score = r->trusted->value * one->ratio;
    for (uint32_t i = 0; i < one->n_used; i++) one->score += one->used[i]->value;
    one->score = fmin(fmax(one->score, p < 1.0 / 1048576 ? 0 : -6), 20);
}

static void score(struct tilt_reference *r, uint32_t token, double p) {
    const double share = reference_share(r->ngram), mass = reference_mass(r->ngram, token);
    token_score *one = &r->scores[token];
    *one = (token_score){.candidate = p + mass / share > r->options.likely,
                         .ratio = log(1 + mass / (share * fmax(p, 0x1p-100)))};
    one->score = one->ratio;
    if (one->candidate) score_candidate(r, token, p);
}

void tilt_reference_predict(struct tilt_reference *r, const double *model, double *probabilities) {
    const uint32_t V = r->options.ngram.vocabulary;
    double entropy = 0, sum = 0;
    memcpy(r->stated[0], model, V * sizeof *model);
    reference_predict(r->ngram, model, r->stated[1]);
    for (uint32_t v = 0; v < V; v++)
        if (model[v] > 0) entropy -= model[v] * log(model[v]);
    uint32_t disorder = 0;
    while (disorder < 5 && entropy > (const double[]){0.3, 0.8, 1.5, 2.5, 3.5}[disorder])
        disorder++;
    r->trusted = &r->trust[disorder][match_level(r)];
    for (uint32_t v = 0; v < V; v++) {
        score(r, v, model[v]);
        r->stated[2][v] = model[v] * exp(r->scores[v].score);
        sum += r->stated[2][v];
    }
    for (uint32_t v = 0; v < V; v++) {
        r->stated[2][v] /= sum;
        probabilities[v] = 0;
        for (uint32_t k = 0; k < EXPERTS; k++) probabilities[v] += r->hedge[k] * r->stated[k][v];
    }
    r->pending = true;
}

static void move_trust(weight *w, double slope, double rate) {
    w->pace += slope * slope;
    w->value -= rate * slope / sqrt(1 + w->pace);
}

/* What all candidates together do to a weight: first the steps, by its old pace; then the pace. */
typedef struct pull {
    weight *on;
    double slope, squares;
} pull;

static void learn(struct tilt_reference *r, uint32_t token) {
    const uint32_t V = r->options.ngram.vocabulary;
    pull *pulls = calloc((size_t)V * MOST_USED, sizeof *pulls);
    if (pulls == NULL) abort();
    uint32_t n = 0;
    double of_trust = 0;
    for (uint32_t v = 0; v < V; v++) {
        if (!r->scores[v].candidate) continue;
        const double slope = r->stated[2][v] - (v == token);
        of_trust += slope * r->scores[v].ratio;
        for (uint32_t i = 0; i < r->scores[v].n_used; i++) {
            uint32_t k = 0;
            while (k < n && pulls[k].on != r->scores[v].used[i]) k++;
            if (k == n) pulls[n++].on = r->scores[v].used[i];
            pulls[k].slope += slope;
            pulls[k].squares += slope * slope;
        }
    }
    for (uint32_t k = 0; k < n; k++) {
        weight *w = pulls[k].on;
        w->value -= r->options.rate * w->pace * pulls[k].slope;
        w->pace = fmax(w->pace - pow(w->pace, 3) * pulls[k].squares / 2, 0.02);
    }
    move_trust(r->trusted, of_trust, r->options.trust_rate);
    free(pulls);
}

static void weigh(struct tilt_reference *r, uint32_t token) {
    double all = 0;
    for (uint32_t k = 0; k < EXPERTS; k++) all += r->hedge[k] * r->stated[k][token];
    for (uint32_t k = 0; k < EXPERTS; k++)
        r->hedge[k] = (1 - r->options.switching) * r->hedge[k] * r->stated[k][token] / all +
                      r->options.switching / EXPERTS;
}

void tilt_reference_update(struct tilt_reference *r, uint32_t token) {
    if (r->pending) {
        weigh(r, token);
        learn(r, token);
    }
    r->pending = false;
    reference_update(r->ngram, token);
    fill_places(r, token);
    if (token == r->options.boundary) r->begin = r->n_tokens;
    r->tokens[r->n_tokens++] = token;
    number_contexts(r);
}
