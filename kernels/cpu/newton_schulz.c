/* Newton-Schulz orthogonalisation of a batch of matrices (Jordan et al., Muon, 2024). As many
 * matrices as there are threads run side by side; what is left over runs one by one with its
 * products split over the threads. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Each matrix is worked on as short x long, short <= long. */
typedef struct geometry {
    int64_t batch, rows, columns, size_short, size_long;
    int transposed;
} geometry;

static geometry measure(const fw_tensor *x) {
    const int batched = x->rank == 3;
    const int64_t rows = x->shape[batched], columns = x->shape[batched + 1];
    return (geometry){.batch = batched ? x->shape[0] : 1,
                      .rows = rows,
                      .columns = columns,
                      .size_short = cpu_min(rows, columns),
                      .size_long = cpu_max(rows, columns),
                      .transposed = rows > columns};
}

/* Floats of one slot: two short x long, two short x short. */
static int64_t slot_floats(const geometry *g) {
    return 2 * g->size_short * (g->size_long + g->size_short);
}

static int64_t slots(const cpu_device *cpu, const geometry *g) {
    return cpu_max(cpu_min(cpu->threads, g->batch), 1);
}

size_t cpu_newton_schulz_scratch(fw_device *device, const fw_newton_schulz *p) {
    const geometry g = measure(&p->x);
    return (size_t)(slots(cpu_self(device), &g) * slot_floats(&g)) * sizeof(float);
}

static double norm_of(const float *x, int64_t n) {
    double squares = 0.0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    return sqrt(squares);
}

/* to[columns x rows] = factor * from[rows x columns]^T. */
static void transpose(const float *from, float *to, int64_t rows, int64_t columns, float factor) {
    enum { SIDE = 16 };
    for (int64_t r0 = 0; r0 < rows; r0 += SIDE)
        for (int64_t c0 = 0; c0 < columns; c0 += SIDE)
            for (int64_t c = c0; c < cpu_min(c0 + SIDE, columns); c++)
                for (int64_t r = r0; r < cpu_min(r0 + SIDE, rows); r++)
                    to[c * rows + r] = factor * from[r * columns + c];
}

/* next = a x + (b A + c A A) x with A = x x^T; `gram` and `poly` hold A and the bracket. */
static void iterate(const fw_newton_schulz *p, const geometry *g, const float *x, float *next,
                    float *gram, int threads) {
    const int64_t s = g->size_short, l = g->size_long;
    float *poly = gram + s * s;
    cpu_multiply_parallel(&(cpu_product){.transpose_b = 1,
                                         .m = s,
                                         .n = s,
                                         .k = l,
                                         .alpha = 1.0f,
                                         .a = x,
                                         .lda = l,
                                         .b = x,
                                         .ldb = l,
                                         .c = gram,
                                         .ldc = s},
                          threads);
    memcpy(poly, gram, (size_t)(s * s) * sizeof *poly);
    cpu_multiply_parallel(&(cpu_product){.m = s,
                                         .n = s,
                                         .k = s,
                                         .alpha = p->c,
                                         .beta = p->b,
                                         .a = gram,
                                         .lda = s,
                                         .b = gram,
                                         .ldb = s,
                                         .c = poly,
                                         .ldc = s},
                          threads);
    memcpy(next, x, (size_t)(s * l) * sizeof *next);
    cpu_multiply_parallel(&(cpu_product){.m = s,
                                         .n = l,
                                         .k = s,
                                         .alpha = 1.0f,
                                         .beta = p->a,
                                         .a = poly,
                                         .lda = s,
                                         .b = x,
                                         .ldb = l,
                                         .c = next,
                                         .ldc = l},
                          threads);
}

static void orthogonalise(const fw_newton_schulz *p, const geometry *g, int64_t index, float *slot,
                          int threads) {
    const int64_t size = g->rows * g->columns;
    const float *from = (const float *)p->x.data + index * size;
    float *to = (float *)p->out.data + index * size;
    float *x = slot, *next = x + size, *gram = next + size;
    const float factor = (float)(1.0 / (norm_of(from, size) + (double)p->epsilon));
    if (g->transposed) {
        transpose(from, x, g->rows, g->columns, factor);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < size; i++) x[i] = factor * from[i];
    }
    for (uint32_t i = 0; i < p->iterations; i++) {
        iterate(p, g, x, next, gram, threads);
        float *swap = x;
        x = next;
        next = swap;
    }
    if (g->transposed)
        transpose(x, to, g->columns, g->rows, 1.0f);
    else
        memcpy(to, x, (size_t)size * sizeof *to);
}

static fw_status check(fw_device *device, const fw_newton_schulz *p, fw_error *error) {
    const char *op = "newton_schulz";
    if (p->x.rank != 2 && p->x.rank != 3)
        return fw_fail(error, FW_E_SHAPE, "%s: x has rank %u, expected 2, or 3 for a batch", op,
                       p->x.rank);
    FW_TRY(cpu_check_packed(op, "x", &p->x, FW_F32, -1, error));
    FW_TRY(cpu_check_packed(op, "out", &p->out, FW_F32, fw_tensor_count(&p->x), error));
    const size_t needed = cpu_newton_schulz_scratch(device, p);
    if (needed > 0 && (p->scratch == NULL || p->scratch_bytes < needed))
        return fw_fail(error, FW_E_ARGUMENT, "%s: scratch has %zu bytes, needs %zu", op,
                       p->scratch == NULL ? (size_t)0 : p->scratch_bytes, needed);
    return FW_OK;
}

fw_status cpu_newton_schulz(fw_device *device, const fw_newton_schulz *p, fw_error *error) {
    CPU_ARGUMENTS("newton_schulz", device, p, error);
    FW_TRY(check(device, p, error));
    const geometry g = measure(&p->x);
    if (fw_tensor_count(&p->x) == 0) return FW_OK;
    const int threads = cpu_self(device)->threads;
    const int64_t together = g.batch - g.batch % threads, floats = slot_floats(&g);
    float *scratch = (float *)p->scratch;
    /* Scratch by thread, not by index: OpenMP may give fewer threads than asked for. */
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (together > 0)
    for (int64_t i = 0; i < together; i++)
        orthogonalise(p, &g, i, scratch + omp_get_thread_num() * floats, 1);
    for (int64_t i = together; i < g.batch; i++) orthogonalise(p, &g, i, scratch, threads);
    return FW_OK;
}
