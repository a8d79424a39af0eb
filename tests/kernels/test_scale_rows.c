/* Rows times a value each, and the gradients of both. */
#include "harness.h"

#include <math.h>

typedef struct problem {
    int64_t rows, columns;
    array *x, *scale, *out, *d_out, *d_x, *d_scale;
    fw_scale_rows call;
} problem;

static fw_tensor matrix(const problem *p, const array *a) {
    return fw_matrix(a->memory, a->dtype, p->rows, p->columns);
}

static problem make_problem(int64_t rows, int64_t columns, uint32_t dtype) {
    problem p = {.rows = rows, .columns = columns};
    p.x = make_random(rows * columns, dtype, 1.0);
    p.scale = make_random(rows, FW_F32, 1.0);
    p.out = make_poison(rows * columns, compute);
    p.d_out = make_random(rows * columns, FW_F32, 1.0);
    p.d_x = make_poison(rows * columns, FW_F32);
    p.d_scale = make_poison(rows, FW_F32);
    p.call = (fw_scale_rows){.struct_size = sizeof p.call,
                             .x = matrix(&p, p.x),
                             .scale = fw_vector(p.scale->memory, FW_F32, rows),
                             .out = matrix(&p, p.out),
                             .d_out = matrix(&p, p.d_out),
                             .d_x = matrix(&p, p.d_x),
                             .d_scale = fw_vector(p.d_scale->memory, FW_F32, rows)};
    return p;
}

/* sum of scale[r] x[r][i] d_out[r][i] */
static double weighted(void *context) {
    const problem *p = context;
    double total = 0.0;
    for (int64_t i = 0; i < p->x->n; i++)
        total += p->scale->host[i / p->columns] * p->x->host[i] * p->d_out->host[i];
    return total;
}

static void run_case(int64_t rows, int64_t columns, uint32_t dtype) {
    problem p = make_problem(rows, columns, dtype);
    double *want = make_random(p.x->n, FW_F32, 0.0)->host;
    double *size = make_random(rows, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < p.x->n; i++) {
        want[i] = p.scale->host[i / columns] * p.x->host[i];
        size[i / columns] += fabs(p.x->host[i] * p.d_out->host[i]);
    }
    RUN_TWICE(scale_rows_forward, &p.call, p.out);
    expect_close("out", p.out, want, tolerance(1e-7, 4e-3)); /* one rounding of the result */
    RUN_TWICE(scale_rows_backward, &p.call, p.d_x, p.d_scale);
    expect_gradient("d_x", p.d_x, p.x->host, weighted, &p, 1e-6);
    expect_gradient_sum("d_scale", p.d_scale, p.scale->host, weighted, &p, size, 1e-6);
}

static void test_shapes(void **state) {
    (void)state;
    const uint32_t dtypes[] = {FW_F32, compute};
    for (int i = 0; i < 2; i++) {
        run_case(1, 1, dtypes[i]);
        run_case(between(2, 40), 4 * between(2, 90), dtypes[i]);
        run_case(between(2, 40), 4 * between(2, 90) + 1, dtypes[i]);
        run_case(512, 1536, dtypes[i]);
        teardown(state);
    }
}

static void test_accumulates(void **state) {
    (void)state;
    problem p = make_problem(30, 52, FW_F32);
    RUN(scale_rows_backward, &p.call);
    array *outputs[] = {p.d_x, p.d_scale};
    double *twice[2];
    for (int i = 0; i < 2; i++) {
        fetch(outputs[i]);
        twice[i] = make_values(outputs[i]->host, outputs[i]->n, FW_F32)->host;
        for (int64_t j = 0; j < outputs[i]->n; j++) twice[i][j] *= 2.0;
    }
    p.call.accumulate = 1;
    RUN(scale_rows_backward, &p.call);
    for (int i = 0; i < 2; i++) expect_close("twice", outputs[i], twice[i], 1e-6);
}

static void test_in_place(void **state) {
    (void)state;
    problem p = make_problem(30, 50, FW_F32);
    RUN(scale_rows_backward, &p.call);
    fetch(p.d_x);
    p.call.d_x = p.call.d_out;
    RUN(scale_rows_backward, &p.call);
    expect_close("d_x over d_out", p.d_out, p.d_x->host, 0.0);
}

static void test_refuses(void **state) {
    (void)state;
    problem p = make_problem(6, 8, FW_F32);
    fw_scale_rows bad = p.call;
    bad.struct_size = 0;
    REFUSES(FW_E_ARGUMENT, scale_rows_forward, &bad);
    bad = p.call;
    bad.scale.shape[0] = 5;
    REFUSES(FW_E_SHAPE, scale_rows_forward, &bad);
    REFUSES(FW_E_SHAPE, scale_rows_backward, &bad);
    bad = p.call;
    bad.out.shape[1] = 7;
    REFUSES(FW_E_SHAPE, scale_rows_forward, &bad);
    bad = p.call;
    bad.d_out.dtype = FW_U16;
    REFUSES(FW_E_UNSUPPORTED, scale_rows_backward, &bad);
    bad = p.call;
    bad.d_scale = fw_absent();
    REFUSES(FW_E_ARGUMENT, scale_rows_backward, &bad);
    fetch(p.out), fetch(p.d_x);
    assert_true(isnan(p.out->host[0]) && isnan(p.d_x->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TEST(test_shapes), OP_TEST(test_accumulates),
                                       OP_TEST(test_in_place), OP_TEST(test_refuses)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
