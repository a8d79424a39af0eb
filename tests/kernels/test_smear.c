/* Smear: forward against the reference, backward against its differences, over short and odd
 * sequences, wide rows, views into wider rows and gates that saturate. */
#include "harness.h"
#include "reference.h"

#include <math.h>

enum { MOST = 8192 };

typedef struct problem {
    int64_t batch, tokens, width;
    array *x, *gate, *out, *d_out, *d_x, *d_gate;
    fw_smear call;
} problem;

static fw_tensor cube(const problem *p, const array *a) {
    return fw_tensor_view(a->memory, a->dtype, 3, p->batch, p->tokens, p->width, 1);
}

static problem make_problem(int64_t batch, int64_t tokens, int64_t width) {
    const int64_t n = batch * tokens * width;
    problem p = {.batch = batch, .tokens = tokens, .width = width};
    p.x = make_random(n, compute, 1.0), p.d_out = make_random(n, compute, 1.0);
    p.gate = make_random(width, FW_F32, 1.0);
    p.out = make_poison(n, compute), p.d_x = make_poison(n, compute);
    p.d_gate = make_poison(width, FW_F32);
    p.call = (fw_smear){.struct_size = sizeof p.call,
                        .x = cube(&p, p.x),
                        .gate = fw_vector(p.gate->memory, FW_F32, width),
                        .out = cube(&p, p.out),
                        .d_out = cube(&p, p.d_out),
                        .d_x = cube(&p, p.d_x),
                        .d_gate = fw_vector(p.d_gate->memory, FW_F32, width)};
    return p;
}

static void reference(const problem *p, double *out) {
    reference_smear(p->x->host, p->gate->host, out, p->batch, p->tokens, p->width);
}

static double objective_of(void *context) {
    const problem *p = context;
    double out[MOST];
    long double total = 0.0L;
    assert_true(p->x->n <= MOST);
    reference(p, out);
    for (int64_t i = 0; i < p->x->n; i++) total += (long double)out[i] * p->d_out->host[i];
    return (double)total;
}

/* d_gate by its formula, and the sum of its terms' magnitudes: what its rounding is relative to. */
static void gate_gradient(const problem *p, double *d_gate, double *size) {
    const int64_t c = p->width;
    for (int64_t i = 0; i < c; i++) d_gate[i] = size[i] = 0.0;
    for (int64_t i = 0; i < p->x->n; i++) {
        const double g = 1.0 / (1.0 + exp(-p->gate->host[i % c]));
        const double kept = 1.0 / (1.0 + exp(p->gate->host[i % c]));
        const double before = i / c % p->tokens > 0 ? p->x->host[i - c] : 0.0;
        const double term = g * kept * p->d_out->host[i] * (before - p->x->host[i]);
        d_gate[i % c] += term;
        size[i % c] += fabs(term);
    }
}

static void run_case(int64_t batch, int64_t tokens, int64_t width) {
    problem p = make_problem(batch, tokens, width);
    double *out = make_random(p.x->n, FW_F32, 0.0)->host;
    double *d_gate = make_random(width, FW_F32, 0.0)->host;
    double *size = make_random(width, FW_F32, 0.0)->host;
    reference(&p, out);
    gate_gradient(&p, d_gate, size);
    RUN_TWICE(smear_forward, &p.call, p.out);
    expect_close("out", p.out, out, tolerance(3e-7, 4e-3));
    RUN_TWICE(smear_backward, &p.call, p.d_x, p.d_gate);
    expect_close_sum("d_gate", p.d_gate, d_gate, size, tolerance(5e-7, 1e-2));
    if (p.x->n > MOST) return;
    expect_gradient("d_x", p.d_x, p.x->host, objective_of, &p, tolerance(1e-6, 1e-2));
    expect_gradient_sum("d_gate", p.d_gate, p.gate->host, objective_of, &p, size,
                        tolerance(1e-6, 1e-2));
}

