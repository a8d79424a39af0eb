/* The optimizers' ops: clip, AdamW, momentum, Newton-Schulz, updates; and the two of
 * quantization-aware training. */
#include "harness.h"
#include "reference.h"

#include <math.h>

static fw_step step_of(int64_t index) {
    return (fw_step){.step = index,
                     .learning_rate = 0.02f,
                     .schedule = 1.0f,
                     .momentum = 0.9f,
                     .weight_decay = 0.1f,
                     .clip = 0.5f,
                     .finite = 1,
                     .quantize = 1};
}

static fw_tensor whole(const array *a) { return fw_vector(a->memory, a->dtype, a->n); }

static void run_clip(double squares, double max_norm, double want_clip, uint32_t want_finite) {
    enum { STEPS = 3 };
    array *memory = make_poison(STEPS * (int64_t)sizeof(fw_step) / 4, FW_F32);
    fw_step *steps = (fw_step *)memory->memory;
    array *sum = make_values(&squares, 1, FW_F32);
    const fw_clip p = {.struct_size = sizeof p,
                       .max_norm = (float)max_norm,
                       .n_steps = STEPS,
                       .sum_squares = whole(sum),
                       .steps = steps};
    RUN(clip, &p);
    for (int i = 0; i < STEPS; i++) {
        fw_step got;
        fetch_step(&got, steps + i);
        assert_int_equal(got.finite, want_finite);
        assert_true(isnan(got.learning_rate)); /* the host's fields are left alone */
        if (!want_finite) continue;
        assert_true(fabs((double)got.clip - want_clip) < 1e-6);
        assert_true(fabs((double)got.gradient_norm - sqrt(squares)) < 1e-6 * (1.0 + sqrt(squares)));
    }
}

static void test_clip(void **state) {
    (void)state;
    run_clip(16.0, 1.0, 1.0 / (4.0 + 1e-6), 1);
    run_clip(0.25, 1.0, 1.0, 1);
    run_clip(16.0, 0.0, 1.0, 1);
    run_clip(0.0, 1.0, 1.0, 1);
    run_clip((double)NAN, 1.0, 0.0, 0);
    run_clip((double)INFINITY, 1.0, 0.0, 0);
}

/* ---- AdamW ---- */

typedef struct adamw_problem {
    array *x, *g, *m, *v, *copy;
    fw_adamw_step call;
} adamw_problem;

static adamw_problem make_adamw(int64_t n, const fw_step *step, int with_copy) {
    adamw_problem p = {.x = make_random(n, FW_F32, 1.0),
                       .g = make_random(n, FW_F32, 1.0),
                       .m = make_random(n, FW_F32, 0.1),
                       .v = make_random(n, FW_F32, 0.1),
                       .copy = make_poison(n, compute)};
    for (int64_t i = 0; i < n; i++) p.v->host[i] = fabs(p.v->host[i]);
    p.v = make_values(p.v->host, n, FW_F32);
    p.call = (fw_adamw_step){.struct_size = sizeof p.call,
                             .beta1 = 0.9f,
                             .beta2 = 0.95f,
                             .epsilon = 1e-8f,
                             .step = make_step(step),
                             .parameter = whole(p.x),
                             .gradient = whole(p.g),
                             .first_moment = whole(p.m),
                             .second_moment = whole(p.v),
                             .compute = with_copy ? whole(p.copy) : fw_absent()};
    return p;
}

/* What the update gives, and the size of the terms whose sum it is. */
typedef struct adamw_result {
    double *x, *m, *v, *x_size, *m_size;
} adamw_result;

static adamw_result make_result(int64_t n) {
    return (adamw_result){.x = make_random(n, FW_F32, 0.0)->host,
                          .m = make_random(n, FW_F32, 0.0)->host,
                          .v = make_random(n, FW_F32, 0.0)->host,
                          .x_size = make_random(n, FW_F32, 0.0)->host,
                          .m_size = make_random(n, FW_F32, 0.0)->host};
}

static void reference_adamw(const adamw_problem *p, const fw_step *step, adamw_result *to) {
    const double b1 = (double)p->call.beta1, b2 = (double)p->call.beta2,
                 t = (double)step->step + 1.0;
    const double rate = (double)step->learning_rate;
    for (int64_t i = 0; i < p->x->n; i++) {
        const double g = (double)step->clip * p->g->host[i];
        const double held = b1 * p->m->host[i], added = (1.0 - b1) * g;
        to->m[i] = held + added;
        to->m_size[i] = fabs(held) + fabs(added);
        to->v[i] = b2 * p->v->host[i] + (1.0 - b2) * g * g;
        const double corrected = sqrt(to->v[i] / (1.0 - pow(b2, t))) + (double)p->call.epsilon;
        const double kept = p->x->host[i] * (1.0 - rate * (double)step->weight_decay);
        const double factor = rate / (1.0 - pow(b1, t)) / corrected;
        to->x[i] = kept - factor * to->m[i];
        to->x_size[i] = fabs(kept) + factor * to->m_size[i];
    }
}

