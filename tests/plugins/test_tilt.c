/* The tilt cache against an independent, plain implementation of the same formulas, position by
 * position and token by token; what it must gain where words come again, and how little it may lose
 * where nothing does. */
#include <math.h>
#include <stdio.h>

#include "../../plugins/cache/tilt/curves.h"
#include "cache_player.h"
#include "tilt_reference.h"

enum { TOKENS = 2300, SORTS = 4 };

static void write_stream(uint32_t *tokens, uint32_t vocabulary, uint32_t sort) {
    if (sort == 0)
        player_text(tokens, TOKENS, vocabulary, 41);
    else if (sort == 1)
        player_coin(tokens, TOKENS, vocabulary, 42);
    else if (sort == 2)
        for (uint32_t t = 0; t < TOKENS; t++) tokens[t] = (t / 700 + t % 7) % vocabulary;
    else /* one long document, in which one token comes hardly ever */
        for (uint32_t t = 0; t < TOKENS; t++)
            tokens[t] = t % 2100 == 5 ? vocabulary - 1 : 1 + t % 4 % (vocabulary - 1);
}

/* Now and then the model is all but sure: most tokens have less than 2^-20, some have 2^-60. */
static void sharpen(player *p) {
    double sum = 0;
    if (p->position % 3 != 1) return;
    for (uint32_t v = 0; v < p->vocabulary; v++)
        sum += p->model[v] = pow(p->model[v], p->position % 2 == 0 ? 5 : 9);
    for (uint32_t v = 0; v < p->vocabulary; v++) p->model[v] /= sum;
}

/* Every probability of every position within 1e-9. Every 50th token comes without being asked. */
static void compare(const char *const *overrides, tilt_options options, const uint32_t *tokens) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, "tilt");
    fw_value *values = test_values(plugin, overrides);
    const uint32_t V = options.ngram.vocabulary;
    player p = player_open(plugin->vtable, test_host(NULL), values, V, V);
    struct tilt_reference *reference = tilt_reference_create(options, TOKENS);
    double *expected = calloc(V, sizeof *expected);
    assert_non_null(expected);
    for (uint32_t t = 0; t < TOKENS; t++) {
        if (t % 50 != 49) {
            player_form_row(&p);
            sharpen(&p);
            player_predict(&p);
            tilt_reference_predict(reference, p.model, expected);
            for (uint32_t v = 0; v < V; v++)
                if (!(fabs(p.full[v] - expected[v]) <= 1e-9))
                    fail_msg("position %u, token %u: %.12f instead of %.12f", t, v, p.full[v],
                             expected[v]);
        }
        player_update(&p, &tokens[t], 1);
        tilt_reference_update(reference, tokens[t]);
    }
    free(expected);
    tilt_reference_destroy(reference);
    player_close(&p);
    free(values);
}

static void compare_on_all_streams(const char *const *overrides, tilt_options options,
                                   uint32_t vocabulary) {
    static uint32_t tokens[TOKENS];
    options.ngram.vocabulary = vocabulary;
    for (uint32_t sort = 0; sort < SORTS; sort++) {
        write_stream(tokens, vocabulary, sort);
        compare(overrides, options, tokens);
    }
}

/* The documented defaults, for a vocabulary of at most 512; but all contexts of a document have a
 * place of their own. */
static const char *const roomy[] = {"recent_bits=20", NULL};
static const tilt_options defaults = {.ngram = {.learn = true,
                                                .exclusion = true,
                                                .max_order = 6,
                                                .min_order = 1,
                                                .min_count = 1,
                                                .max_followers = 16,
                                                .match_length = 32,
                                                .discount = 0.2,
                                                .stop = 0.01,
                                                .weight = 0.2,
                                                .window = 64},
                                      .likely = 0.016,
                                      .trust_rate = 0.05,
                                      .rate = 0.05,
                                      .switching = 1e-4,
                                      .pairs = 65536};

static void test_defaults(void **state) {
    (void)state;
    compare_on_all_streams(roomy, defaults, 200);
}

/* Few tokens: every context is crowded, and documents are short. */
static void test_few_tokens(void **state) {
    (void)state;
    compare_on_all_streams(roomy, defaults, 3);
    compare_on_all_streams(roomy, defaults, 6);
}

