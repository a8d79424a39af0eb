/* The ops of a device: each contract is written once, here, and holds on every device.
 *
 * Conventions, unless an op says otherwise:
 *   - B sequences, T positions, N = B*T rows, C model width, H query heads, G key/value heads (G
 *     divides H), D head width, V vocabulary. Matrices are row-major; the last stride is 1. Other
 *     strides may exceed the packed ones (views into wider rows).
 *   - Activations and compute weights have the device's compute dtype ("compute"); statistics,
 *     vectors of per-channel or per-head scales, gradients of weights and optimizer state are F32.
 *   - Outputs are overwritten; with `accumulate` = 1 the op adds to them.
 *   - An output may alias an input only where the op says so.
 *   - Errors: E_ARGUMENT, E_SHAPE, E_UNSUPPORTED (dtype or size refused), E_DEVICE. On the CPU they
 * are returned at once; on CUDA a failure of the hardware may surface at a later call.
 *   - [no-alloc]: no op allocates. Those that need scratch say how much through *_scratch.
 *   - [deterministic]: with the same shapes, device and thread count, results repeat bit for bit.
 *
 * Every argument struct begins with struct_size; initialise with designated initialisers so that
 * fields appended later are zero, which always means the behaviour before they existed. */
#ifndef FAIRWAY_OPS_H
#define FAIRWAY_OPS_H

#include "device.h"

FW_BEGIN_DECLS

/* c = alpha * op(a) op(b) + beta * addend. a, b, c have rank 2, or 3 with equal first dimension (a
 * batch). op(x) is x, or its transpose when the flag is set; op(a) is M x K, op(b) is K x N, c is M
 * x N. c may be compute or F32 (for weight gradients). addend has c's shape, strides and dtype, and
 * may be c; absent: it is c. beta = 0 never reads it. */
typedef struct fw_gemm {
    uint32_t struct_size;
    uint32_t transpose_a, transpose_b;
    float alpha, beta;
    fw_tensor a, b, c;
    fw_tensor addend;
} fw_gemm;

/* out[n] = table[tokens[n]]. tokens I32 [N], every one in [0, V); table [V,C] compute; out [N,C].
 * Backward: d_table (F32 [V,C]) += sum of d_out rows by token; without `accumulate` it is zeroed
 * first. Rows are added in order of n. */
typedef struct fw_embedding {
    uint32_t struct_size;
    uint32_t accumulate;
    fw_tensor tokens, table, out;
    fw_tensor d_out, d_table;
} fw_embedding;

/* out = scale * x / sqrt(mean(x^2) + epsilon) over the last dimension. x, out [N,C];
 * inverse_rms F32 [N] = 1/sqrt(...) is saved for backward. out may alias x in inference only.
 * Backward: d_x (+)= scale * r * (d_out - x_hat * mean(d_out * x_hat)), x_hat = x * r. d_x may
 * alias d_out. No weight: scales are ops of their own. Source: Zhang and Sennrich, 2019. */
typedef struct fw_rmsnorm {
    uint32_t struct_size;
    uint32_t accumulate; /* for d_x */
    float epsilon, scale;
    fw_tensor x, out, inverse_rms;
    fw_tensor d_out, d_x;
} fw_rmsnorm;

/* sum = a * weight_a + b * weight_b, out = rmsnorm(sum) as above: the residual stream and the norm
 * that follows it in one pass. a, b, sum, out [N,C]; weights F32 [C], or [1] for one value in all
 * channels; absent = ones. `b` absent: the sum is a * weight_a. `out` absent: no norm. sum may
 * alias a or b in the forward pass. Backward takes d_sum (what flows back along the residual
 * stream; absent = zero) and d_out (from the norm; absent = zero), forms d = d_sum + backward of
 * the norm, then d_a = d * weight_a, d_b = d * weight_b, d_weight_a += sum over rows of d * a,
 * d_weight_b likewise (F32, shaped as the weight, each optional; `accumulate` = 0 overwrites the
 * two weight gradients). d_a may alias d_sum or d_out; d_b may be absent (not wanted).
 * `accumulate_b` = 1 adds to d_b. */
