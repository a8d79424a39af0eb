#include "gains.h"

#include <string.h>

enum {
    LEVELS = 16, /* powers of two of a probability that are told apart */
    ENTROPIES = 6,
    MATCHES = 8,
    COUNTS = 8,
    N_THETA = ENTROPIES * MATCHES,
    N_SAID = RECENT_CLASSES * LEVELS,
    NEVER_LOWERED = 20 /* tokens below 2^-20 are not */
};

static const double LEAST = -6, MOST = 20; /* of s */

static uint32_t n_counted(const gains *g) { return (g->max_order + 1) * COUNTS * LEVELS; }

static uint32_t n_weights(const gains *g) {
    return N_THETA + N_SAID + n_counted(g) + (g->max_order + 1) * LEVELS;
}

/* ---- memory ---- */

/* The candidates' arrays lie in one piece; `room` elements each. */
static size_t list_bytes(uint32_t room) { return room * (8 * sizeof(double) + 4 * 4); }

static void lay_out(candidates *list, uint32_t room, double *memory) {
    double **const reals[] = {&list->p,    &list->mass,  &list->ratio, &list->score,
                              &list->gain, &list->slope, &list->seen,  &list->step};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++, memory += room) *reals[i] = memory;
    uint32_t *words = (uint32_t *)(void *)memory;
    uint32_t **const integers[] = {&list->tokens, &list->level, &list->counted, &list->said};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++, words += room)
        *integers[i] = words;
    list->room = room;
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
    double *lists = host->allocate(host, list_bytes(g->vocabulary));
    if (lists != NULL) lay_out(&g->list, g->vocabulary, lists);
    if (g->weights == NULL || g->entry == NULL || lists == NULL) {
        gains_destroy(g);
        return fw_fail(error, FW_E_MEMORY, "no memory for the weights of the tilt cache");
    }
    g->theta = g->weights;
    g->said = g->theta + N_THETA;
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
    for (uint32_t i = 0; i < N_THETA; i++) g->theta[i].value = 1;
    g->list.n = 0;
}

uint64_t gains_bytes(const gains *g) {
    return n_weights(g) * sizeof *g->weights + g->vocabulary * sizeof *g->entry +
           list_bytes(g->vocabulary);
}

/* ---- what weights are selected by ---- */

static uint32_t entropy_level(double entropy) {
    static const double steps[ENTROPIES - 1] = {0.3, 0.8, 1.5, 2.5, 3.5};
    uint32_t level = 0;
    for (uint32_t i = 0; i < ENTROPIES - 1; i++) level += entropy > steps[i];
    return level;
}

/* How many of the ascending `steps` the number reaches. */
static uint32_t level_among(const uint32_t *steps, uint32_t n, uint32_t number) {
    uint32_t level = 0;
    for (uint32_t i = 0; i < n; i++) level += number >= steps[i];
    return level;
}

static uint32_t match_level(uint32_t length) {
    static const uint32_t steps[MATCHES - 1] = {1, 8, 12, 16, 24, 32, 64};
    return level_among(steps, MATCHES - 1, length);
}

static uint32_t count_level(uint32_t count) {
    static const uint32_t steps[COUNTS - 1] = {2, 3, 4, 6, 10, 20, 50};
    return level_among(steps, COUNTS - 1, count);
}

/* k for p in [2^-(k + 1), 2^-k), from the number's own exponent; LEVELS - 1 for all less. */
static uint32_t level_of(double p) {
    uint64_t bits;
    memcpy(&bits, &p, sizeof bits);
    const uint32_t exponent = (uint32_t)(bits >> 52);
    if (exponent >= 1022) return 0;
    const uint32_t level = 1022 - exponent;
    return level < LEVELS ? level : LEVELS - 1;
}

/* ---- candidates ---- */

static void add_candidate(gains *g, uint32_t token, double mass) {
    candidates *list = &g->list;
    list->tokens[list->n] = token;
    list->mass[list->n] = mass;
    list->counted[list->n] = 0;
    g->entry[token] = list->n++;
}

uint32_t gains_find(const gains *g, uint32_t token) {
    const uint32_t entry = g->entry[token];
    return entry < g->list.n && g->list.tokens[entry] == token ? entry : g->list.n;
}

/* For the tokens of the n-gram cache: the highest order that lists each, and its count there. The
 * cache lists what is new to each order from the top down, in the order of its followers. */
static void find_counts(gains *g, const blend *mixer, const contexts *here) {
    candidates *list = &g->list;
    uint32_t next = 0;
    for (uint32_t e = 0; e < mixer->n_experts; e++) {
        const expert *one = &mixer->experts[e];
        if (one->order == 0) {
            list->counted[next++] = match_level(here->match_length) * LEVELS;
            continue;
        }
        const trie_followers followers = trie_look(here->store, here->active[one->order]);
        for (uint32_t j = 0; j < one->listed && next < list->n; j++) {
            if (followers.tokens[j] != list->tokens[next]) continue;
            const uint32_t row = one->order * COUNTS + count_level(followers.counts[j]);
            list->counted[next++] = row * LEVELS;
        }
    }
}

