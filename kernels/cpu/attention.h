/* What the forward and the backward pass of attention share: tile sizes, where heads lie, which
 * keys a query sees, and the products of one tile. */
#ifndef FAIRWAY_CPU_ATTENTION_H
#define FAIRWAY_CPU_ATTENTION_H

#include "cpu.h"

/* A tile of scores is QUERIES x KEYS: it stays in the second-level cache beside its operands. */
enum { CPU_QUERIES = 64, CPU_KEYS = 128 };

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

/* A block of queries [t0, t0 + rows) of one sequence and the keys [first[i], first[i] + ...,
 * t0 + i + shift] that each of them sees; both ends never decrease with i. */
typedef struct cpu_block {
    int64_t t0, rows, shift;
    int64_t first[CPU_QUERIES];
} cpu_block;

void cpu_block_init(cpu_block *block, const fw_flash_attention *a, int64_t b, int64_t t0);

/* The columns [begin, end) of a tile of keys [k0, k0 + columns) that row i sees; may be empty. */
typedef struct cpu_span {
    int64_t begin, end;
} cpu_span;

static inline cpu_span cpu_visible(const cpu_block *block, int64_t i, int64_t k0, int64_t columns) {
    const int64_t last = block->t0 + i + block->shift;
    return (cpu_span){cpu_max(block->first[i] - k0, 0), cpu_min(last - k0 + 1, columns)};
}

/* u = v / max(|v|, 1e-12) into `unit`; returns max(|v|, 1e-12), and whether |v| was the larger. */
typedef struct cpu_length {
    float value;
    int above_floor;
} cpu_length;
cpu_length cpu_unit(const float *v, float *unit, int64_t width);

float cpu_dot(const float *a, const float *b, int64_t width);

/* Checks everything that both passes read and write; `op` names the pass. */
fw_status cpu_attention_check(const char *op, const fw_flash_attention *a, fw_error *error);

#endif
