/* Cross entropy in both directions and log-softmax rows, with and without the soft cap. */
#include "harness.h"
#include "reference.h"

#include <math.h>

enum { MOST = 1 << 15 };

typedef struct problem {
    int64_t rows, vocabulary;
    array *logits, *targets, *loss, *log_sum_exp, *d_logits, *out, *entropy;
    fw_cross_entropy call;
    fw_log_softmax scoring;
} problem;

static problem make_problem(int64_t rows, int64_t vocabulary, double softcap, double spread) {
    const int64_t n = rows * vocabulary;
    problem p = {.rows = rows, .vocabulary = vocabulary};
    int32_t *targets = calloc((size_t)rows, sizeof *targets);
    assert_non_null(targets);
    for (int64_t i = 0; i < rows; i++) targets[i] = (int32_t)between(-1, vocabulary - 1);
    if (rows > 1) targets[0] = -1;
    p.targets = make_ints(targets, rows);
    free(targets);
    p.logits = make_random(n, compute, spread);
    p.loss = make_poison(rows, FW_F32), p.log_sum_exp = make_poison(rows, FW_F32);
    p.d_logits = make_poison(n, compute);
    p.out = make_poison(n, FW_F32), p.entropy = make_poison(rows, FW_F32);
    p.call =
        (fw_cross_entropy){.struct_size = sizeof p.call,
                           .softcap = (float)softcap,
                           .d_loss = 0.125f,
                           .logits = fw_matrix(p.logits->memory, compute, rows, vocabulary),
                           .targets = fw_vector(p.targets->memory, FW_I32, rows),
                           .loss = fw_vector(p.loss->memory, FW_F32, rows),
                           .log_sum_exp = fw_vector(p.log_sum_exp->memory, FW_F32, rows),
                           .d_logits = fw_matrix(p.d_logits->memory, compute, rows, vocabulary)};
    p.scoring =
        (fw_log_softmax){.struct_size = sizeof p.scoring,
                         .softcap = (float)softcap,
                         .logits = p.call.logits,
                         .log_probabilities = fw_matrix(p.out->memory, FW_F32, rows, vocabulary),
                         .entropy = fw_vector(p.entropy->memory, FW_F32, rows)};
    return p;
}

static double row_loss(const problem *p, int64_t row, double *log_probabilities,
                       double *logarithm) {
    const int64_t v = p->vocabulary, target = (int64_t)p->targets->host[row];
    *logarithm = reference_log_softmax(p->logits->host + row * v, log_probabilities, v,
                                       (double)p->call.softcap);
    return target < 0 ? 0.0 : -log_probabilities[target];
}

static double objective_of(void *context) {
    const problem *p = context;
    double row[MOST], logarithm, total = 0.0;
    for (int64_t i = 0; i < p->rows; i++) total += row_loss(p, i, row, &logarithm);
    return total * (double)p->call.d_loss;
}

/* float32 carries logits and logarithms to 6e-8 of their size, and the gradient inherits that. */
static void run_case(int64_t rows, int64_t vocabulary, double softcap, double spread) {
    problem p = make_problem(rows, vocabulary, softcap, spread);
    double row[MOST];
    double *loss = make_random(rows, FW_F32, 0.0)->host;
    double *logarithm = make_random(rows, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < rows; i++) loss[i] = row_loss(&p, i, row, &logarithm[i]);
    RUN_TWICE(cross_entropy_forward, &p.call, p.loss, p.log_sum_exp);
    expect_close("loss", p.loss, loss, tolerance(1e-6, 1e-3));
    expect_close("log_sum_exp", p.log_sum_exp, logarithm, tolerance(1e-6, 1e-3));
    RUN_TWICE(cross_entropy_backward, &p.call, p.d_logits);
    expect_gradient("d_logits", p.d_logits, p.logits->host, objective_of, &p,
                    tolerance(4e-7 * fmax(spread, 10.0), 1e-2));
}

