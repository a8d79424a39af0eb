/* Activations, sums of tensors, casts and reductions. */
#include "harness.h"
#include "reference.h"

#include <math.h>

/* ---- activations ---- */

typedef struct activation_problem {
    array *x, *out, *d_out, *d_x;
    fw_activation call;
} activation_problem;

static activation_problem make_activation(uint32_t kind, int64_t n) {
    activation_problem p = {.x = make_random(n, compute, 3.0),
                            .out = make_poison(n, compute),
                            .d_out = make_random(n, compute, 1.0),
                            .d_x = make_poison(n, compute)};
    p.call = (fw_activation){.struct_size = sizeof p.call,
                             .kind = kind,
                             .slope = 0.5f,
                             .x = fw_vector(p.x->memory, compute, n),
                             .out = fw_vector(p.out->memory, compute, n),
                             .d_out = fw_vector(p.d_out->memory, compute, n),
                             .d_x = fw_vector(p.d_x->memory, compute, n)};
    return p;
}

static double activation_objective(void *context) {
    const activation_problem *p = context;
    double total = 0.0;
    for (int64_t i = 0; i < p->x->n; i++)
        total += p->d_out->host[i] * reference_activation(p->call.kind, 0.5, p->x->host[i]);
    return total;
}

static void run_activation(uint32_t kind, int64_t n) {
    activation_problem p = make_activation(kind, n);
    double *want = make_random(n, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < n; i++) want[i] = reference_activation(kind, 0.5, p.x->host[i]);
    RUN_TWICE(activation_forward, &p.call, p.out);
    expect_close("out", p.out, want, tolerance(3e-7, 4e-3));
    RUN_TWICE(activation_backward, &p.call, p.d_x);
    if (n <= 500)
        expect_gradient("d_x", p.d_x, p.x->host, activation_objective, &p, tolerance(1e-6, 4e-3));
    fetch(p.d_x);
    p.call.d_x = p.call.d_out;
    RUN(activation_backward, &p.call);
    expect_close("d_x over d_out", p.d_out, p.d_x->host, 0.0);
    fetch(p.out);
    p.call.out = p.call.x;
    RUN(activation_forward, &p.call);
    expect_close("out over x", p.x, p.out->host, 0.0);
}

static void test_activations(void **state) {
    for (uint32_t kind = FW_LEAKY_RELU_SQUARED; kind <= FW_SILU; kind++) {
        run_activation(kind, 7);
        run_activation(kind, between(2, 500));
        run_activation(kind, 40001);
        teardown(state);
    }
}

/* The tails: no overflow, no NaN out of numbers, NaN out of NaN. */
/* Where e^|x| leaves float32's range, the gates must saturate: every value in steps of 1/1024. */
static void test_activations_where_exp_overflows(void **state) {
    enum { N = 8192 };
    double x[N];
    for (int i = 0; i < N; i++) x[i] = (i % 2 == 0 ? -1.0 : 1.0) * (85.0 + i / 1024.0);
    for (uint32_t kind = FW_GELU_TANH; kind <= FW_SILU; kind++) {
        activation_problem p = make_activation(kind, N);
        p.call.x.data = make_values(x, N, compute)->memory;
        RUN(activation_forward, &p.call);
        RUN(activation_backward, &p.call);
        fetch(p.out), fetch(p.d_x);
        for (int i = 0; i < N; i++) {
            const double want = x[i] > 0 ? x[i] : 0;
            assert_true(fabs(p.out->host[i] - want) <= tolerance(1e-6, 1e-2) * want + 1e-9);
            assert_true(isfinite(p.d_x->host[i]));
        }
        teardown(state);
    }
}

/* Where a gate is nearly open its slope is a product of a tiny and a large factor: no place may be
 * far off, not only the sum over all. */
