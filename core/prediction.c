/* One pass over what was listed both checks it and finds the target; only when something is off
 * does a second pass look for what to say. Sums run in four lanes of fixed order: exact enough,
 * the same on every machine, and not bound by the latency of one addition. */
#include "prediction.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double SUM_TOLERANCE = 1e-6;
static const double LEAST_NORMALISER = 1e-6;
static const double LARGEST_WEIGHT = 1000;

/* Everything needed to turn a token into its probability, once a prediction is checked:
 *   mix    (weight * p(v) + value) / normaliser
 *   tilt   p(v) * value / normaliser
 *   dense  value / normaliser */
struct checked {
    double weight;
    double normaliser;
    double target_value; /* what the list says of the target: mass, gain; 0 or 1 if not listed */
};

struct prediction_buffers *prediction_buffers_create(uint32_t vocabulary) {
    if (vocabulary == 0) return NULL;
    struct prediction_buffers *buffers = calloc(1, sizeof *buffers);
    if (buffers == NULL) return NULL;
    buffers->vocabulary = vocabulary;
    buffers->tokens = calloc(vocabulary, sizeof *buffers->tokens);
    buffers->values = calloc(vocabulary, sizeof *buffers->values);
    buffers->dense = calloc(vocabulary, sizeof *buffers->dense);
    buffers->stamps = calloc(vocabulary, sizeof *buffers->stamps);
    if (buffers->tokens == NULL || buffers->values == NULL || buffers->dense == NULL ||
        buffers->stamps == NULL) {
        prediction_buffers_destroy(buffers);
        return NULL;
    }
    return buffers;
}

void prediction_buffers_destroy(struct prediction_buffers *buffers) {
    if (buffers == NULL) return;
    free(buffers->tokens);
    free(buffers->values);
    free(buffers->dense);
    free(buffers->stamps);
    free(buffers);
}

void prediction_prepare(struct prediction_buffers *buffers, fw_prediction *prediction) {
    *prediction = (fw_prediction){.struct_size = sizeof *prediction,
                                  .tokens = buffers->tokens,
                                  .values = buffers->values,
                                  .dense = buffers->dense};
}

static unsigned long long at(const fw_row *row) { return (unsigned long long)row->position; }

static uint32_t next_stamp(struct prediction_buffers *buffers) {
    if (++buffers->stamp == 0) {
        memset(buffers->stamps, 0, buffers->vocabulary * sizeof *buffers->stamps);
        buffers->stamp = 1;
    }
    return buffers->stamp;
}

/* Tokens below V and no token twice; which of the n entries is the target's, or n. */
static fw_status check_tokens(struct prediction_buffers *buffers, const fw_row *row, uint32_t n,
                              uint32_t target, uint32_t *target_entry, fw_error *error) {
    if (n > buffers->vocabulary)
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the cache lists %u tokens, more than the %u of the "
                       "vocabulary",
                       at(row), n, buffers->vocabulary);
    const uint32_t stamp = next_stamp(buffers);
    uint32_t entry = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t token = buffers->tokens[i];
        if (token >= buffers->vocabulary)
            return fw_fail(error, FW_E_PROTOCOL,
                           "position %llu: entry %u of the cache's list is token %u; tokens are "
                           "below %u",
                           at(row), i, token, buffers->vocabulary);
        if (buffers->stamps[token] == stamp)
            return fw_fail(error, FW_E_PROTOCOL,
                           "position %llu: the cache lists token %u twice; each may stand once",
                           at(row), token);
        buffers->stamps[token] = stamp;
        if (token == target) entry = i;
    }
    *target_entry = entry;
    return FW_OK;
}

/* Sum in four lanes, and the least value; a NaN anywhere makes the sum NaN. */
static double sum_and_least(const double *values, uint32_t n, double *least) {
    double sums[4] = {0, 0, 0, 0}, lows[4] = {0, 0, 0, 0};
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (uint32_t k = 0; k < 4; k++) {
            sums[k] += values[i + k];
            lows[k] = values[i + k] < lows[k] ? values[i + k] : lows[k];
        }
    for (; i < n; i++) {
        sums[i & 3] += values[i];
        lows[i & 3] = values[i] < lows[i & 3] ? values[i] : lows[i & 3];
    }
    *least = fmin(fmin(lows[0], lows[1]), fmin(lows[2], lows[3]));
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static fw_status refuse_values(const struct prediction_buffers *buffers, const fw_row *row,
                               uint32_t n, const char *what, fw_error *error) {
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(buffers->values[i]))
            return fw_fail(error, FW_E_PROTOCOL,
                           "position %llu: the %s of token %u is %g; it must be finite", at(row),
                           what, buffers->tokens[i], buffers->values[i]);
    return fw_fail(error, FW_E_PROTOCOL, "position %llu: the %ss are too large to add up", at(row),
                   what);
}

