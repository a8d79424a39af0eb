/* The whole model of record 993 in float64, in plain loops: what every device and every fused path
 * must agree with. Written from the description of the record (its rows are numbered in
 * reference_model.c), independent of the host's own model; weights have the record's names and
 * shapes ("qo_bank", "blocks.3.attn_scale"), so that a recorded case is one of them. */
#ifndef GOLDEN_REFERENCE_MODEL_H
#define GOLDEN_REFERENCE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "shape.h"

struct reference_tensor {
    char name[64];
    uint32_t rank;
    int64_t shape[3]; /* beyond the rank: 1 */
    int64_t count;
    double *value, *gradient;
};

/* Activations of one layer that the backward pass needs; N = batch * seq rows. */
struct reference_layer {
    double *x_in;               /* [N,C] before the mix, after the skip */
    double *u, *a, *a_rms;      /* [N,C] mixed stream, attention's input; [N] inverse rms */
    double *q_raw, *k_raw, *v;  /* [N,H*D] [N,G*D] [N,G*D], v with the value embedding */
    double *q_rms, *k_rms;      /* [N,H] [N,G] */
    double *q_turned, *q, *k;   /* rotated q, then with its gain; rotated k */
    double *probability;        /* [B,H,T,T] */
    double *y, *z;              /* [N,H*D] before and after XSA */
    double *attended;           /* [N,C] z Wo^T */
    double *middle, *b, *b_rms; /* [N,C] stream between the sublayers, MLP's input; [N] */
    double *h, *act, *down;     /* [N,M] [N,M] [N,C] */
};

struct reference {
    struct shape shape;
    struct reference_tensor *tensor;
    uint32_t n_tensors;
    const int32_t *inputs, *targets; /* of the last forward pass; not owned */
    int32_t *slot;                   /* [N] of the bigram table */
    struct reference_layer *layer;
    double *embedded, *embedded_rms, *normed; /* [N,C] [N] [N,C] */
    double *x0;                               /* [N,C] after the smear */
    double *pairs;                            /* [N,C] bigram table's rows, projected */
    double *values;                           /* [N,G*D] value embedding's rows, projected */
    double *last, *last_rms, *final;          /* [N,C] [N] [N,C] */
    double *logits;                           /* [N,V] */
    void **owned;
    uint32_t n_owned;
};

/* Values and gradients are zero at first. Out of memory aborts: this is a test's tool. */
struct reference *reference_create(const struct shape *shape);
void reference_destroy(struct reference *reference); /* NULL is fine */

struct reference_tensor *reference_find(const struct reference *reference, const char *name);

/* Mean loss in nats of batch * seq tokens; the logits stay in reference->logits. */
double reference_forward(struct reference *reference, const int32_t *inputs,
                         const int32_t *targets);

/* Gradients of that mean, replacing what was there. After reference_forward. */
void reference_backward(struct reference *reference);

/* One optimizer step as recorded: gradients, which stay so, clipped to a norm of 0.3; Muon on the
 * banks (rate 0.025, Nesterov momentum 0.95 from zero, everything in bfloat16, decay 0.04), AdamW
 * on the rest (0.9, 0.95, 1e-8; 0.035 for the tables, 0.025 else; decay 0.04). Returns the norm
 * before. */
double reference_step(struct reference *reference);

/* The clip factor for a gradient norm, in the record's own float32 operations: another last bit
 * sends other gradients to the other side in bfloat16. */
float reference_clip(double norm);

/* The parts of a weight's name that decide how it is trained. */
int reference_is_bank(const char *name);
int reference_is_table(const char *name);

/* Slot of the bigram table for the token after `before`; -1 before the first of a sequence. */
int32_t reference_slot(int64_t slots, int32_t before, int32_t token);

/* That Muon step for one matrix and its clipped gradient; exact, or with all that the record keeps
 * in bfloat16 rounded, `seed` as for newton_schulz_bf16. */
void reference_muon(const double *gradient, size_t rows, size_t columns, int bf16, uint64_t seed,
                    double *value);

/* What forward and backward share. */
double reference_angle(const struct shape *shape, int64_t t, int64_t j);
struct reference_weights {
    const struct reference_tensor *embedding, *table, *table_projection, *table_scale, *smear,
        *value_table, *value_projection, *value_scale, *skips, *qo, *kv, *up, *down;
};
struct reference_weights reference_weights(const struct reference *reference);
const struct reference_tensor *reference_block(const struct reference *reference, int64_t layer,
                                               const char *part); /* NULL when absent */

#endif
