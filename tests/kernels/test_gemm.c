/* Matrix products: all transpositions, batches, views into wider rows, alpha and beta. */
#include "harness.h"
#include "reference.h"

#include <math.h>

typedef struct problem {
    int64_t batch, m, n, k;
    int transpose_a, transpose_b;
    double alpha, beta;
    int64_t slack; /* columns by which rows are wider than the matrix */
    uint32_t c_dtype;
} problem;

/* [batch, rows, columns] inside rows of columns + slack; rank 2 without a batch. */
static fw_tensor view(const array *a, int64_t batch, int64_t rows, int64_t columns, int64_t slack) {
    if (batch == 0) {
        fw_tensor t = fw_matrix(a->memory, a->dtype, rows, columns);
        t.stride[0] = columns + slack;
        return t;
    }
    fw_tensor t = fw_tensor_view(a->memory, a->dtype, 3, batch, rows, columns, 1);
    t.stride[1] = columns + slack;
    t.stride[0] = rows * (columns + slack);
    return t;
}

/* The matrix `index` of a, without the slack; `to` has room for it. */
static void extract(const array *a, int64_t index, int64_t rows, int64_t columns, int64_t slack,
                    double *to) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + r * columns, a->host + (index * rows + r) * (columns + slack),
               (size_t)columns * sizeof *to);
}

static void expect_product(const problem *p, const array *a, const array *b, const array *before,
                           array *c) {
    const int64_t batch = p->batch > 0 ? p->batch : 1;
    const int64_t a_rows = p->transpose_a ? p->k : p->m, a_columns = p->transpose_a ? p->m : p->k;
    const int64_t b_rows = p->transpose_b ? p->n : p->k, b_columns = p->transpose_b ? p->k : p->n;
    double *x = make_poison(p->m * p->k, FW_F32)->host, *y = make_poison(p->k * p->n, FW_F32)->host;
    double *want = make_poison(p->m * p->n, FW_F32)->host;
    array *got = make_poison(p->m * p->n, FW_F32);
    fetch(c);
    for (int64_t i = 0; i < batch; i++) {
        extract(a, i, a_rows, a_columns, p->slack, x);
        extract(b, i, b_rows, b_columns, p->slack, y);
        extract(before, i, p->m, p->n, p->slack, want);
        reference_gemm(p->transpose_a, p->transpose_b, p->m, p->n, p->k, p->alpha, p->beta, x, y,
                       want);
        extract(c, i, p->m, p->n, p->slack, got->host);
        expect_close("c", make_values(got->host, got->n, FW_F32), want,
                     c->dtype == FW_F32 ? tolerance(2e-6, 1e-5) : 4e-3);
    }
}

static void run_case(problem p) {
    const int64_t batch = p.batch > 0 ? p.batch : 1;
    const int64_t a_rows = p.transpose_a ? p.k : p.m, a_columns = p.transpose_a ? p.m : p.k;
    const int64_t b_rows = p.transpose_b ? p.n : p.k, b_columns = p.transpose_b ? p.k : p.n;
    array *a = make_random(batch * a_rows * (a_columns + p.slack), compute, 1.0);
    array *b = make_random(batch * b_rows * (b_columns + p.slack), compute, 1.0);
    const int64_t c_count = batch * p.m * (p.n + p.slack);
    array *c =
        p.beta == 0.0 ? make_poison(c_count, p.c_dtype) : make_random(c_count, p.c_dtype, 1.0);
    array *before = make_values(c->host, c_count, p.c_dtype);
    const fw_gemm g = {.struct_size = sizeof g,
                       .transpose_a = (uint32_t)p.transpose_a,
                       .transpose_b = (uint32_t)p.transpose_b,
                       .alpha = (float)p.alpha,
                       .beta = (float)p.beta,
                       .a = view(a, p.batch, a_rows, a_columns, p.slack),
                       .b = view(b, p.batch, b_rows, b_columns, p.slack),
                       .c = view(c, p.batch, p.m, p.n, p.slack)};
    if (p.beta == 0.0 && p.slack == 0)
        RUN_TWICE(gemm, &g, c);
    else
        RUN(gemm, &g);
    expect_product(&p, a, b, before, c);
}

/* What is added may lie elsewhere, and stays as it is. */
static void test_addend(void **state) {
    (void)state;
    for (uint32_t f32 = 0; f32 < 2; f32++) {
        const problem p = {.batch = f32 ? 3 : 0,
                           .m = between(20, 70),
                           .n = 8 * between(3, 9),
                           .k = 8 * between(2, 9),
                           .transpose_b = 1,
                           .alpha = 1.0,
                           .beta = 0.5,
                           .slack = 8,
                           .c_dtype = f32 ? FW_F32 : compute};
        const int64_t batch = f32 ? 3 : 1, rows = batch * p.m;
        array *a = make_random(rows * (p.k + p.slack), compute, 1.0);
        array *b = make_random(batch * p.n * (p.k + p.slack), compute, 1.0);
        array *addend = make_random(rows * (p.n + p.slack), p.c_dtype, 1.0);
        array *before = make_values(addend->host, addend->n, p.c_dtype);
        array *c = make_poison(addend->n, p.c_dtype);
        fw_gemm g = {.struct_size = sizeof g,
                     .transpose_b = 1,
                     .alpha = 1.0f,
                     .beta = 0.5f,
                     .a = view(a, p.batch, p.m, p.k, p.slack),
                     .b = view(b, p.batch, p.n, p.k, p.slack),
                     .c = view(c, p.batch, p.m, p.n, p.slack),
                     .addend = view(addend, p.batch, p.m, p.n, p.slack)};
        RUN(gemm, &g);
        expect_product(&p, a, b, before, c);
        expect_close("the addend", addend, before->host, 0.0);
        g.addend.shape[g.addend.rank - 1]--;
        REFUSES(FW_E_SHAPE, gemm, &g);
    }
}