static bool below_floor(double weight, double p, double mass) {
    return ((mass < 0) | (weight <= 0)) & !(weight * p + mass >= PREDICTION_FLOOR);
}

static fw_status refuse_floor(const struct prediction_buffers *buffers, const fw_row *row,
                              double weight, fw_error *error) {
    uint32_t i = 0;
    while (!below_floor(weight, row->probabilities[buffers->tokens[i]], buffers->values[i])) i++;
    const double mass = buffers->values[i];
    return fw_fail(error, FW_E_PROTOCOL,
                   "position %llu: mass %g leaves token %u a probability of %g; it must be 1e-12 "
                   "or more",
                   at(row), mass, buffers->tokens[i],
                   weight * row->probabilities[buffers->tokens[i]] + mass);
}

/* The floor that matters when a mass is negative or the language model has no weight. Which masses
 * are negative is as good as random, so the loop does not branch on it. */
static fw_status check_floor(const struct prediction_buffers *buffers, const fw_row *row,
                             uint32_t n, double weight, fw_error *error) {
    bool below = false;
    for (uint32_t i = 0; i < n; i++)
        below |= below_floor(weight, row->probabilities[buffers->tokens[i]], buffers->values[i]);
    return below ? refuse_floor(buffers, row, weight, error) : FW_OK;
}

static fw_status check_mix(struct prediction_buffers *buffers, const fw_row *row,
                           const fw_prediction *prediction, uint32_t target, struct checked *result,
                           fw_error *error) {
    const uint32_t n = prediction->n;
    const double weight = prediction->lm_weight;
    uint32_t entry = 0;
    FW_TRY(check_tokens(buffers, row, n, target, &entry, error));
    if (!(weight >= 0 && weight <= LARGEST_WEIGHT))
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: lm_weight is %g; it must lie in [0, 1000]", at(row), weight);
    double least = 0;
    const double masses = sum_and_least(buffers->values, n, &least);
    if (!isfinite(masses)) return refuse_values(buffers, row, n, "mass", error);
    const double sum = weight + masses;
    if (!(fabs(sum - 1) <= SUM_TOLERANCE))
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: lm_weight %.9g and masses of %.9g sum to %.9g; they must "
                       "sum to 1 within 1e-6",
                       at(row), weight, masses, sum);
    if (least < 0 || weight == 0) FW_TRY(check_floor(buffers, row, n, weight, error));
    *result = (struct checked){weight, sum, entry < n ? buffers->values[entry] : 0.0};
    return FW_OK;
}

static fw_status check_tilt(struct prediction_buffers *buffers, const fw_row *row,
                            const fw_prediction *prediction, uint32_t target,
                            struct checked *result, fw_error *error) {
    const uint32_t n = prediction->n;
    uint32_t entry = 0;
    FW_TRY(check_tokens(buffers, row, n, target, &entry, error));
    double least = 0;
    const double gains = sum_and_least(buffers->values, n, &least);
    if (!isfinite(gains)) return refuse_values(buffers, row, n, "gain", error);
    double lanes[4] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        if (buffers->values[i] < 0)
            return fw_fail(error, FW_E_PROTOCOL,
                           "position %llu: the gain of token %u is %g; it must not be negative",
                           at(row), buffers->tokens[i], buffers->values[i]);
        lanes[i & 3] += row->probabilities[buffers->tokens[i]] * (buffers->values[i] - 1);
    }
    const double normaliser = 1 + ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
    if (!(normaliser >= LEAST_NORMALISER))
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the gains leave a total of %g; it must be 1e-6 or more",
                       at(row), normaliser);
    *result = (struct checked){0.0, normaliser, entry < n ? buffers->values[entry] : 1.0};
    return FW_OK;
}

static fw_status check_dense(const struct prediction_buffers *buffers, const fw_row *row,
                             uint32_t target, struct checked *result, fw_error *error) {
    double least = 0;
    const double sum = sum_and_least(buffers->dense, buffers->vocabulary, &least);
    if (!(fabs(sum - 1) <= SUM_TOLERANCE) || least < 0) {
        for (uint32_t v = 0; v < buffers->vocabulary; v++)
            if (!(buffers->dense[v] >= 0 && buffers->dense[v] <= 1))
                return fw_fail(error, FW_E_PROTOCOL,
                               "position %llu: the probability of token %u is %g; it must lie in "
                               "[0, 1]",
                               at(row), v, buffers->dense[v]);
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the probabilities sum to %.9g; they must sum to 1 within "
                       "1e-6",
                       at(row), sum);
    }
    *result = (struct checked){0.0, sum, buffers->dense[target]};
    return FW_OK;
}