typedef struct fw_residual_norm {
    uint32_t struct_size;
    uint32_t accumulate;
    uint32_t accumulate_b;
    float epsilon, scale;
    fw_tensor a, weight_a, b, weight_b;
    fw_tensor sum, out, inverse_rms;
    fw_tensor d_sum, d_out, d_a, d_b, d_weight_a, d_weight_b;
} fw_residual_norm;

/* Smear: out[b,t] = (1 - g) x[b,t] + g x[b,t-1] with g = sigmoid(gate) per channel and x[b,-1] = 0.
 * x, out [B,T,C]; gate F32 [C]. out may not alias x.
 * Backward: d_x = (1 - g) d_out[b,t] + g d_out[b,t+1] (0 beyond T), d_gate = g (1 - g) * sum over
 * rows of d_out[b,t] * (x[b,t-1] - x[b,t]), F32 [C], with `accumulate`. d_x may not alias d_out. */
typedef struct fw_smear {
    uint32_t struct_size;
    uint32_t accumulate; /* for d_gate */
    fw_tensor x, gate, out;
    fw_tensor d_out, d_x, d_gate;
} fw_smear;

/* Rotation tables for positions offset .. offset+T-1: cosine, sine F32 [T, R/2] with angle
 * position * base^(-2j/R), computed in double. R = `dimensions`, even. Source: Su et al., 2021. */
typedef struct fw_rope_table {
    uint32_t struct_size;
    uint32_t dimensions;
    int64_t offset;
    double base;
    fw_tensor cosine, sine;
} fw_rope_table;

/* Query or key heads: rmsnorm over D, rotation of the first R dimensions in halves (j, j + R/2):
 * (x1 cos + x2 sin, -x1 sin + x2 cos), then times gain[head]. x, out [B,T,heads,D] (strided views
 * allowed); cosine, sine F32 [>= T, R/2] whose row 0 belongs to position 0 of this call; R = 0 when
 * absent; gain F32 [heads], absent = ones. inverse_rms F32 [B,T,heads] saved for backward.
 * Backward: d_x from d_out, x and inverse_rms; d_gain F32 [heads] with `accumulate`. d_x may alias
 * d_out. */
typedef struct fw_qk_norm_rope {
    uint32_t struct_size;
    uint32_t accumulate; /* for d_gain */
    float epsilon;
    uint32_t reserved;
    fw_tensor x, out, inverse_rms, cosine, sine, gain;
    fw_tensor d_out, d_x, d_gain;
} fw_qk_norm_rope;

/* Causal grouped-query attention without the T x T matrix in memory. q, out [B,T,H,D]; k, v
 * [B,S,G,D]; query head h reads key/value head h / (H/G). Query t stands at key position
 * t + (S - T), so S = T in training and S > T when decoding. With `window` W > 0 a query sees
 * the last W keys including its own. cu_seqlens I32 [B, n+1] (optional): document starts inside
 * each sequence; attention does not cross them; entries beyond the last document repeat T. out =
 * softmax(scale * q k^T + causal mask) v; log_sum_exp F32 [B,H,T] saved for backward.
 * `exclude_self` (XSA): out <- out - (out . u) u with u = v_t / max(|v_t|, 1e-12), v of the query's
 * own position and head group; self_dot F32 [B,H,T] = (out before) . u is saved for backward.
 * Backward: d_q, d_k, d_v from d_out; `out` is the forward's. Scratch: attention_scratch bytes,
 * SIZE_MAX for a head width that the device does not take, so that a plan can refuse it.
 * Sources: Dao 2023 (blocked softmax), Ainslie et al. 2023 (grouped queries). */
typedef struct fw_flash_attention {
    uint32_t struct_size;
    uint32_t exclude_self;
    int64_t window;
    float scale;
    uint32_t accumulate_dv; /* d_v += ... instead of = */
    fw_tensor q, k, v, out, log_sum_exp, self_dot, cu_seqlens;
    fw_tensor d_out, d_q, d_k, d_v;
    void *scratch;
    size_t scratch_bytes;
} fw_flash_attention;

