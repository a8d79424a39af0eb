#include "kneser_ney.h"

#include <stdlib.h>
#include <string.h>

#include "ngrams.h"

/* Counts of both kinds: how often an n-gram was seen, and how many different tokens before it. */
enum { SEEN, BEFORE, KINDS };

/* A node as a context, of one kind. */
struct context {
    uint32_t total;   /* of its followers' counts */
    uint32_t some[3]; /* followers with a count of 1, 2, more */
};

struct node {
    uint32_t count[KINDS]; /* as an event */
    struct context context[KINDS];
};

struct kneser_ney {
    uint32_t vocabulary, order;
    struct ngrams *store;
    struct node *nodes; /* by the store's ids */
    uint32_t room;
    /* N-grams by order, kind and count, 1 to 4. */
    uint64_t counts_of_counts[KNESER_NEY_MOST_ORDER + 1][KINDS][5];
};

struct kneser_ney *kneser_ney_create(uint32_t vocabulary, uint32_t order) {
    struct kneser_ney *model = calloc(1, sizeof *model);
    if (model == NULL) return NULL;
    model->vocabulary = vocabulary;
    model->order = order;
    model->room = 1024;
    model->nodes = calloc(model->room, sizeof *model->nodes);
    model->store = ngrams_create(order);
    if (model->nodes != NULL && model->store != NULL) return model;
    kneser_ney_destroy(model);
    return NULL;
}

void kneser_ney_destroy(struct kneser_ney *model) {
    if (model == NULL) return;
    ngrams_destroy(model->store);
    free(model->nodes);
    free(model);
}

/* ---- probabilities ---- */

/* D for counts of 1, 2 and more. */
static void discounts_of(const struct kneser_ney *model, uint32_t order, int kind, double discount,
                         double d[3]) {
    const uint64_t *n = model->counts_of_counts[order][kind];
    const bool known = n[1] > 0 && n[2] > 0 && n[3] > 0 && n[4] > 0;
    for (int i = 0; i < 3; i++) d[i] = discount >= 0 ? discount : 0.75;
    if (discount >= 0 || !known) return;
    const double y = (double)n[1] / ((double)n[1] + 2.0 * (double)n[2]);
    for (int i = 0; i < 3; i++) {
        d[i] = i + 1 - (i + 2) * y * (double)n[i + 2] / (double)n[i + 1];
        if (d[i] < 0) d[i] = 0;
        if (d[i] > i + 1) d[i] = i + 1;
    }
}

/* One step of the recursion: `below` is what the next lower order says. */
static double interpolate(const struct context *context, uint32_t count, const double d[3],
                          double below) {
    if (context->total == 0) return below;
    double held = 0; /* taken off all followers */
    for (int i = 0; i < 3; i++) held += d[i] * context->some[i];
    const double off = count == 0 ? 0 : d[count < 3 ? count - 1 : 2];
    const double rest = count > off ? count - off : 0;
    return (rest + held * below) / context->total;
}

void kneser_ney_probabilities(const struct kneser_ney *model, uint32_t token, double discount,
                              double *p) {
    const struct ngrams *store = model->store;
    double below = 1.0 / model->vocabulary;
    for (uint32_t n = 1; n <= model->order; n++) {
        const uint32_t context = store->contexts[n - 1];
        p[n] = n > 1 ? p[n - 1] : below;
        if (context == NGRAMS_NONE) continue;
        const uint32_t event = ngrams_find(store, context, token);
        const struct node *here = &model->nodes[context], *there = &model->nodes[event];
        double d[KINDS][3];
        for (int kind = 0; kind < KINDS; kind++) discounts_of(model, n, kind, discount, d[kind]);
        const uint32_t seen = event != NGRAMS_NONE ? there->count[SEEN] : 0;
        const uint32_t before = event != NGRAMS_NONE ? there->count[BEFORE] : 0;
        p[n] = interpolate(&here->context[SEEN], seen, d[SEEN], below);
        below = interpolate(&here->context[BEFORE], before, d[BEFORE], below);
    }
}

/* ---- counting ---- */

static void count_once(struct kneser_ney *model, uint32_t order, int kind, uint32_t context,
                       uint32_t event) {
    const uint32_t count = ++model->nodes[event].count[kind];
    struct context *here = &model->nodes[context].context[kind];
    uint64_t *counts = model->counts_of_counts[order][kind];
    here->total++;
    if (count <= 3) here->some[count - 1]++;
    if (count == 2 || count == 3) here->some[count - 2]--;
    if (count <= 4) counts[count]++;
    if (count >= 2 && count <= 5) counts[count - 1]--;
}

static bool make_room(struct kneser_ney *model) {
    while (model->room < model->store->n_nodes) {
        struct node *nodes = realloc(model->nodes, 2 * (size_t)model->room * sizeof *nodes);
        if (nodes == NULL) return false;
        memset(nodes + model->room, 0, model->room * sizeof *nodes);
        model->nodes = nodes;
        model->room *= 2;
    }
    return true;
}

bool kneser_ney_update(struct kneser_ney *model, uint32_t token) {
    uint32_t contexts[NGRAMS_MOST_ORDER];
    struct ngrams *store = model->store;
    memcpy(contexts, store->contexts, sizeof contexts);
    if (!ngrams_advance(store, token) || !make_room(model)) return false;
    for (uint32_t n = 1; n <= model->order && store->events[n] != NGRAMS_NONE; n++) {
        count_once(model, n, SEEN, contexts[n - 1], store->events[n]);
        const bool first = model->nodes[store->events[n]].count[SEEN] == 1;
        if (n > 1 && first) /* one more token is known to come before the n-gram one shorter */
            count_once(model, n - 1, BEFORE, contexts[n - 2], store->events[n - 1]);
    }
    return true;
}

uint64_t kneser_ney_bytes(const struct kneser_ney *model) {
    return ngrams_bytes(model->store) + model->room * sizeof *model->nodes;
}
