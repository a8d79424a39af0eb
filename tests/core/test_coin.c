/* core/coin and `fairway coin`: the tokens are the documented ones and uniform, verdicts follow
 * from the digits given, and shards are those of the challenge. */
#include <coin.h>
#include <commands.h>
#include <math.h>
#include <seeds.h>
#include <shard.h>
#include <stdio.h>
#include <unistd.h>

#include "workspace.h"

static fw_error error;

static void toss(uint64_t seed, uint32_t sides, uint64_t n, uint16_t *tokens) {
    struct random random = random_seeded(seed);
    coin_toss(&random, sides, n, tokens);
}

/* ---- tokens ---- */

/* SplitMix64 modulo V, from a few lines of Python with integers of any size. */
static void tokens_are_the_documented_ones(void **state) {
    (void)state;
    static const uint16_t v1024[] = {471, 540, 514, 459, 474, 529, 246, 766};
    static const uint16_t v50257[] = {32949, 13888, 23874, 18417, 2106, 26736, 49250, 18121};
    static const uint16_t v65536[] = {11555, 32785, 8546, 25859};
    uint16_t tokens[8];
    toss(7, 1024, 8, tokens);
    assert_memory_equal(tokens, v1024, sizeof v1024);
    toss(7, 50257, 8, tokens);
    assert_memory_equal(tokens, v50257, sizeof v50257);
    toss(LARGEST_SEED, 65536, 4, tokens);
    assert_memory_equal(tokens, v65536, sizeof v65536);
}

/* Deviations of the chi-square statistic of `counts` from its mean, in standard deviations. */
static double deviations(const uint32_t *counts, uint32_t cells, double n) {
    double sum = 0;
    for (uint32_t i = 0; i < cells; i++) {
        const double difference = counts[i] - n / cells;
        sum += difference * difference * cells / n;
    }
    return (sum - (cells - 1)) / sqrt(2.0 * (cells - 1));
}

static void tokens_are_uniform(void **state) {
    (void)state;
    static const uint32_t sides[] = {2, 3, 1000, 1024, 50257, 65535, 65536};
    enum { TOKENS = 1 << 20 };
    uint16_t *tokens = malloc(TOKENS * sizeof *tokens);
    uint32_t *counts = malloc(COIN_MOST_SIDES * sizeof *counts);
    for (size_t s = 0; s < sizeof sides / sizeof sides[0]; s++) {
        toss(s, sides[s], TOKENS, tokens);
        memset(counts, 0, COIN_MOST_SIDES * sizeof *counts);
        for (size_t i = 0; i < TOKENS; i++) {
            assert_true(tokens[i] < sides[s]);
            counts[tokens[i]]++;
        }
        const double off = deviations(counts, sides[s], TOKENS);
        if (fabs(off) > 4) fail_msg("V = %u: chi-square is off by %g", sides[s], off);
    }
    free(tokens);
    free(counts);
}

static void neighbours_are_independent(void **state) {
    (void)state;
    enum { SIDES = 96, TOKENS = 1 << 20 };
    uint16_t *tokens = malloc((TOKENS + 1) * sizeof *tokens);
    static uint32_t pairs[SIDES * SIDES];
    toss(3, SIDES, TOKENS + 1, tokens);
    memset(pairs, 0, sizeof pairs);
    for (size_t i = 0; i < TOKENS; i++) pairs[tokens[i] * SIDES + tokens[i + 1]]++;
    assert_true(fabs(deviations(pairs, SIDES * SIDES, TOKENS)) < 4);
    free(tokens);
}

/* Of a range that 2^64 is no multiple of, the low part would come too often: half of the time
 * instead of a third. */
static void remainders_are_refused(void **state) {
    (void)state;
    struct random random = random_seeded(11);
    int low = 0;
    for (int i = 0; i < 30000; i++)
        low += random_below(&random, UINT64_C(3) << 62) < UINT64_C(1) << 62;
    assert_in_range(low, 9500, 10500);
}

static void fresh_seeds_differ(void **state) {
    (void)state;
    uint64_t a, b;
    assert_ok(coin_fresh_seed(&a, &error), &error);
    assert_ok(coin_fresh_seed(&b, &error), &error);
    assert_true(a != b && a <= LARGEST_SEED && b <= LARGEST_SEED);
}

/* ---- verdicts ---- */

static struct coin_verdict judge(const char *score, uint64_t n, uint32_t sides) {
    struct coin_score parsed;
    assert_ok(coin_parse_score(score, &parsed, &error), &error);
    return coin_judge(parsed, n, sides);
}

