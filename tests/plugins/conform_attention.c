/* Conformance of attention plugins: what the host relies on beyond the numbers themselves.
 * Gradients are checked against central differences of the plugin's own forward pass on a float32
 * device, and against the same plugin on the CPU on a device of lower precision. */
#include <math.h>

#include "conform_decode.h"

conform target;

/* Rounding of the device's activations, where bits may differ between shapes of a call. */
static double tolerance(const layer *l) {
    return l->c->device->compute_dtype == FW_F32 ? 1e-5 : 2e-2;
}

static void descriptor(void **state) {
    (void)state;
    conform_check_descriptor(&target);
}

static void weights_are_declared_sanely(void **state) {
    (void)state;
    layer l = open_layer(&target);
    for (uint32_t i = 0; i < l.n; i++) {
        const fw_weight *w = &l.weights[i];
        assert_non_null(memchr(w->name, '\0', sizeof w->name));
        assert_true(w->name[0] != '\0');
        for (uint32_t j = 0; j < i; j++) assert_string_not_equal(w->name, l.weights[j].name);
        assert_in_range(w->role, FW_ROLE_MATRIX, FW_ROLE_SCALAR);
        assert_in_range(w->init, FW_INIT_ZERO, FW_INIT_ORTHOGONAL);
        assert_in_range(w->rank, 1, FW_MAX_RANK);
        assert_true(w->role != FW_ROLE_MATRIX || w->rank == 2);
        for (uint32_t d = 0; d < FW_MAX_RANK; d++)
            assert_true(d < w->rank ? w->shape[d] > 0 : w->shape[d] == 1);
        assert_true(isfinite(w->init_value));
    }
    assert_true(l.vtable->forward_flops(l.self, 2, 8) > 0);
    assert_true(l.vtable->forward_flops(l.self, 2, 8) < l.vtable->forward_flops(l.self, 2, 16));
    close_layer(&l);
}

static void plans_save_nothing_outside_training(void **state) {
    (void)state;
    layer l = open_layer(&target);
    static const uint32_t phases[] = {FW_TRAIN, FW_INFER, FW_CALIBRATE};
    for (size_t i = 0; i < 3; i++) {
        fw_attention_plan small = {.struct_size = sizeof small}, large = small;
        fw_error error = {.struct_size = sizeof error};
        conform_ok(l.vtable->plan(l.self, phases[i], 1, 5, &small, &error), &error);
        conform_ok(l.vtable->plan(l.self, phases[i], MAX_BATCH, MAX_TOKENS, &large, &error),
                   &error);
        assert_true(small.saved_bytes <= large.saved_bytes);
        assert_true(small.scratch_bytes <= large.scratch_bytes);
        if (phases[i] != FW_TRAIN) assert_int_equal(large.saved_bytes, 0);
    }
    close_layer(&l);
}

/* Twice the same call gives the same bits; training and inference compute the same function; every
 * element of every output is written. */
static void calls_repeat(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { B = 2, T = 11, N = B * T * WIDTH };
    float *input = conform_normals(1, N, 1), *d_output = conform_normals(2, N, 1);
    pass p = {.batch = B, .tokens = T, .phase = FW_TRAIN, .input = input, .d_output = d_output};
    outcome first = run(&l, &p), second = run(&l, &p);
    conform_assert_finite("output", first.output, N);
    conform_assert_finite("d_input", first.d_input, N);
    conform_assert_same("output", first.output, second.output, N);
    conform_assert_same("d_input", first.d_input, second.d_input, N);
    for (uint32_t i = 0; i < l.n; i++) {
        conform_assert_finite(l.weights[i].name, first.grads[i], weight_count(&l.weights[i]));
        conform_assert_same(l.weights[i].name, first.grads[i], second.grads[i],
                            weight_count(&l.weights[i]));
    }
    p.d_output = NULL;
    p.phase = FW_INFER;
    outcome inferred = run(&l, &p);
    conform_assert_close("inference", inferred.output, first.output, N, tolerance(&l));
    free_outcome(&first), free_outcome(&second), free_outcome(&inferred);
    free(input), free(d_output);
    close_layer(&l);
}

static void sequences_are_independent(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { T = 9, N = T * WIDTH };
    float *input = conform_normals(3, MAX_BATCH * N, 1);
    const pass all = {.batch = MAX_BATCH, .tokens = T, .phase = FW_INFER, .input = input};
    outcome together = run(&l, &all);
    for (size_t b = 0; b < MAX_BATCH; b++) {
        const pass one = {.batch = 1, .tokens = T, .phase = FW_INFER, .input = input + b * N};
        outcome alone = run(&l, &one);
        conform_assert_close("a sequence alone", together.output + b * N, alone.output, N,
                             tolerance(&l));
        free_outcome(&alone);
    }
    free_outcome(&together);
    free(input);
    close_layer(&l);
}