static void run_adamw(int64_t n, int64_t index) {
    const fw_step step = step_of(index);
    adamw_problem p = make_adamw(n, &step, 1);
    adamw_result want = make_result(n);
    reference_adamw(&p, &step, &want);
    RUN(adamw, &p.call);
    expect_close_sum("parameter", p.x, want.x, want.x_size, 3e-7);
    expect_close_sum("first moment", p.m, want.m, want.m_size, 3e-7);
    expect_close("second moment", p.v, want.v, 3e-7);
    expect_close_sum("compute copy", p.copy, want.x, want.x_size, tolerance(3e-7, 4e-3));
}

static void test_adamw(void **state) {
    (void)state;
    run_adamw(1, 0);
    run_adamw(37, 0);
    run_adamw(between(17000, 40000), 1000);
}

static void test_adamw_skips(void **state) {
    (void)state;
    fw_step step = step_of(3);
    step.finite = 0;
    adamw_problem p = make_adamw(50, &step, 0);
    double *x = make_values(p.x->host, 50, FW_F32)->host;
    double *v = make_values(p.v->host, 50, FW_F32)->host;
    RUN(adamw, &p.call);
    expect_close("parameter", p.x, x, 0.0);
    expect_close("second moment", p.v, v, 0.0);
}

/* ---- momentum and updates ---- */

static void run_momentum(int64_t n, uint32_t nesterov, uint32_t finite) {
    fw_step step = step_of(0);
    step.finite = finite;
    array *g = make_random(n, FW_F32, 1.0), *m = make_random(n, FW_F32, 1.0);
    array *update = make_poison(n, FW_F32);
    double *held = make_values(m->host, n, FW_F32)->host;
    double *want = make_random(n, FW_F32, 0.0)->host;
    double *size = make_random(n, FW_F32, 0.0)->host;
    const fw_momentum_step p = {.struct_size = sizeof p,
                                .nesterov = nesterov,
                                .step = make_step(&step),
                                .gradient = whole(g),
                                .momentum = whole(m),
                                .update = whole(update)};
    for (int64_t i = 0; finite && i < n; i++) {
        const double rate = (double)step.momentum;
        size[i] = rate * fabs(held[i]) + 0.5 * fabs(g->host[i]);
        held[i] = rate * held[i] + 0.5 * g->host[i];
        want[i] = nesterov ? 0.5 * g->host[i] + rate * held[i] : held[i];
    }
    RUN(momentum, &p);
    if (finite) {
        expect_close_sum("momentum", m, held, size, 3e-7);
        expect_close_sum("update", update, want, size, 3e-7);
    } else {
        expect_close("momentum", m, held, 0.0);
        expect_close("update", update, want, 0.0);
    }
}

static void test_momentum(void **state) {
    (void)state;
    run_momentum(between(1, 100), 0, 1);
    run_momentum(between(1, 100), 1, 1);
    run_momentum(20000, 1, 1);
    run_momentum(30, 1, 0);
}

static void run_update(int64_t n, uint32_t finite) {
    fw_step step = step_of(0);
    step.finite = finite;
    array *x = make_random(n, FW_F32, 1.0), *u = make_random(n, FW_F32, 1.0);
    array *copy = make_poison(n, compute);
    double *want = make_values(x->host, n, FW_F32)->host;
    double *size = make_values(x->host, n, FW_F32)->host;
    const fw_apply_update p = {.struct_size = sizeof p,
                               .scale = 0.25f,
                               .step = make_step(&step),
                               .parameter = whole(x),
                               .update = whole(u),
                               .compute = whole(copy)};
    const double rate = (double)step.learning_rate, decay = (double)step.weight_decay;
    for (int64_t i = 0; finite && i < n; i++) {
        const double kept = want[i] * (1.0 - rate * decay), change = rate * 0.25 * u->host[i];
        want[i] = kept - change;
        size[i] = fabs(kept) + fabs(change);
    }
    RUN(apply_update, &p);
    if (finite) {
        expect_close_sum("parameter", x, want, size, 2e-7);
        expect_close_sum("compute copy", copy, want, size, tolerance(2e-7, 4e-3));
    } else {
        expect_close("parameter", x, want, 0.0);
    }
}

