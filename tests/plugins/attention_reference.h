/* Multi-head attention in float64, written from its formulas alone, one output element at a time:
 * the slow twin of the plugins gqa and xsa. */
#ifndef ATTENTION_REFERENCE_H
#define ATTENTION_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct attention_reference {
    int64_t batch, tokens, width, heads, kv_heads; /* B T C H G; D = C/H */
    int64_t rope_dims, offset, window;             /* window 0: all */
    double rope_base;
    bool exclude_self;
    const int32_t *documents; /* [B, n_documents + 1] starts, or NULL */
    int64_t n_documents;
    const double *input;             /* [B,T,C] */
    const double *wq, *wk, *wv, *wo; /* [H*D,C] [G*D,C] [G*D,C] [C,H*D] */
    const double *q_gain;            /* [H] */
    const double *value_add;         /* [B,T,G*D] or NULL */
} attention_reference;

/* output [B,T,C] */
void attention_reference_forward(const attention_reference *a, double *output);

#endif
