/* Causal grouped-query attention, backward: the scores are formed again tile by tile from the saved
 * logarithms (Dao, 2023). One (sequence, key/value head) is one unit of work: its thread alone adds
 * to d_k and d_v, walking query heads and blocks in order, so no atomics and no races. */
#include "attention.h"

#include "cpu_math.h"
#include "tile.h"

#include <omp.h>
#include <string.h>

/* One thread's tiles, carved from its workspace. */
typedef struct tiles {
    float *weights;   /* KEYS x QUERIES: scores, then softmax weights */
    float *slopes;    /* KEYS x QUERIES: d weights, then d scores */
    float *queries;   /* D x QUERIES: scaled and transposed */
    float *gradients; /* D x QUERIES: d_rows transposed */
    float *d_rows;    /* QUERIES x D: gradient of the plain attention output */
    float *q, *d_q;   /* QUERIES x D */
    float *k, *v;     /* KEYS x D */
    float *logarithm; /* QUERIES: log_sum_exp */
    float *delta;     /* QUERIES: d_rows . rows */
    float *unit;      /* D */
    float *plain;     /* D: the output before the own value was taken out */
    float *d_unit;    /* D */
} tiles;

_Static_assert((CPU_QUERIES * (2 * CPU_KEYS + 5 * CPU_MAX_HEAD + 2) +
                CPU_MAX_HEAD * (2 * CPU_KEYS + 3)) *
                       sizeof(float) <=
                   CPU_WORKSPACE_BYTES,
               "the backward tiles must fit the workspace");

static tiles carve(float *memory) {
    tiles t = {.weights = memory};
    t.slopes = t.weights + CPU_KEYS * CPU_QUERIES;
    t.queries = t.slopes + CPU_KEYS * CPU_QUERIES;
    t.gradients = t.queries + CPU_MAX_HEAD * CPU_QUERIES;
    t.d_rows = t.gradients + CPU_MAX_HEAD * CPU_QUERIES;
    t.q = t.d_rows + CPU_QUERIES * CPU_MAX_HEAD;
    t.d_q = t.q + CPU_QUERIES * CPU_MAX_HEAD;
    t.k = t.d_q + CPU_QUERIES * CPU_MAX_HEAD;
    t.v = t.k + CPU_KEYS * CPU_MAX_HEAD;
    t.logarithm = t.v + CPU_KEYS * CPU_MAX_HEAD;
    t.delta = t.logarithm + CPU_QUERIES;
    t.unit = t.delta + CPU_QUERIES;
    t.plain = t.unit + CPU_MAX_HEAD;
    t.d_unit = t.plain + CPU_MAX_HEAD;
    return t;
}

/* The heads that one unit of work reads and writes, and where its statistics start. */
typedef struct heads {
    cpu_head q, k, v, out, d_out, d_q, d_k, d_v;
    const float *log_sum_exp, *self_dot;
    int64_t width;
} heads;

static heads locate(const fw_flash_attention *a, int64_t b, int64_t h) {
    const int64_t kv = h / (a->q.shape[2] / a->k.shape[2]);
    const int64_t statistics = (b * a->q.shape[2] + h) * a->q.shape[1];
    const float *self_dot = (const float *)a->self_dot.data;
    return (heads){.q = cpu_head_of(&a->q, b, h),
                   .k = cpu_head_of(&a->k, b, kv),
                   .v = cpu_head_of(&a->v, b, kv),
                   .out = cpu_head_of(&a->out, b, h),
                   .d_out = cpu_head_of(&a->d_out, b, h),
                   .d_q = cpu_head_of(&a->d_q, b, h),
                   .d_k = cpu_head_of(&a->d_k, b, kv),
                   .d_v = cpu_head_of(&a->d_v, b, kv),
                   .log_sum_exp = (const float *)a->log_sum_exp.data + statistics,
                   .self_dot = a->exclude_self ? self_dot + statistics : NULL,
                   .width = a->q.shape[3]};
}

