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
    if (rows->probabilities != NULL && rows->log_normaliser != NULL && rows->entropy != NULL)
        return FW_OK;
    rows_free(rows);
    return fw_fail(error, FW_E_MEMORY, "no memory for %zu rows of %u probabilities", n, vocabulary);
}

void rows_free(struct rows *rows) {
    free(rows->probabilities);
    free(rows->log_normaliser);
    free(rows->entropy);
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

fw_status rows_form(struct rows *rows, const fw_host *host, const float *log_probabilities,
                    int64_t n, int with_entropy, fw_error *error) {
    struct forming forming = {rows, log_probabilities, with_entropy};
    host->parallel_for(host, n, 8, form_range, &forming);
    rows->n = n;
    for (int64_t row = 0; row < n; row++)
        if (!isfinite(rows->log_normaliser[row]))
            return fw_fail(error, FW_E_NUMERIC,
                           "the model's log-probabilities are not finite at row %lld of a window",
                           (long long)row);
    return FW_OK;
}
