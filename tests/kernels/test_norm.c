/* RMS norm and the fused residual + norm, forward against the reference and backward against its
 * differences, with every optional operand present and absent. */
#include "harness.h"
#include "reference.h"

#include <math.h>

enum { MOST = 8192 };

/* ---- rmsnorm ---- */

typedef struct norm_problem {
    int64_t rows, width;
    array *x, *out, *inverse_rms, *d_out, *d_x;
    fw_rmsnorm a;
} norm_problem;

static norm_problem make_norm(int64_t rows, int64_t width, double spread) {
    const int64_t n = rows * width;
    norm_problem p = {.rows = rows,
                      .width = width,
                      .x = make_random(n, compute, spread),
                      .out = make_poison(n, compute),
                      .inverse_rms = make_poison(rows, FW_F32),
                      .d_out = make_random(n, compute, 1.0),
                      .d_x = make_poison(n, compute)};
    p.a = (fw_rmsnorm){.struct_size = sizeof p.a,
                       .epsilon = 1e-6f,
                       .scale = (float)(0.5 + test_uniform(&random_)),
                       .x = fw_matrix(p.x->memory, compute, rows, width),
                       .out = fw_matrix(p.out->memory, compute, rows, width),
                       .inverse_rms = fw_vector(p.inverse_rms->memory, FW_F32, rows),
                       .d_out = fw_matrix(p.d_out->memory, compute, rows, width),
                       .d_x = fw_matrix(p.d_x->memory, compute, rows, width)};
    return p;
}

static double norm_objective(void *context) {
    const norm_problem *p = context;
    double out[MOST], total = 0.0;
    assert_true(p->x->n <= MOST);
    reference_rmsnorm(p->x->host, out, NULL, p->rows, p->width, (double)p->a.epsilon,
                      (double)p->a.scale);
    for (int64_t i = 0; i < p->x->n; i++) total += out[i] * p->d_out->host[i];
    return total;
}

static void run_norm(int64_t rows, int64_t width, double spread) {
    norm_problem p = make_norm(rows, width, spread);
    RUN_TWICE(rmsnorm_forward, &p.a, p.out, p.inverse_rms);
    double out[MOST], inverse[MOST];
    reference_rmsnorm(p.x->host, out, inverse, rows, width, (double)p.a.epsilon, (double)p.a.scale);
    expect_close("out", p.out, out, tolerance(1e-6, 4e-3));
    expect_close("inverse_rms", p.inverse_rms, inverse, 1e-6);
    RUN_TWICE(rmsnorm_backward, &p.a, p.d_x);
    expect_gradient("d_x", p.d_x, p.x->host, norm_objective, &p, tolerance(3e-6, 1e-2));
}

/* Few columns are left out: there the gradient is a small difference of large terms. */
static void test_rmsnorm(void **state) {
    (void)state;
    run_norm(1, 5, 1.0);
    run_norm(37, 19, 1.0);
    run_norm(12, 192, 3.0);
    run_norm(between(1, 30), between(8, 200), 0.01);
}

static void test_rmsnorm_in_place(void **state) {
    (void)state;
    norm_problem p = make_norm(9, 40, 1.0);
    RUN(rmsnorm_forward, &p.a);
    RUN(rmsnorm_backward, &p.a);
    fetch(p.d_x);
    double *want = make_values(p.d_x->host, p.d_x->n, FW_F32)->host;
    p.a.d_x = p.a.d_out;
    RUN(rmsnorm_backward, &p.a);
    expect_close("d_x over d_out", p.d_out, want, 0.0);
    p.a.out = p.a.x;
    fetch(p.out);
    RUN(rmsnorm_forward, &p.a);
    expect_close("out over x", p.x, p.out->host, 0.0);
}

static void test_rmsnorm_accumulates(void **state) {
    (void)state;
    norm_problem p = make_norm(9, 40, 1.0);
    RUN(rmsnorm_forward, &p.a);
    RUN(rmsnorm_backward, &p.a);
    p.a.accumulate = 1;
    RUN(rmsnorm_backward, &p.a);
    fetch(p.d_x);
    array *half = make_values(p.d_x->host, p.d_x->n, FW_F32);
    for (int64_t i = 0; i < half->n; i++) half->host[i] /= 2.0;
    p.a.accumulate = 0;
    RUN(rmsnorm_backward, &p.a);
    expect_close("half of two", p.d_x, half->host, tolerance(1e-7, 4e-3));
}

/* ---- residual + norm ---- */