static void test_other_parameters(void **state) {
    (void)state;
    static const char *const overrides[] = {"recent_bits=20",
                                            "max_order=3",
                                            "min_order=2",
                                            "min_count=3",
                                            "max_followers=2",
                                            "match_length=0",
                                            "discount=0.6",
                                            "exclusion=no",
                                            "weight=0.6",
                                            "window=500",
                                            "stop=0",
                                            "likely=0.05",
                                            "trust_rate=0.2",
                                            "rate=1",
                                            "switching=0.05",
                                            "pairs=0",
                                            NULL};
    const tilt_options options = {.ngram = {.learn = true,
                                            .max_order = 3,
                                            .min_order = 2,
                                            .min_count = 3,
                                            .max_followers = 2,
                                            .discount = 0.6,
                                            .weight = 0.6,
                                            .window = 500},
                                  .likely = 0.05,
                                  .trust_rate = 0.2,
                                  .rate = 1,
                                  .switching = 0.05};
    compare_on_all_streams(overrides, options, 30);
}

/* Everything is a candidate, or nothing is. */
static void test_likely(void **state) {
    (void)state;
    tilt_options options = defaults;
    options.likely = 0;
    compare_on_all_streams((const char *const[]){"recent_bits=20", "likely=0", NULL}, options, 40);
    options.likely = 1;
    compare_on_all_streams((const char *const[]){"recent_bits=20", "likely=1", NULL}, options, 2);
}

/* Many pairs have one weight, and a place has one context at a time. */
static void test_collisions(void **state) {
    (void)state;
    tilt_options options = defaults;
    options.pairs = 1500;
    options.recent_bits = 4;
    compare_on_all_streams((const char *const[]){"recent_bits=4", "pairs=1500", NULL}, options, 60);
}

/* Where nothing can be learned the hedge bounds the loss, whatever the gains do: log2(3) bits, and
 * what switching costs. It is far below 0.0005 bits for each byte. */
static void test_coin_costs_little(void **state) {
    (void)state;
    enum { FLIPS = 30000, FACES = 256 };
    static uint32_t tokens[FLIPS];
    player_coin(tokens, FLIPS, FACES, 43);
    const double added = player_added_bits("tilt", tokens, FLIPS, FACES, NULL);
    const double bound = log2(3) - FLIPS * log2(1 - 2e-4 / 3);
    assert_true(bound < 0.0005 * FLIPS);
    if (!(added < bound)) fail_msg("%.1f bits lost on %d tokens", added, FLIPS);
}

/* Documents of a few words each, in random order: contexts tell nothing, but a word that a document
 * had comes again there. */
static void write_documents(uint32_t *tokens, uint32_t n, uint32_t vocabulary) {
    test_random random = {44};
    uint32_t words[10];
    for (uint32_t t = 0; t < n; t++) {
        tokens[t] = t % 200 == 0 ? 0 : words[test_below(&random, 10)];
        if (t % 200 != 0) continue;
        for (uint32_t i = 0; i < 10; i++)
            words[i] = 1 + (uint32_t)test_below(&random, vocabulary - 1);
    }
}

static void test_documents(void **state) {
    (void)state;
    enum { N = 30000, FACES = 50 };
    static uint32_t tokens[N];
    write_documents(tokens, N, FACES);
    const double ngram = player_added_bits("ngram", tokens, N, FACES, NULL);
    const double tilt = player_added_bits("tilt", tokens, N, FACES, NULL);
    if (!(tilt < ngram - 0.5 * N))
        fail_msg("%.3f bits a token gained, ngram %.3f", -tilt / N, -ngram / N);
}

/* Random tokens, then the same again: all but the start of the second half must be nearly free. */
static void test_repeat(void **state) {
    (void)state;
    enum { HALF = 2000, FACES = 1000 };
    static uint32_t tokens[2 * HALF];
    player_coin(tokens, HALF, FACES, 45);
    memcpy(tokens + HALF, tokens, HALF * sizeof *tokens);
    const double first = player_added_bits("tilt", tokens, HALF, FACES, NULL);
    const double both = player_added_bits("tilt", tokens, 2 * HALF, FACES, NULL);
    assert_true(both - first < -0.95 * HALF * log2(FACES));
}

static void test_refusals(void **state) {
    (void)state;
    player_refused("tilt", (const char *const[]){"min_order=5", "max_order=4", NULL}, 100,
                   FW_E_CONFIG, "min_order 5 is above max_order 4");
    player_refused("tilt", (const char *const[]){"memory_mb=4", NULL}, 65536, FW_E_CONFIG,
                   "memory_mb = 4 leaves no room for contexts");
    player_refused("tilt", NULL, 0, FW_E_UNSUPPORTED, "1 to 65536 tokens, not 0");
    player_refused("tilt", NULL, 65537, FW_E_UNSUPPORTED, "1 to 65536 tokens, not 65537");
}