static void test_activation_slopes_everywhere(void **state) {
    enum { N = 12001 };
    static double x[N], ones[N];
    for (int i = 0; i < N; i++) x[i] = (i - N / 2) / 400.0 + 1e-4, ones[i] = 1.0;
    for (uint32_t kind = FW_GELU_TANH; kind <= FW_SILU; kind++) {
        activation_problem p = make_activation(kind, N);
        array *at = make_values(x, N, compute);
        p.call.x.data = at->memory;
        p.call.d_out.data = make_values(ones, N, compute)->memory;
        RUN(activation_backward, &p.call);
        fetch(p.d_x);
        for (int i = 0; i < N; i++) {
            const double v = at->host[i], h = 1e-5;
            const double want =
                (reference_activation(kind, 0.5, v + h) - reference_activation(kind, 0.5, v - h)) /
                (2.0 * h);
            if (!(fabs(p.d_x->host[i] - want) <= tolerance(4e-7, 1e-2)))
                fail_msg("kind %u at %g: %.9g, expected %.9g", kind, v, p.d_x->host[i], want);
        }
        teardown(state);
    }
}

static void test_activation_tails(void **state) {
    (void)state;
    const double x[] = {-1e4, -100.0, -30.0, -1e-20, 0.0, 1e-20, 30.0, 100.0, 1e4, (double)NAN};
    for (uint32_t kind = FW_LEAKY_RELU_SQUARED; kind <= FW_SILU; kind++) {
        activation_problem p = make_activation(kind, 10);
        p.call.x.data = make_values(x, 10, compute)->memory;
        RUN(activation_forward, &p.call);
        RUN(activation_backward, &p.call);
        fetch(p.out), fetch(p.d_x);
        for (int i = 0; i < 9; i++) {
            const double want = reference_activation(kind, 0.5, x[i]);
            assert_true(fabs(p.out->host[i] - want) <= tolerance(1e-6, 1e-2) * fabs(want) + 1e-9);
            assert_true(isfinite(p.d_x->host[i]));
        }
        assert_true(kind == FW_RELU_SQUARED || isnan(p.out->host[9]));
    }
}

/* ---- sums ---- */

static void test_axpby(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 37, 50000};
    for (int i = 0; i < 6; i++) {
        const int64_t n = sizes[i / 2];
        array *x = make_random(n, FW_F32, 1.0);
        array *y = i % 2 ? make_random(n, FW_F32, 1.0) : make_poison(n, FW_F32);
        double *want = make_values(y->host, n, FW_F32)->host;
        double *size = make_random(n, FW_F32, 0.0)->host;
        const fw_axpby p = {.struct_size = sizeof p,
                            .alpha = 1.5f,
                            .beta = i % 2 ? -0.25f : 0.0f,
                            .x = fw_vector(x->memory, FW_F32, n),
                            .y = fw_vector(y->memory, FW_F32, n)};
        RUN(axpby, &p);
        for (int64_t j = 0; j < n; j++) {
            const double kept = i % 2 ? -0.25 * want[j] : 0.0;
            want[j] = 1.5 * x->host[j] + kept;
            size[j] = fabs(1.5 * x->host[j]) + fabs(kept);
        }
        /* both products and their sum are rounded, each by at most 6e-8 of the terms */
        expect_close_sum("y", y, want, size, 2e-7);
    }
}

static void test_lerp(void **state) {
    (void)state;
    const int64_t n = between(1, 40000);
    array *x = make_random(n, FW_F32, 1.0), *y = make_random(n, FW_F32, 1.0);
    double *want = make_values(y->host, n, FW_F32)->host;
    double *size = make_random(n, FW_F32, 0.0)->host;
    const fw_lerp p = {.struct_size = sizeof p,
                       .weight = 0.125f,
                       .x = fw_vector(x->memory, FW_F32, n),
                       .y = fw_vector(y->memory, FW_F32, n)};
    RUN(lerp, &p);
    for (int64_t i = 0; i < n; i++) {
        const double change = 0.125 * (x->host[i] - want[i]);
        size[i] = fabs(want[i]) + fabs(change);
        want[i] += change;
    }
    expect_close_sum("y", y, want, size, 2e-7);
}

/* ---- casts ---- */

/* The nearest value with `bits` of fraction (ties to even), whose steps are never below `least`:
 * in double, by scaling to an integer. */
static double nearest(double x, int bits, double least, double largest) {
    int exponent = 0;
    if (x == 0.0 || !isfinite(x)) return x;
    (void)frexp(x, &exponent);
    const double step = fmax(ldexp(1.0, exponent - 1 - bits), least);
    const double rounded = nearbyint(x / step) * step;
    return fabs(rounded) > largest ? copysign((double)INFINITY, x) : rounded;
}

