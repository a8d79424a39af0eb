/* Attention forward against the float64 reference and backward against its differences: odd
 * lengths, grouped heads, windows, documents, more keys than queries, exclusive self attention, and
 * views into packed rows of q, k and v. At the widths and lengths of real models backward is held
 * against a float64 backward pass, which is itself held against differences. */
#include "harness.h"
#include "reference.h"

#include <math.h>

/* One problem: the reference's arrays, and the same numbers on the device inside packed rows of
 * q | k | v (or, with more keys than queries, in arrays of their own), `slack` elements apart. */
typedef struct problem {
    reference_attention_shape s;
    int64_t slack;
    array *rows, *d_rows, *keys, *d_keys; /* keys: k | v when keys > tokens, else unused */
    array *out, *log_sum_exp, *self_dot, *d_out, *starts;
    double *q, *k, *v;
    void *scratch;
} problem;

static double *clone(const double *x, int64_t n) {
    return make_values(x, n, FW_F32)->host; /* freed by teardown */
}

/* Columns [begin, begin + width) of rows that are `total` wide. */
static double *columns(const array *a, int64_t begin, int64_t width, int64_t total) {
    const int64_t rows = a->n / total;
    double *out = clone(a->host, rows * width);
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * width, a->host + r * total + begin, (size_t)width * sizeof *out);
    return out;
}

static fw_tensor view(const array *a, int64_t batch, int64_t positions, int64_t begin,
                      int64_t heads, int64_t width, int64_t total) {
    char *data = (char *)a->memory + begin * (int64_t)fw_dtype_size(a->dtype);
    fw_tensor t = fw_tensor_view(data, a->dtype, 4, batch, positions, heads, width);
    t.stride[0] = positions * total;
    t.stride[1] = total;
    return t;
}

/* Elements from one position to the next, and where k begins in such a row. */
typedef struct layout {
    int64_t queries, keys, k;
} layout;

static layout layout_of(const problem *p) {
    const int64_t q = p->s.heads * p->s.width, kv = p->s.groups * p->s.width;
    if (p->s.keys > p->s.tokens) return (layout){q + p->slack, 2 * kv + p->slack, 0};
    return (layout){q + 2 * kv + p->slack, q + 2 * kv + p->slack, q};
}

static problem make_apart(reference_attention_shape s, double spread, int64_t slack) {
    problem p = {.s = s, .slack = slack};
    const int64_t q = s.heads * s.width, kv = s.groups * s.width, rows = s.batch * s.tokens;
    const int apart = s.keys > s.tokens;
    const layout l = layout_of(&p);
    p.rows = make_random(rows * l.queries, compute, spread);
    p.d_rows = make_poison(rows * l.queries, compute);
    p.q = columns(p.rows, 0, q, l.queries);
    p.keys = apart ? make_random(s.batch * s.keys * l.keys, compute, spread) : p.rows;
    p.d_keys = apart ? make_poison(p.keys->n, compute) : p.d_rows;
    p.k = columns(p.keys, l.k, kv, l.keys);
    p.v = columns(p.keys, l.k + kv, kv, l.keys);
    p.out = make_poison(rows * q, compute);
    p.log_sum_exp = make_poison(rows * s.heads, FW_F32);
    p.self_dot = make_poison(rows * s.heads, FW_F32);
    p.d_out = make_random(rows * q, compute, 1.0);
    if (s.starts != NULL) p.starts = make_ints(s.starts, s.batch * s.n_starts);
    return p;
}

static problem make_problem(reference_attention_shape s, double spread) {
    return make_apart(s, spread, 0);
}

