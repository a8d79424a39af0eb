/* Embedding: rows by token, and the gradient's scatter-add with repeated tokens. */
#include "harness.h"

#include <math.h>

typedef struct problem {
    int64_t n, vocabulary, width;
    array *tokens, *table, *out, *d_out, *d_table;
    fw_embedding e;
} problem;

static problem make_problem(int64_t n, int64_t vocabulary, int64_t width) {
    problem p = {.n = n, .vocabulary = vocabulary, .width = width};
    int32_t *tokens = calloc((size_t)n, sizeof *tokens);
    assert_non_null(tokens);
    for (int64_t i = 0; i < n; i++) tokens[i] = (int32_t)between(0, vocabulary - 1);
    p.tokens = make_ints(tokens, n);
    free(tokens);
    p.table = make_random(vocabulary * width, compute, 1.0);
    p.out = make_poison(n * width, compute);
    p.d_out = make_random(n * width, compute, 1.0);
    p.d_table = make_poison(vocabulary * width, FW_F32);
    p.e = (fw_embedding){.struct_size = sizeof p.e,
                         .tokens = fw_vector(p.tokens->memory, FW_I32, n),
                         .table = fw_matrix(p.table->memory, compute, vocabulary, width),
                         .out = fw_matrix(p.out->memory, compute, n, width),
                         .d_out = fw_matrix(p.d_out->memory, compute, n, width),
                         .d_table = fw_matrix(p.d_table->memory, FW_F32, vocabulary, width)};
    return p;
}

static int64_t token(const problem *p, int64_t i) { return (int64_t)p->tokens->host[i]; }

static void test_forward(void **state) {
    (void)state;
    const int64_t sizes[][3] = {{1, 1, 1}, {37, 11, 8}, {700, 256, 48}, {5, 300, 33}};
    for (size_t s = 0; s < 4; s++) {
        problem p = make_problem(sizes[s][0], sizes[s][1], sizes[s][2]);
        RUN_TWICE(embedding_forward, &p.e, p.out);
        double *want = make_values(p.out->host, p.out->n, FW_F32)->host;
        for (int64_t i = 0; i < p.n * p.width; i++)
            want[i] = p.table->host[token(&p, i / p.width) * p.width + i % p.width];
        expect_close("out", p.out, want, 0.0);
    }
}

static void add_rows(const problem *p, double *to) {
    for (int64_t i = 0; i < p->n * p->width; i++)
        to[token(p, i / p->width) * p->width + i % p->width] += p->d_out->host[i];
}

static void test_backward(void **state) {
    (void)state;
    const int64_t sizes[][3] = {{1, 1, 1}, {37, 11, 8}, {1500, 20, 48}, {5, 300, 33}};
    for (size_t s = 0; s < 4; s++) {
        problem p = make_problem(sizes[s][0], sizes[s][1], sizes[s][2]);
        RUN_TWICE(embedding_backward, &p.e, p.d_table);
        array *zeros = make_random(p.d_table->n, FW_F32, 0.0);
        add_rows(&p, zeros->host);
        expect_close("d_table", p.d_table, zeros->host, 1e-6);
        p.e.accumulate = 1;
        RUN(embedding_backward, &p.e);
        add_rows(&p, zeros->host);
        expect_close("d_table, accumulated", p.d_table, zeros->host, 1e-6);
    }
}

static void test_refuses(void **state) {
    (void)state;
    problem p = make_problem(8, 5, 4);
    fw_embedding bad = p.e;
    bad.out.shape[0] = 7;
    REFUSES(FW_E_SHAPE, embedding_forward, &bad);
    bad = p.e;
    bad.tokens.dtype = FW_I64;
    REFUSES(FW_E_UNSUPPORTED, embedding_forward, &bad);
    bad = p.e;
    bad.d_table.shape[1] = 3;
    REFUSES(FW_E_SHAPE, embedding_backward, &bad);
    if (device->type == FW_CPU) { /* elsewhere the host may not read tokens */
        bad = p.e;
        bad.table.shape[0] = bad.d_table.shape[0] = 1;
        p.tokens = make_ints((const int32_t[]){0, 0, 1, 0, 0, 0, 0, 0}, 8);
        bad.tokens.data = p.tokens->memory;
        REFUSES(FW_E_ARGUMENT, embedding_forward, &bad);
        REFUSES(FW_E_ARGUMENT, embedding_backward, &bad);
    }
    fetch(p.out);
    assert_true(isnan(p.out->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TEST(test_forward), OP_TEST(test_backward),
                                       OP_TEST(test_refuses)};
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