static void test_cross_entropy(void **state) {
    (void)state;
    run_case(5, 2, 0.0, 1.0);
    run_case(37, 256, 15.0, 5.0);
    run_case(3, 1000, 30.0, 20.0);
    run_case(between(1, 20), between(2, 1500), 0.0, 3.0);
    run_case(between(1, 20), between(2, 600), 5.0 + 20.0 * test_uniform(&random_), 10.0);
}

/* The vocabulary of the reference model, and its neighbours, in hundreds of rows: d_logits = d_loss
 * * (softmax - onehot) * (1 - (z / softcap)^2), element by element. */
static void run_rows(int64_t rows, int64_t vocabulary, double softcap) {
    problem p = make_problem(rows, vocabulary, softcap, 8.0);
    double row[MOST];
    double *loss = make_random(rows, FW_F32, 0.0)->host;
    double *logarithm = make_random(rows, FW_F32, 0.0)->host;
    double *d_logits = make_random(rows * vocabulary, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t target = (int64_t)p.targets->host[i];
        loss[i] = row_loss(&p, i, row, &logarithm[i]);
        for (int64_t j = 0; target >= 0 && j < vocabulary; j++) {
            const double x = p.logits->host[i * vocabulary + j] / softcap, t = tanh(x);
            d_logits[i * vocabulary + j] =
                (double)p.call.d_loss * (exp(row[j]) - (j == target)) * (1.0 - t * t);
        }
    }
    RUN_TWICE(cross_entropy_forward, &p.call, p.loss, p.log_sum_exp);
    RUN_TWICE(cross_entropy_backward, &p.call, p.d_logits);
    expect_close("loss", p.loss, loss, tolerance(1e-6, 1e-4));
    expect_close("log_sum_exp", p.log_sum_exp, logarithm, tolerance(1e-6, 1e-4));
    expect_close("d_logits", p.d_logits, d_logits, tolerance(4e-6, 4e-3));
}

static void test_real_vocabularies(void **state) {
    run_rows(301, 1024, 30.0);
    teardown(state);
    run_rows(130, 1000, 30.0);
    teardown(state);
    run_rows(67, 1025, 15.0);
    teardown(state);
    run_rows(9, 8192, 30.0);
}

/* Logits far apart: the exponentials must neither overflow nor all vanish. */
static void test_extremes(void **state) {
    (void)state;
    run_case(9, 700, 0.0, 300.0);
    run_case(9, 700, 15.0, 300.0);
}

/* Where the soft cap is nearly reached its slope keeps its precision: 1 - tanh^2 in float32 would
 * have none left. Slopes by 4q / (1 + q)^2 with q = exp(-2|x| / softcap). */
static void test_slope_under_the_cap(void **state) {
    (void)state;
    if (compute != FW_F32) skip(); /* bfloat16 probabilities are coarser than that */
    enum { V = 12 };
    const double x[V] = {-150, -110, -80, -50, -20, 0, 5, 40, 70, 100, 130, 160};
    double row[V];
    problem p = make_problem(1, V, 15.0, 1.0);
    p.logits = make_values(x, V, compute);
    p.targets = make_ints((const int32_t[]){9}, 1);
    p.call.logits.data = p.logits->memory, p.call.targets.data = p.targets->memory;
    (void)reference_log_softmax(x, row, V, 15.0);
    RUN(cross_entropy_forward, &p.call);
    RUN(cross_entropy_backward, &p.call);
    fetch(p.d_logits);
    for (int i = 0; i < V; i++) {
        const double q = exp(-2.0 * fabs(x[i]) / 15.0), slope = 4.0 * q / ((1.0 + q) * (1.0 + q));
        const double want = 0.125 * (exp(row[i]) - (i == 9)) * slope;
        if (!(fabs(p.d_logits->host[i] - want) <= 1e-5 * fabs(want)))
            fail_msg("at %g: %.9g, expected %.9g", x[i], p.d_logits->host[i], want);
    }
}