static void test_apply_update(void **state) {
    (void)state;
    run_update(1, 1);
    run_update(20001, 1);
    run_update(30, 0);
}

/* ---- Newton-Schulz ---- */

static void run_newton_schulz(int64_t batch, int64_t rows, int64_t columns, int in_place) {
    const int64_t one = rows * columns, n = (batch > 0 ? batch : 1) * one;
    array *x = make_random(n, FW_F32, 2.0), *out = in_place ? x : make_poison(n, FW_F32);
    const fw_tensor shape = batch > 0
                                ? fw_tensor_view(x->memory, FW_F32, 3, batch, rows, columns, 1)
                                : fw_matrix(x->memory, FW_F32, rows, columns);
    double *want = make_values(x->host, n, FW_F32)->host;
    for (int64_t i = 0; i < n; i += one)
        reference_newton_schulz(want + i, rows, columns, 5, 3.4445, -4.7750, 2.0315, 1e-7);
    fw_newton_schulz p = {.struct_size = sizeof p,
                          .iterations = 5,
                          .a = 3.4445f,
                          .b = -4.7750f,
                          .c = 2.0315f,
                          .epsilon = 1e-7f,
                          .x = shape,
                          .out = shape};
    p.out.data = out->memory;
    p.scratch_bytes = device->ops->newton_schulz_scratch(device, &p);
    p.scratch = make_poison((int64_t)p.scratch_bytes / 4 + 1, FW_F32)->memory;
    if (in_place)
        RUN(newton_schulz, &p);
    else
        RUN_TWICE(newton_schulz, &p, out);
    expect_close("out", out, want, tolerance(2e-5, 5e-2)); /* five iterations amplify rounding */
}

static void test_newton_schulz(void **state) {
    (void)state;
    run_newton_schulz(0, 16, 16, 0);
    run_newton_schulz(0, between(2, 40), between(50, 90), 1);
    run_newton_schulz(0, between(50, 90), between(2, 40), 0);
    run_newton_schulz(3, between(10, 40), between(10, 40), 0);
    run_newton_schulz(5, 40, 24, 1);
    run_newton_schulz(2, 1, 7, 0);
}

/* ---- quantization-aware training ---- */

static void test_row_absmax(void **state) {
    (void)state;
    const int64_t rows = between(1, 80), columns = between(1, 400);
    array *x = make_random(rows * columns, FW_F32, 1.0), *out = make_poison(rows, FW_F32);
    double *want = make_random(rows, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < x->n; i++)
        want[i / columns] = fmax(want[i / columns], fabs(x->host[i]));
    const fw_row_absmax p = {.struct_size = sizeof p,
                             .x = fw_matrix(x->memory, FW_F32, rows, columns),
                             .absmax = whole(out)};
    RUN_TWICE(row_absmax, &p, out);
    expect_close("absmax", out, want, 0.0);
}

static void test_fake_quantize(void **state) {
    (void)state;
    const int64_t rows = between(2, 60), columns = between(1, 400), n = rows * columns;
    array *x = make_random(n, FW_F32, 1.0), *scale = make_random(rows, FW_F32, 1.0);
    for (int64_t r = 0; r < rows; r++) scale->host[r] = ldexp(1.0, (int)between(-5, 0));
    scale->host[0] = 0.0;
    scale = make_values(scale->host, rows, FW_F32);
    for (int64_t i = 0; i < n; i += 3) x->host[i] = 0.5 * (double)between(-9, 9); /* ties */
    x = make_values(x->host, n, FW_F32);
    array *out = make_poison(n, compute);
    fw_step step = step_of(0);
    fw_fake_quantize p = {.struct_size = sizeof p,
                          .levels = 15,
                          .step = make_step(&step),
                          .x = fw_matrix(x->memory, FW_F32, rows, columns),
                          .scale = whole(scale),
                          .out = fw_matrix(out->memory, compute, rows, columns)};
    double *want = make_random(n, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < n; i++) {
        const double s = scale->host[i / columns];
        if (s > 0.0) want[i] = s * fmax(-15.0, fmin(15.0, nearbyint(x->host[i] / s)));
    }
    RUN_TWICE(fake_quantize, &p, out);
    expect_close("out", out, want, 0.0); /* levels times a power of two are exact in BF16 too */
    step.quantize = 0;
    p.step = make_step(&step);
    RUN(fake_quantize, &p);
    expect_close("switched off", out, x->host, tolerance(0.0, 4e-3));
    p.step = NULL;
    p.out = p.x;
    RUN(fake_quantize, &p);
    expect_close("in place", x, want, 0.0);
}

