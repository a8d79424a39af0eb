/* The recursion of blend.h from the top expert down, in sparse form, and its learning. The idea of
 * estimating escapes by circumstance comes from PPM (Cleary and Witten 1984; Bloom 1998). */
#include "blend.h"

#include <string.h>

enum {
    COUNT_LEVELS = 5,    /* contexts seen 1, 2, 4, 8, 16 or more times */
    FOLLOWER_LEVELS = 6, /* 1, 2, 3, 5, 8 or more followers */
    MODEL_LEVELS = 6,    /* what the model gives the first follower */
    CELLS = COUNT_LEVELS * FOLLOWER_LEVELS * MODEL_LEVELS * 2,
    MATCH_CELLS = (MAX_MATCH + 1) * MODEL_LEVELS * 2
};

/* The model always keeps this much, so that no sequence of confident experts can silence it. */
static const double RESERVE = 0x1p-20;
static const double LEAST_WEIGHT = 1e-5, MOST_WEIGHT = 1 - 1e-4;

static size_t n_cells(const blend *mixer) { return MATCH_CELLS + (size_t)CELLS * mixer->max_order; }

fw_status blend_create(const fw_host *host, const fw_cache_shape *shape, uint32_t max_order,
                       blend_options options, blend *mixer, fw_error *error) {
    *mixer = (blend){.host = host,
                     .options = options,
                     .vocabulary = shape->vocabulary,
                     .max_order = max_order,
                     .max_entries = shape->max_entries};
    mixer->masses = host->allocate(host, mixer->vocabulary * sizeof *mixer->masses);
    mixer->listed = host->allocate(host, (mixer->vocabulary + 1) * sizeof *mixer->listed);
    mixer->counts = host->allocate(host, (mixer->vocabulary + 1) * sizeof *mixer->counts);
    if (options.learn) mixer->cells = host->allocate(host, n_cells(mixer) * sizeof *mixer->cells);
    if (mixer->masses == NULL || mixer->listed == NULL || mixer->counts == NULL ||
        (options.learn && mixer->cells == NULL)) {
        blend_destroy(mixer);
        return fw_fail(error, FW_E_MEMORY, "no memory for the weights of the n-gram cache");
    }
    memset(mixer->masses, 0, mixer->vocabulary * sizeof *mixer->masses);
    blend_clear(mixer);
    return FW_OK;
}

void blend_destroy(blend *mixer) {
    void *const held[] = {mixer->masses, mixer->listed, mixer->counts, mixer->cells};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i] != NULL) mixer->host->release(mixer->host, held[i]);
    *mixer = (blend){.host = mixer->host};
}

void blend_clear(blend *mixer) {
    memset(mixer->right, 0, sizeof mixer->right);
    mixer->n_experts = 0;
    mixer->pending = false;
    for (size_t i = 0; mixer->cells != NULL && i < n_cells(mixer); i++)
        mixer->cells[i] = (cell){mixer->options.weight, 0.0};
}

static uint32_t count_level(uint32_t total) {
    uint32_t level = 0;
    while (level + 1 < COUNT_LEVELS && total >= 2u << level) level++;
    return level;
}

static uint32_t follower_level(uint32_t n) {
    static const uint8_t levels[8] = {0, 0, 1, 2, 2, 3, 3, 3};
    if (n < 8) return levels[n];
    return n < 32 ? 4 : 5;
}

static uint32_t model_level(double probability) {
    static const double steps[MODEL_LEVELS - 1] = {0.001, 0.01, 0.05, 0.2, 0.5};
    uint32_t level = 0;
    for (uint32_t i = 0; i < MODEL_LEVELS - 1; i++) level += probability > steps[i];
    return level;
}

static cell *list_cell(blend *mixer, uint32_t order, trie_followers list, const fw_row *row) {
    uint32_t bucket = count_level(list.total);
    bucket = bucket * FOLLOWER_LEVELS + follower_level(list.n);
    bucket = bucket * MODEL_LEVELS + model_level(row->probabilities[list.tokens[0]]);
    bucket = bucket * 2 + mixer->right[order];
    return &mixer->cells[MATCH_CELLS + (size_t)CELLS * (order - 1) + bucket];
}

static uint32_t told_length(const blend *mixer, const contexts *here) {
    const uint32_t most = mixer->options.match_length;
    return here->match_length < most ? here->match_length : most;
}

static cell *match_cell(blend *mixer, const contexts *here, const fw_row *row) {
    uint32_t bucket = told_length(mixer, here);
    bucket = bucket * MODEL_LEVELS + model_level(row->probabilities[contexts_match_token(here)]);
    return &mixer->cells[bucket * 2 + mixer->right[0]];
}

/* Weight without learning: the share that absolute discounting leaves to the list. */
static double list_weight(const blend_options *options, trie_followers list) {
    return options->weight * (1 - options->discount * list.n / list.total);
}

/* Add share * (count - discount) for each of n followers, opening entries where there are none.
 * Masses are collected by token and are positive, so a zero marks a token not yet listed; the loop
 * knows no branch but its end, for whether a token is new is as good as random. */
static void add_masses(blend *mixer, fw_prediction *prediction, const uint32_t *tokens,
                       const uint32_t *counts, uint32_t n, double share) {
    double *const restrict masses = mixer->masses;
    uint32_t *const restrict listed = mixer->listed;
    uint32_t *const restrict first = mixer->counts;
    const double off = share * mixer->options.discount;
    uint32_t next = prediction->n;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t token = tokens[i];
        const double before = masses[token];
        masses[token] = before + (share * counts[i] - off);
        listed[next] = token;
        first[next] = counts[i];
        next += before <= 0.0;
    }
    prediction->n = next;
}