/* Exclusive self attention, row i: out = y - (y.u) u with u = v / |v|. From d_out: d_y, delta =
 * d_y . y, and what reaches v through u. */
static void self_row(const tiles *t, const heads *at, int64_t position, int64_t shift, int64_t i) {
    const float *out = cpu_at(at->out, position), *d_out = cpu_at(at->d_out, position);
    const cpu_length length = cpu_unit(cpu_at(at->v, position + shift), t->unit, at->width);
    const float self = at->self_dot[position], along = cpu_dot(d_out, t->unit, at->width);
    float *d_row = t->d_rows + i * at->width, delta = 0.0f;
#pragma omp simd reduction(+ : delta)
    for (int64_t d = 0; d < at->width; d++) {
        t->plain[d] = out[d] + self * t->unit[d];
        d_row[d] = d_out[d] - along * t->unit[d];
        t->d_unit[d] = -(self * d_out[d] + along * t->plain[d]);
        delta += d_row[d] * t->plain[d];
    }
    t->delta[i] = delta;
    const float radial = length.above_floor ? cpu_dot(t->d_unit, t->unit, at->width) : 0.0f;
    const float inverse = 1.0f / length.value;
    float *d_v = cpu_at(at->d_v, position + shift);
#pragma omp simd
    for (int64_t d = 0; d < at->width; d++)
        d_v[d] += (t->d_unit[d] - radial * t->unit[d]) * inverse;
}

/* Everything about a block of queries that its tiles share. */
static void load_block(const tiles *t, const heads *at, const cpu_block *block, float scale) {
    for (int64_t i = 0; i < block->rows; i++) {
        const int64_t position = block->t0 + i;
        t->logarithm[i] = at->log_sum_exp[position];
        if (at->self_dot != NULL) {
            self_row(t, at, position, block->shift, i);
            continue;
        }
        const float *d_out = cpu_at(at->d_out, position);
        memcpy(t->d_rows + i * at->width, d_out, (size_t)at->width * sizeof(float));
        t->delta[i] = cpu_dot(d_out, cpu_at(at->out, position), at->width);
    }
    for (int64_t i = block->rows; i < block->lanes; i++) t->logarithm[i] = t->delta[i] = 0.0f;
    cpu_pack(at->q, block->t0, block->rows, at->width, t->q);
    cpu_block_transpose(block, t->q, at->width, scale, at->width, t->queries);
    cpu_block_transpose(block, t->d_rows, at->width, 1.0f, at->width, t->gradients);
}

/* Scores -> weights and d weights -> d scores, in place; both 0 where a query does not look. */
static void softmax_slopes(const tiles *t, int64_t keys, int64_t lanes, float scale) {
    const float *logarithm = t->logarithm, *delta = t->delta;
    for (int64_t j = 0; j < keys; j++) {
        float *weights = t->weights + j * CPU_QUERIES, *slopes = t->slopes + j * CPU_QUERIES;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++) {
            const float weight = cpu_exp(weights[i] - logarithm[i]);
            weights[i] = weight;
            slopes[i] = weight * (slopes[i] - delta[i]) * scale;
        }
    }
}

/* Rows [k0, k0 + keys) of y += tile[keys x queries] x[queries x D]: d_v and d_k. */
static void add_to_keys(const cpu_block *block, const float *tile, const float *x, cpu_head y,
                        int64_t k0, int64_t keys, int64_t width) {
    cpu_tile_multiply(&(cpu_tile){.m = keys,
                                  .n = width,
                                  .k = block->rows,
                                  .a = tile,
                                  .a_row = CPU_QUERIES,
                                  .a_step = 1,
                                  .b = x,
                                  .b_stride = width,
                                  .c = cpu_at(y, k0),
                                  .c_stride = y.stride,
                                  .accumulate = 1});
}

