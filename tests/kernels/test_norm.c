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

/* The width of the reference model, and a few around the pieces in which wide rows are read. */
static void test_rmsnorm_of_real_widths(void **state) {
    const int64_t widths[] = {512, 504, 513, 1024, 2048};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        run_norm(MOST / widths[i] < 13 ? MOST / widths[i] : 13, widths[i], 2.0);
        teardown(state);
    }
}

/* Thousands of rows: d_x = scale * r * (d_out - x_hat * mean(d_out * x_hat)), x_hat = x * r. */
static void test_rmsnorm_of_many_rows(void **state) {
    (void)state;
    enum { ROWS = 2051, WIDTH = 512 };
    norm_problem p = make_norm(ROWS, WIDTH, 1.5);
    RUN_TWICE(rmsnorm_forward, &p.a, p.out, p.inverse_rms);
    RUN_TWICE(rmsnorm_backward, &p.a, p.d_x);
    double *out = make_random(ROWS * WIDTH, FW_F32, 0.0)->host;
    double *d_x = make_random(ROWS * WIDTH, FW_F32, 0.0)->host;
    double *inverse = make_random(ROWS, FW_F32, 0.0)->host;
    const double scale = (double)p.a.scale;
    reference_rmsnorm(p.x->host, out, inverse, ROWS, WIDTH, (double)p.a.epsilon, scale);
    for (int64_t r = 0; r < ROWS; r++) {
        const double *x = p.x->host + r * WIDTH, *d = p.d_out->host + r * WIDTH;
        double mean = 0.0;
        for (int64_t i = 0; i < WIDTH; i++) mean += d[i] * x[i] * inverse[r] / WIDTH;
        for (int64_t i = 0; i < WIDTH; i++)
            d_x[r * WIDTH + i] = scale * inverse[r] * (d[i] - x[i] * inverse[r] * mean);
    }
    expect_close("out", p.out, out, tolerance(1e-6, 4e-3));
    expect_close("inverse_rms", p.inverse_rms, inverse, 1e-6);
    expect_close("d_x", p.d_x, d_x, tolerance(1e-6, 4e-3));
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

/* ONE_A, ONE_B: the weight is one value for all channels. */
enum {
    WEIGHT_A = 1,
    WEIGHT_B = 2,
    WITH_B = 4,
    WITH_NORM = 8,
    WITH_D_SUM = 16,
    ONE_A = 32,
    ONE_B = 64,
    ALL = WEIGHT_A | WEIGHT_B | WITH_B | WITH_NORM | WITH_D_SUM
};

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
    const int64_t n_a = parts & ONE_A ? 1 : width, n_b = parts & ONE_B ? 1 : width;
    p.weight_a = make_random(n_a, FW_F32, 1.0), p.weight_b = make_random(n_b, FW_F32, 1.0);
    p.sum = make_poison(n, compute), p.out = make_poison(n, compute);
    p.inverse_rms = make_poison(rows, FW_F32);
    p.d_sum = make_random(n, compute, 1.0), p.d_out = make_random(n, compute, 1.0);
    p.d_a = make_poison(n, compute), p.d_b = make_poison(n, compute);
    p.d_weight_a = make_poison(n_a, FW_F32), p.d_weight_b = make_poison(n_b, FW_F32);
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

/* The weight as one value per channel, in `row`. */
static const double *spread(const array *weight, double *row, int64_t width) {
    for (int64_t i = 0; i < width; i++) row[i] = weight->host[i % weight->n];
    return row;
}

static void residual_reference(const residual_problem *p, double *sum, double *out) {
    double row_a[MOST], row_b[MOST];
    reference_residual(
        p->a->host, p->parts & WEIGHT_A ? spread(p->weight_a, row_a, p->width) : NULL,
        p->parts & WITH_B ? p->b->host : NULL,
        p->parts & WEIGHT_B ? spread(p->weight_b, row_b, p->width) : NULL, sum, p->rows, p->width);
    reference_rmsnorm(sum, out, NULL, p->rows, p->width, (double)p->call.epsilon,
                      (double)p->call.scale);
}

static double residual_objective(void *context) {
    const residual_problem *p = context;
    double sum[MOST], out[MOST];
    long double total = 0.0L;
    residual_reference(p, sum, out);
    for (int64_t i = 0; i < p->a->n; i++) {
        if (p->parts & WITH_D_SUM) total += (long double)sum[i] * p->d_sum->host[i];
        if (p->parts & WITH_NORM) total += (long double)out[i] * p->d_out->host[i];
    }
    return (double)total;
}

/* The sum of |d * x| over the rows (and channels, for a weight of one value): what the rounding of
 * d_weight is relative to. d from d_x = d * weight, which is checked on its own. */
static double *terms(array *d_x, const array *x, const array *weight, int64_t width) {
    double *size = make_random(weight->n, FW_F32, 0.0)->host;
    fetch(d_x);
    for (int64_t i = 0; i < x->n; i++) {
        const int64_t w = i % width % weight->n;
        size[w] += fabs(d_x->host[i] / weight->host[w] * x->host[i]);
    }
    return size;
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
        expect_gradient_sum("d_weight_a", p.d_weight_a, p.weight_a->host, residual_objective, &p,
                            terms(p.d_a, p.a, p.weight_a, width), limit);
    if (!(parts & WITH_B)) return;
    expect_gradient("d_b", p.d_b, p.b->host, residual_objective, &p, limit);
    if (parts & WEIGHT_B)
        expect_gradient_sum("d_weight_b", p.d_weight_b, p.weight_b->host, residual_objective, &p,
                            terms(p.d_b, p.b, p.weight_b, width), limit);
}

static void test_residual_parts(void **state) {
    for (int parts = 0; parts < 128; parts++) {
        if ((parts & ONE_A && !(parts & WEIGHT_A)) || (parts & ONE_B && !(parts & WEIGHT_B)))
            continue;
        run_residual(between(1, 40), between(8, 70), parts);
        teardown(state);
    }
}

/* Enough rows for several threads, or blocks. */
static void run_residual_rows(int64_t rows, int64_t width) {
    residual_problem p = make_residual(rows, width, ALL);
    RUN_TWICE(residual_norm_forward, &p.call, p.sum, p.out, p.inverse_rms);
    RUN_TWICE(residual_norm_backward, &p.call, p.d_a, p.d_b, p.d_weight_a, p.d_weight_b);
    fetch(p.d_b);
    double *want = make_random(width, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < p.a->n; i++) /* d = d_b / weight_b */
        want[i % width] += p.d_b->host[i] / p.weight_b->host[i % width] * p.a->host[i];
    expect_close("d_weight_a", p.d_weight_a, want, tolerance(1e-6, 1e-2));
}

static void test_residual_threads(void **state) {
    (void)state;
    run_residual(40, 192, ALL);
    run_residual_rows(900, 64);
    run_residual_rows(1501, 512);
    run_residual_rows(1030, 130);
}

static void test_residual_of_real_widths(void **state) {
    const int64_t widths[] = {512, 504, 514, 1024};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        run_residual(7, widths[i], ALL);
        run_residual(7, widths[i], ALL & ~WITH_D_SUM);
        run_residual(7, widths[i], ALL | ONE_B);
        run_residual(7, widths[i], WEIGHT_A | WITH_B);
        teardown(state);
    }
}