static fw_flash_attention arguments(problem *p) {
    const reference_attention_shape *s = &p->s;
    const int64_t q = s->heads * s->width, kv = s->groups * s->width;
    const int64_t total = layout_of(p).queries, wide = layout_of(p).keys, k = layout_of(p).k;
    const int64_t statistics = s->batch * s->heads * s->tokens;
    fw_flash_attention a = {
        .struct_size = sizeof a,
        .exclude_self = (uint32_t)s->exclude_self,
        .window = s->window,
        .scale = (float)s->scale,
        .q = view(p->rows, s->batch, s->tokens, 0, s->heads, s->width, total),
        .k = view(p->keys, s->batch, s->keys, k, s->groups, s->width, wide),
        .v = view(p->keys, s->batch, s->keys, k + kv, s->groups, s->width, wide),
        .out = view(p->out, s->batch, s->tokens, 0, s->heads, s->width, q),
        .log_sum_exp = fw_vector(p->log_sum_exp->memory, FW_F32, statistics),
        .self_dot =
            s->exclude_self ? fw_vector(p->self_dot->memory, FW_F32, statistics) : fw_absent(),
        .cu_seqlens = p->starts == NULL
                          ? fw_absent()
                          : fw_matrix(p->starts->memory, FW_I32, s->batch, s->n_starts),
        .d_out = view(p->d_out, s->batch, s->tokens, 0, s->heads, s->width, q),
        .d_q = view(p->d_rows, s->batch, s->tokens, 0, s->heads, s->width, total),
        .d_k = view(p->d_keys, s->batch, s->keys, k, s->groups, s->width, wide),
        .d_v = view(p->d_keys, s->batch, s->keys, k + kv, s->groups, s->width, wide),
    };
    a.scratch_bytes = device->ops->attention_scratch(device, &a);
    if (a.scratch_bytes > 0)
        a.scratch = make_poison((int64_t)(a.scratch_bytes + 3) / 4, FW_F32)->memory;
    return a;
}

static double weighted_output(void *context) {
    const problem *p = context;
    const reference_attention_shape *s = &p->s;
    double out[8192], total = 0.0;
    assert_true(p->out->n <= 8192);
    reference_attention(s, p->q, p->k, p->v, out, NULL, NULL);
    for (int64_t i = 0; i < p->out->n; i++) total += out[i] * p->d_out->host[i];
    return total;
}

static void expect_forward(problem *p) {
    double *out = clone(p->out->host, p->out->n);
    double *logarithm = clone(p->log_sum_exp->host, p->log_sum_exp->n);
    double *self = clone(p->self_dot->host, p->self_dot->n);
    reference_attention(&p->s, p->q, p->k, p->v, out, logarithm, self);
    expect_close("out", p->out, out, tolerance(2e-6, 1e-2));
    expect_close("log_sum_exp", p->log_sum_exp, logarithm, tolerance(1e-6, 1e-2));
    if (p->s.exclude_self) expect_close("self_dot", p->self_dot, self, tolerance(5e-6, 2e-2));
}

/* The part of `from` that belongs to one gradient, as an array of its own. */
static array *part(array *from, int64_t begin, int64_t width, int64_t total) {
    fetch(from);
    return make_values(columns(from, begin, width, total), from->n / total * width, FW_F32);
}

static void expect_backward(problem *p) {
    const reference_attention_shape *s = &p->s;
    const int64_t q = s->heads * s->width, kv = s->groups * s->width;
    const int64_t total = layout_of(p).queries, wide = layout_of(p).keys, k = layout_of(p).k;
    const double limit = tolerance(1e-5, 2e-2);
    expect_gradient("d_q", part(p->d_rows, 0, q, total), p->q, weighted_output, p, limit);
    expect_gradient("d_k", part(p->d_keys, k, kv, wide), p->k, weighted_output, p, limit);
    expect_gradient("d_v", part(p->d_keys, k + kv, kv, wide), p->v, weighted_output, p, limit);
}

/* The gradients element by element. float32's limit is wider than a short row's: a sum over
 * hundreds of keys carries the rounding of each. */
