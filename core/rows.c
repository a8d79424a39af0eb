#include "rows.h"

#include <math.h>
#include <stdlib.h>

#include "elementary.h"

fw_status rows_create(int64_t capacity, uint32_t vocabulary, struct rows *rows, fw_error *error) {
    *rows = (struct rows){.vocabulary = vocabulary};
    const size_t n = (size_t)capacity;
    rows->probabilities = malloc(n * vocabulary * sizeof(double));
    rows->log_normaliser = malloc(n * sizeof(double));
    rows->entropy = malloc(n * sizeof(double));
    rows->taken = malloc(n * sizeof(float));
    if (rows->probabilities != NULL && rows->log_normaliser != NULL && rows->entropy != NULL &&
        rows->taken != NULL)
        return FW_OK;
    rows_free(rows);
    return fw_fail(error, FW_E_MEMORY, "no memory for %zu rows of %u probabilities", n, vocabulary);
}

void rows_free(struct rows *rows) {
    free(rows->probabilities);
    free(rows->log_normaliser);
    free(rows->entropy);
    free(rows->taken);
    *rows = (struct rows){0};
}

struct forming {
    struct rows *rows;
    const float *log_probabilities;
    int with_entropy;
};

static void form_row(const struct forming *forming, const struct elementary_rows *by, int64_t row) {
    struct rows *rows = forming->rows;
    const uint32_t n = rows->vocabulary;
    const float *l = forming->log_probabilities + row * (int64_t)n;
    double *p = rows->probabilities + row * (int64_t)n;
    by->exp(l, n, p);
    const double sum = by->sum(p, n), log_normaliser = elementary_log(sum);
    by->scale(p, n, 1.0 / sum);
    rows->log_normaliser[row] = log_normaliser;
    rows->entropy[row] = forming->with_entropy ? log_normaliser - by->dot(p, l, n) : -1.0;
}

static void form_range(void *argument, int64_t begin, int64_t end) {
    const struct elementary_rows *by = elementary_rows();
    for (int64_t row = begin; row < end; row++) form_row(argument, by, row);
}

static fw_status check_finite(struct rows *rows, int64_t n, fw_error *error) {
    rows->n = n;
    for (int64_t row = 0; row < n; row++)
        if (!isfinite(rows->log_normaliser[row]))
            return fw_fail(error, FW_E_NUMERIC,
                           "the model's log-probabilities are not finite at row %lld of a window",
                           (long long)row);
    return FW_OK;
}

fw_status rows_form(struct rows *rows, const fw_host *host, const float *log_probabilities,
                    int64_t n, int with_entropy, fw_error *error) {
    struct forming forming = {rows, log_probabilities, with_entropy};
    host->parallel_for(host, n, 8, form_range, &forming);
    return check_finite(rows, n, error);
}

struct measuring {
    struct rows *rows;
    const float *log_probabilities;
    const uint16_t *targets;
};

/* All of a thread's rows are formed in one place, which stays in its cache. */
static void measure_range(void *argument, int64_t begin, int64_t end) {
    const struct measuring *m = argument;
    const struct elementary_rows *by = elementary_rows();
    const uint32_t n = m->rows->vocabulary;
    double *p = m->rows->probabilities + begin * (int64_t)n;
    for (int64_t row = begin; row < end; row++) {
        const float *l = m->log_probabilities + row * (int64_t)n;
        by->exp(l, n, p);
        m->rows->log_normaliser[row] = elementary_log(by->sum(p, n));
        m->rows->taken[row] = l[m->targets[row]];
    }
}

fw_status rows_measure(struct rows *rows, const fw_host *host, const float *log_probabilities,
                       const uint16_t *targets, int64_t n, fw_error *error) {
    struct measuring measuring = {rows, log_probabilities, targets};
    host->parallel_for(host, n, 8, measure_range, &measuring);
    return check_finite(rows, n, error);
}