static void test_ignored_targets(void **state) {
    (void)state;
    problem p = make_problem(6, 40, 15.0, 2.0);
    RUN(cross_entropy_forward, &p.call);
    RUN(cross_entropy_backward, &p.call);
    fetch(p.loss), fetch(p.d_logits);
    assert_true(p.loss->host[0] == 0.0);
    for (int64_t i = 0; i < 40; i++) assert_true(p.d_logits->host[i] == 0.0);
}

static void test_in_place(void **state) {
    (void)state;
    problem p = make_problem(11, 600, 15.0, 5.0);
    RUN(cross_entropy_forward, &p.call);
    RUN(cross_entropy_backward, &p.call);
    fetch(p.d_logits);
    p.call.d_logits = p.call.logits;
    RUN(cross_entropy_backward, &p.call);
    expect_close("d_logits over logits", p.logits, p.d_logits->host, 0.0);
    if (compute != FW_F32) return;
    p = make_problem(11, 600, 15.0, 5.0);
    RUN(log_softmax, &p.scoring);
    fetch(p.out);
    p.scoring.log_probabilities = p.scoring.logits;
    RUN(log_softmax, &p.scoring);
    expect_close("log_probabilities over logits", p.logits, p.out->host, 0.0);
}

static void run_scoring(int64_t rows, int64_t vocabulary, double softcap, double spread) {
    problem p = make_problem(rows, vocabulary, softcap, spread);
    double *want = make_random(rows * vocabulary, FW_F32, 0.0)->host;
    double *entropy = make_random(rows, FW_F32, 0.0)->host;
    for (int64_t i = 0; i < rows; i++) {
        double *row = want + i * vocabulary;
        (void)reference_log_softmax(p.logits->host + i * vocabulary, row, vocabulary, softcap);
        for (int64_t j = 0; j < vocabulary; j++) entropy[i] -= exp(row[j]) * row[j];
    }
    RUN_TWICE(log_softmax, &p.scoring, p.out, p.entropy);
    expect_close("log_probabilities", p.out, want, tolerance(1e-6, 1e-3));
    expect_close("entropy", p.entropy, entropy, tolerance(5e-6, 1e-3));
    p.scoring.entropy = fw_absent();
    RUN(log_softmax, &p.scoring);
}

static void test_log_softmax(void **state) {
    (void)state;
    run_scoring(1, 1, 0.0, 1.0);
    run_scoring(37, 256, 15.0, 5.0);
    run_scoring(between(1, 9), between(2, 1500), 0.0, 3.0);
}

static void test_refuses(void **state) {
    (void)state;
    problem p = make_problem(4, 8, 15.0, 1.0);
    fw_cross_entropy bad = p.call;
    bad.targets.shape[0] = 3;
    REFUSES(FW_E_SHAPE, cross_entropy_forward, &bad);
    bad = p.call;
    bad.d_logits.shape[1] = 7;
    REFUSES(FW_E_SHAPE, cross_entropy_backward, &bad);
    bad = p.call;
    bad.targets.dtype = FW_I64;
    REFUSES(FW_E_UNSUPPORTED, cross_entropy_forward, &bad);
    if (device->type == FW_CPU) {
        bad = p.call;
        bad.targets.data = make_ints((const int32_t[]){0, 1, 8, 2}, 4)->memory;
        REFUSES(FW_E_ARGUMENT, cross_entropy_forward, &bad);
    }
    fw_log_softmax wrong = p.scoring;
    wrong.log_probabilities.dtype = FW_F16;
    REFUSES(FW_E_UNSUPPORTED, log_softmax, &wrong);
    fetch(p.loss);
    assert_true(isnan(p.loss->host[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(test_cross_entropy),       OP_TEST(test_real_vocabularies), OP_TEST(test_extremes),
        OP_TEST(test_slope_under_the_cap), OP_TEST(test_ignored_targets),   OP_TEST(test_in_place),
        OP_TEST(test_log_softmax),         OP_TEST(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
