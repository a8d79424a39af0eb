/* Speed of forming rows in float64 (rows_form), as an evaluation does it: 128 rows at a time, whose
 * log-probabilities come from memory outside the processor's caches. Beside it, the exponential
 * alone: each way that this machine has, and libm's.
 *
 *     OMP_NUM_THREADS=N bench_rows */
#include <math.h>
#include <stdio.h>

#include "bench.h"
#include "elementary.h"
#include "rows.h"

enum { AT_ONCE = 128, ROWS = 8192 };

static float *make_log_probabilities(uint32_t vocabulary, int64_t rows) {
    test_random random = {1};
    float *l = must(malloc((size_t)rows * vocabulary * sizeof *l));
    for (int64_t i = 0; i < rows * vocabulary; i++) l[i] = (float)(-12 * test_uniform(&random));
    return l;
}

/* Microseconds a row of the best of several passes over all rows. */
static double form(uint32_t vocabulary, const float *l, int64_t n, int with_entropy) {
    fw_error error = {.struct_size = sizeof error};
    struct rows rows;
    stop_on(rows_create(AT_ONCE, vocabulary, &rows, &error), &error);
    double best = INFINITY;
    for (int pass = 0; pass < 5; pass++) {
        const double begin = bench_seconds();
        for (int64_t row = 0; row < n; row += AT_ONCE)
            stop_on(rows_form(&rows, test_host(NULL), l + row * vocabulary, AT_ONCE, with_entropy,
                              &error),
                    &error);
        best = fmin(best, bench_seconds() - begin);
    }
    rows_free(&rows);
    return 1e6 * best / (double)n;
}

static void libm_exp(const float *x, uint32_t n, double *y) {
    for (uint32_t i = 0; i < n; i++) y[i] = exp((double)x[i]);
}

static double exponentials(void (*way)(const float *, uint32_t, double *), uint32_t vocabulary,
                           const float *l, int64_t n) {
    double *y = must(malloc(vocabulary * sizeof *y)), best = INFINITY;
    for (int pass = 0; pass < 3; pass++) {
        const double begin = bench_seconds();
        for (int64_t row = 0; row < n; row++) way(l + row * vocabulary, vocabulary, y);
        best = fmin(best, bench_seconds() - begin);
    }
    free(y);
    return 1e6 * best / (double)n;
}

int main(void) {
    uint32_t n_ways = 0;
    const struct elementary_rows *ways = elementary_all(&n_ways);
    const uint32_t threads = test_host(NULL)->threads(test_host(NULL));
    if (threads == 1) bench_use_thread_clock();
    printf("microseconds a row, %s, best of several; threads that form rows: %u; exponentials are "
           "taken by one\n",
           threads == 1 ? "processor time" : "wall clock", threads);
    printf(
        "|    V | form rows | with entropy | 3.4 M rows | exp: fastest way | slowest | libm |\n");
    printf(
        "| ---: | --------: | -----------: | ---------: | ---------------: | ------: | ---: |\n");
    static const uint32_t vocabularies[] = {256, 1024, 4096, 8192};
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
        const uint32_t V = vocabularies[i];
        const int64_t n = ROWS * 1024 / V;
        float *l = make_log_probabilities(V, n);
        const double plain = form(V, l, n, 0), entropy = form(V, l, n, 1);
        printf("| %4u | %9.3f | %12.3f | %8.2f s | %16.3f | %7.3f | %4.2f |\n", V, plain, entropy,
               3.4 * plain, exponentials(ways[n_ways - 1].exp, V, l, n),
               exponentials(ways[0].exp, V, l, n / 16), exponentials(libm_exp, V, l, n / 4));
        free(l);
    }
    return 0;
}
