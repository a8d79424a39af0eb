/* The model of a recorded case: config.txt, keys vocab, layers, dim, heads, kv, mlp (its width is
 * mlp * dim), bigram_slots (rows of the table, one of them for position 0; 0: no table),
 * bigram_dim, xsa (so many last layers; 0: none), rope_dims (0: all of a head), ve_dim, ve_layers
 * ("4,5"; empty: none), batch, seq, seed. Five switches may be added, 0 or 1, and are 1 otherwise:
 * smear, x0_mix, skips, layer_scales, depth_norm. */
#ifndef GOLDEN_SHAPE_H
#define GOLDEN_SHAPE_H

#include <fairway/error.h>

enum { MAX_LAYERS = 256 };

struct shape {
    int64_t vocab, layers, dim, heads, kv, mlp_width;
    int64_t bigram_slots, bigram_dim, xsa, rope_dims, ve_dim, batch, seq, seed;
    int64_t smear, x0_mix, skips, layer_scales, depth_norm;
    int64_t n_ve, ve_layer[MAX_LAYERS]; /* in the order of the file */
};

/* Parse the text of `path`. E_CONFIG, naming line or key: a value that is no number, a missing key,
 * sizes that do not fit one another. A key that is not known is mentioned on standard error: the
 * numbers show whether it mattered. */
fw_status shape_parse(const char *path, const char *text, struct shape *shape, fw_error *error);

int64_t shape_skips(const struct shape *shape);     /* rows of skip_weights, 0 for none */
int64_t shape_head(const struct shape *shape);      /* D */
int64_t shape_kv_width(const struct shape *shape);  /* G * D */
int64_t shape_rope_dims(const struct shape *shape); /* R, with 0 resolved */
int64_t shape_value_slot(const struct shape *shape, int64_t layer); /* J, or -1 */
int shape_excludes_self(const struct shape *shape, int64_t layer);

#endif
