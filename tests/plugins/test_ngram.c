/* The n-gram caches against an independent, plain implementation of the same formulas, position by
 * position and token by token; and what they must gain on repeats and must not lose on a coin. */
#include <math.h>
#include <stdio.h>

#include "cache_player.h"
#include "ngram_reference.h"

enum { TOKENS = 2500 };

typedef struct setting {
    const char *id;
    const char *const *overrides; /* the parameters ... */
    reference_options options;    /* ... and what they mean */
} setting;

static void write_stream(uint32_t *tokens, uint32_t vocabulary, uint32_t sort) {
    if (sort == 0)
        player_text(tokens, TOKENS, vocabulary, 21);
    else if (sort == 1)
        player_coin(tokens, TOKENS, vocabulary, 22);
    else
        for (uint32_t t = 0; t < TOKENS; t++) tokens[t] = (t / 700 + t % 7) % vocabulary;
}

/* Every probability of every position within 1e-9. Every 50th token comes without being asked. */
static void compare(const setting *s, const uint32_t *tokens) {
    const fw_plugin *plugin = test_plugin(FW_CACHE, s->id);
    fw_value *values = test_values(plugin, s->overrides);
    const uint32_t V = s->options.vocabulary;
    player p = player_open(plugin->vtable, test_host(NULL), values, V, V);
    struct reference *reference = reference_create(s->options, TOKENS);
    double *expected = calloc(V, sizeof *expected);
    assert_non_null(expected);
    for (uint32_t t = 0; t < TOKENS; t++) {
        if (t % 50 != 49) {
            player_form_row(&p);
            player_predict(&p);
            reference_predict(reference, p.model, expected);
            for (uint32_t v = 0; v < V; v++)
                if (!(fabs(p.full[v] - expected[v]) <= 1e-9))
                    fail_msg("position %u, token %u: %.12f instead of %.12f", t, v, p.full[v],
                             expected[v]);
        }
        player_update(&p, &tokens[t], 1);
        reference_update(reference, tokens[t]);
    }
    free(expected);
    reference_destroy(reference);
    player_close(&p);
    free(values);
}

static void compare_on_all_streams(setting s, uint32_t vocabulary) {
    static uint32_t tokens[TOKENS];
    s.options.vocabulary = vocabulary;
    for (uint32_t sort = 0; sort < 3; sort++) {
        write_stream(tokens, vocabulary, sort);
        compare(&s, tokens);
    }
}

/* The documented defaults, for a vocabulary of at most 512. */
static const reference_options defaults = {.learn = true,
                                           .exclusion = true,
                                           .max_order = 6,
                                           .min_order = 1,
                                           .min_count = 1,
                                           .max_followers = 64,
                                           .match_length = 32,
                                           .discount = 0.2,
                                           .stop = 0.01,
                                           .weight = 0.2,
                                           .window = 64};
static const reference_options counting = {.exclusion = true,
                                           .max_order = 6,
                                           .min_order = 2,
                                           .min_count = 1,
                                           .max_followers = 64,
                                           .match_length = 32,
                                           .discount = 0.7,
                                           .stop = 0.01,
                                           .weight = 0.1};

static void test_defaults(void **state) {
    (void)state;
    compare_on_all_streams((setting){"ngram", NULL, defaults}, 60);
    compare_on_all_streams((setting){"ngram_counts", NULL, counting}, 60);
}

/* Few tokens: every context is crowded and every list is full. */
static void test_three_tokens(void **state) {
    (void)state;
    compare_on_all_streams((setting){"ngram", NULL, defaults}, 3);
    compare_on_all_streams((setting){"ngram_counts", NULL, counting}, 3);
}

static void test_other_parameters(void **state) {
    (void)state;
    static const char *const overrides[] = {"max_order=3",
                                            "min_order=2",
                                            "min_count=3",
                                            "max_followers=2",
                                            "match_length=0",
                                            "discount=0.6",
                                            "exclusion=no",
                                            "weight=0.6",
                                            "window=500",
                                            "stop=0",
                                            NULL};
    const reference_options options = {.learn = true,
                                       .max_order = 3,
                                       .min_order = 2,
                                       .min_count = 3,
                                       .max_followers = 2,
                                       .discount = 0.6,
                                       .weight = 0.6,
                                       .window = 500};
    compare_on_all_streams((setting){"ngram", overrides, options}, 12);
    static const char *const deep[] = {"max_order=32", "match_length=64", NULL};
    reference_options longest = defaults;
    longest.max_order = 32;
    longest.match_length = 64;
    compare_on_all_streams((setting){"ngram", deep, longest}, 12);
}

