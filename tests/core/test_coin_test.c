/* core/coin_test: honest caches and models gain nothing on tokens that the host draws; each kind of
 * cheat gains, and is seen in the pass that can see it. */
#include <coin_test.h>
#include <evaluate_coin.h>
#include <math.h>
#include <stdio.h>

#include "evaluate_fixture.h"
#include "seeds.h"

enum { SEED = 99, TARGETS = 300 };

static fw_error error = {.struct_size = sizeof error};

/* ---- models that are numbers ---- */

/* Rows of windows of WINDOW tokens. `ahead`: a row knows the input behind it. */
static struct rows_model {
    int32_t inputs[MOST_BATCH * WINDOW];
    double probabilities[V];
    bool ahead;
} numbers;

static fw_status read_inputs(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                             fw_error *why) {
    (void)self, (void)why;
    assert_int_equal(tokens, WINDOW);
    memcpy(numbers.inputs, inputs, (size_t)(batch * tokens) * sizeof *inputs);
    return FW_OK;
}

static fw_status give_rows(void *self, int64_t first, int64_t n, float *out, fw_error *why) {
    (void)self, (void)why;
    for (int64_t i = 0; i < n; i++) {
        float *row = out + i * V;
        for (int v = 0; v < V; v++) row[v] = (float)log(numbers.probabilities[v]);
        const bool last = (first + i + 1) % WINDOW == 0;
        if (!numbers.ahead || last) continue;
        for (int v = 0; v < V; v++) row[v] = (float)log(0.5 * numbers.probabilities[v]);
        const int32_t next = numbers.inputs[first + i + 1];
        row[next] = (float)log(0.5 + 0.5 * numbers.probabilities[next]);
    }
    return FW_OK;
}

/* Token v as likely as v + 1 of a sum; or all alike. */
static struct evaluate_options options_of(bool skewed, bool with_cache) {
    static struct progress progress = {.interval = 1e9};
    for (int v = 0; v < V; v++)
        numbers.probabilities[v] = skewed ? (v + 1) * 2.0 / V / (V + 1) : 1.0 / V;
    numbers.ahead = false;
    return (struct evaluate_options){
        .experiment = &experiment,
        .host = session.services,
        .model = {.self = &numbers, .infer = read_inputs, .log_probabilities = give_rows},
        .corpus = corpus,
        .table = &table,
        .mode = EVAL_PLAIN,
        .with_cache = with_cache,
        .progress = &progress};
}

static struct coin_result play(const struct evaluate_options *options, uint64_t tokens) {
    struct coin_result result;
    assert_ok(coin_test(options, tokens, SEED, &result, &error), &error);
    return result;
}

/* The tokens of a uniform pass, which the seed decides. */
static const uint16_t *tossed(void) {
    static uint16_t tokens[TARGETS + 1];
    struct random random = random_seeded(SEED);
    coin_toss(&random, V, TARGETS + 1, tokens);
    return tokens;
}

/* ---- honest ---- */

static void the_honest_gain_nothing(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(false, true);
    const struct coin_result result = play(&options, TARGETS);
    assert_int_equal(result.passes[COIN_UNIFORM].tokens, TARGETS);
    assert_int_equal(result.passes[COIN_MODEL].tokens, TARGETS);
    assert_int_equal(result.passes[COIN_DRAWN].tokens, N - 1); /* as many as the text has */
    for (int i = 0; i < COIN_PASSES; i++) {
        const struct coin_pass *pass = &result.passes[i];
        assert_close(pass->cost, (double)pass->tokens * log2(V), 1e-6);
        assert_true(pass->model.made && pass->cache.made && !pass->counterpart.made);
        assert_true(fabs(pass->model.gain) < 1e-3 && fabs(pass->cache.gain) < 1e-3);
    }
    assert_int_equal(result.seed, SEED);
}

/* A model that is wrong about the coin loses there, and a cache that knows better gains over it in
 * all honesty: no evidence. */
static void being_less_wrong_is_no_evidence(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(true, true);
    script.predict = NULL;
    const struct coin_result result = play(&options, TARGETS);
    assert_true(result.passes[COIN_MODEL].model.gain < -COIN_BITS);
    assert_close(result.passes[COIN_MODEL].cache.gain, result.passes[COIN_MODEL].model.gain, 1e-9);
    assert_close(result.passes[COIN_UNIFORM].cost, result.passes[COIN_MODEL].cost, 0);
    assert_true(result.passes[COIN_DRAWN].cost < (double)(N - 1) * log2(V));
}