typedef enum fw_activation_kind {
    FW_LEAKY_RELU_SQUARED = 1, /* y = l * l with l = x > 0 ? x : slope * x */
    FW_RELU_SQUARED = 2,
    FW_GELU_TANH = 3,
    FW_SILU = 4
} fw_activation_kind;

/* out = f(x) element by element, any shape, contiguous. out may alias x in inference only.
 * Backward: d_x = d_out * f'(x); d_x may alias d_out. */
typedef struct fw_activation {
    uint32_t struct_size;
    uint32_t kind;
    float slope;
    uint32_t reserved;
    fw_tensor x, out;
    fw_tensor d_out, d_x;
} fw_activation;

/* The first linear layer of an MLP with its activation, and what leads back through both: out =
 * f(x weight^T), f as in fw_activation. x [N,K], weight [M,K], out [N,M], all compute. `saved`
 * (linear_activation_saved bytes, at least 256-byte aligned; NULL in inference) keeps what backward
 * needs beside `out`, in a form of the device's own.
 * Backward: d_hidden = (d_y next_weight) * f'(x weight^T): d_y [N,C] is the gradient of the second
 * layer's output, next_weight [C,M] that layer, d_hidden [N,M]; `out` and `saved` are the
 * forward's. x and weight are not read. Optional: the host uses gemm and activation without it. */
typedef struct fw_linear_activation {
    uint32_t struct_size;
    uint32_t kind;
    float slope;
    uint32_t reserved;
    fw_tensor x, weight, out;
    fw_tensor d_y, next_weight, d_hidden;
    void *saved;
    size_t saved_bytes;
} fw_linear_activation;

/* z = softcap * tanh(logits / softcap) (softcap = 0: z = logits); loss[n] = logsumexp(z[n]) -
 * z[n][target] in nats, 0 for target < 0. logits [N,V]; targets I32 [N]; loss, log_sum_exp F32 [N].
 * Backward: d_logits = d_loss * (softmax(z) - onehot) * (1 - (z/softcap)^2), zero rows for target <
 * 0; d_logits may alias logits. */
typedef struct fw_cross_entropy {
    uint32_t struct_size;
    float softcap, d_loss;
    fw_tensor logits, targets, loss, log_sum_exp;
    fw_tensor d_logits;
} fw_cross_entropy;

/* For scoring: log_probabilities F32 [N,V] = z - logsumexp(z) with z as above (may alias F32
 * logits); entropy F32 [N] in nats (optional). */
typedef struct fw_log_softmax {
    uint32_t struct_size;
    float softcap;
    fw_tensor logits, log_probabilities, entropy;
} fw_log_softmax;

typedef enum fw_reduction {
    FW_SUM = 1,
    FW_SUM_SQUARES = 2,
    FW_MAX_ABS = 3,
    FW_DOT = 4
} fw_reduction;

/* result (F32 scalar on the device) = reduction over all elements of x (and y for FW_DOT), any
 * contiguous shape, accumulated in a fixed order in double or better. */
typedef struct fw_reduce {
    uint32_t struct_size;
    uint32_t reduction;
    uint32_t accumulate;
    uint32_t reserved;
    fw_tensor x, y, result;
} fw_reduce;

/* y = alpha * x + beta * y, any contiguous shapes of equal count; beta = 0 never reads y. */
typedef struct fw_axpby {
    uint32_t struct_size;
    float alpha, beta;
    uint32_t reserved;
    fw_tensor x, y;
} fw_axpby;

/* y += weight * (x - y): F32, equal counts. */
typedef struct fw_lerp {
    uint32_t struct_size;
    float weight;
    fw_tensor x, y;
} fw_lerp;

/* to = from, converted (round to nearest even) between F32, BF16, F16; equal counts. */
typedef struct fw_cast {
    uint32_t struct_size;
    uint32_t reserved;
    fw_tensor from, to;
} fw_cast;