/* One value for all channels is the sum over them of what a value for each would get. */
static void test_residual_one_weight(void **state) {
    (void)state;
    residual_problem p = make_residual(900, 64, ALL | ONE_A | ONE_B);
    RUN_TWICE(residual_norm_forward, &p.call, p.sum, p.out, p.inverse_rms);
    RUN_TWICE(residual_norm_backward, &p.call, p.d_a, p.d_b, p.d_weight_a, p.d_weight_b);
    array *weights[] = {p.weight_a, p.weight_b}, *one[] = {p.d_weight_a, p.d_weight_b};
    array *all[2], *d[] = {p.d_a, p.d_b}, *x[] = {p.a, p.b};
    double row[64], *d_a;
    for (int i = 0; i < 2; i++) {
        fetch(d[i]), fetch(one[i]);
        all[i] = make_values(spread(weights[i], row, 64), 64, FW_F32);
    }
    d_a = make_values(p.d_a->host, p.d_a->n, compute)->host;
    p.call.weight_a = vector_if(1, all[0]), p.call.weight_b = vector_if(1, all[1]);
    array *each[] = {make_poison(64, FW_F32), make_poison(64, FW_F32)};
    p.call.d_weight_a = vector_if(1, each[0]), p.call.d_weight_b = vector_if(1, each[1]);
    RUN(residual_norm_forward, &p.call);
    RUN(residual_norm_backward, &p.call);
    expect_close("d_a", p.d_a, d_a, tolerance(1e-7, 4e-3));
    for (int i = 0; i < 2; i++) {
        double total = 0.0;
        fetch(each[i]);
        for (int c = 0; c < 64; c++) total += each[i]->host[c];
        expect_close_sum("one gradient", one[i], &total, terms(d[i], x[i], weights[i], 64), 1e-6);
    }
}