static void expect_gradients(problem *p) {
    const reference_attention_shape *s = &p->s;
    const int64_t q = s->heads * s->width, kv = s->groups * s->width;
    const layout l = layout_of(p);
    double *d_q = clone(p->q, s->batch * s->tokens * q);
    double *d_k = clone(p->k, s->batch * s->keys * kv), *d_v = clone(p->v, s->batch * s->keys * kv);
    reference_attention_backward(s, p->q, p->k, p->v, p->d_out->host, d_q, d_k, d_v);
    const double limit = tolerance(1e-5, 2e-2);
    expect_close("d_q", part(p->d_rows, 0, q, l.queries), d_q, limit);
    expect_close("d_k", part(p->d_keys, l.k, kv, l.keys), d_k, limit);
    expect_close("d_v", part(p->d_keys, l.k + kv, kv, l.keys), d_v, limit);
}

static void run_problem(problem *p, void expect_gradients_of(problem *)) {
    fw_flash_attention a = arguments(p);
    if (p->s.exclude_self)
        RUN_TWICE(attention_forward, &a, p->out, p->log_sum_exp, p->self_dot);
    else
        RUN_TWICE(attention_forward, &a, p->out, p->log_sum_exp);
    expect_forward(p);
    RUN_TWICE(attention_backward, &a, p->d_rows, p->d_keys);
    expect_gradients_of(p);
}

static void run_case(reference_attention_shape s, double spread) {
    problem p = make_problem(s, spread);
    run_problem(&p, expect_backward);
}

static void run_wide(reference_attention_shape s, int64_t slack) {
    problem p = make_apart(s, 1.0, slack);
    run_problem(&p, expect_gradients);
}

static reference_attention_shape shape(int64_t batch, int64_t tokens, int64_t heads, int64_t groups,
                                       int64_t width) {
    return (reference_attention_shape){.batch = batch,
                                       .tokens = tokens,
                                       .keys = tokens,
                                       .heads = heads,
                                       .groups = groups,
                                       .width = width,
                                       .scale = 1.0 / sqrt((double)width)};
}

static void test_lengths(void **state) {
    (void)state;
    run_case(shape(2, 1, 2, 1, 16), 1.0);
    run_case(shape(1, 37, 4, 2, 8), 1.0);
    run_case(shape(2, 64, 2, 2, 16), 1.0);
    run_case(shape(1, between(65, 100), 1, 1, 64), 1.0);
    teardown(state);
    run_case(shape(1, between(190, 250), 2, 1, 8), 1.0);
}

static void test_groups(void **state) {
    (void)state;
    run_case(shape(2, 21, 4, 4, 8), 1.0);
    run_case(shape(1, 33, 4, 2, 16), 1.0);
    run_case(shape(1, 40, 4, 1, 24), 1.0);
    run_case(shape(1, 19, 6, 3, 32), 1.0);
}

static void test_exclude_self(void **state) {
    (void)state;
    for (int64_t groups = 1; groups <= 4; groups *= 2) {
        reference_attention_shape s = shape(1, between(20, 45), 4, groups, 16);
        s.exclude_self = 1;
        run_case(s, 1.0);
    }
    reference_attention_shape s = shape(1, between(130, 140), 2, 1, 8);
    s.exclude_self = 1;
    s.window = between(2, 90); /* a window of 1 leaves nothing but rounding */
    run_case(s, 0.5);
}

static void test_windows(void **state) {
    (void)state;
    const int64_t windows[] = {1, 5, 64, 70, 1000};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        reference_attention_shape s = shape(1, between(140, 160), 2, 1, 8);
        s.window = windows[i];
        run_case(s, 1.0);
        teardown(state);
    }
}

static void test_documents(void **state) {
    (void)state;
    const int32_t starts[] = {0, 3, 50, 51, 140, 140, 0, 100, 128, 140, 140, 140};
    reference_attention_shape s = shape(2, 140, 2, 1, 8);
    s.starts = starts;
    s.n_starts = 6;
    run_case(s, 1.0);
    s.exclude_self = 1;
    s.window = between(2, 60);
    run_case(s, 1.0);
}

