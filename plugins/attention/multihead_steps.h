/* The steps that the passes of multi-head attention are made of: buffers carved in one order from
 * what the host planned, and device ops on views of them. */
#ifndef MULTIHEAD_STEPS_H
#define MULTIHEAD_STEPS_H

#include "multihead.h"

#include <stdbool.h>

/* What a forward or decode call computes, in `saved` while training and in `scratch` otherwise. */
typedef struct activations {
    fw_tensor qkv;                   /* [N, (H+2G)D] as projected, v including value_add */
    fw_tensor raw_q, raw_k, v;       /* [B,T,heads,D] views of it */
    fw_tensor q, k;                  /* normed and rotated */
    fw_tensor attended;              /* [B,T,H,D] */
    fw_tensor q_rms, k_rms;          /* F32 [B,T,heads] inverse */
    fw_tensor log_sum_exp, self_dot; /* F32 [B,H,T] */
    fw_tensor cosine, sine;          /* F32 [T, R/2], row 0 of the call's first position */
    size_t bytes;
} activations;

static inline int64_t multihead_q_width(const multihead *m) { return m->heads * m->head_width; }
static inline int64_t multihead_kv_width(const multihead *m) { return m->kv_heads * m->head_width; }
static inline int64_t multihead_qkv_width(const multihead *m) {
    return multihead_q_width(m) + 2 * multihead_kv_width(m);
}

/* Take a tensor from the memory at base (NULL: only count), aligned as device memory is. */
fw_tensor multihead_carve(char *base, size_t *used, uint32_t dtype, uint32_t rank, int64_t d0,
                          int64_t d1, int64_t d2, int64_t d3);

/* [B,T,heads,D] within the rows of `matrix`, starting at `column`; columns [column, column + n). */
fw_tensor multihead_heads_of(const fw_tensor *matrix, int64_t column, int64_t batch, int64_t tokens,
                             int64_t heads, int64_t head_width);
fw_tensor multihead_columns_of(const fw_tensor *matrix, int64_t column, int64_t n);

/* Those of B x T tokens; cosine and sine are left to the caller. */
activations multihead_carve_activations(const multihead *m, int64_t b, int64_t t, void *base);

/* What a call must have, whatever its positions. */
fw_status multihead_check_call(const multihead *m, const fw_attention_call *call, fw_error *error);

/* c = op(a) op(b) + beta c. */
fw_status multihead_gemm(const multihead *m, const fw_tensor *a, bool transpose_a,
                         const fw_tensor *b, bool transpose_b, float beta, const fw_tensor *c,
                         fw_error *error);

/* sum = a + b over rows that may be views; b NULL: a copy. */
fw_status multihead_add_rows(const multihead *m, const fw_tensor *a, const fw_tensor *b,
                             const fw_tensor *sum, fw_error *error);

/* The projections that share an input: the weights (or gradients) with the columns that each fills
 * in the rows of qkv. One entry when the weights lie side by side, three otherwise. */
typedef struct projection {
    fw_tensor weight;
    int64_t column, width;
} projection;

int multihead_projections_of(const multihead *m, const fw_tensor *tensors, projection list[3]);

/* The columns of v in the rows of qkv (or of their gradient). */
fw_tensor multihead_value_columns(const multihead *m, const fw_tensor *qkv);

/* qkv, without value_add. */
fw_status multihead_project_qkv(const multihead *m, const fw_attention_call *call,
                                const activations *a, fw_error *error);

/* The op on the query (gain, its gradient) or the key heads; the caller adds gradients. */
fw_qk_norm_rope multihead_norm_rope_of(const fw_attention_call *call, const activations *a,
                                       bool query);

/* Causal attention of a.q over a.k and a.v; the caller adds window, documents and gradients. */
fw_flash_attention multihead_attention_of(const multihead *m, const activations *a);

/* multihead_decode.c: what a decode call of B x T tokens needs. */
size_t multihead_decode_scratch(const multihead *m, int64_t b, int64_t t);

/* [B*T, H*D] */
fw_tensor multihead_as_rows(const fw_tensor *attended);

/* output = rows Wo^T, and the residual where there is one. */
fw_status multihead_project_output(const multihead *m, const fw_attention_call *call,
                                   const fw_tensor *rows, fw_error *error);

#endif
