#include "gains.h"

#include <math.h>
#include <string.h>

enum {
    LEVELS = 16, /* powers of two of a probability that are told apart */
    ENTROPIES = 6,
    MATCHES = 8,
    COUNTS = 8,
    N_TRUST = ENTROPIES * MATCHES,
    N_SAID = RECENT_CLASSES * LEVELS
};

static const double LEAST = -6, MOST = 20, NEVER_LOWERED = 0x1p-20; /* of s, and of p */

static uint32_t n_counted(const gains *g) { return (g->max_order + 1) * COUNTS * LEVELS; }

static uint32_t n_weights(const gains *g) {
    return N_TRUST + N_SAID + n_counted(g) + (g->max_order + 1) * LEVELS;
}

/* ---- memory ---- */

enum { LISTS_OF_REALS = 9, LISTS_OF_WORDS = 5 };

/* Room for any number of tokens, in whole groups. */
static size_t room_of(const gains *g) {
    return ((size_t)g->vocabulary + CURVES_AT_ONCE - 1) / CURVES_AT_ONCE * CURVES_AT_ONCE;
}

static size_t list_bytes(const gains *g) {
    return room_of(g) * (LISTS_OF_REALS * sizeof(double) + LISTS_OF_WORDS * sizeof(uint32_t));
}

/* All lists lie in one piece, which begins with list.p. */
static void lay_out(gains *g, double *memory) {
    candidates *list = &g->list;
    double **const reals[LISTS_OF_REALS] = {&list->p,     &list->mass, &list->ratio,
                                            &list->score, &list->gain, &list->slope,
                                            &list->seen,  &list->step, &g->rest.mass};
    for (size_t i = 0; i < LISTS_OF_REALS; i++, memory += room_of(g)) *reals[i] = memory;
    uint32_t *words = (uint32_t *)(void *)memory;
    uint32_t **const integers[LISTS_OF_WORDS] = {&list->tokens, &list->level, &list->counted,
                                                 &list->said, &g->rest.tokens};
    for (size_t i = 0; i < LISTS_OF_WORDS; i++, words += room_of(g)) *integers[i] = words;
}

fw_status gains_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                       gains_options options, gains *g, fw_error *error) {
    *g = (gains){.host = host,
                 .curves = curves_here(),
                 .options = options,
                 .vocabulary = shape->vocabulary,
                 .max_order = max_order};
    g->weights = host->allocate(host, n_weights(g) * sizeof *g->weights);
    g->entry = host->allocate(host, g->vocabulary * sizeof *g->entry);
    double *lists = host->allocate(host, list_bytes(g));
    if (lists != NULL) {
        memset(lists, 0, list_bytes(g));
        lay_out(g, lists);
    }
    if (g->weights == NULL || g->entry == NULL || lists == NULL) {
        gains_destroy(g);
        return fw_fail(error, FW_E_MEMORY, "no memory for the weights of the tilt cache");
    }
    g->trust = g->weights;
    g->said = g->trust + N_TRUST;
    g->counted = g->said + N_SAID;
    g->followed = g->counted + n_counted(g);
    memset(g->entry, 0, g->vocabulary * sizeof *g->entry);
    gains_clear(g);
    return FW_OK;
}

void gains_destroy(gains *g) {
    void *const held[] = {g->weights, g->entry, g->list.p};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i] != NULL) g->host->release(g->host, held[i]);
    *g = (gains){.host = g->host};
}

void gains_clear(gains *g) {
    memset(g->weights, 0, n_weights(g) * sizeof *g->weights);
    for (uint32_t i = 0; i < N_TRUST; i++) g->trust[i].value = 1;
    g->list.n = g->rest.n = 0;
}

uint64_t gains_bytes(const gains *g) {
    return n_weights(g) * sizeof *g->weights + g->vocabulary * sizeof *g->entry + list_bytes(g);
}

/* ---- what weights are selected by ---- */

static uint32_t entropy_level(double entropy) {
    static const double steps[ENTROPIES - 1] = {0.3, 0.8, 1.5, 2.5, 3.5};
    uint32_t level = 0;
    for (uint32_t i = 0; i < ENTROPIES - 1; i++) level += entropy > steps[i];
    return level;
}

static uint32_t match_level(uint32_t length) {
    static const uint32_t steps[MATCHES - 1] = {1, 8, 12, 16, 24, 32, 64};
    uint32_t level = 0;
    for (uint32_t i = 0; i < MATCHES - 1; i++) level += length >= steps[i];
    return level;
}