/* Outputs of [from, to) with the inputs of [first, last) changed must keep every bit. */
static void assert_unmoved(const layer *l, pass p, int64_t first, int64_t last, int64_t from,
                           int64_t to, bool expected) {
    const size_t n = (size_t)p.tokens * WIDTH;
    float *changed = conform_floats(n);
    memcpy(changed, p.input, n * sizeof *changed);
    for (int64_t i = first * WIDTH; i < last * WIDTH; i++) changed[i] = -30 * changed[i] + 1;
    outcome before = run(l, &p);
    p.input = changed;
    outcome after = run(l, &p);
    const bool same = memcmp(before.output + from * WIDTH, after.output + from * WIDTH,
                             (size_t)(to - from) * WIDTH * sizeof(float)) == 0;
    if (same != expected)
        fail_msg("changing tokens %lld..%lld %s outputs %lld..%lld", (long long)first,
                 (long long)last - 1, expected ? "moved" : "did not move", (long long)from,
                 (long long)to - 1);
    free_outcome(&before), free_outcome(&after);
    free(changed);
}

static void outputs_never_depend_on_later_tokens(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { T = 20 };
    float *input = conform_normals(4, T * WIDTH, 1);
    const pass p = {.batch = 1, .tokens = T, .phase = FW_INFER, .input = input};
    for (int64_t t = 1; t < T; t += 3) assert_unmoved(&l, p, t, T, 0, t, true);
    assert_unmoved(&l, p, 3, 4, 3, 4, false); /* the instrument itself can see a change */
    free(input);
    close_layer(&l);
}

/* The matrix that the plan names has a row for each column of the output, and what is added is. */
static void the_residual_is_added(void **state) {
    (void)state;
    layer l = open_layer(&target);
    if (l.output_weight == 0) {
        close_layer(&l);
        skip();
    }
    enum { T = 19, N = 2 * T * WIDTH };
    assert_in_range(l.output_weight, 1, l.n);
    assert_int_equal(l.weights[l.output_weight - 1].rank, 2);
    assert_int_equal(l.weights[l.output_weight - 1].shape[0], WIDTH);
    float *input = conform_normals(40, N, 1), *residual = conform_normals(41, N, 1);
    pass p = {.batch = 2, .tokens = T, .phase = FW_INFER, .input = input};
    outcome without = run(&l, &p);
    p.residual = residual;
    outcome with = run(&l, &p);
    /* bfloat16 rounds the residual, the output alone and the sum once each */
    const double unit = target.device->compute_dtype == FW_F32 ? 1e-6 : 1.0 / 256;
    for (size_t i = 0; i < N; i++) {
        const double want = (double)without.output[i] + (double)residual[i];
        const double size = fabs((double)without.output[i]) + fabs((double)residual[i]);
        if (!(fabs((double)with.output[i] - want) <= 2 * unit * size + 1e-7))
            fail_msg("with a residual, output %zu is %g, not %g", i, (double)with.output[i], want);
    }
    free_outcome(&without), free_outcome(&with);
    free(input), free(residual);
    close_layer(&l);
}

static void windows_forget_and_documents_separate(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { T = 16 };
    static const int32_t documents[] = {0, 5, 12, T};
    float *input = conform_normals(5, T * WIDTH, 1);
    pass p = {.batch = 1, .tokens = T, .phase = FW_INFER, .window = 4, .input = input};
    assert_unmoved(&l, p, 0, 6, 9, T, true); /* 6 + window - 1 */
    p = (pass){.batch = 1,
               .tokens = T,
               .phase = FW_INFER,
               .input = input,
               .documents = documents,
               .n_documents = 3};
    assert_unmoved(&l, p, 0, 5, 5, T, true);
    assert_unmoved(&l, p, 5, 12, 12, T, true);
    free(input);
    close_layer(&l);
}

static uint32_t observed[MAX_WEIGHTS];
static int64_t observed_columns[MAX_WEIGHTS];

static void note_rows(void *context, uint32_t weight, const fw_tensor *rows) {
    (void)context;
    assert_true(weight < MAX_WEIGHTS && rows->data != NULL && rows->rank == 2);
    observed[weight]++;
    observed_columns[weight] = rows->shape[1];
}