static void run_cast(uint32_t dtype, int bits, double least, double largest) {
    enum { N = 20000 };
    static double x[N];
    for (int i = 0; i < N; i++) x[i] = ldexp(test_normal(&random_), (int)between(-60, 30));
    for (int i = 0; i < N / 4; i++)
        x[i] = ldexp((double)between(-4096, 4096), (int)between(-26, 3));
    x[0] = 0.0, x[1] = -0.0, x[2] = (double)INFINITY, x[3] = -(double)INFINITY, x[4] = (double)NAN;
    x[5] = largest, x[6] = -largest * 1.0005, x[7] = 65519.0, x[8] = 65520.0, x[9] = least * 0.5;
    array *from = make_values(x, N, FW_F32), *back = make_poison(N, FW_F32);
    array *half = make_poison((N + 1) / 2, FW_F32); /* raw storage */
    const fw_cast narrow = {.struct_size = sizeof narrow,
                            .from = fw_vector(from->memory, FW_F32, N),
                            .to = fw_vector(half->memory, dtype, N)};
    const fw_cast widen = {.struct_size = sizeof widen,
                           .from = fw_vector(half->memory, dtype, N),
                           .to = fw_vector(back->memory, FW_F32, N)};
    RUN_TWICE(cast, &narrow, half);
    RUN(cast, &widen);
    fetch(back);
    for (int i = 0; i < N; i++) {
        const double want = nearest(from->host[i], bits, least, largest);
        if (isnan(want) ? !isnan(back->host[i])
                        : back->host[i] != want || signbit(back->host[i]) != signbit(want))
            fail_msg("dtype %u: %.9g became %.9g, expected %.9g", dtype, from->host[i],
                     back->host[i], want);
    }
}

static void test_casts(void **state) {
    (void)state;
    run_cast(FW_BF16, 7, 0x1p-133, 0x1.fep127);
    run_cast(FW_F16, 10, 0x1p-24, 65504.0);
}

/* Every half survives the way to float32 and back; F32 to F32 copies bits. */
static void test_cast_round_trip(void **state) {
    (void)state;
    enum { N = 65536 };
    static uint16_t bits[N], again[N];
    for (int i = 0; i < N; i++) bits[i] = (uint16_t)i;
    const uint32_t dtypes[] = {FW_BF16, FW_F16};
    array *half = make_poison(N / 2, FW_F32), *wide = make_poison(N, FW_F32);
    for (int d = 0; d < 2; d++) {
        fw_error error = {.struct_size = sizeof error};
        assert_int_equal(device->copy_from_host(device, half->memory, bits, sizeof bits, &error),
                         0);
        const fw_tensor narrow = fw_vector(half->memory, dtypes[d], N);
        const fw_tensor full = fw_vector(wide->memory, FW_F32, N);
        RUN(cast, (&(fw_cast){.struct_size = sizeof(fw_cast), .from = narrow, .to = full}));
        RUN(cast, (&(fw_cast){.struct_size = sizeof(fw_cast), .from = full, .to = narrow}));
        assert_int_equal(device->copy_to_host(device, again, half->memory, sizeof again, &error),
                         0);
        const uint16_t infinity = d == 0 ? 0x7f80 : 0x7c00;
        for (int i = 0; i < N; i++)
            if ((bits[i] & 0x7fff) <= infinity)
                assert_int_equal(again[i], bits[i]);
            else
                assert_true((again[i] & 0x7fff) > infinity); /* NaN stays NaN */
    }
}

/* ---- reductions ---- */

static double reference_reduce(uint32_t reduction, const array *x, const array *y) {
    double total = 0.0;
    for (int64_t i = 0; i < x->n; i++) {
        const double value = x->host[i];
        switch (reduction) {
        case FW_SUM: total += value; break;
        case FW_SUM_SQUARES: total += value * value; break;
        case FW_MAX_ABS: total = fmax(total, fabs(value)); break;
        default: total += value * y->host[i]; break;
        }
    }
    return total;
}

