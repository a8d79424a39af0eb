#include "gains.h"

#include <math.h>
#include <string.h>

#include "../prefetch.h"

enum {
    LEVELS = 16, /* powers of two of a probability that are told apart */
    ENTROPIES = 6,
    MATCHES = 8,
    COUNTS = 8,
    N_TRUST = ENTROPIES * MATCHES,
    N_SAID = RECENT_CLASSES * LEVELS
};

static const double LEAST = -6, MOST = 20, NEVER_LOWERED = 0x1p-20; /* of s, and of p */
static const double LEAST_PACE = 0.02;

/* ---- memory ---- */

static uint32_t n_followed(const gains *g) { return (g->max_order + 1) * LEVELS; }

static size_t table_size(const gains *g, uint32_t table) {
    const size_t sizes[TABLES] = {N_SAID, (size_t)n_followed(g) * COUNTS, g->vocabulary,
                                  g->n_pairs};
    return sizes[table];
}

static size_t n_weights(const gains *g) {
    size_t n = N_TRUST + n_followed(g);
    for (uint32_t k = 0; k < TABLES; k++) n += table_size(g, k);
    return n;
}

static void share_out(gains *g) {
    weight *next = g->weights;
    g->trust = next;
    g->followed = next += N_TRUST;
    next += n_followed(g);
    for (uint32_t k = 0; k < TABLES; k++) {
        g->tables[k] = next;
        next += table_size(g, k);
    }
}

enum { LISTS_OF_REALS = 7 + TABLES, LISTS_OF_WORDS = 3 + TABLES };

/* Room for any number of tokens, in whole groups. Few places are in use at a time, the same ones in
 * every list: three cache lines more keep them from falling into the same sets of the processor's
 * cache, as they would if lists were a power of two apart. */
static size_t room_of(const gains *g) {
    const size_t apart = 3 * 64 / sizeof(double);
    return ((size_t)g->vocabulary + CURVES_AT_ONCE - 1) / CURVES_AT_ONCE * CURVES_AT_ONCE + apart;
}

static size_t list_bytes(const gains *g) {
    return room_of(g) * (LISTS_OF_REALS * sizeof(double) + LISTS_OF_WORDS * sizeof(uint32_t));
}

/* All lists lie in one piece, which begins with list.p. */
static void lay_out(gains *g, double *memory) {
    candidates *list = &g->list;
    double **const reals[LISTS_OF_REALS] = {
        &list->p,         &list->mass,   &list->ratio,      &list->score,         &list->gain,
        &list->slope,     &g->rest.mass, &list->pace[SAID], &list->pace[COUNTED], &list->pace[OWN],
        &list->pace[PAIR]};
    for (size_t i = 0; i < LISTS_OF_REALS; i++, memory += room_of(g)) *reals[i] = memory;
    uint32_t *words = (uint32_t *)(void *)memory;
    uint32_t **const integers[LISTS_OF_WORDS] = {
        &list->tokens,        &list->level,     &g->rest.tokens,  &list->used[SAID],
        &list->used[COUNTED], &list->used[OWN], &list->used[PAIR]};
    for (size_t i = 0; i < LISTS_OF_WORDS; i++, words += room_of(g)) *integers[i] = words;
}

/* One for each pair of tokens, or the largest power of two that is allowed. */
static uint32_t pairs_within(uint32_t vocabulary, uint32_t most) {
    const uint64_t all = (uint64_t)vocabulary * vocabulary;
    if (all <= most) return (uint32_t)all;
    uint32_t n = most > 0;
    while (2 * (uint64_t)n <= most && n > 0) n *= 2;
    return n;
}

fw_status gains_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                       gains_options options, gains *g, fw_error *error) {
    *g = (gains){.host = host,
                 .curves = curves_here(),
                 .options = options,
                 .vocabulary = shape->vocabulary,
                 .max_order = max_order,
                 .n_pairs = pairs_within(shape->vocabulary, options.most_pairs)};
    g->n_tables = g->n_pairs > 0 ? TABLES : PAIR;
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
    share_out(g);
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
    for (size_t i = 0, n = n_weights(g); i < n; i++) g->weights[i] = (weight){0, 1};
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

/* Each pair has a weight of its own where there are enough, else Fibonacci hashing (Knuth). */
static uint32_t pair_of(const gains *g, uint32_t before, uint32_t token) {
    const uint32_t pair = before * g->vocabulary + token;
    if ((uint64_t)g->vocabulary * g->vocabulary <= g->n_pairs) return pair;
    return (uint32_t)((uint64_t)(pair * UINT32_C(0x9e3779b1)) * g->n_pairs >> 32);
}

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
        list.used[COUNTED][n] = order * COUNTS + count_level(counts[i]);
        sum += p;
        n += candidate;
        n_rest += !candidate;
    }
    g->list.n = n;
    g->rest.n = n_rest;
    return sum;
}

/* The weights of pairs lie far apart: they are asked for long before they are needed. */
static void find_pairs(gains *g, uint32_t before, uint32_t begin) {
    if (g->n_tables <= PAIR) return;
    const uint32_t *restrict tokens = g->list.tokens;
    uint32_t *restrict pairs = g->list.used[PAIR];
    for (uint32_t i = begin; i < g->list.n; i++) {
        pairs[i] = pair_of(g, before, tokens[i]);
        prefetch(&g->tables[PAIR][pairs[i]]);
    }
}

