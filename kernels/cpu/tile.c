/* Tile products with AVX-512: a block of c is held in 16 vector registers while a is broadcast and
 * b streams by, enough independent sums to hide the latency of two FMA units. Where AVX-512 is not
 * built in, OpenBLAS does the work. */
#include "tile.h"

#include "cpu.h"

#ifdef __AVX512F__

#include <immintrin.h>

enum { LANES = 16 };

/* Parts of a row of c as named members, which the compiler keeps in registers where it would spill
 * an array: 64 columns, or up to 32 under masks. */
typedef struct row4 {
    __m512 v0, v1, v2, v3;
} row4;

typedef struct row2 {
    __m512 v0, v1;
} row2;

typedef struct masks {
    __mmask16 m0, m1;
} masks;

static inline row4 load4(const float *x) {
    return (row4){_mm512_loadu_ps(x), _mm512_loadu_ps(x + LANES), _mm512_loadu_ps(x + 2 * LANES),
                  _mm512_loadu_ps(x + 3 * LANES)};
}

static inline void store4(float *x, row4 r) {
    _mm512_storeu_ps(x, r.v0);
    _mm512_storeu_ps(x + LANES, r.v1);
    _mm512_storeu_ps(x + 2 * LANES, r.v2);
    _mm512_storeu_ps(x + 3 * LANES, r.v3);
}

static inline row4 add4(row4 sum, const float *left, row4 right) {
    const __m512 x = _mm512_set1_ps(*left);
    return (row4){_mm512_fmadd_ps(x, right.v0, sum.v0), _mm512_fmadd_ps(x, right.v1, sum.v1),
                  _mm512_fmadd_ps(x, right.v2, sum.v2), _mm512_fmadd_ps(x, right.v3, sum.v3)};
}

static inline row2 load2(const float *x, masks m) {
    return (row2){_mm512_maskz_loadu_ps(m.m0, x), _mm512_maskz_loadu_ps(m.m1, x + LANES)};
}

static inline void store2(float *x, masks m, row2 r) {
    _mm512_mask_storeu_ps(x, m.m0, r.v0);
    _mm512_mask_storeu_ps(x + LANES, m.m1, r.v1);
}

static inline row2 add2(row2 sum, const float *left, row2 right) {
    const __m512 x = _mm512_set1_ps(*left);
    return (row2){_mm512_fmadd_ps(x, right.v0, sum.v0), _mm512_fmadd_ps(x, right.v1, sum.v1)};
}

static inline row4 zero4(void) {
    const __m512 z = _mm512_setzero_ps();
    return (row4){z, z, z, z};
}

static inline row2 zero2(void) { return (row2){_mm512_setzero_ps(), _mm512_setzero_ps()}; }

/* Four rows of 64 columns. */
static void kernel_4x64(const cpu_tile *t, int64_t row, int64_t column) {
    const int64_t ar = t->a_row, as = t->a_step, bs = t->b_stride, cs = t->c_stride;
    const float *a = t->a + row * ar, *b = t->b + column;
    float *c = t->c + row * cs + column;
    row4 s0 = zero4(), s1 = s0, s2 = s0, s3 = s0;
    if (t->accumulate) {
        s0 = load4(c), s1 = load4(c + cs);
        s2 = load4(c + 2 * cs), s3 = load4(c + 3 * cs);
    }
    for (int64_t l = t->k; l > 0; l--, a += as, b += bs) {
        const row4 right = load4(b);
        s0 = add4(s0, a, right);
        s1 = add4(s1, a + ar, right);
        s2 = add4(s2, a + 2 * ar, right);
        s3 = add4(s3, a + 3 * ar, right);
    }
    store4(c, s0), store4(c + cs, s1);
    store4(c + 2 * cs, s2), store4(c + 3 * cs, s3);
}

static void kernel_1x64(const cpu_tile *t, int64_t row, int64_t column) {
    const float *a = t->a + row * t->a_row, *b = t->b + column;
    float *c = t->c + row * t->c_stride + column;
    row4 sum = t->accumulate ? load4(c) : zero4();
    for (int64_t l = t->k; l > 0; l--, a += t->a_step, b += t->b_stride)
        sum = add4(sum, a, load4(b));
    store4(c, sum);
}

/* Eight rows of up to 32 columns. */
static void kernel_8x32(const cpu_tile *t, int64_t row, int64_t column, masks m) {
    const int64_t ar = t->a_row, as = t->a_step, bs = t->b_stride, cs = t->c_stride;
    const float *a = t->a + row * ar, *b = t->b + column;
    float *c = t->c + row * cs + column;
    row2 s0 = zero2(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    if (t->accumulate) {
        s0 = load2(c, m), s1 = load2(c + cs, m);
        s2 = load2(c + 2 * cs, m), s3 = load2(c + 3 * cs, m);
        s4 = load2(c + 4 * cs, m), s5 = load2(c + 5 * cs, m);
        s6 = load2(c + 6 * cs, m), s7 = load2(c + 7 * cs, m);
    }
    for (int64_t l = t->k; l > 0; l--, a += as, b += bs) {
        const row2 right = load2(b, m);
        const float *a4 = a + 4 * ar;
        s0 = add2(s0, a, right), s1 = add2(s1, a + ar, right);
        s2 = add2(s2, a + 2 * ar, right), s3 = add2(s3, a + 3 * ar, right);
        s4 = add2(s4, a4, right), s5 = add2(s5, a4 + ar, right);
        s6 = add2(s6, a4 + 2 * ar, right), s7 = add2(s7, a4 + 3 * ar, right);
    }
    store2(c, m, s0), store2(c + cs, m, s1);
    store2(c + 2 * cs, m, s2), store2(c + 3 * cs, m, s3);
    store2(c + 4 * cs, m, s4), store2(c + 5 * cs, m, s5);
    store2(c + 6 * cs, m, s6), store2(c + 7 * cs, m, s7);
}

static void kernel_1x32(const cpu_tile *t, int64_t row, int64_t column, masks m) {
    const float *a = t->a + row * t->a_row, *b = t->b + column;
    float *c = t->c + row * t->c_stride + column;
    row2 sum = t->accumulate ? load2(c, m) : zero2();
    for (int64_t l = t->k; l > 0; l--, a += t->a_step, b += t->b_stride)
        sum = add2(sum, a, load2(b, m));
    store2(c, m, sum);
}

/* Blocks of rows, then what is left row by row. */
static void multiply_64(const cpu_tile *t, int64_t column) {
    int64_t row = 0;
    for (; row + 4 <= t->m; row += 4) kernel_4x64(t, row, column);
    for (; row < t->m; row++) kernel_1x64(t, row, column);
}

static void multiply_32(const cpu_tile *t, int64_t column, int64_t columns) {
    const uint32_t bits = columns >= 32 ? 0xffffffffu : ((uint32_t)1 << columns) - 1;
    const masks m = {(__mmask16)(bits & 0xffffu), (__mmask16)(bits >> 16)};
    int64_t row = 0;
    for (; row + 8 <= t->m; row += 8) kernel_8x32(t, row, column, m);
    for (; row < t->m; row++) kernel_1x32(t, row, column, m);
}

void cpu_tile_multiply(const cpu_tile *t) {
    int64_t column = 0;
    for (; column + 64 <= t->n; column += 64) multiply_64(t, column);
    for (; column < t->n; column += 32) multiply_32(t, column, cpu_min(t->n - column, 32));
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