static void test_more_keys(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        reference_attention_shape s = shape(2, i == 0 ? 1 : between(2, 70), 4, 2, 8);
        s.keys = s.tokens + between(1, 150);
        s.window = i == 2 ? between(2, 40) : 0;
        s.exclude_self = i == 3;
        run_case(s, 1.0);
        teardown(state);
    }
}

/* Scores of several hundred: the softmax must neither overflow nor lose its one winner. */
static void test_large_scores(void **state) {
    (void)state;
    problem p = make_problem(shape(1, 90, 2, 1, 16), 12.0);
    fw_flash_attention a = arguments(&p);
    RUN(attention_forward, &a);
    double *out = clone(p.out->host, p.out->n);
    reference_attention(&p.s, p.q, p.k, p.v, out, NULL, NULL);
    expect_close("out", p.out, out, tolerance(1e-4, 5e-2)); /* scores carry 1e-7 of their size */
}

/* The same where one winner is all there is, in a shape that has kernels of its own. */
static void test_large_scores_of_wide_heads(void **state) {
    (void)state;
    problem p = make_problem(shape(1, 200, 2, 1, 64), 12.0);
    fw_flash_attention a = arguments(&p);
    RUN(attention_forward, &a);
    double *out = clone(p.out->host, p.out->n);
    reference_attention(&p.s, p.q, p.k, p.v, out, NULL, NULL);
    expect_close("out", p.out, out, tolerance(1e-4, 5e-2));
}

/* Are the reference's two passes of one mind? */
static void test_reference(void **state) {
    (void)state;
    const int32_t starts[] = {0, 4, 9, 0, 11, 11};
    reference_attention_shape s = shape(2, 11, 4, 2, 6);
    for (int i = 0; i < 4; i++) {
        s.exclude_self = i & 1;
        s.window = i == 2 ? 5 : 0;
        s.keys = i == 3 ? 15 : 11;
        s.starts = i == 1 ? starts : NULL;
        s.n_starts = 3;
        problem p = make_problem(s, 1.0);
        const int64_t n_q = 2 * 11 * 24, n_kv = 2 * s.keys * 12;
        double *d_q = clone(p.q, n_q), *d_k = clone(p.k, n_kv), *d_v = clone(p.v, n_kv);
        reference_attention_backward(&s, p.q, p.k, p.v, p.d_out->host, d_q, d_k, d_v);
        expect_gradient("d_q", make_values(d_q, n_q, FW_F32), p.q, weighted_output, &p, 1e-6);
        expect_gradient("d_k", make_values(d_k, n_kv, FW_F32), p.k, weighted_output, &p, 1e-6);
        expect_gradient("d_v", make_values(d_v, n_kv, FW_F32), p.v, weighted_output, &p, 1e-6);
    }
}

/* Heads of 64 and 128: blocks of 64, 128 and 192 rows with a remainder, and less than one. */
static void test_wide_heads(void **state) {
    const int64_t lengths[] = {1, 17, 64, 127, 129, 193, 300};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        run_wide(shape(i < 3 ? 3 : 1, lengths[i], 2, 1, 64), 0);
        teardown(state);
    }
    run_wide(shape(2, 256, 2, 2, 64), 0);
    teardown(state);
    run_wide(shape(1, 150, 8, 4, 64), 0);
    teardown(state);
    run_wide(shape(1, between(100, 260), 4, 1, 64), 0);
    teardown(state);
    run_wide(shape(2, 150, 2, 1, 128), 0);
    teardown(state);
    run_wide(shape(1, 130, 2, 2, 96), 0);
}

static void test_wide_heads_exclude_self(void **state) {
    for (int64_t i = 0; i < 4; i++) {
        reference_attention_shape s = shape(1, between(120, 300), 4, i == 0 ? 4 : 2, 64);
        s.exclude_self = 1;
        s.window = i == 2 ? between(2, 200) : 0;
        if (i == 3) s.width = 128, s.heads = 2, s.groups = 1, s.tokens = s.keys = 140;
        run_wide(s, 0);
        teardown(state);
    }
}