static void run_reduce(uint32_t reduction, int64_t n) {
    array *x = make_random(n, FW_F32, 1.0), *y = make_random(n, FW_F32, 1.0);
    array *result = make_poison(1, FW_F32);
    fw_reduce p = {.struct_size = sizeof p,
                   .reduction = reduction,
                   .x = fw_vector(x->memory, FW_F32, n),
                   .y = fw_vector(y->memory, FW_F32, n),
                   .result = fw_vector(result->memory, FW_F32, 1)};
    RUN_TWICE(reduce, &p, result);
    const double want = reference_reduce(reduction, x, y);
    fetch(result);
    assert_true(fabs(result->host[0] - want) <= 1e-6 * (fabs(want) + sqrt((double)n)));
    if (reduction == FW_MAX_ABS) return;
    p.accumulate = 1;
    RUN(reduce, &p);
    fetch(result);
    assert_true(fabs(result->host[0] - 2.0 * want) <= 2e-6 * (fabs(want) + sqrt((double)n)));
}

static void test_reduce(void **state) {
    (void)state;
    for (uint32_t reduction = FW_SUM; reduction <= FW_DOT; reduction++) {
        run_reduce(reduction, 1);
        run_reduce(reduction, between(2, 300));
        run_reduce(reduction, between(20000, 90000));
    }
}

/* A million ones after a large number: single precision would lose them. */
static void test_reduce_in_double(void **state) {
    (void)state;
    enum { N = 100001 };
    static double x[N];
    for (int i = 0; i < N; i++) x[i] = 0.25;
    x[0] = 16777216.0;
    array *values = make_values(x, N, FW_F32), *result = make_poison(1, FW_F32);
    const fw_reduce p = {.struct_size = sizeof p,
                         .reduction = FW_SUM,
                         .x = fw_vector(values->memory, FW_F32, N),
                         .result = fw_vector(result->memory, FW_F32, 1)};
    RUN(reduce, &p);
    fetch(result);
    assert_true(result->host[0] == 16777216.0 + 25000.0);
}

static void test_refuses(void **state) {
    (void)state;
    activation_problem a = make_activation(FW_SILU, 8);
    fw_activation bad = a.call;
    bad.kind = 99;
    REFUSES(FW_E_UNSUPPORTED, activation_forward, &bad);
    bad = a.call;
    bad.d_x.shape[0] = 7;
    REFUSES(FW_E_SHAPE, activation_backward, &bad);
    array *x = make_random(8, FW_F32, 1.0), *y = make_poison(8, FW_F32);
    const fw_tensor eight = fw_vector(x->memory, FW_F32, 8),
                    seven = fw_vector(y->memory, FW_F32, 7);
    REFUSES(FW_E_SHAPE, axpby,
            (&(fw_axpby){.struct_size = sizeof(fw_axpby), .x = eight, .y = seven}));
    REFUSES(FW_E_SHAPE, lerp, (&(fw_lerp){.struct_size = sizeof(fw_lerp), .x = eight, .y = seven}));
    REFUSES(FW_E_SHAPE, cast,
            (&(fw_cast){.struct_size = sizeof(fw_cast), .from = eight, .to = seven}));
    fw_tensor integer = fw_vector(y->memory, FW_I32, 8);
    REFUSES(FW_E_UNSUPPORTED, cast,
            (&(fw_cast){.struct_size = sizeof(fw_cast), .from = eight, .to = integer}));
    fw_reduce r = {.struct_size = sizeof r,
                   .reduction = 9,
                   .x = eight,
                   .result = fw_vector(y->memory, FW_F32, 1)};
    REFUSES(FW_E_UNSUPPORTED, reduce, &r);
    r.reduction = FW_DOT;
    REFUSES(FW_E_ARGUMENT, reduce, &r);
    fetch(y);
    assert_true(isnan(y->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_activations),
        OP_TEST(test_activations_where_exp_overflows),
        OP_TEST(test_activation_slopes_everywhere),
        OP_TEST(test_activation_tails),
        OP_TEST(test_axpby),
        OP_TEST(test_lerp),
        OP_TEST(test_casts),
        OP_TEST(test_cast_round_trip),
        OP_TEST(test_reduce),
        OP_TEST(test_reduce_in_double),
        OP_TEST(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