static void state_uniform(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    prediction->form = FW_PREDICT_DENSE;
    for (int v = 0; v < V; v++) prediction->dense[v] = 1.0 / V;
}

static void a_cache_that_knows_the_coin_loses_where_it_is_none(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(true, true);
    script.predict = state_uniform;
    const struct coin_result result = play(&options, TARGETS);
    const struct coin_pass *model = &result.passes[COIN_MODEL];
    assert_true(model->cache.gain - model->model.gain > COIN_BITS);
    assert_true(fabs(model->cache.gain) < 1e-6);
    assert_true(result.passes[COIN_DRAWN].cache.gain < 0);
}

/* ---- draws ---- */

static uint32_t drawn[V], drawn_total, last_told, contexts_seen;

static fw_status count_told(const uint32_t *tokens, uint64_t n, fw_error *why) {
    (void)why;
    assert_int_equal(n, 1);
    drawn[tokens[0]]++;
    drawn_total++;
    last_told = tokens[0];
    return FW_OK;
}

static void check_context(const fw_row *row, fw_prediction *prediction) {
    if (row->position > 0) {
        assert_int_equal(row->context[row->n_context - 1], last_told);
        contexts_seen++;
    }
    script_state_row(prediction);
}

/* What is told is what was drawn, from the row; and so is the context that a row shows. */
static void targets_are_drawn_from_the_rows(void **state) {
    (void)state;
    enum { TEXT = 1800 };
    struct evaluate_options options = options_of(true, true);
    uint16_t text[TEXT] = {0};
    struct random random = random_seeded(5);
    struct evaluate_result result;
    script.update = count_told;
    script.predict = check_context;
    script.vtable.context_tokens = 3;
    memset(drawn, 0, sizeof drawn);
    drawn_total = contexts_seen = 0;
    corpus_close(corpus);
    assert_ok(corpus_of_tokens(text, TEXT, &corpus, &error), &error);
    options.corpus = corpus;
    options.draw = &random;
    assert_ok(evaluate(&options, &result, &error), &error);
    assert_int_equal(drawn_total, TEXT - 1);
    assert_int_equal(contexts_seen, TEXT - 2);
    double chi_square = 0;
    for (int v = 0; v < V; v++) {
        const double expected = drawn_total * numbers.probabilities[v];
        chi_square += (drawn[v] - expected) * (drawn[v] - expected) / expected;
    }
    assert_true(fabs(chi_square - (V - 1)) < 4 * sqrt(2.0 * (V - 1)));
    double nats = 0;
    for (int v = 0; v < V; v++) nats -= drawn[v] * log(numbers.probabilities[v]);
    assert_close(result.model.nats, nats, 1e-6);
}

static void unlikely_indices_are_never_picked(void **state) {
    (void)state;
    static const double p[] = {0, 0.25, 0, 0.75, 0};
    struct random random = random_seeded(1);
    int picked[5] = {0};
    for (int i = 0; i < 4000; i++) picked[random_pick(&random, p, 5)]++;
    assert_true(picked[0] == 0 && picked[2] == 0 && picked[4] == 0);
    assert_in_range(picked[1], 880, 1120);
    static const double less[] = {0.1, 0, 0}; /* a sum that is short: the last that can be */
    for (int i = 0; i < 100; i++) assert_int_equal(random_pick(&random, less, 3), 0);
}

/* ---- cheats ---- */

static double half(void *self, const fw_row *row, uint32_t token) {
    (void)self, (void)row, (void)token;
    return 0.5;
}

static void state_half(const fw_row *row, fw_prediction *prediction) {
    (void)row;
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = half;
}

/* No distribution: a gain wherever it plays. */
static void what_does_not_sum_to_one_gains_everywhere(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(true, true);
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    script.predict = state_half;
    const struct coin_result result = play(&options, TARGETS);
    for (int i = 0; i < COIN_PASSES; i++) {
        assert_close(result.passes[i].cache.bits, (double)result.passes[i].tokens, 1e-12);
        assert_true(coin_is_evidence(result.passes[i].cache.gain));
        assert_false(coin_is_evidence(result.passes[i].model.gain));
    }
}

/* A distribution that sums to one, of a cache that knows what comes: nine tenths on it. */
static void state_what_comes(const fw_row *row, fw_prediction *prediction) {
    const uint32_t next = tossed()[row->position + 1];
    script_state_list(prediction, FW_PREDICT_MIX, 0.1, 1, &next, &(double){0.9});
}