/* From the sum of squares of all gradients (F32 scalar) fill the (device) fields of `n_steps`
 * consecutive fw_step: gradient_norm, finite, clip = min(1, max_norm / (norm + 1e-6)); max_norm =
 * 0: 1. */
typedef struct fw_clip {
    uint32_t struct_size;
    float max_norm;
    uint32_t n_steps;
    uint32_t reserved;
    fw_tensor sum_squares;
    fw_step *steps;
} fw_clip;

/* AdamW on one tensor, any shape, all F32, in place: g = clip * gradient; m = b1 m + (1-b1) g;
 * v = b2 v + (1-b2) g^2; p -= lr * weight_decay * p; p -= lr * m^ / (sqrt(v^) + epsilon) with bias
 * correction by step->step + 1. A step whose `finite` is 0 changes nothing. `compute` (optional):
 * compute-dtype copy of p, written in the same pass. Source: Loshchilov and Hutter, 2019. */
typedef struct fw_adamw_step {
    uint32_t struct_size;
    float beta1, beta2, epsilon;
    const fw_step *step;
    fw_tensor parameter, gradient, first_moment, second_moment, compute;
} fw_adamw_step;

/* momentum = step->momentum * momentum + clip * gradient; update = nesterov ? clip * gradient +
 * step->momentum * momentum : momentum. All F32, equal counts; a step whose `finite` is 0 changes
 * nothing (update is zeroed). */
typedef struct fw_momentum_step {
    uint32_t struct_size;
    uint32_t nesterov;
    const fw_step *step;
    fw_tensor gradient, momentum, update;
} fw_momentum_step;

/* Newton-Schulz: out = an approximate orthogonal factor of x for each of n matrices [n,R,K] or
 * [R,K]. X = x / (|x|_F + epsilon), transposed when R > K; `iterations` times A = X X^T,
 * X = a X + (b A + c A A) X. F32 in and out (devices may compute in BF16). out may alias x.
 * Scratch: newton_schulz_scratch bytes. Source: Jordan et al., Muon, 2024. */
typedef struct fw_newton_schulz {
    uint32_t struct_size;
    uint32_t iterations;
    float a, b, c, epsilon;
    fw_tensor x, out;
    void *scratch;
    size_t scratch_bytes;
} fw_newton_schulz;

/* p = p * (1 - lr * weight_decay) - lr * scale * update, lr and weight_decay from `step`; F32,
 * equal counts; nothing when `finite` is 0. `compute` as in fw_adamw_step. */
typedef struct fw_apply_update {
    uint32_t struct_size;
    float scale;
    const fw_step *step;
    fw_tensor parameter, update, compute;
} fw_apply_update;

/* absmax[r] = max |x[r][*]|; x F32 [R,K], absmax F32 [R]. */
typedef struct fw_row_absmax {
    uint32_t struct_size;
    uint32_t reserved;
    fw_tensor x, absmax;
} fw_row_absmax;

/* Rows times a value each: out[r][i] = scale[r] * x[r][i]. x F32 or compute [R,K], scale F32 [R],
 * out compute.
 * Backward: d_scale[r] (+)= sum over i of x[r][i] * d_out[r][i], d_x[r][i] (+)= scale[r] *
 * d_out[r][i], d_out, d_x and d_scale F32; `accumulate` adds to both. d_x may alias d_out where it
 * does not. */
typedef struct fw_scale_rows {
    uint32_t struct_size;
    uint32_t accumulate;
    fw_tensor x, scale, out;
    fw_tensor d_out, d_x, d_scale;
} fw_scale_rows;

/* With s = max(scale[r], scale_floor): out[r][i] = s * clamp(round_half_even(x[r][i] / s), -levels,
 * levels); where s is zero, zeros. x F32 [R,K], scale F32 [R], out compute [R,K], may alias x when
 * both are F32. With `step` not NULL and step->quantize = 0 it copies x. Its gradient is passed
 * straight through. */