static double add_listed(gains *g, const blend *mixer, const contexts *here, const fw_row *row,
                         const fw_prediction *stated) {
    uint32_t next = 0;
    double sum = 0;
    g->list.n = g->rest.n = 0;
    for (uint32_t e = 0; e < mixer->n_experts; e++) {
        const uint32_t order = mixer->experts[e].order, end = mixer->experts[e].end;
        sum += part(g, mixer, row, stated, next, end, order);
        if (order == 0) g->list.used[COUNTED][0] = match_level(here->match_length);
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
    uint32_t *const found = list.used[SAID]; /* free until the classes are known */
    uint32_t *restrict entry = g->entry;
    const uint32_t n_found = g->curves->above(g->vocabulary, row->probabilities, likely, found);
    uint32_t n = list.n;
    for (uint32_t i = 0; i < n_found && n + g->rest.n < most; i++) {
        const uint32_t token = found[i], at = entry[token];
        const bool known = (at < n) & (list.tokens[at] == token);
        list.tokens[n] = token;
        list.p[n] = row->probabilities[token];
        list.mass[n] = 0;
        list.used[COUNTED][n] = 0;
        entry[token] = known ? at : n;
        n += !known;
    }
    g->list.n = n;
}

/* ---- the statement ---- */

static void add_pairs(gains *g) {
    if (g->n_tables <= PAIR) return;
    const uint32_t *restrict pairs = g->list.used[PAIR];
    const weight *restrict weights = g->tables[PAIR];
    double *restrict score = g->list.score, *restrict pace = g->list.pace[PAIR];
    for (uint32_t i = 0; i < g->list.n; i++) {
        const weight one = weights[pairs[i]];
        score[i] += one.value;
        pace[i] = one.pace;
    }
}

static void look_up(gains *g) {
    const candidates list = g->list;
    const weight *restrict all_said = g->tables[SAID], *restrict all_counted = g->tables[COUNTED];
    const weight *restrict all_own = g->tables[OWN];
    uint32_t *restrict said = list.used[SAID], *restrict counted = list.used[COUNTED];
    for (uint32_t i = 0; i < list.n; i++) {
        const uint32_t level = level_of(list.p[i]), token = list.tokens[i];
        const uint32_t a = said[i] * LEVELS + level, b = counted[i] * LEVELS + level;
        const weight by_said = all_said[a], by_count = all_counted[b], own = all_own[token];
        list.level[i] = level;
        said[i] = a;
        counted[i] = b;
        list.used[OWN][i] = token;
        list.pace[SAID][i] = by_said.pace;
        list.pace[COUNTED][i] = by_count.pace;
        list.pace[OWN][i] = own.pace;
        list.score[i] = by_said.value + by_count.value + own.value;
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
    const uint32_t n_listed = list->n;
    find_pairs(g, document->last, 0);
    add_likely(g, row, listed_p, most);
    find_pairs(g, document->last, n_listed);
    recent_classes(document, list->tokens, list->n, list->used[SAID]);
    look_up(g);
    follow(g, here, document);
    const uint32_t circumstance =
        entropy_level(row->entropy) * MATCHES + match_level(here->match_length);
    g->trusted = &g->trust[circumstance];
    g->curves->log_ratios(list->n, list->mass, list->p, g->share, list->ratio);
    add_pairs(g);
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

/* A step by `pace`, which is the weight's own before the token came. */
static void move(weight *one, double pace, double rate, double slope) {
    const double step = pace * slope, shrunk = one->pace - 0.5 * pace * step * step;
    one->value -= rate * step;
    one->pace = shrunk > LEAST_PACE ? shrunk : LEAST_PACE;
}

/* All weights of a table that the candidates used; a weight used twice sums both steps. */
static void move_all(const gains *g, uint32_t table) {
    const uint32_t *restrict used = g->list.used[table];
    const double *restrict slopes = g->list.slope, *restrict paces = g->list.pace[table];
    weight *restrict weights = g->tables[table];
    const double rate = g->options.rate;
    for (uint32_t i = 0; i < g->list.n; i++) move(&weights[used[i]], paces[i], rate, slopes[i]);
}

/* Those of what followed last, no two of which are the same. */
static void move_followed(const gains *g) {
    for (uint32_t i = 0; i < g->n_follows; i++) {
        weight *one = g->follows[i].weight;
        move(one, one->pace, g->options.rate, g->list.slope[g->follows[i].candidate]);
    }
}

static void move_trust(const gains *g, weight *one, double slope) {
    one->pace = 1 / sqrt(1 / (one->pace * one->pace) + slope * slope);
    one->value -= g->options.trust_rate * one->pace * slope;
}

void gains_learn(gains *g, uint32_t entry) {
    const candidates list = g->list;
    const double scale = 1 / g->normaliser;
    double of_trust = 0;
    for (uint32_t i = 0; i < list.n; i++) list.slope[i] = list.p[i] * list.gain[i] * scale;
    if (entry < list.n) list.slope[entry] -= 1;
    for (uint32_t i = 0; i < list.n; i++) of_trust += list.slope[i] * list.ratio[i];
    move_followed(g);
    for (uint32_t k = 0; k < g->n_tables; k++) move_all(g, k);
    move_trust(g, g->trusted, of_trust);
}
