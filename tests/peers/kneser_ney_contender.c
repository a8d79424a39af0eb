/* Kneser-Ney mixed with the model, p = (1 - w) p_model + w P_n: order n, discount and weight w that
 * are not given are tuned on the first part of the stream and kept from there on. The tuned values
 * score that part too, which is more than a predictor could know. With tune=1 they are tuned on the
 * whole stream, in hindsight: no predictor of this form does better. */
#include <math.h>
#include <stdlib.h>

#include "contender.h"
#include "kneser_ney.h"

enum { FIRST_ORDER = 2, LAST_ORDER = 5, MOST_DISCOUNTS = 10, ORDERS = LAST_ORDER + 1 };

static const double tried[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, KNESER_NEY_MODIFIED};

struct setting {
    uint32_t order;
    double discount, weight, nats; /* nats: of the part that was tuned on */
    const float *p;                /* of all targets */
};

struct tuned {
    const struct rows_header *header;
    uint32_t first_order, last_order;
    double discounts[MOST_DISCOUNTS];
    size_t n_discounts;
    double weight; /* below 0: tuned */
    double share;  /* of the stream that is tuned on */
    float *p[ORDERS][MOST_DISCOUNTS];
    uint64_t memory;
};

static void close_kneser_ney(void *self) {
    struct tuned *tuned = self;
    if (tuned == NULL) return;
    for (uint32_t n = 0; n < ORDERS; n++)
        for (size_t d = 0; d < MOST_DISCOUNTS; d++) free(tuned->p[n][d]);
    free(tuned);
}

static fw_status choose(struct tuned *tuned, const char *text, fw_error *error) {
    double order = 0, discount = 0, modified = 0, weight = -1, share = 0.05;
    FW_TRY(contender_check_keys(text, kneser_ney_contender.keys, error));
    FW_TRY(contender_number(text, "order", FIRST_ORDER, LAST_ORDER, &order, error));
    FW_TRY(contender_number(text, "discount", 0.01, 1, &discount, error));
    FW_TRY(contender_number(text, "modified", 0, 1, &modified, error));
    FW_TRY(contender_number(text, "weight", 0, 1, &weight, error));
    FW_TRY(contender_number(text, "tune", 0.001, 1, &share, error));
    tuned->first_order = order > 0 ? (uint32_t)order : FIRST_ORDER;
    tuned->last_order = order > 0 ? (uint32_t)order : LAST_ORDER;
    if (modified > 0) discount = KNESER_NEY_MODIFIED;
    const bool given = modified > 0 || discount > 0;
    tuned->n_discounts = given ? 1 : sizeof tried / sizeof *tried;
    for (size_t d = 0; d < tuned->n_discounts; d++)
        tuned->discounts[d] = given ? discount : tried[d];
    tuned->weight = weight;
    tuned->share = share;
    return FW_OK;
}

static fw_status allocate(struct tuned *tuned, const char *text, fw_error *error) {
    for (uint32_t n = tuned->first_order; n <= tuned->last_order; n++)
        for (size_t d = 0; d < tuned->n_discounts; d++) {
            tuned->p[n][d] = calloc(tuned->header->windows.targets, sizeof(float));
            if (tuned->p[n][d] == NULL)
                return fw_fail(error, FW_E_MEMORY, "no memory for the probabilities of %s", text);
        }
    return FW_OK;
}

