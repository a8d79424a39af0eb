/* The ops once more, in float64 and as plainly as their contracts state them: no tiles, no fusion,
 * no threads. Arrays are packed. Forward only: gradients come from differences of these. */
#ifndef KERNEL_REFERENCE_H
#define KERNEL_REFERENCE_H

#include <stdint.h>

/* c[m,n] = alpha * op(a) op(b) + beta * c */
void reference_gemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                    double beta, const double *a, const double *b, double *c);

/* out = scale * x / sqrt(mean(x^2) + epsilon) by rows; inverse_rms may be NULL. */
void reference_rmsnorm(const double *x, double *out, double *inverse_rms, int64_t rows,
                       int64_t width, double epsilon, double scale);

/* sum = a * weight_a + b * weight_b; weights and b may be NULL. */
void reference_residual(const double *a, const double *weight_a, const double *b,
                        const double *weight_b, double *sum, int64_t rows, int64_t width);

/* out[b,t] = (1 - g) x[b,t] + g x[b,t-1] with g = sigmoid(gate); x, out [batch, tokens, width]. */
void reference_smear(const double *x, const double *gate, double *out, int64_t batch,
                     int64_t tokens, int64_t width);

/* cosine, sine [positions, dimensions/2] */
void reference_rope_table(double *cosine, double *sine, int64_t positions, int64_t dimensions,
                          int64_t offset, double base);

/* x, out [batch, tokens, heads, width]; half = rotated dimensions / 2; gain may be NULL. */
typedef struct reference_rope_shape {
    int64_t batch, tokens, heads, width, half;
    double epsilon;
} reference_rope_shape;
void reference_qk_norm_rope(const reference_rope_shape *s, const double *x, const double *cosine,
                            const double *sine, const double *gain, double *out,
                            double *inverse_rms);

/* q, out [batch, tokens, heads, width]; k, v [batch, keys, groups, width]; starts [batch, n_starts]
 * or NULL; log_sum_exp, self_dot [batch, heads, tokens] or NULL. */
typedef struct reference_attention_shape {
    int64_t batch, tokens, keys, heads, groups, width, window, n_starts;
    int exclude_self;
    double scale;
    const int32_t *starts;
} reference_attention_shape;
void reference_attention(const reference_attention_shape *s, const double *q, const double *k,
                         const double *v, double *out, double *log_sum_exp, double *self_dot);

/* Gradients of the above, d_q, d_k and d_v of the shapes of q, k and v; all are overwritten. */
void reference_attention_backward(const reference_attention_shape *s, const double *q,
                                  const double *k, const double *v, const double *d_out,
                                  double *d_q, double *d_k, double *d_v);

/* kind as fw_activation_kind. */
double reference_activation(uint32_t kind, double slope, double x);

/* z = softcap * tanh(x / softcap), log_probabilities = z - logsumexp(z), for one row; returns the
 * logarithm of the sum. */
double reference_log_softmax(const double *x, double *log_probabilities, int64_t n, double softcap);

/* One matrix [rows, columns], in place. */
void reference_newton_schulz(double *x, int64_t rows, int64_t columns, int iterations, double a,
                             double b, double c, double epsilon);

#endif
