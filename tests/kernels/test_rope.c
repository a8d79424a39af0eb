/* Rotation tables, and q/k norm + rotation + gain in both directions, on packed rows. */
#include "harness.h"
#include "reference.h"

#include <math.h>

enum { MOST = 16384 };

static void test_table(void **state) {
    (void)state;
    const int64_t positions = between(1, 60), half = between(1, 32), offset = between(0, 5000);
    array *cosine = make_poison(positions * half, FW_F32);
    array *sine = make_poison(positions * half, FW_F32);
    const fw_rope_table p = {.struct_size = sizeof p,
                             .dimensions = (uint32_t)(2 * half),
                             .offset = offset,
                             .base = 10000.0,
                             .cosine = fw_matrix(cosine->memory, FW_F32, positions, half),
                             .sine = fw_matrix(sine->memory, FW_F32, positions, half)};
    RUN_TWICE(rope_table, &p, cosine, sine);
    double *c = make_values(cosine->host, cosine->n, FW_F32)->host;
    double *s = make_values(sine->host, sine->n, FW_F32)->host;
    reference_rope_table(c, s, positions, 2 * half, offset, 10000.0);
    expect_close("cosine", cosine, c, 1e-7);
    expect_close("sine", sine, s, 1e-7);
}

/* x lies in the columns [skip, skip + heads * width) of rows that are `total` wide. */
typedef struct problem {
    reference_rope_shape s;
    int with_gain;
    int64_t skip, total;
    array *rows, *out, *inverse_rms, *cosine, *sine, *gain, *d_out, *d_rows, *d_gain;
    double *x; /* packed */
    fw_qk_norm_rope call;
} problem;

static fw_tensor view(const problem *p, const array *a, int64_t begin, int64_t total) {
    char *data = (char *)a->memory + begin * (int64_t)fw_dtype_size(a->dtype);
    fw_tensor t =
        fw_tensor_view(data, a->dtype, 4, p->s.batch, p->s.tokens, p->s.heads, p->s.width);
    t.stride[0] = p->s.tokens * total;
    t.stride[1] = total;
    return t;
}

static void unpack(const problem *p, const array *a, double *to) {
    const int64_t wide = p->s.heads * p->s.width;
    for (int64_t i = 0; i < p->s.batch * p->s.tokens; i++)
        memcpy(to + i * wide, a->host + i * p->total + p->skip, (size_t)wide * sizeof *to);
}

static problem make_problem(reference_rope_shape s, int with_gain, int64_t skip) {
    const int64_t rows = s.batch * s.tokens, wide = s.heads * s.width,
                  table = (s.tokens + 3) * s.half;
    problem p = {.s = s, .with_gain = with_gain, .skip = skip, .total = 2 * skip + wide};
    p.rows = make_random(rows * p.total, compute, 2.0);
    p.x = make_random(rows * wide, FW_F32, 1.0)->host;
    unpack(&p, p.rows, p.x);
    p.out = make_poison(rows * wide, compute);
    p.inverse_rms = make_poison(rows * s.heads, FW_F32);
    p.cosine = make_random(table, FW_F32, 1.0), p.sine = make_random(table, FW_F32, 1.0);
    p.gain = make_random(s.heads, FW_F32, 1.0);
    p.d_out = make_random(rows * wide, compute, 1.0);
    p.d_rows = make_poison(rows * p.total, compute);
    p.d_gain = make_poison(s.heads, FW_F32);
    const fw_tensor cosine = fw_matrix(p.cosine->memory, FW_F32, s.tokens + 3, s.half);
    const fw_tensor sine = fw_matrix(p.sine->memory, FW_F32, s.tokens + 3, s.half);
    p.call = (fw_qk_norm_rope){
        .struct_size = sizeof p.call,
        .epsilon = (float)s.epsilon,
        .x = view(&p, p.rows, skip, p.total),
        .out = view(&p, p.out, 0, wide),
        .inverse_rms =
            fw_tensor_view(p.inverse_rms->memory, FW_F32, 3, s.batch, s.tokens, s.heads, 1),
        .cosine = s.half > 0 ? cosine : fw_absent(),
        .sine = s.half > 0 ? sine : fw_absent(),
        .gain = with_gain ? fw_vector(p.gain->memory, FW_F32, s.heads) : fw_absent(),
        .d_out = view(&p, p.d_out, 0, wide),
        .d_x = view(&p, p.d_rows, skip, p.total),
        .d_gain = with_gain ? fw_vector(p.d_gain->memory, FW_F32, s.heads) : fw_absent()};
    return p;
}

static void forward_reference(const problem *p, double *out, double *inverse_rms) {
    assert_true(p->out->n <= MOST);
    reference_qk_norm_rope(&p->s, p->x, p->cosine->host, p->sine->host,
                           p->with_gain ? p->gain->host : NULL, out, inverse_rms);
}