static fw_status check_unverified(const struct prediction_buffers *buffers, const fw_row *row,
                                  const fw_prediction *prediction, fw_error *error) {
    if (!buffers->allow_unverified)
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the cache states no distribution that can be verified; "
                       "use another cache, or on_violation = report for a score marked INVALID",
                       at(row));
    if (prediction->probability == NULL)
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the unverified form needs the function `probability`",
                       at(row));
    return FW_OK;
}

static fw_status check(struct prediction_buffers *buffers, const fw_row *row,
                       const fw_prediction *prediction, uint32_t target, struct checked *result,
                       fw_error *error) {
    switch (prediction->form) {
    case FW_PREDICT_MIX: return check_mix(buffers, row, prediction, target, result, error);
    case FW_PREDICT_TILT: return check_tilt(buffers, row, prediction, target, result, error);
    case FW_PREDICT_DENSE: return check_dense(buffers, row, target, result, error);
    case FW_PREDICT_UNVERIFIED: return check_unverified(buffers, row, prediction, error);
    default:
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the cache states form %u; forms are 1 (mix), 2 (tilt), 3 "
                       "(dense) and 4 (unverified)",
                       at(row), prediction->form);
    }
}

/* The one place where a probability is formed, so that all callers agree in every bit. A gain of 1
 * is an unlisted token of a tilt, a mass of 0 one of a mix. */
static double form_probability(const struct checked *checked, uint32_t form, double model,
                               double value) {
    switch (form) {
    case FW_PREDICT_MIX: return (checked->weight * model + value) / checked->normaliser;
    case FW_PREDICT_TILT: return model * value / checked->normaliser;
    default: return value / checked->normaliser;
    }
}

static fw_status ask_unverified(const struct prediction_buffers *buffers, const fw_row *row,
                                const fw_prediction *prediction, uint32_t token,
                                double *probability, fw_error *error) {
    const fw_row *shown = buffers->shown != NULL ? buffers->shown : row;
    const double value = prediction->probability(buffers->cache, shown, token);
    if (isnan(value))
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the unverified probability of token %u is not a number",
                       at(row), token);
    *probability = fmin(fmax(value, PREDICTION_FLOOR), 1.0);
    return FW_OK;
}

fw_status prediction_probability(struct prediction_buffers *buffers, const fw_row *row,
                                 const fw_prediction *prediction, uint32_t target,
                                 double *probability, fw_error *error) {
    if (target >= buffers->vocabulary)
        return fw_fail(error, FW_E_RANGE, "position %llu: target %u is not below %u", at(row),
                       target, buffers->vocabulary);
    struct checked checked = {0};
    FW_TRY(check(buffers, row, prediction, target, &checked, error));
    if (prediction->form == FW_PREDICT_UNVERIFIED)
        return ask_unverified(buffers, row, prediction, target, probability, error);
    const double result = form_probability(&checked, prediction->form, row->probabilities[target],
                                           checked.target_value);
    if (!(result > 0))
        return fw_fail(error, FW_E_PROTOCOL,
                       "position %llu: the cache gave token %u, which came, the probability %g; "
                       "every token that can come needs more than 0",
                       at(row), target, result);
    *probability = result;
    return FW_OK;
}

/* What is listed, spread over the vocabulary; `otherwise` for the rest. */
static void spread(const struct prediction_buffers *buffers, uint32_t n, double otherwise,
                   double *values) {
    for (uint32_t v = 0; v < buffers->vocabulary; v++) values[v] = otherwise;
    for (uint32_t i = 0; i < n; i++) values[buffers->tokens[i]] = buffers->values[i];
}

fw_status prediction_full(struct prediction_buffers *buffers, const fw_row *row,
                          const fw_prediction *prediction, double *probabilities, fw_error *error) {
    struct checked checked = {0};
    FW_TRY(check(buffers, row, prediction, 0, &checked, error));
    const uint32_t V = buffers->vocabulary, form = prediction->form;
    if (form == FW_PREDICT_UNVERIFIED) {
        for (uint32_t v = 0; v < V; v++)
            FW_TRY(ask_unverified(buffers, row, prediction, v, &buffers->dense[v], error));
        memcpy(probabilities, buffers->dense, V * sizeof *probabilities);
        return FW_OK;
    }
    if (form == FW_PREDICT_DENSE)
        memcpy(probabilities, buffers->dense, V * sizeof *probabilities);
    else
        spread(buffers, prediction->n, form == FW_PREDICT_TILT ? 1.0 : 0.0, probabilities);
    for (uint32_t v = 0; v < V; v++)
        probabilities[v] =
            form_probability(&checked, form, row->probabilities[v], probabilities[v]);
    return FW_OK;
}
