/* Causal grouped-query attention, forward: blocks of queries against blocks of keys with a running
 * softmax (Dao, 2023), so that no T x T matrix exists. Exclusive self attention is applied to the
 * finished rows. One (sequence, head, block of queries) is one unit of work on one thread. */
#include "attention.h"

#include "cpu_math.h"
#include "tile.h"

#include <float.h>
#include <omp.h>

/* ---- shared with the backward pass ---- */

/* Start of the document that holds `position`: the last entry that is not after it. */
static int64_t document_start(const int32_t *starts, int64_t n, int64_t position) {
    int64_t low = 0, high = n; /* starts[low - 1] <= position < starts[high] */
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (starts[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? starts[low - 1] : 0;
}

void cpu_block_init(cpu_block *block, const fw_flash_attention *a, int64_t b, int64_t t0) {
    block->t0 = t0;
    block->rows = cpu_min(CPU_QUERIES, a->q.shape[1] - t0);
    block->lanes = (block->rows + CPU_LANES - 1) / CPU_LANES * CPU_LANES;
    block->shift = a->k.shape[1] - a->q.shape[1];
    for (int64_t i = 0; i < block->rows; i++) {
        const int64_t own = t0 + i + block->shift;
        int64_t first = a->window > 0 ? cpu_max(0, own - a->window + 1) : 0;
        if (a->cu_seqlens.data != NULL) {
            const int64_t n = a->cu_seqlens.shape[1];
            const int32_t *starts = (const int32_t *)a->cu_seqlens.data + b * n;
            first = cpu_max(first, document_start(starts, n, own));
        }
        block->first[i] = first;
    }
}

void cpu_block_transpose(const cpu_block *block, const float *from, int64_t stride, float factor,
                         int64_t width, float *to) {
    for (int64_t d = 0; d < width; d++) {
        float *row = to + d * CPU_QUERIES;
        for (int64_t i = 0; i < block->rows; i++) row[i] = factor * from[i * stride + d];
        for (int64_t i = block->rows; i < block->lanes; i++) row[i] = 0.0f;
    }
}

void cpu_pack(cpu_head head, int64_t from, int64_t rows, int64_t width, float *to) {
    for (int64_t i = 0; i < rows; i++) {
        const float *row = cpu_at(head, from + i);
#pragma omp simd
        for (int64_t d = 0; d < width; d++) to[i * width + d] = row[d];
    }
}

void cpu_block_scores(const cpu_block *block, const float *left, int64_t keys, int64_t width,
                      const float *right, float *scores) {
    cpu_tile_multiply(&(cpu_tile){.m = keys,
                                  .n = block->lanes,
                                  .k = width,
                                  .a = left,
                                  .a_row = width,
                                  .a_step = 1,
                                  .b = right,
                                  .b_stride = CPU_QUERIES,
                                  .c = scores,
                                  .c_stride = CPU_QUERIES});
}

void cpu_block_mask(const cpu_block *block, int64_t k0, int64_t keys, float *scores) {
    const int64_t oldest = block->first[block->rows - 1], newest = block->t0 + block->shift;
    if (block->rows == block->lanes && k0 >= oldest && k0 + keys - 1 <= newest) return;
    int64_t end = 0; /* queries [begin, end) see key j */
    for (int64_t j = 0; j < keys; j++) {
        float *row = scores + j * CPU_QUERIES;
        const int64_t begin = cpu_min(cpu_max(k0 + j - newest, 0), block->lanes);
        while (end < block->rows && block->first[end] <= k0 + j) end++;
        for (int64_t i = 0; i < begin; i++) row[i] = -INFINITY;
        for (int64_t i = end; i < block->lanes; i++) row[i] = -INFINITY;
    }
}

float cpu_dot(const float *a, const float *b, int64_t width) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += a[i] * b[i];
    return sum;
}

cpu_length cpu_unit(const float *v, float *unit, int64_t width) {
    const float norm = sqrtf(cpu_dot(v, v, width));
    const cpu_length length = {norm > 1e-12f ? norm : 1e-12f, norm > 1e-12f};
    const float inverse = 1.0f / length.value;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) unit[i] = v[i] * inverse;
    return length;
}