static void backward_tile(const tiles *t, const heads *at, const cpu_block *block, int64_t k0,
                          int64_t keys, float scale) {
    const int64_t width = at->width;
    cpu_pack(at->k, k0, keys, width, t->k);
    cpu_pack(at->v, k0, keys, width, t->v);
    cpu_block_scores(block, t->k, keys, width, t->queries, t->weights);
    cpu_block_scores(block, t->v, keys, width, t->gradients, t->slopes);
    cpu_block_mask(block, k0, keys, t->weights);
    softmax_slopes(t, keys, block->lanes, scale);
    add_to_keys(block, t->weights, t->d_rows, at->d_v, k0, keys, width);
    add_to_keys(block, t->slopes, t->q, at->d_k, k0, keys, width);
    cpu_tile_multiply(&(cpu_tile){.m = block->rows,
                                  .n = width,
                                  .k = keys,
                                  .a = t->slopes,
                                  .a_row = 1,
                                  .a_step = CPU_QUERIES,
                                  .b = t->k,
                                  .b_stride = width,
                                  .c = t->d_q,
                                  .c_stride = width,
                                  .accumulate = k0 > block->first[0]});
}

static void backward_head(const fw_flash_attention *a, const tiles *t, int64_t b, int64_t h) {
    const heads at = locate(a, b, h);
    for (int64_t t0 = 0; t0 < a->q.shape[1]; t0 += CPU_QUERIES) {
        cpu_block block;
        cpu_block_init(&block, a, b, t0);
        load_block(t, &at, &block, a->scale);
        const int64_t end = t0 + block.rows + block.shift;
        for (int64_t k0 = block.first[0]; k0 < end; k0 += CPU_KEYS)
            backward_tile(t, &at, &block, k0, cpu_min(CPU_KEYS, end - k0), a->scale);
        for (int64_t i = 0; i < block.rows; i++)
            memcpy(cpu_at(at.d_q, t0 + i), t->d_q + i * at.width, (size_t)at.width * sizeof(float));
    }
}

static void backward_group(const fw_flash_attention *a, const tiles *t, int64_t b, int64_t kv) {
    const int64_t group = a->q.shape[2] / a->k.shape[2];
    const size_t bytes = (size_t)a->q.shape[3] * sizeof(float);
    const cpu_head d_k = cpu_head_of(&a->d_k, b, kv), d_v = cpu_head_of(&a->d_v, b, kv);
    for (int64_t s = 0; s < a->k.shape[1]; s++) {
        memset(cpu_at(d_k, s), 0, bytes);
        if (!a->accumulate_dv) memset(cpu_at(d_v, s), 0, bytes);
    }
    for (int64_t i = 0; i < group; i++) backward_head(a, t, b, kv * group + i);
}

fw_status cpu_attention_backward(fw_device *device, const fw_flash_attention *a, fw_error *error) {
    const char *op = "attention_backward";
    CPU_ARGUMENTS(op, device, a, error);
    FW_TRY(kernel_check_attention(op, a, FW_F32, CPU_MAX_HEAD, error));
    FW_TRY(cpu_check_heads(op, "d_out", &a->d_out, a->q.shape, error));
    FW_TRY(cpu_check_heads(op, "d_q", &a->d_q, a->q.shape, error));
    FW_TRY(cpu_check_heads(op, "d_k", &a->d_k, a->k.shape, error));
    FW_TRY(cpu_check_heads(op, "d_v", &a->d_v, a->k.shape, error));
    const cpu_device *cpu = cpu_self(device);
    const int64_t groups = a->k.shape[2], units = a->k.shape[0] * groups;
#pragma omp parallel num_threads(cpu->threads) if (units > 1)
    {
        const tiles t = carve((float *)cpu_workspace(cpu, omp_get_thread_num()));
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < units; unit++)
            backward_group(a, &t, unit / groups, unit % groups);
    }
    return FW_OK;
}