static void test_transposes(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        run_case((problem){.m = between(1, 200),
                           .n = between(1, 200),
                           .k = between(1, 200),
                           .transpose_a = i & 1,
                           .transpose_b = i >> 1,
                           .alpha = 1.0,
                           .c_dtype = compute});
        run_case((problem){.m = between(200, 400),
                           .n = between(20, 60),
                           .k = between(60, 200),
                           .transpose_a = i & 1,
                           .transpose_b = i >> 1,
                           .alpha = -0.5,
                           .beta = 1.0,
                           .slack = 8,
                           .c_dtype = FW_F32});
        run_case((problem){.m = between(1, 9),
                           .n = between(200, 500),
                           .k = between(100, 300),
                           .transpose_a = i & 1,
                           .transpose_b = i >> 1,
                           .alpha = 1.0,
                           .beta = 0.25,
                           .slack = 3,
                           .c_dtype = FW_F32});
    }
}

static void test_batches(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++)
        run_case((problem){.batch = i + 1,
                           .m = between(1, 90),
                           .n = between(1, 90),
                           .k = between(1, 90),
                           .transpose_a = i & 1,
                           .transpose_b = i >> 1,
                           .alpha = 2.0,
                           .beta = i == 3 ? 1.0 : 0.0,
                           .slack = i == 2 ? 16 : 0,
                           .c_dtype = compute});
}

/* The gradient of a weight: short, wide, and a long sum. */
static void test_long_sum(void **state) {
    (void)state;
    run_case(
        (problem){.m = 48, .n = 32, .k = 3000, .transpose_a = 1, .alpha = 1.0, .c_dtype = FW_F32});
    run_case((problem){.m = 1, .n = 1, .k = 1, .alpha = 1.0, .c_dtype = FW_F32});
}

/* The products of the reference model, forward, back to activations and back to weights, with row
 * counts that end inside a tile. */
static void test_real_shapes(void **state) {
    const int64_t widths[][2] = {{1024, 512}, {512, 512}, {1536, 512}, {512, 1536}};
    for (int i = 0; i < 4; i++) {
        const int64_t n = widths[i][0], k = widths[i][1], rows = between(100, 140);
        run_case((problem){
            .m = rows, .n = n, .k = k, .transpose_b = 1, .alpha = 1.0, .c_dtype = compute});
        run_case((problem){.m = rows, .n = k, .k = n, .alpha = 1.0, .c_dtype = compute});
        run_case((problem){.m = n,
                           .n = k,
                           .k = rows,
                           .transpose_a = 1,
                           .alpha = 1.0,
                           .beta = 1.0,
                           .c_dtype = FW_F32});
        teardown(state);
    }
}

/* Activations as views into wider rows, as a QKV product writes and reads them. */
static void test_real_views(void **state) {
    (void)state;
    run_case((problem){.m = 129,
                       .n = 512,
                       .k = 256,
                       .transpose_b = 1,
                       .alpha = 1.0,
                       .slack = 512,
                       .c_dtype = compute});
    run_case((problem){.m = 256,
                       .n = 512,
                       .k = 1031,
                       .transpose_a = 1,
                       .alpha = 1.0,
                       .slack = 8,
                       .c_dtype = FW_F32});
}

static void test_refuses(void **state) {
    (void)state;
    array *a = make_random(12, compute, 1.0), *b = make_random(12, compute, 1.0);
    array *c = make_poison(16, FW_F32);
    const fw_gemm good = {.struct_size = sizeof good,
                          .alpha = 1.0f,
                          .a = fw_matrix(a->memory, compute, 4, 3),
                          .b = fw_matrix(b->memory, compute, 3, 4),
                          .c = fw_matrix(c->memory, FW_F32, 4, 4)};
    fw_gemm bad = good;
    bad.c.shape[1] = 3;
    REFUSES(FW_E_SHAPE, gemm, &bad);
    bad = good;
    bad.transpose_b = 1;
    REFUSES(FW_E_SHAPE, gemm, &bad);
    bad = good;
    bad.a.dtype = FW_I32;
    REFUSES(FW_E_UNSUPPORTED, gemm, &bad);
    bad = good;
    bad.b = fw_absent();
    REFUSES(FW_E_ARGUMENT, gemm, &bad);
    bad = good;
    bad.c = fw_tensor_view(c->memory, FW_F32, 3, 1, 4, 4, 1);
    REFUSES(FW_E_SHAPE, gemm, &bad);
    bad = good;
    bad.struct_size = 8;
    REFUSES(FW_E_ARGUMENT, gemm, &bad);
    fetch(c);
    assert_true(isnan(c->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TEST(test_transposes),  OP_TEST(test_addend),
                                       OP_TEST(test_batches),     OP_TEST(test_long_sum),
                                       OP_TEST(test_real_shapes), OP_TEST(test_real_views),
                                       OP_TEST(test_refuses)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
