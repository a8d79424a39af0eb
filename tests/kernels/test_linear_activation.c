/* The fused first layer of an MLP: forward against the float64 reference, backward against a
 * product and the activation's central differences. Skipped where the device leaves it to gemm and
 * activation. */
#include "harness.h"
#include "reference.h"

#include <math.h>

#define SLOPE 0.5

/* x [N,K], weight [M,K], out and d_hidden [N,M], d_y [N,C], next [C,M]; rows of activations are
 * `slack` elements wider than they need to be. */
typedef struct problem {
    int64_t n, k, m, c, slack;
    uint32_t kind;
    array *x, *weight, *out, *d_y, *next, *d_hidden;
    fw_linear_activation call;
} problem;

static fw_tensor view(const array *a, int64_t rows, int64_t columns, int64_t slack) {
    fw_tensor t = fw_matrix(a->memory, a->dtype, rows, columns);
    t.stride[0] = columns + slack;
    return t;
}

static problem make_problem(uint32_t kind, int64_t n, int64_t k, int64_t m, int64_t c,
                            int64_t slack) {
    problem p = {.n = n, .k = k, .m = m, .c = c, .slack = slack, .kind = kind};
    p.x = make_random(n * (k + slack), compute, 1.0);
    p.weight = make_random(m * k, compute, 1.5 / sqrt((double)k));
    p.out = make_poison(n * (m + slack), compute);
    p.d_y = make_random(n * (c + slack), compute, 1.0);
    p.next = make_random(c * m, compute, 1.0 / sqrt((double)c));
    p.d_hidden = make_poison(n * (m + slack), compute);
    p.call = (fw_linear_activation){.struct_size = sizeof p.call,
                                    .kind = kind,
                                    .slope = (float)SLOPE,
                                    .x = view(p.x, n, k, slack),
                                    .weight = view(p.weight, m, k, 0),
                                    .out = view(p.out, n, m, slack),
                                    .d_y = view(p.d_y, n, c, slack),
                                    .next_weight = view(p.next, c, m, 0),
                                    .d_hidden = view(p.d_hidden, n, m, slack)};
    p.call.saved_bytes = device->ops->linear_activation_saved(device, &p.call);
    if (p.call.saved_bytes > 0)
        p.call.saved = make_poison((int64_t)(p.call.saved_bytes + 3) / 4, FW_F32)->memory;
    return p;
}

/* The matrix without the slack, as an array of its own. */
static array *packed(array *a, int64_t rows, int64_t columns, int64_t slack) {
    fetch(a);
    array *to = make_random(rows * columns, FW_F32, 0.0);
    for (int64_t r = 0; r < rows; r++)
        memcpy(to->host + r * columns, a->host + r * (columns + slack),
               (size_t)columns * sizeof *to->host);
    return make_values(to->host, to->n, FW_F32);
}

static double *zeros(int64_t n) { return make_random(n, FW_F32, 0.0)->host; }

/* x weight^T [N,M] */
static double *hidden_of(const problem *p) {
    double *hidden = zeros(p->n * p->m);
    const double *x = packed(p->x, p->n, p->k, p->slack)->host;
    reference_gemm(0, 1, p->n, p->m, p->k, 1.0, 0.0, x, p->weight->host, hidden);
    return hidden;
}

/* d/dh of the activation, between h's two neighbours. */
static double slope_at(uint32_t kind, double h) {
    const double step = 1e-5 * (1.0 + fabs(h));
    return (reference_activation(kind, SLOPE, h + step) -
            reference_activation(kind, SLOPE, h - step)) /
           (2.0 * step);
}

/* bfloat16 rounds at most the pre-activation and the result, each off by 2^-9 as a root mean
 * square, and a square doubles what was before it: 2^-9 * sqrt(5) in all. */
static void expect_forward(problem *p, const double *hidden) {
    double *want = zeros(p->n * p->m);
    for (int64_t i = 0; i < p->n * p->m; i++)
        want[i] = reference_activation(p->kind, SLOPE, hidden[i]);
    expect_close("out", packed(p->out, p->n, p->m, p->slack), want, tolerance(2e-6, 5e-3));
}

/* The product, the slope from a rounded `out` or pre-activation, and their product round again. */
static void expect_backward(problem *p, const double *hidden) {
    double *want = zeros(p->n * p->m);
    const double *d_y = packed(p->d_y, p->n, p->c, p->slack)->host;
    reference_gemm(0, 0, p->n, p->m, p->c, 1.0, 0.0, d_y, p->next->host, want);
    for (int64_t i = 0; i < p->n * p->m; i++) want[i] *= slope_at(p->kind, hidden[i]);
    expect_close("d_hidden", packed(p->d_hidden, p->n, p->m, p->slack), want,
                 tolerance(1e-5, 1e-2));
}