/* A list cut at max_followers states those with the highest counts. */
static void test_truncated_lists(void **state) {
    (void)state;
    static const char *const overrides[] = {"max_followers=3", NULL};
    reference_options few = defaults;
    few.max_followers = 3;
    compare_on_all_streams((setting){"ngram", overrides, few}, 30);
    few = counting;
    few.max_followers = 3;
    compare_on_all_streams((setting){"ngram_counts", overrides, few}, 30);
}

/* Random tokens, then the same again: all but the start of the second half must be nearly free. */
static void test_repeat(void **state) {
    (void)state;
    enum { HALF = 2000, FACES = 1000 };
    static uint32_t tokens[2 * HALF];
    player_coin(tokens, HALF, FACES, 31);
    memcpy(tokens + HALF, tokens, HALF * sizeof *tokens);
    double second = 0;
    (void)player_added_bits("ngram", tokens, 2 * HALF, FACES, &second);
    assert_true(second < -0.95 * HALF * log2(FACES));
    (void)player_added_bits("ngram_counts", tokens, 2 * HALF, FACES, &second);
    assert_true(second < -0.2 * HALF * log2(FACES));
}

/* On a coin the learned trust fades: at most 0.005 bits a token while learning, 0.0005 later. */
static void test_coin_costs_little(void **state) {
    (void)state;
    enum { FLIPS = 40000, FACES = 256 };
    static uint32_t tokens[FLIPS];
    player_coin(tokens, FLIPS, FACES, 32);
    double second = 0;
    const double added = player_added_bits("ngram", tokens, FLIPS, FACES, &second);
    if (!(added < 0.005 * FLIPS)) fail_msg("%.1f bits lost on %d tokens", added, FLIPS);
    if (!(second < 0.0005 * FLIPS)) fail_msg("%.1f bits lost on the second half", second);
}

static void test_refusals(void **state) {
    (void)state;
    player_refused("ngram", (const char *const[]){"min_order=5", "max_order=4", NULL}, 100,
                   FW_E_CONFIG, "min_order 5 is above max_order 4");
    player_refused("ngram", (const char *const[]){"memory_mb=4", NULL}, 65536, FW_E_CONFIG,
                   "memory_mb = 4 leaves no room for contexts");
    player_refused("ngram", NULL, 0, FW_E_UNSUPPORTED, "1 to 65536 tokens, not 0");
    player_refused("ngram", NULL, 65537, FW_E_UNSUPPORTED, "1 to 65536 tokens, not 65537");
}

static void test_enough_memory(void **state) {
    (void)state;
    static const char *const none[] = {NULL};
    static const char *const deep[] = {"max_order=32", NULL};
    player_names_enough_memory("ngram", none, 65536);
    player_names_enough_memory("ngram", deep, 65536);
    player_names_enough_memory("ngram_counts", none, 65536);
}

/* A token outside the vocabulary is refused before anything is counted. */
static void test_bad_token(void **state) {
    (void)state;
    const fw_plugin *plugin = test_plugin(FW_CACHE, "ngram");
    const fw_cache *cache = plugin->vtable;
    fw_value *values = test_values(plugin, NULL);
    player p = player_open(cache, test_host(NULL), values, 10, 10);
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(cache->update(p.self, (uint32_t[]){1, 2, 10}, 3, &error), FW_E_RANGE);
    assert_non_null(strstr(error.message, "token 10"));
    player_form_row(&p);
    player_predict(&p);
    assert_int_equal(p.stated.n, 0);
    player_close(&p);
    free(values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),         cmocka_unit_test(test_three_tokens),
        cmocka_unit_test(test_other_parameters), cmocka_unit_test(test_truncated_lists),
        cmocka_unit_test(test_repeat),           cmocka_unit_test(test_coin_costs_little),
        cmocka_unit_test(test_refusals),         cmocka_unit_test(test_enough_memory),
        cmocka_unit_test(test_bad_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