static void calibration_sees_every_matrix(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { T = 7, N = T * WIDTH };
    float *input = conform_normals(6, N, 1);
    memset(observed, 0, sizeof observed);
    pass p = {.batch = 1, .tokens = T, .phase = FW_CALIBRATE, .input = input, .observe = note_rows};
    outcome calibrated = run(&l, &p);
    for (uint32_t i = 0; i < l.n; i++) {
        if (l.weights[i].role != FW_ROLE_MATRIX) continue;
        assert_int_equal(observed[i], 1);
        assert_int_equal(observed_columns[i], l.weights[i].shape[1]);
    }
    p.phase = FW_INFER;
    outcome inferred = run(&l, &p); /* observes nothing more */
    assert_int_equal(observed[0], 1);
    conform_assert_same("calibration", calibrated.output, inferred.output, N);
    free_outcome(&calibrated), free_outcome(&inferred);
    free(input);
    close_layer(&l);
}

static void gradients_accumulate_or_overwrite(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { B = 2, T = 6, N = B * T * WIDTH };
    float *input = conform_normals(7, N, 1), *d_output = conform_normals(8, N, 1);
    pass p = {.batch = B, .tokens = T, .phase = FW_TRAIN, .input = input, .d_output = d_output};
    outcome fresh = run(&l, &p);
    p.accumulate = true;
    outcome added = run(&l, &p);
    conform_assert_same("d_input", added.d_input, fresh.d_input, N);
    for (uint32_t i = 0; i < l.n; i++) {
        const size_t n = weight_count(&l.weights[i]);
        for (size_t j = 0; j < n; j++) fresh.grads[i][j] += GRAD_BEFORE;
        conform_assert_close(l.weights[i].name, added.grads[i], fresh.grads[i], n, 1e-6);
    }
    free_outcome(&fresh), free_outcome(&added);
    free(input), free(d_output);
    close_layer(&l);
}

static double loss(const layer *l, const pass *p) {
    pass forward = *p;
    forward.d_output = NULL;
    outcome o = run(l, &forward);
    double sum = 0;
    for (int64_t i = 0; i < p->batch * p->tokens * WIDTH; i++)
        sum += (double)o.output[i] * (double)p->d_output[i];
    free_outcome(&o);
    return sum;
}

/* The loss with `values` moved by h along a direction, and moved back exactly. */
static double loss_at(const layer *l, const pass *p, float *values, const float *direction,
                      size_t n, double h) {
    float *kept = conform_floats(n);
    memcpy(kept, values, n * sizeof *kept);
    for (size_t i = 0; i < n; i++) values[i] = (float)((double)kept[i] + h * (double)direction[i]);
    const double value = loss(l, p);
    memcpy(values, kept, n * sizeof *kept);
    free(kept);
    return value;
}

/* The gradient along random directions against a fourth-order central difference. A direction of
 * standard normals has a derivative of the size of the gradient's norm, so that is the yardstick;
 * float32 noise in the loss is about 1e-6 of it, divided by h. */
static void check_gradient(const layer *l, const pass *p, const char *name, float *values,
                           const float *gradient, size_t n, double size) {
    double norm = 0;
    for (size_t i = 0; i < n; i++) norm += (double)gradient[i] * (double)gradient[i];
    norm = sqrt(norm);
    const double h = 0.02 * size;
    for (uint64_t trial = 0; trial < 3; trial++) {
        float *u = conform_normals(900 + trial, n, 1);
        double expected = 0;
        for (size_t i = 0; i < n; i++) expected += (double)gradient[i] * (double)u[i];
        const double near = loss_at(l, p, values, u, n, h) - loss_at(l, p, values, u, n, -h);
        const double far = loss_at(l, p, values, u, n, 2 * h) - loss_at(l, p, values, u, n, -2 * h);
        const double seen = (8 * near - far) / (12 * h);
        if (!(fabs(seen - expected) <= 2e-3 * norm))
            fail_msg("%s: derivative %.6g, finite difference %.6g, gradient norm %.4g", name,
                     expected, seen, norm);
        free(u);
    }
}

static void check_by_differences(layer *l, const pass *p, float *input, float *value_add,
                                 const outcome *o) {
    const size_t rows = (size_t)(p->batch * p->tokens);
    check_gradient(l, p, "input", input, o->d_input, rows * WIDTH, 1);
    if (value_add != NULL)
        check_gradient(l, p, "value_add", value_add, o->d_value_add, rows * (size_t)l->value_width,
                       1);
    for (uint32_t i = 0; i < l->n; i++) {
        const bool matrix = l->weights[i].role == FW_ROLE_MATRIX;
        check_gradient(l, p, l->weights[i].name, l->values[i], o->grads[i],
                       weight_count(&l->weights[i]),
                       matrix ? 1 / sqrt((double)l->weights[i].shape[1]) : 0.2);
    }
}