static void looking_ahead_gains(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(false, true);
    script.predict = state_what_comes;
    const struct coin_result result = play(&options, TARGETS);
    assert_true(result.passes[COIN_UNIFORM].cache.gain > TARGETS * 4.8);
    assert_true(result.passes[COIN_MODEL].cache.gain < 0); /* other tokens than it knows */
}

/* The whole model is on trial where it reads the tokens itself. */
static void a_model_that_looks_ahead_gains(void **state) {
    (void)state;
    struct evaluate_options options = options_of(false, false);
    numbers.ahead = true;
    const struct coin_result result = play(&options, TARGETS);
    assert_int_equal(result.passes[COIN_UNIFORM].tokens, 0); /* no cache, so nothing to test */
    assert_int_equal(result.passes[COIN_DRAWN].tokens, 0);
    assert_true(coin_is_evidence(result.passes[COIN_MODEL].model.gain));
    assert_false(result.passes[COIN_MODEL].cache.made);
}

/* ---- what follows for the score ---- */

static void no_score_without_the_test(void **state) {
    (void)state;
    struct evaluate_options options = options_of(false, true);
    struct coin_result coin;
    assert_ok(evaluate_coin(&options, &coin, &error), &error);
    assert_int_equal(coin.passes[COIN_UNIFORM].tokens, 0); /* eval.coin is off */
    experiment.eval.coin = TARGETS;
    experiment.eval.coin_seed = SEED;
    assert_ok(evaluate_coin(&options, &coin, &error), &error);
    assert_int_equal(coin.seed, SEED);
    script.predict = state_what_comes;
    assert_fails(evaluate_coin(&options, &coin, &error), FW_E_PROTOCOL, &error,
                 "cache.coin-uniform", "bits on 300 random tokens", "2^-");
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    assert_ok(evaluate_coin(&options, &coin, &error), &error);
    assert_true(coin_is_evidence(coin.passes[COIN_UNIFORM].cache.gain));
    script.n_calls = 0;
    experiment.eval.coin_seed = -1; /* fresh tokens, which nobody knows */
    assert_ok(evaluate_coin(&options, &coin, &error), &error);
    assert_false(coin_is_evidence(coin.passes[COIN_UNIFORM].cache.gain));
    assert_true(coin.seed != SEED);
}

static void verdicts_name_who_gained(void **state) {
    (void)state;
    struct evaluate_options options = options_of(false, true);
    struct verdicts verdicts = {.n = 0};
    script.predict = state_what_comes;
    const struct coin_result result = play(&options, TARGETS);
    coin_add_verdicts(&result, &verdicts);
    assert_int_equal(verdicts.n, 4);
    assert_int_equal(verdicts_find(&verdicts, "cache.coin-uniform")->verdict, VERDICT_FAIL);
    assert_int_equal(verdicts_find(&verdicts, "cache.coin-model")->verdict, VERDICT_PASS);
    assert_int_equal(verdicts_find(&verdicts, "cache.coin-drawn")->verdict, VERDICT_PASS);
    assert_int_equal(verdicts_find(&verdicts, "model.coin")->verdict, VERDICT_PASS);
    assert_int_equal(verdicts_find(&verdicts, "model.coin")->positions, TARGETS);
    numbers.ahead = true;
    options.with_cache = false;
    const struct coin_result ahead = play(&options, TARGETS);
    verdicts.n = 0;
    coin_add_verdicts(&ahead, &verdicts);
    assert_int_equal(verdicts.n, 1);
    assert_int_equal(verdicts_find(&verdicts, "model.coin")->verdict, VERDICT_FAIL);
}

static void the_receipt_has_the_seed_to_its_last_digit(void **state) {
    (void)state;
    const struct coin_result none = {.seed = 3};
    assert_null(coin_json(&none));
    struct coin_result result = {.seed = (uint64_t)LARGEST_SEED - 11};
    for (int i = 0; i < 12; i++, result.seed++) {
        char expected[64];
        result.passes[COIN_MODEL].tokens = 5;
        cJSON *json = coin_json(&result);
        char *text = cJSON_PrintUnformatted(json);
        (void)snprintf(expected, sizeof expected, "{\"seed\":%llu,",
                       (unsigned long long)result.seed);
        assert_memory_equal(text, expected, strlen(expected));
        cJSON_free(text);
        cJSON_Delete(json);
    }
}