static fw_status open_kneser_ney(const char *text, const struct rows_header *header,
                                 const struct arguments *arguments, void **self, fw_error *error) {
    (void)arguments;
    struct tuned *tuned = calloc(1, sizeof *tuned);
    if (tuned == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for %s", text);
    tuned->header = header;
    fw_status status = choose(tuned, text, error);
    if (status == FW_OK) status = allocate(tuned, text, error);
    if (status == FW_OK)
        *self = tuned;
    else
        close_kneser_ney(tuned);
    return status;
}

static bool needs_no_entropy(const void *self) {
    (void)self;
    return false;
}

/* The rows matter only through the model's own code lengths: all is done once these are known. */
static fw_status play(void *self, const struct block *block, double *nats, fw_error *error) {
    (void)self;
    (void)block;
    (void)nats;
    (void)error;
    return FW_OK;
}

static fw_status count_stream(struct tuned *tuned, struct kneser_ney *model, fw_error *error) {
    const uint16_t *tokens = tuned->header->tokens;
    double p[ORDERS];
    for (uint64_t t = 0; t < tuned->header->windows.targets; t++) {
        for (size_t d = 0; d < tuned->n_discounts; d++) {
            kneser_ney_probabilities(model, tokens[t + 1], tuned->discounts[d], p);
            for (uint32_t n = tuned->first_order; n <= tuned->last_order; n++)
                tuned->p[n][d][t] = (float)p[n];
        }
        if (!kneser_ney_update(model, tokens[t + 1]))
            return fw_fail(error, FW_E_MEMORY, "no memory for more n-grams");
    }
    tuned->memory = kneser_ney_bytes(model);
    return FW_OK;
}

/* ---- tuning ---- */

/* Derivative of the log-likelihood of n targets by the weight. */
static double slope(const double *model, const float *p, uint64_t n, double weight) {
    double sum = 0;
    for (uint64_t t = 0; t < n; t++)
        sum += (p[t] - model[t]) / ((1 - weight) * model[t] + weight * p[t]);
    return sum;
}

/* The log-likelihood is concave in the weight. */
static double best_weight(const double *model, const float *p, uint64_t n) {
    double low = 0, high = 1;
    for (int step = 0; step < 20; step++) {
        const double middle = (low + high) / 2;
        if (slope(model, p, n, middle) > 0)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

static double mixed(const double *model, const float *p, double weight, uint64_t t) {
    return -log((1 - weight) * model[t] + weight * p[t]);
}

static struct setting tune(const struct tuned *tuned, const double *model) {
    const uint64_t targets = tuned->header->windows.targets;
    const uint64_t part = (uint64_t)ceil(tuned->share * (double)targets);
    struct setting best = {.nats = INFINITY};
    for (uint32_t n = tuned->first_order; n <= tuned->last_order; n++)
        for (size_t d = 0; d < tuned->n_discounts; d++) {
            struct setting one = {n, tuned->discounts[d], tuned->weight, 0, tuned->p[n][d]};
            if (one.weight < 0) one.weight = best_weight(model, one.p, part);
            for (uint64_t t = 0; t < part; t++) one.nats += mixed(model, one.p, one.weight, t);
            if (one.nats < best.nats) best = one;
        }
    return best;
}

static void describe(const struct tuned *tuned, const struct setting *best, char *note,
                     size_t size) {
    char discount[32] = "modified";
    if (best->discount >= 0) (void)snprintf(discount, sizeof discount, "%.2f", best->discount);
    const bool all_given =
        tuned->weight >= 0 && tuned->n_discounts == 1 && tuned->first_order == tuned->last_order;
    char how[64] = "";
    if (!all_given && tuned->share < 1)
        (void)snprintf(how, sizeof how, ", tuned on the first %g%%", 100 * tuned->share);
    else if (!all_given)
        (void)snprintf(how, sizeof how, ", best in hindsight");
    (void)snprintf(note, size, "order %u, discount %s, weight %.4f%s", best->order, discount,
                   best->weight, how);
}

static fw_status mix(const struct tuned *tuned, const double *nats_of_model, double *nats,
                     struct contender_result *result, fw_error *error) {
    const uint64_t targets = tuned->header->windows.targets;
    double *model = calloc(targets, sizeof *model);
    if (model == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the probabilities of the model");
    for (uint64_t t = 0; t < targets; t++) model[t] = exp(-nats_of_model[t]);
    const struct setting best = tune(tuned, model);
    for (uint64_t t = 0; t < targets; t++) nats[t] = mixed(model, best.p, best.weight, t);
    free(model);
    *result = (struct contender_result){.memory = tuned->memory};
    describe(tuned, &best, result->note, sizeof result->note);
    return FW_OK;
}

static fw_status finish(void *self, const double *model, double *nats,
                        struct contender_result *result, fw_error *error) {
    struct tuned *tuned = self;
    struct kneser_ney *counts =
        kneser_ney_create(tuned->header->table->vocabulary, tuned->last_order);
    if (counts == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for Kneser-Ney's counts");
    const fw_status status = count_stream(tuned, counts, error);
    kneser_ney_destroy(counts);
    return status == FW_OK ? mix(tuned, model, nats, result, error) : status;
}

const struct contender_type kneser_ney_contender = {.name = "kneser_ney",
                                                    .keys = "order discount modified weight tune",
                                                    .open = open_kneser_ney,
                                                    .close = close_kneser_ney,
                                                    .needs_entropy = needs_no_entropy,
                                                    .play = play,
                                                    .finish = finish};
