#include "distance.h"

#include <math.h>
#include <stdio.h>

void error_add(struct error_sum *sum, double actual, double expected) {
    const double difference = actual - expected;
    sum->difference += isfinite(difference) ? difference * difference : INFINITY;
    sum->expected += expected * expected;
}

double error_of(const struct error_sum *sum) {
    return sum->expected > 0 ? sqrt(sum->difference / sum->expected) : sqrt(sum->difference);
}

double norm_error(const float *actual, const float *expected, int64_t n) {
    struct error_sum sum = {0, 0};
    for (int64_t i = 0; i < n; i++) error_add(&sum, (double)actual[i], (double)expected[i]);
    return error_of(&sum);
}

double largest_error(const float *actual, const float *expected, int64_t n) {
    double difference = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)actual[i] - (double)expected[i]);
        difference = fmax(difference, isfinite(d) ? d : INFINITY);
        largest = fmax(largest, fabs((double)expected[i]));
    }
    return largest > 0 ? difference / largest : difference;
}

void worst_add(struct worst *worst, double error, const char *where) {
    if (worst->where[0] != '\0' && error <= worst->error) return;
    worst->error = error;
    (void)snprintf(worst->where, sizeof worst->where, "%s", where);
}