static void check_by_cpu(const pass *p, const outcome *o) {
    conform cpu = conform_on(&target, "cpu");
    layer l = open_layer(&cpu);
    const size_t rows = (size_t)(p->batch * p->tokens);
    outcome exact = run(&l, p);
    conform_assert_close("d_input", o->d_input, exact.d_input, rows * WIDTH, 3e-2);
    if (p->value_add != NULL)
        conform_assert_close("d_value_add", o->d_value_add, exact.d_value_add,
                             rows * (size_t)l.value_width, 3e-2);
    for (uint32_t i = 0; i < l.n; i++)
        conform_assert_close(l.weights[i].name, o->grads[i], exact.grads[i],
                             weight_count(&l.weights[i]), 3e-2);
    free_outcome(&exact);
    close_layer(&l);
}

static void check_gradients(int64_t batch, int64_t tokens, int64_t window, bool with_value) {
    layer l = open_layer(&target);
    const size_t rows = (size_t)(batch * tokens);
    with_value = with_value && l.value_width > 0;
    float *input = conform_normals(11, rows * WIDTH, 1);
    float *d_output = conform_normals(12, rows * WIDTH, 1);
    float *value_add = with_value ? conform_normals(13, rows * (size_t)l.value_width, 1) : NULL;
    const pass p = {.batch = batch,
                    .tokens = tokens,
                    .window = window,
                    .offset = 2,
                    .phase = FW_TRAIN,
                    .input = input,
                    .value_add = value_add,
                    .d_output = d_output};
    outcome o = run(&l, &p);
    if (with_value)
        conform_assert_finite("d_value_add", o.d_value_add, rows * (size_t)l.value_width);
    if (target.device->compute_dtype == FW_F32)
        check_by_differences(&l, &p, input, value_add, &o);
    else
        check_by_cpu(&p, &o);
    free_outcome(&o);
    free(input), free(d_output), free(value_add);
    close_layer(&l);
}

static void gradients_are_derivatives(void **state) {
    (void)state;
    check_gradients(2, 10, 0, false);
    check_gradients(1, 13, 5, true);
}

static void refuses_positions_beyond_its_tables(void **state) {
    (void)state;
    layer l = open_layer(&target);
    enum { T = 4, N = T * WIDTH };
    const size_t mark = conform_mark();
    float *input = conform_normals(14, N, 1), *after = conform_floats(N);
    const pass p = {
        .batch = 1, .tokens = T, .offset = MAX_TOKENS - T + 1, .phase = FW_INFER, .input = input};
    fw_error error = {.struct_size = sizeof error};
    stage s;
    prepare(&l, &p, &s);
    assert_int_equal(l.vtable->forward(l.self, &s.call, &error), FW_E_RANGE);
    assert_true(error.message[0] != '\0');
    conform_read(l.c, &s.call.output, after);
    for (size_t i = 0; i < N; i++) assert_true(isnan(after[i]));
    conform_release(mark);
    free(input), free(after);
    close_layer(&l);
}

int main(int argc, char **argv) {
    target = conform_open(argc, argv, FW_ATTENTION);
    const struct CMUnitTest tests[] = {cmocka_unit_test(descriptor),
                                       cmocka_unit_test(weights_are_declared_sanely),
                                       cmocka_unit_test(plans_save_nothing_outside_training),
                                       cmocka_unit_test(calls_repeat),
                                       cmocka_unit_test(sequences_are_independent),
                                       cmocka_unit_test(outputs_never_depend_on_later_tokens),
                                       cmocka_unit_test(the_residual_is_added),
                                       cmocka_unit_test(windows_forget_and_documents_separate),
                                       cmocka_unit_test(calibration_sees_every_matrix),
                                       cmocka_unit_test(gradients_accumulate_or_overwrite),
                                       cmocka_unit_test(gradients_are_derivatives),
                                       cmocka_unit_test(refuses_positions_beyond_its_tables),
                                       cmocka_unit_test(decoding_is_whole_or_absent),
                                       cmocka_unit_test(decoding_gives_what_forward_gives),
                                       cmocka_unit_test(decoding_keeps_to_the_window),
                                       cmocka_unit_test(decoding_at_far_positions),
                                       cmocka_unit_test(states_take_turns),
                                       cmocka_unit_test(decoding_takes_more_than_forward),
                                       cmocka_unit_test(decoding_refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