/* 1, 2, 3, 4, 6, 10, 20, 50 or more, as a table of the first 64. */
static const uint8_t count_levels[64] = {
    0, 0, 1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6,
    6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};

static uint32_t count_level(uint32_t count) { return count_levels[count < 63 ? count : 63]; }

/* k for p in [2^-(k + 1), 2^-k), from the number's own exponent; LEVELS - 1 for all less. */
static uint32_t level_of(double p) {
    uint64_t bits;
    memcpy(&bits, &p, sizeof bits);
    const int32_t level = 1022 - (int32_t)(bits >> 52);
    const int32_t bounded = level < LEVELS - 1 ? level : LEVELS - 1;
    return bounded > 0 ? (uint32_t)bounded : 0;
}

/* ---- candidates ---- */

static uint32_t find(const gains *g, uint32_t token) {
    const uint32_t entry = g->entry[token];
    return entry < g->list.n && g->list.tokens[entry] == token ? entry : g->list.n;
}

/* Part the n-gram cache's tokens `begin` to `end` into candidates and others, by writing each to
 * both lists: which one it goes to is as good as random, and a branch would be mistaken. Returns
 * what the model gives them. */
static double part(gains *g, const blend *mixer, const fw_row *row, const fw_prediction *stated,
                   uint32_t begin, uint32_t end, uint32_t order) {
    const uint32_t *restrict tokens = stated->tokens, *restrict counts = mixer->counts;
    const double *restrict masses = stated->values, *restrict probabilities = row->probabilities;
    const candidates list = g->list;
    const others rest = g->rest;
    const double likely = g->options.likely, scale = 1 / g->share;
    uint32_t n = list.n, n_rest = rest.n;
    double sum = 0;
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t token = tokens[i];
        const double p = probabilities[token], mass = masses[i];
        const bool candidate = p + mass * scale > likely;
        list.tokens[n] = rest.tokens[n_rest] = token;
        list.mass[n] = rest.mass[n_rest] = mass;
        list.p[n] = p;
        list.counted[n] = order * COUNTS + count_level(counts[i]);
        sum += p;
        n += candidate;
        n_rest += !candidate;
    }
    g->list.n = n;
    g->rest.n = n_rest;
    return sum;
}

static double add_listed(gains *g, const blend *mixer, const contexts *here, const fw_row *row,
                         const fw_prediction *stated) {
    uint32_t next = 0;
    double sum = 0;
    g->list.n = g->rest.n = 0;
    for (uint32_t e = 0; e < mixer->n_experts; e++) {
        const uint32_t order = mixer->experts[e].order, end = mixer->experts[e].end;
        sum += part(g, mixer, row, stated, next, end, order);
        if (order == 0) g->list.counted[0] = match_level(here->match_length);
        next = end;
    }
    for (uint32_t i = 0; i < g->list.n; i++) g->entry[g->list.tokens[i]] = i;
    return sum;
}

/* Those that the model alone holds likely: none, if what is listed leaves them too little. Whether
 * one is listed already is as good as random again. */
static void add_likely(gains *g, const fw_row *row, double listed_p, uint32_t most) {
    const double likely = g->options.likely;
    if (listed_p >= 1 - likely) return;
    const candidates list = g->list;
    uint32_t *const found = list.said; /* free until the classes are known */
    uint32_t *restrict entry = g->entry;
    const uint32_t n_found = g->curves->above(g->vocabulary, row->probabilities, likely, found);
    uint32_t n = list.n;
    for (uint32_t i = 0; i < n_found && n + g->rest.n < most; i++) {
        const uint32_t token = found[i], at = entry[token];
        const bool known = (at < n) & (list.tokens[at] == token);
        list.tokens[n] = token;
        list.p[n] = row->probabilities[token];
        list.mass[n] = 0;
        list.counted[n] = 0;
        entry[token] = known ? at : n;
        n += !known;
    }
    g->list.n = n;
}

/* ---- the statement ---- */

static void look_up(gains *g, const recent *document) {
    const candidates list = g->list;
    const weight *restrict said = g->said, *restrict counted = g->counted;
    recent_classes(document, list.tokens, list.n, list.said);
    for (uint32_t i = 0; i < list.n; i++) {
        const uint32_t level = level_of(list.p[i]);
        const uint32_t a = list.said[i] * LEVELS + level, b = list.counted[i] * LEVELS + level;
        list.level[i] = level;
        list.said[i] = a;
        list.counted[i] = b;
        list.score[i] = said[a].value + counted[b].value;
    }
}