static void run_case(uint32_t kind, int64_t n, int64_t k, int64_t m, int64_t c, int64_t slack) {
    problem p = make_problem(kind, n, k, m, c, slack);
    const double *hidden = hidden_of(&p);
    RUN_TWICE(linear_activation_forward, &p.call, p.out);
    expect_forward(&p, hidden);
    RUN_TWICE(linear_activation_backward, &p.call, p.d_hidden);
    expect_backward(&p, hidden);
}

static bool is_lacking(void) {
    return !FW_HAS(device->ops, linear_activation_forward) ||
           !FW_HAS(device->ops, linear_activation_backward) ||
           !FW_HAS(device->ops, linear_activation_saved);
}

static void test_shapes(void **state) {
    if (is_lacking()) skip();
    for (uint32_t kind = FW_LEAKY_RELU_SQUARED; kind <= FW_SILU; kind++) {
        run_case(kind, 1, 1, 1, 1, 0);
        run_case(kind, 7, 5, 3, 2, 0);
        run_case(kind, 64, 64, 128, 64, 0);
        run_case(kind, between(1, 150), between(1, 100), between(1, 150), between(1, 100), 0);
        run_case(kind, between(1, 300), 64, 192, 72, 0);
        teardown(state);
    }
}

/* The widths of the reference model, with row counts that end inside a tile. */
static void test_real_widths(void **state) {
    if (is_lacking()) skip();
    const int64_t rows[] = {1, 128, 200, 257};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        run_case(FW_LEAKY_RELU_SQUARED, rows[i], 512, 1536, 512, 0);
        teardown(state);
    }
    run_case(FW_RELU_SQUARED, 130, 512, 1536, 512, 0);
}

/* Rows that begin at no multiple of 16 bytes, and rows far apart. */
static void test_views(void **state) {
    if (is_lacking()) skip();
    for (uint32_t kind = FW_LEAKY_RELU_SQUARED; kind <= FW_SILU; kind++) {
        run_case(kind, 130, 64, 128, 64, 3);
        run_case(kind, 130, 64, 136, 64, 8);
        teardown(state);
    }
}

/* Nothing is saved in inference, and the result is the same. */
static void test_inference(void **state) {
    (void)state;
    if (is_lacking()) skip();
    for (uint32_t kind = FW_LEAKY_RELU_SQUARED; kind <= FW_SILU; kind++) {
        problem p = make_problem(kind, 140, 64, 192, 64, 0);
        RUN(linear_activation_forward, &p.call);
        fetch(p.out);
        double *want = make_values(p.out->host, p.out->n, FW_F32)->host;
        poison(p.out);
        p.call.saved = NULL;
        p.call.saved_bytes = 0;
        RUN(linear_activation_forward, &p.call);
        expect_close("out", p.out, want, 0.0);
    }
}

static void test_refuses(void **state) {
    (void)state;
    if (is_lacking()) skip();
    problem p = make_problem(FW_LEAKY_RELU_SQUARED, 4, 8, 16, 8, 0);
    fw_linear_activation bad = p.call;
    bad.struct_size = 8;
    REFUSES(FW_E_ARGUMENT, linear_activation_forward, &bad);
    REFUSES(FW_E_ARGUMENT, linear_activation_backward, &bad);
    bad = p.call;
    bad.weight.shape[1] = 7;
    REFUSES(FW_E_SHAPE, linear_activation_forward, &bad);
    bad = p.call;
    bad.out.shape[0] = 3;
    REFUSES(FW_E_SHAPE, linear_activation_forward, &bad);
    bad = p.call;
    bad.next_weight.shape[0] = 7;
    REFUSES(FW_E_SHAPE, linear_activation_backward, &bad);
    bad = p.call;
    bad.d_hidden.shape[1] = 15;
    REFUSES(FW_E_SHAPE, linear_activation_backward, &bad);
    bad = p.call;
    bad.x.dtype = FW_I32;
    REFUSES(FW_E_UNSUPPORTED, linear_activation_forward, &bad);
    bad = p.call;
    bad.d_y = fw_absent();
    REFUSES(FW_E_ARGUMENT, linear_activation_backward, &bad);
    bad = p.call;
    bad.saved = NULL;
    bad.saved_bytes = 0;
    if (p.call.saved_bytes > 0) REFUSES(FW_E_ARGUMENT, linear_activation_backward, &bad);
    fetch(p.out), fetch(p.d_hidden);
    assert_true(isnan(p.out->host[0]) && isnan(p.d_hidden->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TEST(test_shapes), OP_TEST(test_real_widths),
                                       OP_TEST(test_views), OP_TEST(test_inference),
                                       OP_TEST(test_refuses)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
