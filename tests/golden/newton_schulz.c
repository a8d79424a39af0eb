#include "newton_schulz.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

double round_to_bf16(double value) {
    const float single = (float)value;
    uint32_t bits = 0;
    float rounded = 0;
    memcpy(&bits, &single, sizeof bits);
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    memcpy(&rounded, &bits, sizeof rounded);
    return (double)rounded;
}

double round_to_nothing(double value) { return value; }

/* How products and stored values are rounded. */
struct rounding {
    double (*keep)(double);
    uint64_t seed, state; /* seed 0: products are exact */
};

/* Uniform in [-1, 1): SplitMix64. */
static double noise(struct rounding *rounding) {
    uint64_t z = rounding->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1;
}

/* c[m,n] = a[m,k] b[k,n]; with `transposed`, b is stored as [n,k]. */
static void multiply(const double *a, const double *b, bool transposed, size_t m, size_t k,
                     size_t n, struct rounding *rounding, double *c) {
    const size_t step = transposed ? 1 : n;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const double *other = transposed ? b + j * k : b + j;
            double sum = 0, magnitude = 0;
            for (size_t l = 0; l < k; l++) {
                sum += a[i * k + l] * other[l * step];
                magnitude += fabs(a[i * k + l] * other[l * step]);
            }
            if (rounding->seed != 0) sum += 0x1p-25 * magnitude * noise(rounding);
            c[i * n + j] = rounding->keep(sum);
        }
}

/* One iteration on x [r,k]; a, aa [r,r] and next [r,k] are scratch. */
static void iterate(double *x, size_t r, size_t k, struct rounding *rounding, double *a, double *aa,
                    double *next) {
    double (*keep)(double) = rounding->keep;
    multiply(x, x, true, r, k, r, rounding, a);
    multiply(a, a, false, r, r, r, rounding, aa);
    for (size_t i = 0; i < r * r; i++) a[i] = keep(keep(-4.7750 * a[i]) + keep(2.0315 * aa[i]));
    multiply(a, x, false, r, r, k, rounding, next);
    for (size_t i = 0; i < r * k; i++) x[i] = keep(keep(3.4445 * x[i]) + next[i]);
}

static void orthogonalise(const double *g, size_t rows, size_t columns, struct rounding *rounding,
                          double *out) {
    const bool tall = rows > columns;
    const size_t r = tall ? columns : rows, k = tall ? rows : columns;
    double (*keep)(double) = rounding->keep;
    double *x = calloc(2 * r * k + 2 * r * r, sizeof *x);
    if (x == NULL) abort();
    double *next = x + r * k, *a = next + r * k, *aa = a + r * r, norm = 0;
    for (size_t i = 0; i < r * k; i++) norm += keep(g[i]) * keep(g[i]);
    norm = keep(keep(sqrt(norm)) + 1e-7);
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < k; j++)
            x[i * k + j] = keep(keep(tall ? g[j * columns + i] : g[i * columns + j]) / norm);
    for (int i = 0; i < 5; i++) iterate(x, r, k, rounding, a, aa, next);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            out[i * columns + j] = tall ? x[j * k + i] : x[i * k + j];
    free(x);
}

void newton_schulz(const double *g, size_t rows, size_t columns, double (*keep)(double),
                   double *out) {
    struct rounding rounding = {keep, 0, 0};
    orthogonalise(g, rows, columns, &rounding, out);
}

void newton_schulz_bf16(const double *g, size_t rows, size_t columns, uint64_t seed, double *out) {
    struct rounding rounding = {round_to_bf16, seed, seed};
    orthogonalise(g, rows, columns, &rounding, out);
}
