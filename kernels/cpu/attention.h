/* What the forward and the backward pass of attention share: tile sizes, where heads lie, which
 * keys a query sees, and the products of one tile. */
#ifndef FAIRWAY_CPU_ATTENTION_H
#define FAIRWAY_CPU_ATTENTION_H

#include "cpu.h"

/* A tile of scores is KEYS x QUERIES, one row for each key, so that the softmax runs down the rows
 * with one vector lane for each query and never across lanes. Two tiles and their operands fit the
 * first two levels of cache. */
enum { CPU_QUERIES = 64, CPU_KEYS = 64, CPU_LANES = 16 };

/* One head of one sequence: a matrix of positions x width. */
typedef struct cpu_head {
    float *data;
    int64_t stride;
} cpu_head;

static inline cpu_head cpu_head_of(const fw_tensor *x, int64_t b, int64_t h) {
    const int64_t stride = x->shape[1] > 1 ? x->stride[1] : x->shape[3];
    return (cpu_head){(float *)x->data + b * x->stride[0] + h * x->stride[2], stride};
}

static inline float *cpu_at(cpu_head head, int64_t position) {
    return head.data + position * head.stride;
}

/* A block of queries [t0, t0 + rows) of one sequence. Query i sees the keys [first[i], t0 + i +
 * shift]; neither end ever decreases with i. `lanes` is rows rounded up to whole vectors; the lanes
 * beyond the rows see nothing. */
typedef struct cpu_block {
    int64_t t0, rows, lanes, shift;
    int64_t first[CPU_QUERIES];
} cpu_block;

void cpu_block_init(cpu_block *block, const fw_flash_attention *a, int64_t b, int64_t t0);

/* to[D x QUERIES] = factor * transpose of `rows` rows of D, zeros in the lanes beyond them. */
void cpu_block_transpose(const cpu_block *block, const float *from, int64_t stride, float factor,
                         int64_t width, float *to);

/* to[rows x width] = rows [from, from + rows) of `head`. Rows of a packed q | k | v often lie a
 * multiple of 4096 bytes apart and would evict each other from the first-level cache. */
void cpu_pack(cpu_head head, int64_t from, int64_t rows, int64_t width, float *to);

/* scores[keys x lanes] = left[keys x D] times right[D x QUERIES]. */
void cpu_block_scores(const cpu_block *block, const float *left, int64_t keys, int64_t width,
                      const float *right, float *scores);

/* -infinity for every score whose query does not see its key. */
void cpu_block_mask(const cpu_block *block, int64_t k0, int64_t keys, float *scores);

/* u = v / max(|v|, 1e-12) into `unit`; returns max(|v|, 1e-12), and whether |v| was the larger. */
typedef struct cpu_length {
    float value;
    int above_floor;
} cpu_length;
cpu_length cpu_unit(const float *v, float *unit, int64_t width);

float cpu_dot(const float *a, const float *b, int64_t width);

#endif