enum { WEIGHT_A = 1, WEIGHT_B = 2, WITH_B = 4, WITH_NORM = 8, WITH_D_SUM = 16 };

typedef struct residual_problem {
    int64_t rows, width;
    int parts;
    array *a, *b, *weight_a, *weight_b, *sum, *out, *inverse_rms;
    array *d_sum, *d_out, *d_a, *d_b, *d_weight_a, *d_weight_b;
    fw_residual_norm call;
} residual_problem;

static fw_tensor matrix_if(int present, const array *a, int64_t rows, int64_t width) {
    return present ? fw_matrix(a->memory, a->dtype, rows, width) : fw_absent();
}

static fw_tensor vector_if(int present, const array *a) {
    return present ? fw_vector(a->memory, a->dtype, a->n) : fw_absent();
}

static residual_problem make_residual(int64_t rows, int64_t width, int parts) {
    const int64_t n = rows * width;
    residual_problem p = {.rows = rows, .width = width, .parts = parts};
    p.a = make_random(n, compute, 1.0), p.b = make_random(n, compute, 1.0);
    p.weight_a = make_random(width, FW_F32, 1.0), p.weight_b = make_random(width, FW_F32, 1.0);
    p.sum = make_poison(n, compute), p.out = make_poison(n, compute);
    p.inverse_rms = make_poison(rows, FW_F32);
    p.d_sum = make_random(n, compute, 1.0), p.d_out = make_random(n, compute, 1.0);
    p.d_a = make_poison(n, compute), p.d_b = make_poison(n, compute);
    p.d_weight_a = make_poison(width, FW_F32), p.d_weight_b = make_poison(width, FW_F32);
    const int b = parts & WITH_B, norm = parts & WITH_NORM;
    p.call = (fw_residual_norm){.struct_size = sizeof p.call,
                                .epsilon = 1e-6f,
                                .scale = 0.75f,
                                .a = matrix_if(1, p.a, rows, width),
                                .weight_a = vector_if(parts & WEIGHT_A, p.weight_a),
                                .b = matrix_if(b, p.b, rows, width),
                                .weight_b = vector_if(parts & WEIGHT_B, p.weight_b),
                                .sum = matrix_if(1, p.sum, rows, width),
                                .out = matrix_if(norm, p.out, rows, width),
                                .inverse_rms = vector_if(norm, p.inverse_rms),
                                .d_sum = matrix_if(parts & WITH_D_SUM, p.d_sum, rows, width),
                                .d_out = matrix_if(norm, p.d_out, rows, width),
                                .d_a = matrix_if(1, p.d_a, rows, width),
                                .d_b = matrix_if(b, p.d_b, rows, width),
                                .d_weight_a = vector_if(parts & WEIGHT_A, p.d_weight_a),
                                .d_weight_b = vector_if(b && parts & WEIGHT_B, p.d_weight_b)};
    return p;
}

static void residual_reference(const residual_problem *p, double *sum, double *out) {
    reference_residual(p->a->host, p->parts & WEIGHT_A ? p->weight_a->host : NULL,
                       p->parts & WITH_B ? p->b->host : NULL,
                       p->parts & WEIGHT_B ? p->weight_b->host : NULL, sum, p->rows, p->width);
    reference_rmsnorm(sum, out, NULL, p->rows, p->width, (double)p->call.epsilon,
                      (double)p->call.scale);
}

static double residual_objective(void *context) {
    const residual_problem *p = context;
    double sum[MOST], out[MOST], total = 0.0;
    residual_reference(p, sum, out);
    for (int64_t i = 0; i < p->a->n; i++) {
        if (p->parts & WITH_D_SUM) total += sum[i] * p->d_sum->host[i];
        if (p->parts & WITH_NORM) total += out[i] * p->d_out->host[i];
    }
    return total;
}

static void run_residual(int64_t rows, int64_t width, int parts) {
    residual_problem p = make_residual(rows, width, parts);
    double sum[MOST], out[MOST];
    const double limit = tolerance(5e-6, 1e-2);
    residual_reference(&p, sum, out);
    RUN_TWICE(residual_norm_forward, &p.call, p.sum);
    expect_close("sum", p.sum, sum, tolerance(2e-7, 4e-3));
    if (parts & WITH_NORM) expect_close("out", p.out, out, tolerance(1e-6, 1e-2));
    RUN_TWICE(residual_norm_backward, &p.call, p.d_a, p.d_b, p.d_weight_a, p.d_weight_b);
    expect_gradient("d_a", p.d_a, p.a->host, residual_objective, &p, limit);
    if (parts & WEIGHT_A)
        expect_gradient("d_weight_a", p.d_weight_a, p.weight_a->host, residual_objective, &p,
                        limit);
    if (!(parts & WITH_B)) return;
    expect_gradient("d_b", p.d_b, p.b->host, residual_objective, &p, limit);
    if (parts & WEIGHT_B)
        expect_gradient("d_weight_b", p.d_weight_b, p.weight_b->host, residual_objective, &p,
                        limit);
}