static void assert_near(double a, double b) {
    if (!(fabs(a - b) <= 1e-9 * (1 + fabs(b)))) fail_msg("%.17g is not %.17g", a, b);
}

static void gains_are_bits(void **state) {
    (void)state;
    assert_near(coin_cost(800000, 1024), 8e6);
    assert_near(coin_gain(0, 100, 2), 100);
    assert_near(coin_gain(100 * log(2.0), 100, 2), 0);
    assert_near(coin_gain(100 * log(4.0), 100, 2), -100);
    assert_true(!coin_is_evidence(40) && coin_is_evidence(40.001) && !coin_is_evidence(-1e9));
    assert_true(coin_is_evidence(NAN));
    const struct coin_verdict seed = judge("5.0231", 800000, 1024);
    assert_true(seed.invalid);
    assert_int_equal((int)seed.gain, 2202558); /* 800000 (ln 1024 - 5.0231) / ln 2 */
}

static void digits_decide(void **state) {
    (void)state;
    /* 40 bits of 1000 tokens: 6.9037459184 nats. */
    assert_true(judge("6.90374", 1000, 1024).invalid);
    assert_false(judge("6.9037", 1000, 1024).invalid); /* could be 6.90375 */
    assert_true(coin_is_evidence(judge("6.9037", 1000, 1024).gain));
    assert_false(judge("6.90375", 1000, 1024).invalid);
    assert_true(judge("6.9037459", 1000, 1024).most > 40);
    assert_false(judge("6.9037459", 1000, 1024).invalid);
    /* Without digits, half a nat; none of it below zero. */
    const struct coin_verdict none = judge("0", 100, 2);
    assert_near(none.gain, 100);
    assert_near(none.least, 100 - 50 / log(2.0));
    assert_near(none.most, 100);
    assert_false(none.invalid);
    assert_true(judge("0.0", 100, 2).invalid);
    assert_false(judge("7", 1000000, 1024).invalid);
    assert_false(judge("6.931", 50000, 1024).invalid); /* from 6.9305 on: -2.0 to 70 bits */
    assert_true(judge("6.931", 50000, 1024).most > 60);
}

static void exponents_move_the_last_digit(void **state) {
    (void)state;
    struct coin_score score;
    static const struct {
        const char *text;
        double value, half_unit;
    } scores[] = {
        {"5.0231", 5.0231, 5e-5}, {"50231e-4", 5.0231, 5e-5}, {"0.50231E+1", 5.0231, 5e-5},
        {"5.", 5, 0.5},           {".5", 0.5, 0.05},          {"5.02310", 5.0231, 5e-6},
        {"12e2", 1200, 50}};
    for (size_t i = 0; i < sizeof scores / sizeof scores[0]; i++) {
        assert_ok(coin_parse_score(scores[i].text, &score, &error), &error);
        assert_near(score.value, scores[i].value);
        if (!(fabs(score.half_unit / scores[i].half_unit - 1) < 1e-12))
            fail_msg("%s: half a unit is %g", scores[i].text, score.half_unit);
    }
}

static void what_is_no_score_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"",      ".",     "-5.02",   "nan", "inf",   "5,02",
                                        "5.0.2", "0x5",   "5e",      "5e+", "5.02 ", " 5.0",
                                        "5.02x", "1e400", "5e99999", "+5.0"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct coin_score score = {-1, -1};
        assert_fails(coin_parse_score(texts[i], &score, &error), FW_E_CONFIG, &error,
                     "is no score");
        assert_true(score.value == -1);
    }
}

/* ---- the program ---- */