static void test_wide_heads_in_windows(void **state) {
    const int64_t windows[] = {2, 63, 64, 65, 128, 150, 1000};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        reference_attention_shape s = shape(1, between(190, 260), 2, 1, 64);
        s.window = windows[i];
        run_wide(s, 0);
        teardown(state);
    }
}

static void test_wide_heads_of_documents(void **state) {
    const int32_t starts[] = {0, 63, 64, 200, 0, 130, 200, 200};
    reference_attention_shape s = shape(2, 200, 2, 1, 64);
    s.starts = starts;
    s.n_starts = 4;
    run_wide(s, 0);
    teardown(state);
    s.window = 50;
    s.exclude_self = 1;
    run_wide(s, 0);
}

static void test_wide_heads_with_more_keys(void **state) {
    const int64_t tokens[] = {1, 64, 100};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        reference_attention_shape s = shape(2, tokens[i], 4, 2, 64);
        s.keys = s.tokens + between(1, 150);
        s.exclude_self = i == 2;
        run_wide(s, 0);
        teardown(state);
    }
}

/* What decoding calls for: keys of a window and of a piece of text, of which each query sees the
 * window's. Pieces of one position, of a tile, and of tiles with a remainder; the shift between
 * queries and keys a multiple of no tile. */
static void test_wide_heads_with_more_keys_in_windows(void **state) {
    static const struct {
        int64_t tokens, before, window;
    } cases[] = {{1, 49, 50},    {1, 200, 50},    {3, 63, 64},     {64, 96, 97}, {100, 95, 96},
                 {100, 150, 33}, {129, 130, 131}, {193, 127, 128}, {70, 250, 2}, {257, 1, 65}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        reference_attention_shape s = shape(i % 3 == 0 ? 2 : 1, cases[i].tokens, 8, 4, 64);
        s.keys = s.tokens + cases[i].before;
        s.window = cases[i].window;
        s.exclude_self = i % 2 == 1;
        if (i % 4 == 2) s.heads = 4, s.groups = 1;
        if (i % 4 == 3) s.heads = s.groups = 2;
        problem p = make_problem(s, 1.0);
        fw_flash_attention a = arguments(&p);
        if (s.exclude_self)
            RUN_TWICE(attention_forward, &a, p.out, p.log_sum_exp, p.self_dot);
        else
            RUN_TWICE(attention_forward, &a, p.out, p.log_sum_exp);
        expect_forward(&p);
        teardown(state);
    }
}

/* Keys and values as a decoder keeps them: sequences that lie apart, with room behind each that
 * nobody has written, and a view that begins behind what has been forgotten. */
static void test_keys_of_a_state(void **state) {
    enum { FORGOTTEN = 5, ROOM = 70 };
    for (int i = 0; i < 4; i++) {
        reference_attention_shape s = shape(2, i == 0 ? 1 : 67, 4, 2, i == 3 ? 24 : 64);
        s.keys = s.tokens + 60;
        s.window = i == 1 ? 0 : 61;
        s.exclude_self = i == 2;
        problem p = make_problem(s, 1.0);
        const int64_t row = layout_of(&p).keys, all = FORGOTTEN + s.keys + ROOM;
        double *host = clone(make_poison(s.batch * all * row, compute)->host, s.batch * all * row);
        for (int64_t b = 0; b < s.batch; b++)
            memcpy(host + (b * all + FORGOTTEN) * row, p.keys->host + b * s.keys * row,
                   (size_t)(s.keys * row) * sizeof *host);
        array *kept = make_values(host, s.batch * all * row, compute);
        fw_flash_attention a = arguments(&p);
        const int64_t element = (int64_t)fw_dtype_size(compute);
        a.k.data = (char *)kept->memory + FORGOTTEN * row * element;
        a.v.data = (char *)a.k.data + s.groups * s.width * element;
        a.k.stride[0] = a.v.stride[0] = all * row;
        RUN(attention_forward, &a);
        fetch(p.out), fetch(p.log_sum_exp), fetch(p.self_dot);
        expect_forward(&p);
        teardown(state);
    }
}