static void test_shapes(void **state) {
    (void)state;
    run_case(1, 1, 1);
    run_case(3, 1, 5);
    run_case(1, 2, 1);
    run_case(5, 3, 1);
    run_case(2, 37, 19);
    run_case(1, 40, 192);
    run_case(between(1, 5), between(1, 30), between(1, 50));
}

/* Enough rows for several threads; sequences end inside a thread's share. */
static void test_threads(void **state) {
    (void)state;
    run_case(7, 311, 40);
    run_case(1, 1000, 33);
}

/* x and d_out are halves of wider rows, out and d_x of rows wider still. */
static void test_views(void **state) {
    (void)state;
    enum { B = 3, T = 11, C = 21 };
    problem p = make_problem(B, T, C);
    RUN(smear_forward, &p.call);
    RUN(smear_backward, &p.call);
    fetch(p.out), fetch(p.d_x), fetch(p.d_gate);
    array *wide = make_random(p.x->n * 2, compute, 1.0);
    for (int64_t i = 0; i < p.x->n; i++) {
        wide->host[i / C * 2 * C + i % C] = p.x->host[i];
        wide->host[i / C * 2 * C + C + i % C] = p.d_out->host[i];
    }
    wide = make_values(wide->host, wide->n, compute);
    array *to = make_poison(p.x->n * 3, compute), *d_gate = make_poison(C, FW_F32);
    fw_smear call = p.call;
    call.x.data = wide->memory;
    call.d_out.data = (char *)wide->memory + C * fw_dtype_size(compute);
    call.out.data = to->memory;
    call.d_x.data = (char *)to->memory + 2 * C * fw_dtype_size(compute);
    call.d_gate.data = d_gate->memory;
    call.x.stride[0] = call.d_out.stride[0] = 2 * T * C;
    call.x.stride[1] = call.d_out.stride[1] = 2 * C;
    call.out.stride[0] = call.d_x.stride[0] = 3 * T * C;
    call.out.stride[1] = call.d_x.stride[1] = 3 * C;
    RUN(smear_forward, &call);
    RUN(smear_backward, &call);
    fetch(to);
    for (int64_t i = 0; i < p.x->n; i++) {
        const double *row = to->host + i / C * 3 * C;
        assert_true(row[i % C] == p.out->host[i]);
        assert_true(isnan(row[C + i % C]));
        assert_true(row[2 * C + i % C] == p.d_x->host[i]);
    }
    expect_close("d_gate", d_gate, p.d_gate->host, 0.0);
}

static void test_accumulates(void **state) {
    (void)state;
    problem p = make_problem(2, 9, 30);
    RUN(smear_backward, &p.call);
    fetch(p.d_gate);
    double *want = make_values(p.d_gate->host, 30, FW_F32)->host;
    double *size = make_values(p.d_gate->host, 30, FW_F32)->host;
    array *held = make_random(30, FW_F32, 1.0);
    for (int i = 0; i < 30; i++) {
        size[i] = fabs(want[i]) + fabs(held->host[i]);
        want[i] += held->host[i];
    }
    p.call.accumulate = 1;
    p.call.d_gate.data = held->memory;
    RUN(smear_backward, &p.call);
    expect_close_sum("d_gate", held, want, size, 2e-7);
}

/* A gate shut or wide open passes one row through; nothing overflows. */
static void test_saturated_gates(void **state) {
    (void)state;
    const double gates[] = {-200.0, -90.0, -30.0, 30.0, 90.0, 200.0};
    problem p = make_problem(2, 8, 6);
    p.call.gate.data = make_values(gates, 6, FW_F32)->memory;
    RUN(smear_forward, &p.call);
    RUN(smear_backward, &p.call);
    fetch(p.out), fetch(p.d_x), fetch(p.d_gate);
    for (int64_t i = 0; i < p.x->n; i++) {
        const int64_t t = i / 6 % 8;
        const int shut = gates[i % 6] < 0.0;
        const double before = t > 0 ? p.x->host[i - 6] : 0.0;
        const double after = t < 7 ? p.d_out->host[i + 6] : 0.0;
        assert_true(fabs(p.out->host[i] - (shut ? p.x->host[i] : before)) < 1e-6);
        assert_true(fabs(p.d_x->host[i] - (shut ? p.d_out->host[i] : after)) < 1e-6);
    }
    for (int i = 0; i < 6; i++) assert_true(fabs(p.d_gate->host[i]) < 1e-5);
}