/* Move the masses to their entries and leave zeros behind. */
static void hand_over(const blend *mixer, uint32_t n, uint32_t *restrict tokens,
                      double *restrict values) {
    double *const restrict masses = mixer->masses;
    const uint32_t *const restrict listed = mixer->listed;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t token = listed[i];
        tokens[i] = token;
        values[i] = masses[token];
        masses[token] = 0.0;
    }
}

static double state_match(blend *mixer, const contexts *here, const fw_row *row,
                          fw_prediction *prediction, double left) {
    const uint32_t length = mixer->options.match_length == 0 ? 0 : told_length(mixer, here);
    if (length == 0 || mixer->max_entries == 0) return left;
    cell *learned = mixer->options.learn ? match_cell(mixer, here, row) : NULL;
    const double sure = (double)length / (length + 10.0);
    const double weight = learned != NULL ? learned->weight : mixer->options.weight * sure;
    const uint32_t token = contexts_match_token(here), once = 1;
    add_masses(mixer, prediction, &token, &once, 1, left * weight / (1 - mixer->options.discount));
    mixer->experts[mixer->n_experts++] = (expert){0, 1, prediction->n, weight, 1.0, learned};
    return left * (1 - weight);
}

static double state_list(blend *mixer, uint32_t order, trie_followers list, const fw_row *row,
                         fw_prediction *prediction, double left) {
    const blend_options *options = &mixer->options;
    const bool roomy = mixer->max_entries >= mixer->vocabulary;
    const uint32_t room = roomy ? UINT32_MAX : mixer->max_entries - prediction->n;
    uint32_t n = list.n < options->max_followers ? list.n : options->max_followers;
    if (n > room) n = room;
    if (n == 0 || list.total < options->min_count || left <= options->stop) return left;
    uint64_t sum = list.total;
    if (n < list.n) {
        sum = 0;
        for (uint32_t i = 0; i < n; i++) sum += list.counts[i];
    }
    cell *learned = options->learn ? list_cell(mixer, order, list, row) : NULL;
    const double weight = learned != NULL ? learned->weight : list_weight(options, list);
    const double scale = 1 / ((double)sum - options->discount * n);
    const double share = left * weight * scale;
    add_masses(mixer, prediction, list.tokens, list.counts, n, share);
    mixer->experts[mixer->n_experts++] = (expert){order, n, prediction->n, weight, scale, learned};
    return left * (1 - weight);
}

void blend_predict(blend *mixer, const contexts *here, const fw_row *row,
                   fw_prediction *prediction) {
    for (uint32_t o = mixer->options.min_order; o <= mixer->max_order; o++)
        if (here->active[o] != TRIE_NONE)
            trie_prefetch_list(here->store, here->active[o], mixer->options.max_followers);
    mixer->row = row->probabilities;
    mixer->pending = mixer->options.learn;
    mixer->n_experts = 0;
    prediction->form = FW_PREDICT_MIX;
    prediction->n = 0;
    double left = state_match(mixer, here, row, prediction, 1 - RESERVE);
    for (uint32_t o = mixer->max_order; o >= mixer->options.min_order; o--)
        if (here->active[o] != TRIE_NONE)
            left = state_list(mixer, o, trie_look(here->store, here->active[o]), row, prediction,
                              left);
    hand_over(mixer, prediction->n, prediction->tokens, prediction->values);
    prediction->lm_weight = left + RESERVE;
}

/* F_e(token) for the token that contexts_find looked up. */
static double stated(const blend *mixer, const expert *one, const contexts *here, uint32_t token) {
    if (one->order == 0) return contexts_match_token(here) == token ? 1.0 : 0.0;
    const trie_place place = here->found[one->order];
    if (place.rank >= one->listed) return 0.0;
    return (place.count - mixer->options.discount) * one->scale;
}

/* What the weight itself is answerable for moves it; early steps are larger, so that a cell finds
 * its level within a few tokens. */
static void move_weight(const blend *mixer, cell *learned, double posterior, double reached) {
    const double soon = 2 / (learned->updates + 3.0), late = 1 / mixer->options.window;
    const double rate = soon > late ? soon : late;
    double weight = learned->weight + rate * reached * (posterior - learned->weight);
    if (weight < LEAST_WEIGHT) weight = LEAST_WEIGHT;
    if (weight > MOST_WEIGHT) weight = MOST_WEIGHT;
    *learned = (cell){weight, learned->updates + reached};
}

void blend_learn(blend *mixer, const contexts *here, uint32_t token) {
    if (!mixer->pending) return;
    mixer->pending = false;
    double posterior[MAX_ORDER + 1];
    double below = mixer->row[token];
    for (uint32_t i = mixer->n_experts; i-- > 0;) { /* experts[0] is the top one */
        const expert *one = &mixer->experts[i];
        const double own = one->weight * stated(mixer, one, here, token);
        below = own + (1 - one->weight) * below;
        posterior[i] = below > 0 ? own / below : 0.0;
    }
    double reached = 1.0;
    for (uint32_t i = 0; i < mixer->n_experts; i++) {
        const expert *one = &mixer->experts[i];
        move_weight(mixer, one->learned, posterior[i], reached);
        reached *= 1 - posterior[i];
        mixer->right[one->order] = one->order == 0 ? contexts_match_token(here) == token
                                                   : here->found[one->order].rank == 0;
    }
}

uint64_t blend_bytes(const blend *mixer) {
    const uint64_t learned = n_cells(mixer) * sizeof *mixer->cells;
    const uint64_t per_token = sizeof *mixer->masses + 2 * sizeof *mixer->listed;
    return (mixer->options.learn ? learned : 0) + mixer->vocabulary * per_token;
}