/* The tokens that came last time after each context, in this document. */
static void follow(gains *g, const contexts *here, const recent *document) {
    uint32_t tokens[MAX_ORDER], orders[MAX_ORDER];
    const uint32_t n = recent_followers(document, here, tokens, orders);
    g->n_follows = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t entry = find(g, tokens[i]);
        if (entry == g->list.n) continue;
        weight *used = &g->followed[orders[i] * LEVELS + g->list.level[entry]];
        g->follows[g->n_follows].weight = used;
        g->follows[g->n_follows++].candidate = entry;
        g->list.score[entry] += used->value;
    }
}

static void bound_scores(const gains *g) {
    const candidates list = g->list;
    const double trust = g->trusted->value;
    for (uint32_t i = 0; i < list.n; i++) {
        const double least = list.p[i] < NEVER_LOWERED ? 0 : LEAST;
        const double score = list.score[i] + trust * list.ratio[i];
        const double raised = score > least ? score : least;
        list.score[i] = raised < MOST ? raised : MOST;
    }
}

static double sum_all(const gains *g) {
    double added = 0, sum = 1;
    for (uint32_t i = 0; i < g->rest.n; i++) added += g->rest.mass[i];
    for (uint32_t i = 0; i < g->list.n; i++) sum += g->list.p[i] * (g->list.gain[i] - 1);
    return sum + added / g->share;
}

void gains_state(gains *g, const blend *mixer, const contexts *here, const recent *document,
                 const fw_row *row, const fw_prediction *stated, uint32_t most) {
    const candidates *list = &g->list;
    g->share = stated->lm_weight;
    const double listed_p = add_listed(g, mixer, here, row, stated);
    add_likely(g, row, listed_p, most);
    look_up(g, document);
    follow(g, here, document);
    const uint32_t circumstance =
        entropy_level(row->entropy) * MATCHES + match_level(here->match_length);
    g->trusted = &g->trust[circumstance];
    g->curves->log_ratios(list->n, list->mass, list->p, g->share, list->ratio);
    bound_scores(g);
    g->curves->gains(list->n, list->score, list->gain);
    g->normaliser = sum_all(g);
}

given gains_given(const gains *g, uint32_t token, double p) {
    const uint32_t entry = find(g, token);
    double mass = 0, tilted = p;
    if (entry < g->list.n) {
        mass = g->list.mass[entry];
        tilted = p * g->list.gain[entry];
    } else {
        for (uint32_t i = 0; i < g->rest.n; i++)
            if (g->rest.tokens[i] == token) mass = g->rest.mass[i];
        tilted = p + mass / g->share;
    }
    return (given){entry, g->share * p + mass, tilted / g->normaliser};
}

/* ---- learning ---- */

/* All weights of a table that the candidates used; a weight used twice sums both steps. */
static void move_all(const gains *g, weight *restrict table, const uint32_t *restrict used) {
    const candidates list = g->list;
    for (uint32_t i = 0; i < list.n; i++) list.seen[i] = table[used[i]].seen;
    g->curves->steps(list.n, list.slope, list.seen, g->options.rate, list.step);
    for (uint32_t i = 0; i < list.n; i++) {
        weight *one = &table[used[i]];
        one->value -= list.step[i];
        one->seen += list.slope[i] * list.slope[i];
    }
}

static void move_one(weight *one, double slope, double rate) {
    one->value -= rate * slope / sqrt(1 + one->seen + slope * slope);
    one->seen += slope * slope;
}

void gains_learn(gains *g, uint32_t entry) {
    const candidates list = g->list;
    const double scale = 1 / g->normaliser;
    double of_trust = 0;
    for (uint32_t i = 0; i < list.n; i++) list.slope[i] = list.p[i] * list.gain[i] * scale;
    if (entry < list.n) list.slope[entry] -= 1;
    for (uint32_t i = 0; i < list.n; i++) of_trust += list.slope[i] * list.ratio[i];
    for (uint32_t i = 0; i < g->n_follows; i++)
        move_one(g->follows[i].weight, list.slope[g->follows[i].candidate], g->options.rate);
    move_all(g, g->said, list.said);
    move_all(g, g->counted, list.counted);
    move_one(g->trusted, of_trust, g->options.trust_rate);
}