/* Rows whose scale lies below the floor, zero among them, are rounded by the floor. */
static void test_fake_quantize_floor(void **state) {
    (void)state;
    const int64_t rows = between(4, 60), columns = between(1, 300), n = rows * columns;
    array *x = make_random(n, FW_F32, 0.5), *out = make_poison(n, compute);
    double *scale = make_random(rows, FW_F32, 0.0)->host;
    for (int64_t r = 1; r < rows; r++) scale[r] = ldexp(1.0, (int)between(-9, 0));
    scale[1] = 0x1p-9, scale[2] = 0x1p-5, scale[3] = 1.0; /* below, at and above the floor */
    fw_fake_quantize p = {.struct_size = sizeof p,
                          .levels = 15,
                          .x = fw_matrix(x->memory, FW_F32, rows, columns),
                          .scale = whole(make_values(scale, rows, FW_F32)),
                          .out = fw_matrix(out->memory, compute, rows, columns),
                          .scale_floor = 0x1p-5f};
    double *floored = make_random(n, FW_F32, 0.0)->host;
    double *plain = make_random(n, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < n; i++) {
        const double s = scale[i / columns], f = fmax(s, 0x1p-5);
        floored[i] = f * fmax(-15.0, fmin(15.0, nearbyint(x->host[i] / f)));
        if (s > 0.0) plain[i] = s * fmax(-15.0, fmin(15.0, nearbyint(x->host[i] / s)));
    }
    RUN_TWICE(fake_quantize, &p, out);
    expect_close("floored", out, floored, 0.0);
    p.struct_size = (uint32_t)offsetof(fw_fake_quantize, scale_floor); /* as before the field */
    RUN(fake_quantize, &p);
    expect_close("without the field", out, plain, 0.0);
    p.struct_size -= 1; /* `out` is not whole */
    REFUSES(FW_E_ARGUMENT, fake_quantize, &p);
    p.struct_size = sizeof p;
    p.out = p.x;
    RUN(fake_quantize, &p);
    expect_close("in place", x, floored, 0.0);
}

static void test_refuses(void **state) {
    (void)state;
    const fw_step step = step_of(0);
    adamw_problem a = make_adamw(8, &step, 0);
    fw_adamw_step bad = a.call;
    bad.gradient.shape[0] = 7;
    REFUSES(FW_E_SHAPE, adamw, &bad);
    bad = a.call;
    bad.step = NULL;
    REFUSES(FW_E_ARGUMENT, adamw, &bad);
    array *x = make_random(8, FW_F32, 1.0);
    const fw_tensor eight = whole(x), seven = fw_vector(x->memory, FW_F32, 7);
    REFUSES(FW_E_SHAPE, momentum,
            (&(fw_momentum_step){.struct_size = sizeof(fw_momentum_step),
                                 .step = a.call.step,
                                 .gradient = eight,
                                 .momentum = seven,
                                 .update = eight}));
    REFUSES(FW_E_SHAPE, apply_update,
            (&(fw_apply_update){.struct_size = sizeof(fw_apply_update),
                                .step = a.call.step,
                                .parameter = eight,
                                .update = seven}));
    REFUSES(FW_E_ARGUMENT, clip,
            (&(fw_clip){.struct_size = sizeof(fw_clip),
                        .sum_squares = fw_vector(x->memory, FW_F32, 1)}));
    const fw_tensor square = fw_matrix(x->memory, FW_F32, 2, 4);
    REFUSES(
        FW_E_ARGUMENT, newton_schulz, /* no scratch */
        (&(fw_newton_schulz){
            .struct_size = sizeof(fw_newton_schulz), .iterations = 1, .x = square, .out = square}));
    REFUSES(FW_E_SHAPE, row_absmax,
            (&(fw_row_absmax){.struct_size = sizeof(fw_row_absmax), .x = square, .absmax = seven}));
    REFUSES(FW_E_SHAPE, fake_quantize,
            (&(fw_fake_quantize){.struct_size = sizeof(fw_fake_quantize),
                                 .levels = 7,
                                 .x = square,
                                 .scale = seven,
                                 .out = fw_matrix(x->memory, compute, 2, 4)}));
    expect_close("untouched", x, make_values(x->host, 8, FW_F32)->host, 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_clip),       OP_TEST(test_adamw),         OP_TEST(test_adamw_skips),
        OP_TEST(test_momentum),   OP_TEST(test_apply_update),  OP_TEST(test_newton_schulz),
        OP_TEST(test_row_absmax), OP_TEST(test_fake_quantize), OP_TEST(test_fake_quantize_floor),
        OP_TEST(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