static double objective_of(void *context) {
    const problem *p = context;
    double out[MOST], total = 0.0;
    forward_reference(p, out, NULL);
    for (int64_t i = 0; i < p->out->n; i++) total += out[i] * p->d_out->host[i];
    return total;
}

static void run_case(reference_rope_shape s, int with_gain, int64_t skip) {
    s.epsilon = (double)1e-6f;
    problem p = make_problem(s, with_gain, skip);
    double out[MOST], inverse[MOST];
    forward_reference(&p, out, inverse);
    RUN_TWICE(qk_norm_rope_forward, &p.call, p.out, p.inverse_rms);
    expect_close("out", p.out, out, tolerance(1e-6, 4e-3));
    expect_close("inverse_rms", p.inverse_rms, inverse, 1e-6);
    RUN_TWICE(qk_norm_rope_backward, &p.call, p.d_rows, p.d_gain);
    fetch(p.d_rows);
    unpack(&p, p.d_rows, out);
    array *d_x = make_values(out, p.out->n, FW_F32);
    expect_gradient("d_x", d_x, p.x, objective_of, &p, tolerance(5e-6, 2e-2));
    if (with_gain)
        expect_gradient("d_gain", p.d_gain, p.gain->host, objective_of, &p, tolerance(5e-6, 1e-2));
    if (skip > 0) assert_true(isnan(p.d_rows->host[0])); /* only its own columns are written */
}

static void test_shapes(void **state) {
    (void)state;
    run_case((reference_rope_shape){.batch = 1, .tokens = 1, .heads = 1, .width = 8, .half = 4}, 0,
             0);
    run_case((reference_rope_shape){.batch = 2, .tokens = 37, .heads = 3, .width = 16, .half = 0},
             1, 16);
    run_case((reference_rope_shape){.batch = 1, .tokens = 37, .heads = 2, .width = 64, .half = 8},
             1, 64);
    run_case((reference_rope_shape){.batch = 1, .tokens = 20, .heads = 4, .width = 64, .half = 32},
             1, 0);
    run_case((reference_rope_shape){.batch = 2, .tokens = 30, .heads = 6, .width = 32, .half = 16},
             1, 96);
    run_case((reference_rope_shape){.batch = 2,
                                    .tokens = between(2, 20),
                                    .heads = between(1, 5),
                                    .width = 2 * between(3, 20),
                                    .half = between(0, 3)},
             1, 5);
}

static void test_in_place_and_accumulate(void **state) {
    (void)state;
    problem p = make_problem(
        (reference_rope_shape){
            .batch = 2, .tokens = 9, .heads = 3, .width = 32, .half = 16, .epsilon = 1e-6},
        1, 0);
    RUN(qk_norm_rope_forward, &p.call);
    RUN(qk_norm_rope_backward, &p.call);
    fetch(p.d_rows), fetch(p.d_gain);
    for (int64_t h = 0; h < 3; h++) p.d_gain->host[h] *= 2.0;
    double *twice = make_values(p.d_gain->host, 3, FW_F32)->host;
    p.call.d_x = p.call.d_out;
    p.call.accumulate = 1;
    RUN(qk_norm_rope_backward, &p.call);
    expect_close("d_x over d_out", p.d_out, p.d_rows->host, 0.0);
    expect_close("d_gain twice", p.d_gain, twice, 1e-6);
}

static void test_refuses(void **state) {
    (void)state;
    problem p = make_problem(
        (reference_rope_shape){
            .batch = 2, .tokens = 9, .heads = 3, .width = 16, .half = 8, .epsilon = 1e-6},
        1, 0);
    fw_qk_norm_rope bad = p.call;
    bad.cosine.shape[0] = bad.sine.shape[0] = 8;
    REFUSES(FW_E_SHAPE, qk_norm_rope_forward, &bad);
    bad = p.call;
    bad.gain.shape[0] = 4;
    REFUSES(FW_E_SHAPE, qk_norm_rope_backward, &bad);
    bad = p.call;
    bad.x.stride[3] = 2;
    REFUSES(FW_E_UNSUPPORTED, qk_norm_rope_forward, &bad);
    fw_rope_table table = {.struct_size = sizeof table,
                           .dimensions = 7,
                           .base = 1e4,
                           .cosine = p.call.cosine,
                           .sine = p.call.sine};
    REFUSES(FW_E_ARGUMENT, rope_table, &table);
    table.dimensions = 8;
    REFUSES(FW_E_SHAPE, rope_table, &table);
    fetch(p.out);
    assert_true(isnan(p.out->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TEST(test_table), OP_TEST(test_shapes),
                                       OP_TEST(test_in_place_and_accumulate),
                                       OP_TEST(test_refuses)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