size_t cpu_attention_scratch(fw_device *device, const fw_flash_attention *a) {
    (void)device;
    if (a->q.shape[3] > CPU_MAX_HEAD) return SIZE_MAX;
    return 0; /* tiles live in the device's workspace */
}

/* ---- forward ---- */

/* Fewer products of query and key elements than this run on the calling thread: those of a token
 * that is decoded. */
#define PARALLEL_WORK ((int64_t)1 << 19)

/* One thread's tiles, carved from its workspace. */
typedef struct tiles {
    float *scores;  /* KEYS x QUERIES */
    float *queries; /* D x QUERIES: scaled and transposed */
    float *k, *v;   /* KEYS x D */
    float *sums;    /* QUERIES x D: the unnormalised output */
    float *maximum; /* QUERIES */
    float *total;   /* QUERIES: sum of exp(score - maximum) */
    float *shrink;  /* QUERIES */
    float *unit;    /* D */
} tiles;

_Static_assert((CPU_QUERIES * (CPU_KEYS + 2 * CPU_MAX_HEAD + 3) +
                CPU_MAX_HEAD * (2 * CPU_KEYS + 1)) *
                       sizeof(float) <=
                   CPU_WORKSPACE_BYTES,
               "the forward tiles must fit the workspace");

static tiles carve(float *memory) {
    tiles t = {.scores = memory};
    t.queries = t.scores + CPU_KEYS * CPU_QUERIES;
    t.k = t.queries + CPU_MAX_HEAD * CPU_QUERIES;
    t.v = t.k + CPU_KEYS * CPU_MAX_HEAD;
    t.sums = t.v + CPU_KEYS * CPU_MAX_HEAD;
    t.maximum = t.sums + CPU_QUERIES * CPU_MAX_HEAD;
    t.total = t.maximum + CPU_QUERIES;
    t.shrink = t.total + CPU_QUERIES;
    t.unit = t.shrink + CPU_QUERIES;
    return t;
}

/* Scores -> weights relative to the running maximum. `shrink` is the factor by which the maximum's
 * move shrinks what was summed before. The maximum starts finite, so that no lane ever subtracts
 * infinity from infinity. */
static void softmax_tile(const tiles *t, int64_t keys, int64_t lanes) {
    float *maximum = t->maximum, *total = t->total, *shrink = t->shrink;
#pragma omp simd
    for (int64_t i = 0; i < lanes; i++) shrink[i] = maximum[i];
    for (int64_t j = 0; j < keys; j++) {
        const float *row = t->scores + j * CPU_QUERIES;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++) maximum[i] = row[i] > maximum[i] ? row[i] : maximum[i];
    }
#pragma omp simd
    for (int64_t i = 0; i < lanes; i++) {
        shrink[i] = cpu_exp(shrink[i] - maximum[i]);
        total[i] *= shrink[i];
    }
    for (int64_t j = 0; j < keys; j++) {
        float *row = t->scores + j * CPU_QUERIES;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++) {
            row[i] = cpu_exp(row[i] - maximum[i]);
            total[i] += row[i];
        }
    }
}

static void shrink_sums(const tiles *t, const cpu_block *block, int64_t width) {
    for (int64_t i = 0; i < block->rows; i++) {
        const float factor = t->shrink[i];
        if (factor == 1.0f) continue;
        float *sums = t->sums + i * width;
#pragma omp simd
        for (int64_t d = 0; d < width; d++) sums[d] *= factor;
    }
}