typedef struct fw_fake_quantize {
    uint32_t struct_size;
    uint32_t levels;
    const fw_step *step;
    fw_tensor x, scale, out;
    float scale_floor;
    uint32_t reserved;
} fw_fake_quantize;

/* The table. Append-only; a NULL or uncovered member means that the device lacks the op. */
typedef struct fw_ops {
    uint32_t struct_size;
    uint32_t reserved;
    fw_status (*gemm)(fw_device *, const fw_gemm *, fw_error *);
    fw_status (*embedding_forward)(fw_device *, const fw_embedding *, fw_error *);
    fw_status (*embedding_backward)(fw_device *, const fw_embedding *, fw_error *);
    fw_status (*rmsnorm_forward)(fw_device *, const fw_rmsnorm *, fw_error *);
    fw_status (*rmsnorm_backward)(fw_device *, const fw_rmsnorm *, fw_error *);
    fw_status (*residual_norm_forward)(fw_device *, const fw_residual_norm *, fw_error *);
    fw_status (*residual_norm_backward)(fw_device *, const fw_residual_norm *, fw_error *);
    fw_status (*rope_table)(fw_device *, const fw_rope_table *, fw_error *);
    fw_status (*qk_norm_rope_forward)(fw_device *, const fw_qk_norm_rope *, fw_error *);
    fw_status (*qk_norm_rope_backward)(fw_device *, const fw_qk_norm_rope *, fw_error *);
    size_t (*attention_scratch)(fw_device *,
                                const fw_flash_attention *); /* backward; shapes only */
    fw_status (*attention_forward)(fw_device *, const fw_flash_attention *, fw_error *);
    fw_status (*attention_backward)(fw_device *, const fw_flash_attention *, fw_error *);
    fw_status (*activation_forward)(fw_device *, const fw_activation *, fw_error *);
    fw_status (*activation_backward)(fw_device *, const fw_activation *, fw_error *);
    fw_status (*cross_entropy_forward)(fw_device *, const fw_cross_entropy *, fw_error *);
    fw_status (*cross_entropy_backward)(fw_device *, const fw_cross_entropy *, fw_error *);
    fw_status (*log_softmax)(fw_device *, const fw_log_softmax *, fw_error *);
    fw_status (*reduce)(fw_device *, const fw_reduce *, fw_error *);
    fw_status (*axpby)(fw_device *, const fw_axpby *, fw_error *);
    fw_status (*lerp)(fw_device *, const fw_lerp *, fw_error *);
    fw_status (*cast)(fw_device *, const fw_cast *, fw_error *);
    fw_status (*clip)(fw_device *, const fw_clip *, fw_error *);
    fw_status (*adamw)(fw_device *, const fw_adamw_step *, fw_error *);
    fw_status (*momentum)(fw_device *, const fw_momentum_step *, fw_error *);
    size_t (*newton_schulz_scratch)(fw_device *, const fw_newton_schulz *); /* shapes only */
    fw_status (*newton_schulz)(fw_device *, const fw_newton_schulz *, fw_error *);
    fw_status (*apply_update)(fw_device *, const fw_apply_update *, fw_error *);
    fw_status (*row_absmax)(fw_device *, const fw_row_absmax *, fw_error *);
    fw_status (*fake_quantize)(fw_device *, const fw_fake_quantize *, fw_error *);
    fw_status (*smear_forward)(fw_device *, const fw_smear *, fw_error *);
    fw_status (*smear_backward)(fw_device *, const fw_smear *, fw_error *);
    size_t (*linear_activation_saved)(fw_device *, const fw_linear_activation *); /* shapes only */
    fw_status (*linear_activation_forward)(fw_device *, const fw_linear_activation *, fw_error *);
    fw_status (*linear_activation_backward)(fw_device *, const fw_linear_activation *, fw_error *);
    fw_status (*scale_rows_forward)(fw_device *, const fw_scale_rows *, fw_error *);
    fw_status (*scale_rows_backward)(fw_device *, const fw_scale_rows *, fw_error *);
} fw_ops;

FW_END_DECLS

#endif
