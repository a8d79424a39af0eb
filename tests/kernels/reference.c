/* Float64 references of everything but attention. */
#include "reference.h"

#include <fairway/ops.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void reference_gemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                    double beta, const double *a, const double *b, double *c) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++)
                sum += (transpose_a ? a[l * m + i] : a[i * k + l]) *
                       (transpose_b ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = alpha * sum + (beta == 0.0 ? 0.0 : beta * c[i * n + j]);
        }
}

void reference_rmsnorm(const double *x, double *out, double *inverse_rms, int64_t rows,
                       int64_t width, double epsilon, double scale) {
    for (int64_t r = 0; r < rows; r++) {
        double squares = 0.0;
        for (int64_t i = 0; i < width; i++) squares += x[r * width + i] * x[r * width + i];
        const double inverse = 1.0 / sqrt(squares / (double)width + epsilon);
        for (int64_t i = 0; i < width; i++) out[r * width + i] = scale * x[r * width + i] * inverse;
        if (inverse_rms != NULL) inverse_rms[r] = inverse;
    }
}

void reference_residual(const double *a, const double *weight_a, const double *b,
                        const double *weight_b, double *sum, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows * width; i++) {
        sum[i] = a[i] * (weight_a == NULL ? 1.0 : weight_a[i % width]);
        if (b != NULL) sum[i] += b[i] * (weight_b == NULL ? 1.0 : weight_b[i % width]);
    }
}

void reference_smear(const double *x, const double *gate, double *out, int64_t batch,
                     int64_t tokens, int64_t width) {
    for (int64_t i = 0; i < batch * tokens * width; i++) {
        const double g = 1.0 / (1.0 + exp(-gate[i % width]));
        const double before = i / width % tokens > 0 ? x[i - width] : 0.0;
        out[i] = (1.0 - g) * x[i] + g * before;
    }
}

void reference_rope_table(double *cosine, double *sine, int64_t positions, int64_t dimensions,
                          int64_t offset, double base) {
    const int64_t half = dimensions / 2;
    for (int64_t t = 0; t < positions; t++)
        for (int64_t j = 0; j < half; j++) {
            const double rate = pow(base, -2.0 * (double)j / (double)dimensions);
            cosine[t * half + j] = cos((double)(offset + t) * rate);
            sine[t * half + j] = sin((double)(offset + t) * rate);
        }
}

void reference_qk_norm_rope(const reference_rope_shape *s, const double *x, const double *cosine,
                            const double *sine, const double *gain, double *out,
                            double *inverse_rms) {
    const int64_t rows = s->batch * s->tokens * s->heads, half = s->half;
    reference_rmsnorm(x, out, inverse_rms, rows, s->width, s->epsilon, 1.0);
    for (int64_t r = 0; r < rows; r++) {
        double *row = out + r * s->width;
        const int64_t t = r / s->heads % s->tokens;
        for (int64_t j = 0; j < half; j++) {
            const double c = cosine[t * half + j], n = sine[t * half + j];
            const double x1 = row[j], x2 = row[j + half];
            row[j] = x1 * c + x2 * n;
            row[j + half] = -x1 * n + x2 * c;
        }
        if (gain != NULL)
            for (int64_t d = 0; d < s->width; d++) row[d] *= gain[r % s->heads];
    }
}

double reference_activation(uint32_t kind, double slope, double x) {
    const double leaky = x > 0.0 ? x : slope * x;
    switch (kind) {
    case FW_LEAKY_RELU_SQUARED: return leaky * leaky;
    case FW_RELU_SQUARED: return x > 0.0 ? x * x : 0.0;
    case FW_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    default: return x / (1.0 + exp(-x));
    }
}

double reference_log_softmax(const double *x, double *log_probabilities, int64_t n,
                             double softcap) {
    double largest = -INFINITY, total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        log_probabilities[i] = softcap > 0.0 ? softcap * tanh(x[i] / softcap) : x[i];
        largest = fmax(largest, log_probabilities[i]);
    }
    for (int64_t i = 0; i < n; i++) total += exp(log_probabilities[i] - largest);
    const double logarithm = largest + log(total);
    for (int64_t i = 0; i < n; i++) log_probabilities[i] -= logarithm;
    return logarithm;
}

static void transpose(const double *from, double *to, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

/* x [m, n] with m <= n, already scaled. */
static void iterate(double *x, int64_t m, int64_t n, double a, double b, double c) {
    double *gram = calloc((size_t)(m * m), sizeof *gram), *poly = calloc((size_t)(m * m), 8);
    double *next = calloc((size_t)(m * n), sizeof *next);
    if (gram == NULL || poly == NULL || next == NULL) abort();
    reference_gemm(0, 1, m, m, n, 1.0, 0.0, x, x, gram);
    memcpy(poly, gram, (size_t)(m * m) * sizeof *poly);
    reference_gemm(0, 0, m, m, m, c, b, gram, gram, poly);
    memcpy(next, x, (size_t)(m * n) * sizeof *next);
    reference_gemm(0, 0, m, n, m, 1.0, a, poly, x, next);
    memcpy(x, next, (size_t)(m * n) * sizeof *next);
    free(gram);
    free(poly);
    free(next);
}

void reference_newton_schulz(double *x, int64_t rows, int64_t columns, int iterations, double a,
                             double b, double c, double epsilon) {
    const int64_t count = rows * columns;
    double squares = 0.0, *work = calloc((size_t)count, sizeof *work);
    if (work == NULL) abort();
    for (int64_t i = 0; i < count; i++) squares += x[i] * x[i];
    for (int64_t i = 0; i < count; i++) x[i] /= sqrt(squares) + epsilon;
    const int tall = rows > columns;
    memcpy(work, x, (size_t)count * sizeof *work);
    if (tall) transpose(x, work, rows, columns);
    for (int i = 0; i < iterations; i++)
        iterate(work, tall ? columns : rows, tall ? rows : columns, a, b, c);
    if (tall)
        transpose(work, x, columns, rows);
    else
        memcpy(x, work, (size_t)count * sizeof *work);
    free(work);
}