static void forward_tile(const tiles *t, const cpu_block *block, cpu_head k, cpu_head v, int64_t k0,
                         int64_t keys, int64_t width) {
    cpu_pack(k, k0, keys, width, t->k);
    cpu_pack(v, k0, keys, width, t->v);
    cpu_block_scores(block, t->k, keys, width, t->queries, t->scores);
    cpu_block_mask(block, k0, keys, t->scores);
    softmax_tile(t, keys, block->lanes);
    const int first = k0 == block->first[0];
    if (!first) shrink_sums(t, block, width);
    cpu_tile_multiply(&(cpu_tile){.m = block->rows,
                                  .n = width,
                                  .k = keys,
                                  .a = t->scores,
                                  .a_row = 1,
                                  .a_step = CPU_QUERIES,
                                  .b = t->v,
                                  .b_stride = width,
                                  .c = t->sums,
                                  .c_stride = width,
                                  .accumulate = !first});
}

/* Normalise the rows, leave the logarithm for backward, take out the part along the own value. */
static void finish_rows(const fw_flash_attention *a, const tiles *t, const cpu_block *block,
                        int64_t b, int64_t h, cpu_head v) {
    const int64_t width = a->q.shape[3], statistics = (b * a->q.shape[2] + h) * a->q.shape[1];
    const cpu_head out = cpu_head_of(&a->out, b, h);
    for (int64_t i = 0; i < block->rows; i++) {
        const int64_t position = block->t0 + i;
        const float *sums = t->sums + i * width, inverse = 1.0f / t->total[i];
        float *row = cpu_at(out, position), dot = 0.0f;
#pragma omp simd
        for (int64_t d = 0; d < width; d++) row[d] = sums[d] * inverse;
        ((float *)a->log_sum_exp.data)[statistics + position] = t->maximum[i] + logf(t->total[i]);
        if (!a->exclude_self) continue;
        (void)cpu_unit(cpu_at(v, position + block->shift), t->unit, width);
        dot = cpu_dot(row, t->unit, width);
#pragma omp simd
        for (int64_t d = 0; d < width; d++) row[d] -= dot * t->unit[d];
        ((float *)a->self_dot.data)[statistics + position] = dot;
    }
}

static void forward_block(const fw_flash_attention *a, const tiles *t, int64_t b, int64_t h,
                          int64_t t0) {
    const int64_t width = a->q.shape[3], kv = h / (a->q.shape[2] / a->k.shape[2]);
    const cpu_head q = cpu_head_of(&a->q, b, h), k = cpu_head_of(&a->k, b, kv);
    const cpu_head v = cpu_head_of(&a->v, b, kv);
    cpu_block block;
    cpu_block_init(&block, a, b, t0);
    cpu_block_transpose(&block, cpu_at(q, t0), q.stride, a->scale, width, t->queries);
    for (int64_t i = 0; i < block.lanes; i++) {
        t->maximum[i] = -FLT_MAX;
        t->total[i] = 0.0f;
    }
    const int64_t end = t0 + block.rows + block.shift;
    for (int64_t k0 = block.first[0]; k0 < end; k0 += CPU_KEYS)
        forward_tile(t, &block, k, v, k0, cpu_min(CPU_KEYS, end - k0), width);
    finish_rows(a, t, &block, b, h, v);
}

fw_status cpu_attention_forward(fw_device *device, const fw_flash_attention *a, fw_error *error) {
    CPU_ARGUMENTS("attention_forward", device, a, error);
    FW_TRY(kernel_check_attention("attention_forward", a, FW_F32, CPU_MAX_HEAD, error));
    const cpu_device *cpu = cpu_self(device);
    const int64_t tokens = a->q.shape[1], heads = a->q.shape[2];
    const int64_t blocks = (tokens + CPU_QUERIES - 1) / CPU_QUERIES;
    const int64_t units = a->q.shape[0] * heads * blocks;
    const int64_t work = fw_tensor_count(&a->q) * a->k.shape[1];
#pragma omp parallel num_threads(cpu->threads) if (units > 1 && work >= PARALLEL_WORK)
    {
        const tiles t = carve((float *)cpu_workspace(cpu, omp_get_thread_num()));
        /* Late blocks see the most keys: start with them, so that no thread ends with a long one.
         */
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < units; unit++) {
            const int64_t block = blocks - 1 - unit % blocks, head = unit / blocks;
            forward_block(a, &t, head / heads, head % heads, block * CPU_QUERIES);
        }
    }
    return FW_OK;
}
