/* The language model's rows in float64, formed from the device's float32 log-probabilities. */
#ifndef FAIRWAY_ROWS_H
#define FAIRWAY_ROWS_H

#include <fairway/host.h>

struct rows {
    uint32_t vocabulary;
    int64_t n;
    double *probabilities;  /* [n, V], each row sums to 1 */
    double *log_normaliser; /* [n]: log of the sum of exp(l), nearly 0 */
    double *entropy;        /* [n] nats, when asked for */
    float *taken;           /* [n], of rows_measure */
};

fw_status rows_create(int64_t capacity, uint32_t vocabulary, struct rows *rows, fw_error *error);
void rows_free(struct rows *rows);

/* Form n rows from `log_probabilities` [n, V]. E_NUMERIC names a row that is not finite. The result
 * does not depend on the number of threads. */
fw_status rows_form(struct rows *rows, const fw_host *host, const float *log_probabilities,
                    int64_t n, int with_entropy, fw_error *error);

/* For a model that is scored alone: the same rows, none of which is kept. taken[row] is the
 * log-probability of targets[row], of which log_normaliser[row] then makes a code length, bit for
 * bit as with rows_form. E_NUMERIC as there. */
fw_status rows_measure(struct rows *rows, const fw_host *host, const float *log_probabilities,
                       const uint16_t *targets, int64_t n, fw_error *error);

#endif