/* Gradients that nobody asked for are left out, from whichever side: more than the contract asks.
 */
static void test_residual_only_weights(void **state) {
    (void)state;
    if (device->type != FW_CPU) skip();
    for (int side = 0; side < 2; side++) {
        residual_problem p = make_residual(17, 40, ALL | ONE_A);
        RUN(residual_norm_forward, &p.call);
        RUN(residual_norm_backward, &p.call);
        fetch(p.d_weight_a), fetch(p.d_weight_b);
        array *got = make_poison(side ? 40 : 1, FW_F32);
        const array *want = side ? p.d_weight_b : p.d_weight_a;
        p.call.d_a = p.call.d_b = p.call.d_weight_a = p.call.d_weight_b = fw_absent();
        if (side)
            p.call.a = fw_absent(), p.call.d_weight_b = vector_if(1, got);
        else
            p.call.b = fw_absent(), p.call.d_weight_a = vector_if(1, got);
        RUN(residual_norm_backward, &p.call);
        expect_close("the only gradient", got, want->host, 0.0);
    }
}

static void run_residual_accumulates(int parts) {
    residual_problem p = make_residual(30, 50, parts);
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

static void test_residual_accumulates(void **state) {
    (void)state;
    run_residual_accumulates(ALL);
    run_residual_accumulates(ALL | ONE_A | ONE_B);
}

static void run_residual_in_place(int parts) {
    residual_problem p = make_residual(30, 50, parts);
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

static void test_residual_in_place(void **state) {
    (void)state;
    run_residual_in_place(ALL);
    run_residual_in_place(ALL & ~WEIGHT_A);
    run_residual_in_place((ALL & ~WEIGHT_A) | ONE_B);
    run_residual_in_place(ALL | ONE_A | ONE_B);
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
    residual_problem r = make_residual(4, 8, ALL);
    fw_residual_norm wrong = r.call;
    wrong.weight_b.shape[0] = 9;
    REFUSES(FW_E_SHAPE, residual_norm_forward, &wrong);
    REFUSES(FW_E_SHAPE, residual_norm_backward, &wrong);
    wrong = r.call;
    wrong.weight_a.shape[0] = 1; /* d_weight_a still has eight values */
    REFUSES(FW_E_SHAPE, residual_norm_backward, &wrong);
    wrong = r.call;
    wrong.d_weight_b.shape[0] = 1;
    REFUSES(FW_E_SHAPE, residual_norm_backward, &wrong);
    wrong = r.call;
    wrong.d_a = wrong.d_b = wrong.a = wrong.b = fw_absent();
    REFUSES(FW_E_ARGUMENT, residual_norm_backward, &wrong);
    wrong = r.call;
    wrong.sum = fw_absent();
    REFUSES(FW_E_ARGUMENT, residual_norm_backward, &wrong);
    fetch(n.out), fetch(r.d_a);
    assert_true(isnan(n.out->host[0]) && isnan(r.d_a->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_rmsnorm),
        OP_TEST(test_rmsnorm_of_real_widths),
        OP_TEST(test_rmsnorm_of_many_rows),
        OP_TEST(test_rmsnorm_in_place),
        OP_TEST(test_rmsnorm_accumulates),
        OP_TEST(test_residual_parts),
        OP_TEST(test_residual_threads),
        OP_TEST(test_residual_of_real_widths),
        OP_TEST(test_residual_one_weight),
        OP_TEST(test_residual_only_weights),
        OP_TEST(test_residual_accumulates),
        OP_TEST(test_residual_in_place),
        OP_TEST(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
