/* An additive-logit n-gram, as a plain rival of the caches: exact counts c of what followed the
 * last three tokens (order 4), smoothed by adding a half to each of the V counts, q(v) = (c(v) +
 * 1/2) / (sum of c + V/2), and logit(v) += alpha * log(q(v) / (1/V)), normalised over the whole
 * vocabulary. All tokens that never followed share one q, so that the new distribution is p'(v) =
 * p(v) g(v) / Z,  g(v) = (2 c(v) + 1)^alpha,  Z = 1 + sum over what followed of p(v)(g(v) - 1).
 * Without alpha=, several are played and the one best for the whole stream is taken, in hindsight:
 * more than a predictor could know. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "contender.h"
#include "ngrams.h"

enum { ORDER = 4, MOST_ALPHAS = 16, TABLE = 1024 };

static const double swept[] = {0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0};

struct additive {
    struct ngrams *counts;
    uint64_t targets;
    double alphas[MOST_ALPHAS];
    size_t n_alphas;
    double gains[MOST_ALPHAS][TABLE]; /* by count */
    double *nats;                     /* [n_alphas][targets] */
};

static void close_additive(void *self) {
    struct additive *additive = self;
    if (additive == NULL) return;
    ngrams_destroy(additive->counts);
    free(additive->nats);
    free(additive);
}

static fw_status choose_alphas(struct additive *additive, const char *text, fw_error *error) {
    double alpha = -1;
    FW_TRY(contender_check_keys(text, additive_contender.keys, error));
    FW_TRY(contender_number(text, "alpha", 0, 10, &alpha, error));
    additive->n_alphas = alpha < 0 ? sizeof swept / sizeof *swept : 1;
    for (size_t a = 0; a < additive->n_alphas; a++) {
        additive->alphas[a] = alpha < 0 ? swept[a] : alpha;
        for (int c = 0; c < TABLE; c++)
            additive->gains[a][c] = pow(2.0 * c + 1.0, additive->alphas[a]);
    }
    return FW_OK;
}

static fw_status open_additive(const char *text, const struct rows_header *header,
                               const struct arguments *arguments, void **self, fw_error *error) {
    (void)arguments;
    struct additive *additive = calloc(1, sizeof *additive);
    if (additive == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for %s", text);
    additive->targets = header->windows.targets;
    fw_status status = choose_alphas(additive, text, error);
    additive->counts = ngrams_create(ORDER);
    additive->nats = calloc(additive->targets, (additive->n_alphas + 1) * sizeof(double));
    if (status == FW_OK && (additive->counts == NULL || additive->nats == NULL))
        status = fw_fail(error, FW_E_MEMORY, "no memory for the n-grams of %s", text);
    if (status == FW_OK)
        *self = additive;
    else
        close_additive(additive);
    return status;
}

static bool needs_no_entropy(const void *self) {
    (void)self;
    return false;
}

static double gain(const struct additive *additive, size_t alpha, uint32_t count) {
    return count < TABLE ? additive->gains[alpha][count]
                         : pow(2.0 * count + 1.0, additive->alphas[alpha]);
}

static void score(struct additive *additive, const double *p, uint32_t target, uint64_t position) {
    const struct ngrams_node *nodes = additive->counts->nodes;
    const uint32_t context = additive->counts->contexts[ORDER - 1];
    double z[MOST_ALPHAS], own[MOST_ALPHAS];
    for (size_t a = 0; a < additive->n_alphas; a++) {
        z[a] = 1;
        own[a] = 1;
    }
    const uint32_t first = context != NGRAMS_NONE ? nodes[context].first : NGRAMS_NONE;
    for (uint32_t id = first; id != NGRAMS_NONE; id = nodes[id].next)
        for (size_t a = 0; a < additive->n_alphas; a++) {
            const double g = gain(additive, a, nodes[id].count);
            z[a] += p[nodes[id].token] * (g - 1);
            if (nodes[id].token == target) own[a] = g;
        }
    for (size_t a = 0; a < additive->n_alphas; a++)
        additive->nats[a * additive->targets + position] = -log(p[target] * own[a] / z[a]);
}

static fw_status play(void *self, const struct block *block, double *nats, fw_error *error) {
    (void)nats;
    struct additive *additive = self;
    const uint16_t *tokens = block->header->tokens;
    for (uint64_t i = 0; i < block->n; i++) {
        const uint64_t position = block->first + i;
        score(additive, block->rows->probabilities + i * block->rows->vocabulary,
              tokens[position + 1], position);
        if (!ngrams_advance(additive->counts, tokens[position + 1]))
            return fw_fail(error, FW_E_MEMORY, "no memory for more n-grams");
    }
    return FW_OK;
}

static fw_status finish(void *self, const double *model, double *nats,
                        struct contender_result *result, fw_error *error) {
    (void)model;
    (void)error;
    const struct additive *additive = self;
    size_t best = 0;
    double least = INFINITY;
    for (size_t a = 0; a < additive->n_alphas; a++) {
        double sum = 0;
        for (uint64_t t = 0; t < additive->targets; t++)
            sum += additive->nats[a * additive->targets + t];
        if (sum < least) {
            least = sum;
            best = a;
        }
    }
    memcpy(nats, additive->nats + best * additive->targets, additive->targets * sizeof *nats);
    *result = (struct contender_result){.memory = ngrams_bytes(additive->counts)};
    (void)snprintf(result->note, sizeof result->note, "alpha %.2f%s", additive->alphas[best],
                   additive->n_alphas > 1 ? ", best in hindsight" : "");
    return FW_OK;
}

const struct contender_type additive_contender = {.name = "additive",
                                                  .keys = "alpha",
                                                  .open = open_additive,
                                                  .close = close_additive,
                                                  .needs_entropy = needs_no_entropy,
                                                  .play = play,
                                                  .finish = finish};