static void test_residual_parts(void **state) {
    for (int parts = 0; parts < 32; parts++) {
        run_residual(between(1, 40), between(8, 70), parts);
        teardown(state);
    }
}

static void test_residual_threads(void **state) {
    (void)state;
    run_residual(40, 192, 31);
    residual_problem p = make_residual(900, 64, 31); /* enough rows for several threads */
    RUN(residual_norm_forward, &p.call);
    RUN_TWICE(residual_norm_backward, &p.call, p.d_a, p.d_b, p.d_weight_a, p.d_weight_b);
    fetch(p.d_b);
    double *want = make_random(64, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < p.a->n; i++) /* d = d_b / weight_b */
        want[i % 64] += p.d_b->host[i] / p.weight_b->host[i % 64] * p.a->host[i];
    expect_close("d_weight_a", p.d_weight_a, want, tolerance(1e-6, 1e-2));
}

static void test_residual_accumulates(void **state) {
    (void)state;
    residual_problem p = make_residual(30, 50, 31);
    RUN(residual_norm_forward, &p.call);
    RUN(residual_norm_backward, &p.call);
    array *outputs[] = {p.d_b, p.d_weight_a, p.d_weight_b};
    double *twice[3];
    for (int i = 0; i < 3; i++) {
        fetch(outputs[i]);
        twice[i] = make_values(outputs[i]->host, outputs[i]->n, FW_F32)->host;
        for (int64_t j = 0; j < outputs[i]->n; j++) twice[i][j] *= 2.0;
    }
    p.call.accumulate = p.call.accumulate_b = 1;
    RUN(residual_norm_backward, &p.call);
    for (int i = 0; i < 3; i++) expect_close("twice", outputs[i], twice[i], tolerance(1e-6, 4e-3));
}

static void test_residual_in_place(void **state) {
    (void)state;
    residual_problem p = make_residual(30, 50, 31);
    RUN(residual_norm_forward, &p.call);
    RUN(residual_norm_backward, &p.call);
    fetch(p.d_a), fetch(p.sum);
    double *d_a = make_values(p.d_a->host, p.d_a->n, FW_F32)->host;
    array *d_sum = make_values(p.d_sum->host, p.d_sum->n, compute);
    p.call.d_a = p.call.d_sum = matrix_if(1, d_sum, 30, 50);
    RUN(residual_norm_backward, &p.call);
    expect_close("d_a over d_sum", d_sum, d_a, 0.0);
    p.call.d_sum = matrix_if(1, p.d_sum, 30, 50);
    p.call.d_a = p.call.d_out;
    RUN(residual_norm_backward, &p.call);
    expect_close("d_a over d_out", p.d_out, d_a, 0.0);
    p.call.sum = p.call.b;
    RUN(residual_norm_forward, &p.call);
    expect_close("sum over b", p.b, p.sum->host, 0.0);
}

static void test_refuses(void **state) {
    (void)state;
    norm_problem n = make_norm(4, 8, 1.0);
    fw_rmsnorm bad = n.a;
    bad.out.shape[1] = 7;
    REFUSES(FW_E_SHAPE, rmsnorm_forward, &bad);
    bad = n.a;
    bad.x.dtype = FW_U16;
    REFUSES(FW_E_UNSUPPORTED, rmsnorm_backward, &bad);
    residual_problem r = make_residual(4, 8, 31);
    fw_residual_norm wrong = r.call;
    wrong.weight_b.shape[0] = 9;
    REFUSES(FW_E_SHAPE, residual_norm_forward, &wrong);
    wrong = r.call;
    wrong.sum = fw_absent();
    REFUSES(FW_E_ARGUMENT, residual_norm_backward, &wrong);
    fetch(n.out), fetch(r.d_a);
    assert_true(isnan(n.out->host[0]) && isnan(r.d_a->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_rmsnorm),
        OP_TEST(test_rmsnorm_in_place),
        OP_TEST(test_rmsnorm_accumulates),
        OP_TEST(test_residual_parts),
        OP_TEST(test_residual_threads),
        OP_TEST(test_residual_accumulates),
        OP_TEST(test_residual_in_place),
        OP_TEST(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
