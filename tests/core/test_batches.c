/* core/batches: what a step sees is a function of the sequence's number alone, every epoch holds
 * each whole sequence once, and targets are the next tokens. */
#include <batches.h>
#include <shard.h>
#include <stdio.h>

#include "workspace.h"

enum { T = 7, SEQUENCES = 23, TOKENS = T * SEQUENCES + 3 }; /* a rest that makes no sequence */

static fw_error error = {.struct_size = sizeof error};

/* Token i is i, so that a sequence tells where it came from. */
static struct corpus *open_counted(int32_t n) {
    uint16_t tokens[TOKENS];
    assert_in_range(n, 0, TOKENS);
    for (uint16_t i = 0; i < n; i++) tokens[i] = i;
    write_shard("counted.bin", SHARD_MAGIC, 1, n, tokens, (size_t)n);
    struct corpus *corpus = NULL;
    const struct corpus_options options = {.source = "counted.bin"};
    assert_ok(corpus_open(&options, &corpus, &error), &error);
    return corpus;
}

static struct batches *create(const struct corpus *corpus, bool shuffled, uint64_t seed) {
    struct batches *batches = NULL;
    assert_ok(batches_create(corpus, T, shuffled, seed, &batches, &error), &error);
    return batches;
}

/* The first tokens of sequences first .. first + n - 1, having checked all the others. */
static void read_starts(struct batches *batches, uint64_t first, int64_t n, int32_t *starts) {
    int32_t *inputs = malloc((size_t)(n * T) * sizeof *inputs);
    int32_t *targets = malloc((size_t)(n * T) * sizeof *targets);
    assert_true(inputs != NULL && targets != NULL);
    batches_read(batches, first, n, inputs, targets);
    for (int64_t s = 0; s < n; s++) {
        starts[s] = inputs[s * T];
        for (int64_t i = 0; i < T; i++) {
            assert_int_equal(inputs[s * T + i], (starts[s] + i) % TOKENS);
            assert_int_equal(targets[s * T + i], (starts[s] + i + 1) % TOKENS);
        }
    }
    free(inputs);
    free(targets);
}

static void test_epochs_visit_each_sequence_once(void **state) {
    (void)state;
    struct corpus *corpus = open_counted(TOKENS);
    struct batches *batches = create(corpus, true, 1);
    int32_t epochs[4][SEQUENCES];
    for (uint64_t epoch = 0; epoch < 4; epoch++) {
        int seen[SEQUENCES] = {0};
        read_starts(batches, epoch * SEQUENCES, SEQUENCES, epochs[epoch]);
        for (int s = 0; s < SEQUENCES; s++) {
            assert_int_equal(epochs[epoch][s] % T, 0);
            seen[epochs[epoch][s] / T]++;
        }
        for (int s = 0; s < SEQUENCES; s++) assert_int_equal(seen[s], 1);
        for (uint64_t before = 0; before < epoch; before++)
            assert_memory_not_equal(epochs[before], epochs[epoch], sizeof epochs[0]);
    }
    batches_destroy(batches);
    corpus_close(corpus);
}

static void test_seed_decides(void **state) {
    (void)state;
    struct corpus *corpus = open_counted(TOKENS);
    int32_t orders[3][2 * SEQUENCES];
    const uint64_t seeds[3] = {5, 5, 6};
    for (int i = 0; i < 3; i++) {
        struct batches *batches = create(corpus, true, seeds[i]);
        read_starts(batches, 0, 2 * SEQUENCES, orders[i]);
        batches_destroy(batches);
    }
    assert_memory_equal(orders[0], orders[1], sizeof orders[0]);
    /* Neither the first epoch nor the second: seeds are no shift of one another. */
    for (int e = 0; e < 2; e++)
        for (int f = 0; f < 2; f++)
            assert_memory_not_equal(orders[1] + e * SEQUENCES, orders[2] + f * SEQUENCES,
                                    SEQUENCES * sizeof(int32_t));
    batches_destroy(NULL);
    corpus_close(corpus);
}

/* Any pieces, in any order, back and forth across epochs: as a run that is resumed reads them. */
static void check_position_is_all(bool shuffled) {
    enum { ALL = 5 * SEQUENCES };
    struct corpus *corpus = open_counted(TOKENS);
    struct batches *batches = create(corpus, shuffled, 9), *other = create(corpus, shuffled, 9);
    int32_t expected[ALL], starts[ALL];
    read_starts(batches, 0, ALL, expected);
    test_random random = {3};
    for (int round = 0; round < 300; round++) {
        const uint64_t first = test_below(&random, ALL), n = 1 + test_below(&random, ALL - first);
        read_starts(round % 2 == 0 ? batches : other, first, (int64_t)n, starts);
        assert_memory_equal(starts, expected + first, n * sizeof *starts);
    }
    batches_destroy(batches);
    batches_destroy(other);
    corpus_close(corpus);
}

static void test_shuffled_position_is_all(void **state) {
    (void)state;
    check_position_is_all(true);
}

static void test_ordered_position_is_all(void **state) {
    (void)state;
    check_position_is_all(false);
}

/* In order, sequences follow one another without a gap, also around the corpus's end. */
static void test_in_order(void **state) {
    (void)state;
    struct corpus *corpus = open_counted(TOKENS);
    struct batches *batches = create(corpus, false, 1);
    int32_t starts[3 * SEQUENCES];
    read_starts(batches, 0, 3 * SEQUENCES, starts);
    for (int s = 0; s < 3 * SEQUENCES; s++) assert_int_equal(starts[s], s * T % TOKENS);
    batches_destroy(batches);
    corpus_close(corpus);
}

/* A sequence takes T tokens and the target of the last one. */
static void test_shortest_corpus(void **state) {
    (void)state;
    struct corpus *corpus = open_counted(T);
    struct batches *batches = NULL;
    assert_fails(batches_create(corpus, T, true, 1, &batches, &error), FW_E_FORMAT, &error,
                 "hold 7 tokens", "data.sequence = 7");
    assert_null(batches);
    corpus_close(corpus);
    corpus = open_counted(T + 1);
    batches = create(corpus, true, 1);
    int32_t inputs[3 * T], targets[3 * T];
    batches_read(batches, 0, 3, inputs, targets);
    for (int i = 0; i < 3 * T; i++) {
        assert_int_equal(inputs[i], i % T);
        assert_int_equal(targets[i], i % T + 1);
    }
    batches_destroy(batches);
    corpus_close(corpus);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_epochs_visit_each_sequence_once),
        TEST(test_seed_decides),
        TEST(test_shuffled_position_is_all),
        TEST(test_ordered_position_is_all),
        TEST(test_in_order),
        TEST(test_shortest_corpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
