/* Tile products with AVX-512: a block of c is held in 16 vector registers while a is broadcast and
 * b streams by, enough independent sums to hide the latency of two FMA units. Where AVX-512 is not
 * built in, OpenBLAS does the work. */
#include "tile.h"

#include "cpu.h"

#ifdef __AVX512F__

#include <immintrin.h>

enum { LANES = 16 };

/* ROWS x VECTORS vectors of c; `mask` covers the last vector of each row. */
#define DEFINE_KERNEL(ROWS, VECTORS)                                                               \
    static void kernel_##ROWS##x##VECTORS(const cpu_tile *t, int64_t row, int64_t column,          \
                                          __mmask16 mask) {                                        \
        __m512 sum[ROWS][VECTORS];                                                                 \
        float *c = t->c + row * t->c_stride + column;                                              \
        for (int r = 0; r < ROWS; r++)                                                             \
            for (int v = 0; v < VECTORS; v++) {                                                    \
                const __mmask16 part = v == VECTORS - 1 ? mask : (__mmask16)0xffff;                \
                const float *from = c + r * t->c_stride + v * LANES;                               \
                sum[r][v] =                                                                        \
                    t->accumulate ? _mm512_maskz_loadu_ps(part, from) : _mm512_setzero_ps();       \
            }                                                                                      \
        const float *a = t->a + row * t->a_row, *b = t->b + column;                                \
        const int64_t a_row = t->a_row, a_step = t->a_step, b_stride = t->b_stride;                \
        for (int64_t l = 0; l < t->k; l++, a += a_step, b += b_stride) {                           \
            __m512 right[VECTORS];                                                                 \
            for (int v = 0; v < VECTORS; v++)                                                      \
                right[v] = v == VECTORS - 1 ? _mm512_maskz_loadu_ps(mask, b + v * LANES)           \
                                            : _mm512_loadu_ps(b + v * LANES);                      \
            for (int r = 0; r < ROWS; r++) {                                                       \
                const __m512 left = _mm512_set1_ps(a[r * a_row]);                                  \
                for (int v = 0; v < VECTORS; v++)                                                  \
                    sum[r][v] = _mm512_fmadd_ps(left, right[v], sum[r][v]);                        \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < ROWS; r++)                                                             \
            for (int v = 0; v < VECTORS; v++) {                                                    \
                const __mmask16 part = v == VECTORS - 1 ? mask : (__mmask16)0xffff;                \
                _mm512_mask_storeu_ps(c + r * t->c_stride + v * LANES, part, sum[r][v]);           \
            }                                                                                      \
    }

DEFINE_KERNEL(4, 4)
DEFINE_KERNEL(8, 2)
DEFINE_KERNEL(8, 1)
DEFINE_KERNEL(1, 4)
DEFINE_KERNEL(1, 2)
DEFINE_KERNEL(1, 1)

typedef void kernel(const cpu_tile *t, int64_t row, int64_t column, __mmask16 mask);

/* A panel of columns: blocks of `block` rows, then what is left row by row. */
static void multiply_panel(const cpu_tile *t, int64_t column, __mmask16 mask, kernel *many,
                           int64_t block, kernel *one) {
    int64_t row = 0;
    for (; row + block <= t->m; row += block) many(t, row, column, mask);
    for (; row < t->m; row++) one(t, row, column, mask);
}

void cpu_tile_multiply(const cpu_tile *t) {
    for (int64_t column = 0; column < t->n;) {
        const int64_t left = t->n - column, vectors = (left + LANES - 1) / LANES;
        const int64_t taken = vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1;
        const int64_t lanes = cpu_min(left - (taken - 1) * LANES, LANES);
        const __mmask16 mask = (__mmask16)(0xffffu >> (LANES - lanes));
        if (taken == 4)
            multiply_panel(t, column, mask, kernel_4x4, 4, kernel_1x4);
        else if (taken == 2)
            multiply_panel(t, column, mask, kernel_8x2, 8, kernel_1x2);
        else
            multiply_panel(t, column, mask, kernel_8x1, 8, kernel_1x1);
        column += taken * LANES;
    }
}

#else

void cpu_tile_multiply(const cpu_tile *t) {
    const int transposed = t->a_step != 1;
    cpu_multiply(&(cpu_product){.transpose_a = transposed,
                                .m = t->m,
                                .n = t->n,
                                .k = t->k,
                                .alpha = 1.0f,
                                .beta = t->accumulate ? 1.0f : 0.0f,
                                .a = t->a,
                                .lda = transposed ? t->a_step : t->a_row,
                                .b = t->b,
                                .ldb = t->b_stride,
                                .c = t->c,
                                .ldc = t->c_stride});
}

#endif