static void test_refuses(void **state) {
    (void)state;
    problem p = make_problem(2, 3, 8);
    fw_smear bad = p.call;
    bad.struct_size = 8;
    REFUSES(FW_E_ARGUMENT, smear_forward, &bad);
    REFUSES(FW_E_ARGUMENT, smear_backward, &bad);
    bad = p.call;
    bad.x = fw_matrix(p.x->memory, compute, 6, 8);
    REFUSES(FW_E_SHAPE, smear_forward, &bad);
    REFUSES(FW_E_SHAPE, smear_backward, &bad);
    bad = p.call;
    bad.out.shape[1] = 2;
    REFUSES(FW_E_SHAPE, smear_forward, &bad);
    bad = p.call;
    bad.d_x.shape[0] = 1;
    REFUSES(FW_E_SHAPE, smear_backward, &bad);
    bad = p.call;
    bad.d_out.shape[2] = 7;
    REFUSES(FW_E_SHAPE, smear_backward, &bad);
    bad = p.call;
    bad.gate.shape[0] = bad.d_gate.shape[0] = 7;
    REFUSES(FW_E_SHAPE, smear_forward, &bad);
    bad.gate = p.call.gate;
    REFUSES(FW_E_SHAPE, smear_backward, &bad);
    bad = p.call;
    bad.gate = bad.d_gate = fw_absent();
    REFUSES(FW_E_ARGUMENT, smear_forward, &bad);
    bad.gate = p.call.gate;
    REFUSES(FW_E_ARGUMENT, smear_backward, &bad);
    bad = p.call;
    bad.x.dtype = FW_U16;
    REFUSES(FW_E_UNSUPPORTED, smear_forward, &bad);
    bad = p.call;
    bad.d_x.stride[2] = 2;
    REFUSES(FW_E_UNSUPPORTED, smear_backward, &bad);
    fetch(p.out), fetch(p.d_x), fetch(p.d_gate);
    assert_true(isnan(p.out->host[0]) && isnan(p.d_x->host[0]) && isnan(p.d_gate->host[0]));
}

/* What the contract forbids and only the CPU device promises to notice. */
static void test_refuses_on_the_cpu(void **state) {
    (void)state;
    if (device->type != FW_CPU) skip();
    problem p = make_problem(2, 3, 8);
    fw_smear bad = p.call;
    bad.out.data = p.x->memory;
    REFUSES(FW_E_ARGUMENT, smear_forward, &bad);
    bad = p.call;
    bad.d_x.data = p.d_out->memory;
    REFUSES(FW_E_ARGUMENT, smear_backward, &bad);
    bad.d_x.data = p.x->memory;
    REFUSES(FW_E_ARGUMENT, smear_backward, &bad);
    bad = p.call;
    bad.out.stride[1] = 4;
    REFUSES(FW_E_SHAPE, smear_forward, &bad);
    problem wide = make_problem(1, 1, 65537);
    REFUSES(FW_E_UNSUPPORTED, smear_forward, &wide.call);
    fetch(p.out), fetch(p.d_x);
    assert_true(isnan(p.out->host[0]) && isnan(p.d_x->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_shapes),
        OP_TEST(test_threads),
        OP_TEST(test_views),
        OP_TEST(test_accumulates),
        OP_TEST(test_saturated_gates),
        OP_TEST(test_refuses),
        OP_TEST(test_refuses_on_the_cpu),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
