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

/* c[m,n] = a[m,k] b[k,n]; with `transposed`, b is stored as [n,k]. */
static void multiply(const double *a, const double *b, bool transposed, size_t m, size_t k,
                     size_t n, double *c) {
    memset(c, 0, m * n * sizeof *c);
    for (size_t i = 0; i < m; i++) {
        if (transposed) {
            for (size_t j = 0; j < n; j++)
                for (size_t l = 0; l < k; l++) c[i * n + j] += a[i * k + l] * b[j * k + l];
        } else {
            for (size_t l = 0; l < k; l++)
                for (size_t j = 0; j < n; j++) c[i * n + j] += a[i * k + l] * b[l * n + j];
        }
    }
}

/* One iteration on x [r,k]; a, aa [r,r] and next [r,k] are scratch. */
static void iterate(double *x, size_t r, size_t k, double (*keep)(double), double *a, double *aa,
                    double *next) {
    multiply(x, x, true, r, k, r, a);
    for (size_t i = 0; i < r * r; i++) a[i] = keep(a[i]);
    multiply(a, a, false, r, r, r, aa);
    for (size_t i = 0; i < r * r; i++)
        a[i] = keep(keep(-4.7750 * a[i]) + keep(2.0315 * keep(aa[i])));
    multiply(a, x, false, r, r, k, next);
    for (size_t i = 0; i < r * k; i++) x[i] = keep(keep(3.4445 * x[i]) + keep(next[i]));
}

void newton_schulz(const double *g, size_t rows, size_t columns, double (*keep)(double),
                   double *out) {
    const bool tall = rows > columns;
    const size_t r = tall ? columns : rows, k = tall ? rows : columns;
    double *x = calloc(2 * r * k + 2 * r * r, sizeof *x);
    if (x == NULL) abort();
    double *next = x + r * k, *a = next + r * k, *aa = a + r * r, norm = 0;
    for (size_t i = 0; i < r * k; i++) norm += keep(g[i]) * keep(g[i]);
    norm = keep(keep(sqrt(norm)) + 1e-7);
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < k; j++)
            x[i * k + j] = keep(keep(tall ? g[j * columns + i] : g[i * columns + j]) / norm);
    for (int i = 0; i < 5; i++) iterate(x, r, k, keep, a, aa, next);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            out[i * columns + j] = tall ? x[j * k + i] : x[i * k + j];
    free(x);
}