static void add_likely(gains *g, const fw_row *row, uint32_t most) {
    if (g->options.model_above >= 1) return;
    uint32_t *found = g->list.level; /* free until the levels are known */
    const uint32_t n =
        g->curves->above(g->vocabulary, row->probabilities, g->options.model_above, found);
    for (uint32_t i = 0; i < n && g->list.n < most; i++)
        if (gains_find(g, found[i]) == g->list.n) add_candidate(g, found[i], 0.0);
}

/* ---- the statement ---- */

static void look_up(gains *g, const recent *document, const fw_row *row) {
    candidates *list = &g->list;
    for (uint32_t i = 0; i < list->n; i++) {
        const uint32_t token = list->tokens[i];
        const double p = row->probabilities[token];
        const uint32_t level = level_of(p);
        list->p[i] = p;
        list->level[i] = level;
        list->said[i] = recent_class(document, token) * LEVELS + level;
        list->counted[i] += level;
        list->score[i] = g->said[list->said[i]].value + g->counted[list->counted[i]].value;
    }
}

/* The tokens that came last time after each context, in this document. */
static void follow(gains *g, const contexts *here, const recent *document) {
    g->n_follows = 0;
    for (uint32_t o = 1; o <= g->max_order; o++) {
        uint32_t token;
        if (here->active[o] == TRIE_NONE || !recent_follower(document, here->active[o], &token))
            continue;
        const uint32_t entry = gains_find(g, token);
        if (entry == g->list.n) continue;
        weight *used = &g->followed[o * LEVELS + g->list.level[entry]];
        g->follows[g->n_follows].weight = used;
        g->follows[g->n_follows++].candidate = entry;
        g->list.score[entry] += used->value;
    }
}

static void bound_scores(gains *g) {
    const candidates *list = &g->list;
    const double trust = g->trust->value;
    for (uint32_t i = 0; i < list->n; i++) {
        const double least = list->p[i] < 0x1p-20 ? 0 : LEAST;
        const double score = list->score[i] + trust * list->ratio[i];
        const double raised = score > least ? score : least;
        list->score[i] = raised < MOST ? raised : MOST;
    }
}

void gains_state(gains *g, const blend *mixer, const contexts *here, const recent *document,
                 const fw_row *row, const fw_prediction *stated, uint32_t most) {
    candidates *list = &g->list;
    list->n = 0;
    for (uint32_t i = 0; i < stated->n; i++) add_candidate(g, stated->tokens[i], stated->values[i]);
    find_counts(g, mixer, here);
    add_likely(g, row, most);
    look_up(g, document, row);
    follow(g, here, document);
    const uint32_t matched = match_level(here->match_length);
    g->trust = &g->theta[entropy_level(row->entropy) * MATCHES + matched];
    g->curves->log_ratios(list->n, list->mass, list->p, stated->lm_weight, list->ratio);
    bound_scores(g);
    g->curves->gains(list->n, list->score, list->gain);
    g->normaliser = 1;
    for (uint32_t i = 0; i < list->n; i++) g->normaliser += list->p[i] * (list->gain[i] - 1);
}

/* ---- learning ---- */

/* All weights of a table that the candidates used; a weight used twice sums both steps. */
static void move_all(gains *g, weight *table, const uint32_t *used) {
    const candidates *list = &g->list;
    for (uint32_t i = 0; i < list->n; i++) list->seen[i] = table[used[i]].seen;
    g->curves->steps(list->n, list->slope, list->seen, g->options.rate, list->step);
    for (uint32_t i = 0; i < list->n; i++) {
        weight *one = &table[used[i]];
        one->value -= list->step[i];
        one->seen += list->slope[i] * list->slope[i];
    }
}

static void move_one(const gains *g, weight *one, double slope, double rate) {
    double step;
    g->curves->steps(1, &slope, &one->seen, rate, &step);
    one->value -= step;
    one->seen += slope * slope;
}

void gains_learn(gains *g, uint32_t entry) {
    const candidates *list = &g->list;
    const double scale = 1 / g->normaliser;
    double of_trust = 0;
    for (uint32_t i = 0; i < list->n; i++) list->slope[i] = list->p[i] * list->gain[i] * scale;
    if (entry < list->n) list->slope[entry] -= 1;
    for (uint32_t i = 0; i < list->n; i++) of_trust += list->slope[i] * list->ratio[i];
    for (uint32_t i = 0; i < g->n_follows; i++)
        move_one(g, g->follows[i].weight, list->slope[g->follows[i].candidate], g->options.rate);
    move_all(g, g->said, list->said);
    move_all(g, g->counted, list->counted);
    move_one(g, g->trust, of_trust, g->options.trust_rate);
}