/* Some of what else it takes grows with the memory: the weights of pairs, within an eighth. */
static void test_enough_memory(void **state) {
    (void)state;
    static const char *const none[] = {NULL};
    static const char *const no_pairs[] = {"pairs=0", "recent_bits=18", NULL};
    static const uint32_t vocabularies[] = {40, 1024, 8192, 50000, 65536};
    for (size_t i = 3; i < sizeof vocabularies / sizeof *vocabularies; i++)
        player_names_enough_memory("tilt", none, vocabularies[i]);
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++)
        player_names_enough_memory("tilt", no_pairs, vocabularies[i]);
    for (uint32_t bits = 14; bits <= 20; bits += 2) {
        char recent[32];
        (void)snprintf(recent, sizeof recent, "recent_bits=%u", bits);
        for (size_t i = 3; i < sizeof vocabularies / sizeof *vocabularies; i++)
            player_names_enough_memory(
                "tilt", (const char *const[]){recent, "pairs=1000000000", NULL}, vocabularies[i]);
    }
}

/* A token outside the vocabulary is refused before anything is counted, a row of another size
 * before it is read. */
static void test_bad_calls(void **state) {
    (void)state;
    const fw_plugin *plugin = test_plugin(FW_CACHE, "tilt");
    const fw_cache *cache = plugin->vtable;
    fw_value *values = test_values(plugin, (const char *const[]){"likely=1", NULL});
    player p = player_open(cache, test_host(NULL), values, 10, 10);
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(cache->update(p.self, (uint32_t[]){1, 2, 10}, 3, &error), FW_E_RANGE);
    assert_non_null(strstr(error.message, "token 10"));
    player_form_row(&p);
    player_predict(&p);
    assert_int_equal(p.stated.n, 0);
    const fw_row row = {
        .struct_size = sizeof row, .vocabulary = 9, .position = 3, .probabilities = p.model};
    assert_int_equal(cache->predict(p.self, &row, &p.stated, &error), FW_E_SHAPE);
    assert_non_null(strstr(error.message, "position 3 has 9 tokens instead of 10"));
    player_close(&p);
    free(values);
}

/* ---- curves ---- */

enum { MANY = 1000 };

typedef struct numbers {
    double p[MANY], mass[MANY], score[MANY];
} numbers;

static numbers draw(void) {
    test_random random = {46};
    numbers drawn;
    for (uint32_t i = 0; i < MANY; i++) {
        drawn.p[i] = exp(-40 * test_uniform(&random));
        drawn.mass[i] = i % 5 == 0 ? 0 : exp(-30 * test_uniform(&random));
        drawn.score[i] = 26 * test_uniform(&random) - 6;
    }
    drawn.p[7] = 0;
    drawn.p[8] = 1;
    return drawn;
}

static void assert_close(double actual, double expected) {
    if (!(fabs(actual - expected) <= 1e-12 * (1 + fabs(expected))))
        fail_msg("%.17g instead of %.17g", actual, expected);
}

static void check_curves(const curves *c, const numbers *x) {
    static double ratio[MANY], gain[MANY];
    c->log_ratios(MANY, x->mass, x->p, 0.3, ratio);
    c->gains(MANY, x->score, gain);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_close(ratio[i], log(1 + x->mass[i] / (0.3 * fmax(x->p[i], 0x1p-100))));
        assert_close(gain[i], exp(x->score[i]));
    }
}

static void check_above(const curves *c, const numbers *x) {
    static uint32_t found[MANY];
    for (uint32_t n = 0; n < MANY; n += 1 + n / 7) {
        const uint32_t n_found = c->above(n, x->p, 0.01, found);
        uint32_t expected = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (!(x->p[i] > 0.01)) continue;
            assert_true(expected < n_found);
            assert_int_equal(found[expected++], i);
        }
        assert_int_equal(n_found, expected);
    }
}

/* Each kind of processor gives what libm gives, and all give the same bits. */
static void test_curves(void **state) {
    (void)state;
    static double first[2][MANY], other[2][MANY];
    const numbers x = draw();
    uint32_t n = 0;
    const curves *const *all = curves_all(&n);
    assert_true(n > 0);
    assert_ptr_equal(curves_here(), all[n - 1]);
    for (uint32_t k = 0; k < n; k++) {
        check_curves(all[k], &x);
        check_above(all[k], &x);
        double(*const into)[MANY] = k == 0 ? first : other;
        all[k]->log_ratios(MANY, x.mass, x.p, 0.3, into[0]);
        all[k]->gains(MANY, x.score, into[1]);
        if (k > 0) assert_memory_equal(first, other, sizeof first);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curves),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_few_tokens),
        cmocka_unit_test(test_other_parameters),
        cmocka_unit_test(test_likely),
        cmocka_unit_test(test_collisions),
        cmocka_unit_test(test_coin_costs_little),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_repeat),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_enough_memory),
        cmocka_unit_test(test_bad_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
