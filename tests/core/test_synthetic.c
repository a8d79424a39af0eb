/* Made-up text and rows: the same from the same seed, with what probes need of them. */
#include "synthetic.h"

#include <math.h>

#include "support.h"

enum { V = 64, N = 3000 };

static struct token_table *table;

static int setup(void **state) {
    fw_error error = {.struct_size = sizeof error};
    (void)state;
    return synthetic_table(V, &table, &error) == FW_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    token_table_destroy(table);
    return 0;
}

static void test_text(void **state) {
    (void)state;
    static uint16_t a[N], b[N], c[N];
    synthetic_text(table, 5, N, a);
    synthetic_text(table, 5, N, b);
    synthetic_text(table, 6, N, c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    uint64_t documents = 0;
    for (size_t i = 0; i < N; i++) {
        assert_true(a[i] < V);
        documents += a[i] == 0;
    }
    assert_true(documents > 10 && documents < N / 10);
    assert_true(a[0] == 0 && a[1] == 0 && a[2] == 0 && a[4] == 0); /* empty, then of one token */
    synthetic_text(table, 5, 3, b);                                /* shorter than its edges */
    assert_memory_equal(a, b, 3 * sizeof *a);
}

static void test_begin_token(void **state) {
    (void)state;
    table->begin_token = 7;
    assert_int_equal(token_table_begin(table), 7);
    table->begin_token = -1;
    table->tokens[0].boundary = 0;
    table->tokens[9].boundary = 1;
    assert_int_equal(token_table_begin(table), 9);
    table->tokens[9].boundary = 0;
    assert_int_equal(token_table_begin(table), 0);
    table->tokens[0].boundary = 1;
    table->begin_token = 0;
}

static void test_rows(void **state) {
    (void)state;
    struct synthetic_rows rows = {.vocabulary = V, .seed = 3}, other = rows, uniform = rows;
    other.other_seed = 4;
    uniform.uniform = true;
    uint32_t kept = 0;
    for (int32_t token = 0; token < V; token++) {
        float l[V], m[V];
        double sum = 0;
        synthetic_row(&rows, 1, token, l);
        synthetic_row(&other, 1, token, m);
        for (uint32_t v = 0; v < V; v++) sum += exp((double)l[v]);
        assert_true(fabs(sum - 1) < 1e-5);
        const bool same = memcmp(l, m, sizeof l) == 0;
        assert_true(same == synthetic_keeps_row((uint32_t)token));
        kept += same;
        synthetic_row(&uniform, 1, token, m);
        for (uint32_t v = 0; v < V; v++) assert_true(fabs((double)m[v] + log(V)) < 1e-6);
        synthetic_row(&rows, 2, token, m);
        assert_memory_not_equal(l, m, sizeof l); /* the token before counts */
    }
    assert_true(kept > 0 && kept < V);
}

/* A row of a window is that of its last two tokens, wherever it stands. */
static void test_model(void **state) {
    (void)state;
    struct synthetic_rows rows = {.vocabulary = V, .seed = 3};
    const struct language_model model = synthetic_model(&rows);
    const int32_t inputs[6] = {1, 2, 3, 9, 2, 3};
    fw_error error = {.struct_size = sizeof error};
    float got[6 * V], row[V];
    assert_int_equal(model.infer(model.self, inputs, 2, 3, &error), FW_OK);
    assert_int_equal(model.log_probabilities(model.self, 0, 6, got, &error), FW_OK);
    assert_memory_equal(got + 2 * V, got + 5 * V, V * sizeof *got);
    assert_memory_not_equal(got + V, got + 4 * V, V * sizeof *got);
    synthetic_row(&rows, -1, 9, row);
    assert_memory_equal(got + 3 * V, row, sizeof row);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_begin_token),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
