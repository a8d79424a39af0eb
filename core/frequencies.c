#include "frequencies.h"

#include <math.h>

static fw_status add_up(const double *p, uint32_t n, double *sum, uint32_t *best, fw_error *error) {
    *sum = 0;
    *best = 0;
    for (uint32_t v = 0; v < n; v++) {
        if (!(p[v] >= 0) || !isfinite(p[v]))
            return fw_fail(error, FW_E_NUMERIC, "the probability of token %u is %g", v, p[v]);
        *sum += p[v];
        if (p[v] > p[*best]) *best = v;
    }
    if (*sum > 0 && isfinite(*sum)) return FW_OK;
    return fw_fail(error, FW_E_NUMERIC, "the probabilities of %u tokens add up to %g", n, *sum);
}

fw_status frequencies_form(const double *probabilities, uint32_t n, uint64_t *cumulative,
                           fw_error *error) {
    if (n == 0 || n > FREQUENCY_MOST_TOKENS)
        return fw_fail(error, FW_E_RANGE, "frequencies of %u tokens; 1 to %d are possible", n,
                       FREQUENCY_MOST_TOKENS);
    double sum = 0;
    uint32_t best = 0;
    FW_TRY(add_up(probabilities, n, &sum, &best, error));
    const double scale = (double)(FREQUENCY_TOTAL - n);
    cumulative[0] = 0;
    for (uint32_t v = 0; v < n; v++)
        cumulative[v + 1] = cumulative[v] + 1 + (uint64_t)floor(probabilities[v] / sum * scale);
    const uint64_t missing = FREQUENCY_TOTAL - cumulative[n];
    for (uint32_t v = best; v < n; v++) cumulative[v + 1] += missing;
    return FW_OK;
}