/* Rows that no copy of 16 bytes can begin at, and rows that are merely far apart. */
static void test_wide_heads_in_strides(void **state) {
    const int64_t slacks[] = {3, 8, 64};
    for (size_t i = 0; i < sizeof slacks / sizeof slacks[0]; i++) {
        reference_attention_shape s = shape(2, 140, 2, 1, 64);
        s.exclude_self = i == 1;
        run_wide(s, slacks[i]);
        teardown(state);
    }
}

static void test_accumulates_dv(void **state) {
    (void)state;
    problem p = make_problem(shape(1, 50, 2, 1, 16), 1.0);
    fw_flash_attention a = arguments(&p);
    RUN(attention_forward, &a);
    RUN(attention_backward, &a);
    const int64_t total = 4 * 16;
    array *once = part(p.d_rows, 48, 16, total);
    a.accumulate_dv = 1;
    RUN(attention_backward, &a);
    array *twice = part(p.d_rows, 48, 16, total);
    for (int64_t i = 0; i < once->n; i++) once->host[i] *= 2.0;
    expect_close("d_v twice", twice, once->host, tolerance(1e-6, 1e-2));
    expect_close("d_q once", part(p.d_rows, 0, 32, total), columns(p.d_rows, 0, 32, total), 0.0);
}

static void test_refuses(void **state) {
    (void)state;
    problem p = make_problem(shape(1, 8, 4, 2, 8), 1.0);
    fw_flash_attention a = arguments(&p), bad = a;
    bad.struct_size = 0;
    REFUSES(FW_E_ARGUMENT, attention_forward, &bad);
    bad = a;
    bad.k.shape[2] = 3;
    REFUSES(FW_E_SHAPE, attention_forward, &bad);
    bad = a;
    bad.k.shape[1] = bad.v.shape[1] = 7;
    REFUSES(FW_E_SHAPE, attention_forward, &bad);
    bad = a;
    bad.out.shape[1] = 7;
    REFUSES(FW_E_SHAPE, attention_forward, &bad);
    bad = a;
    bad.q.dtype = FW_I8;
    REFUSES(FW_E_UNSUPPORTED, attention_forward, &bad);
    bad = a;
    bad.d_v = fw_absent();
    REFUSES(FW_E_ARGUMENT, attention_backward, &bad);
    bad = a;
    bad.exclude_self = 1;
    REFUSES(FW_E_ARGUMENT, attention_backward, &bad);
    bad = a;
    bad.q.shape[3] = bad.k.shape[3] = bad.v.shape[3] = 5000;
    assert_true(device->ops->attention_scratch(device, &bad) ==
                SIZE_MAX); /* a plan can refuse it */
    fetch(p.out);
    assert_true(isnan(p.out->host[0])); /* outputs untouched */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_lengths),
        OP_TEST(test_groups),
        OP_TEST(test_exclude_self),
        OP_TEST(test_windows),
        OP_TEST(test_documents),
        OP_TEST(test_more_keys),
        OP_TEST(test_large_scores),
        OP_TEST(test_accumulates_dv),
        OP_TEST(test_refuses),
        OP_TEST(test_reference),
        OP_TEST(test_wide_heads),
        OP_TEST(test_wide_heads_exclude_self),
        OP_TEST(test_wide_heads_in_windows),
        OP_TEST(test_wide_heads_of_documents),
        OP_TEST(test_wide_heads_with_more_keys),
        OP_TEST(test_wide_heads_with_more_keys_in_windows),
        OP_TEST(test_keys_of_a_state),
        OP_TEST(test_wide_heads_in_strides),
        OP_TEST(test_large_scores_of_wide_heads),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