static int run(const char *words) {
    char line[1024];
    char *argv[64] = {line};
    (void)snprintf(line, sizeof line, "coin %s", words);
    int argc = 0;
    for (char *rest = NULL, *word = strtok_r(line, " ", &rest); word != NULL && argc < 63;
         word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    return cmd_coin(argc, argv);
}

static void shards_hold_the_tokens(void **state) {
    (void)state;
    enum { TOKENS = 10000, SHARD = 4097 };
    uint16_t tokens[TOKENS];
    assert_int_equal(run("--output c --tokens 10K --vocab 65536 --seed 5 --shard-tokens 4097"), 0);
    assert_string_equal(listing(), "c_000000.bin c_000001.bin c_000002.bin ");
    toss(5, 65536, TOKENS, tokens);
    for (uint64_t i = 0; i < 3; i++) {
        char name[32];
        struct shard shard;
        (void)snprintf(name, sizeof name, "c_%06d.bin", (int)i);
        assert_ok(shard_open(name, &shard, &error), &error);
        assert_int_equal(shard.n_tokens, i < 2 ? SHARD : TOKENS - 2 * SHARD);
        assert_memory_equal(shard.tokens, tokens + i * SHARD, shard.n_tokens * sizeof *tokens);
        shard_close(&shard);
    }
}

static void shards_are_replaced_when_asked(void **state) {
    (void)state;
    assert_int_equal(run("--output c --tokens 9 --vocab 5 --seed 1 --shard-tokens 4"), 0);
    assert_int_equal(run("--output c --tokens 9 --vocab 5 --seed 1"), 2);
    assert_string_equal(listing(), "c_000000.bin c_000001.bin c_000002.bin ");
    assert_int_equal(run("--output c --tokens 9 --vocab 5 --seed 1 --force"), 0);
    assert_string_equal(listing(), "c_000000.bin ");
    /* Documents of a shard that is replaced would be another's. */
    write_text("c_000000.bin.documents", "old");
    assert_int_equal(run("--output c --tokens 9 --vocab 5 --force"), 0);
    assert_string_equal(listing(), "c_000000.bin ");
}

static void nothing_is_left_of_a_failure(void **state) {
    (void)state;
    limit_file_size(8192);
    assert_int_equal(run("--output c --tokens 100K --vocab 5"), 2);
    limit_file_size(0);
    assert_string_equal(listing(), "");
    assert_int_equal(run("--output nowhere/c --tokens 10 --vocab 5"), 2);
}

static void codes_are_the_documented_ones(void **state) {
    (void)state;
    static const struct {
        const char *words;
        int code;
    } calls[] = {
        {"--help", 0},
        {"--verdict 5.0231 --tokens 800K --vocab 1024", 1},
        {"--verdict 6.9315 --tokens 800K --vocab 1024", 0},
        {"--verdict 9 --tokens 800K --vocab 1024", 0},
        {"--verdict 5.0231 --tokens 800K --vocab 1", 2},
        {"--verdict 5.0231 --tokens 800K --vocab 65537", 2},
        {"--verdict 5.0231 --tokens 0 --vocab 1024", 2},
        {"--verdict 5.0231 --tokens 800K", 2},
        {"--verdict 5.0231 --vocab 1024", 2},
        {"--verdict five --tokens 800K --vocab 1024", 2},
        {"--verdict 5.0231 --tokens 800K --vocab 1024 --seed 3", 2},
        {"--verdict 5.0231 --tokens 800K --vocab 1024 --force", 2},
        {"--verdict 5.0231 --tokens 800K --vocab 1024 --shard-tokens 3", 2},
        {"--verdict 5.0231 --output c --tokens 800K --vocab 1024", 2},
        {"--tokens 800K --vocab 1024", 2},
        {"--output c --tokens -5 --vocab 1024", 2},
        {"--output c --tokens 5 --vocab 1024 --seed 1000000000000000", 2},
        {"--output c --tokens 5 --vocab 1024 more", 2},
        {"--output c --tokens 5 --vocab 1024 --shard-tokens 0", 2},
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        const int code = run(calls[i].words);
        if (code != calls[i].code)
            fail_msg("%s: exit code %d instead of %d", calls[i].words, code, calls[i].code);
    }
    assert_string_equal(listing(), "");
}

#define IN_WORKSPACE(test)                                                                         \
    cmocka_unit_test_setup_teardown(test, workspace_setup, workspace_teardown)

int main(void) {
    error = (fw_error){.struct_size = sizeof error};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_the_documented_ones),
        cmocka_unit_test(tokens_are_uniform),
        cmocka_unit_test(neighbours_are_independent),
        cmocka_unit_test(remainders_are_refused),
        cmocka_unit_test(fresh_seeds_differ),
        cmocka_unit_test(gains_are_bits),
        cmocka_unit_test(digits_decide),
        cmocka_unit_test(exponents_move_the_last_digit),
        cmocka_unit_test(what_is_no_score_is_refused),
        IN_WORKSPACE(shards_hold_the_tokens),
        IN_WORKSPACE(shards_are_replaced_when_asked),
        IN_WORKSPACE(nothing_is_left_of_a_failure),
        IN_WORKSPACE(codes_are_the_documented_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