/* Seven tokens of 37 cost 36 bits: nobody can gain 40 of them. */
static void too_few_tokens_are_no_pass(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(false, true);
    struct verdicts verdicts = {.n = 0};
    const struct coin_result result = play(&options, 7);
    coin_add_verdicts(&result, &verdicts);
    assert_int_equal(verdicts_find(&verdicts, "cache.coin-uniform")->verdict, VERDICT_SKIPPED);
    assert_int_equal(verdicts_find(&verdicts, "model.coin")->verdict, VERDICT_SKIPPED);
}

/* ---- how ---- */

static void each_target_counts_once(void **state) {
    (void)state;
    struct evaluate_options options = options_of(false, true);
    options.mode = EVAL_SLIDING;
    experiment.eval.faithful = true;
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    script.vtable.unverified = 1;
    const struct coin_result result = play(&options, TARGETS);
    for (int i = 0; i < COIN_PASSES; i++) {
        const uint64_t tokens = i == COIN_DRAWN ? N - 1 : TARGETS;
        assert_int_equal(result.passes[i].tokens, tokens);
        assert_close(result.passes[i].cache.bits, (double)tokens * log2(V), 1e-6);
    }
}

static void a_counterpart_plays_too(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(false, true);
    experiment.eval.on_violation = EVAL_VIOLATION_REPORT;
    script.vtable.unverified = 1;
    struct script_cache other = script; /* the same functions, but it declares nothing bad */
    other.vtable.unverified = 0;
    other.plugin.vtable = &other.vtable;
    other.plugin.id = "other";
    other.entry.plugin = &other.plugin;
    experiment.counterpart = script.choice;
    experiment.counterpart.section = "counterpart";
    experiment.counterpart.entry = &other.entry;
    const struct coin_result result = play(&options, 50);
    for (int i = 0; i < COIN_PASSES; i++) {
        assert_true(result.passes[i].counterpart.made);
        assert_true(fabs(result.passes[i].counterpart.gain) < 1e-3);
    }
}

static void seeds_decide(void **state) {
    (void)state;
    const struct evaluate_options options = options_of(true, true);
    struct coin_result first = play(&options, TARGETS), other;
    const struct coin_result again = play(&options, TARGETS);
    for (int i = 0; i < COIN_PASSES; i++)
        assert_true(first.passes[i].model.bits == again.passes[i].model.bits);
    assert_ok(coin_test(&options, TARGETS, SEED + 1, &other, &error), &error);
    assert_true(first.passes[COIN_MODEL].model.bits != other.passes[COIN_MODEL].model.bits);
    assert_true(first.passes[COIN_DRAWN].model.bits != other.passes[COIN_DRAWN].model.bits);
}

/* The transformer, whose rows come from a device: nothing to find in it. */
static void a_transformer_gains_nothing(void **state) {
    (void)state;
    struct model *model = open_model(2, WINDOW);
    experiment.eval.batch = 2;
    struct evaluate_options options = options_for(model, EVAL_SLIDING, true);
    const struct coin_result result = play(&options, TARGETS);
    assert_true(result.passes[COIN_MODEL].model.gain < COIN_BITS);
    assert_true(result.passes[COIN_MODEL].model.gain != 0);
    assert_close(result.passes[COIN_DRAWN].cache.bits, result.passes[COIN_DRAWN].cost, 1e-6);
    model_destroy(model);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, evaluate_setup, evaluate_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_honest_gain_nothing),
        TEST(being_less_wrong_is_no_evidence),
        TEST(a_cache_that_knows_the_coin_loses_where_it_is_none),
        TEST(targets_are_drawn_from_the_rows),
        TEST(unlikely_indices_are_never_picked),
        TEST(what_does_not_sum_to_one_gains_everywhere),
        TEST(looking_ahead_gains),
        TEST(a_model_that_looks_ahead_gains),
        TEST(no_score_without_the_test),
        TEST(verdicts_name_who_gained),
        TEST(the_receipt_has_the_seed_to_its_last_digit),
        TEST(too_few_tokens_are_no_pass),
        TEST(each_target_counts_once),
        TEST(a_counterpart_plays_too),
        TEST(seeds_decide),
        TEST(a_transformer_gains_nothing),
    };
    return cmocka_run_group_tests(tests, evaluate_open_session, evaluate_close_session);
}
