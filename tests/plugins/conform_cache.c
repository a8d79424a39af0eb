/* Conformance of caches: every prediction is a distribution, stated from the past alone; the same
 * past gives the same bits; nothing is gained on a coin. One that declares itself unverified is
 * spared what a distribution promises, and that alone; then it must never state one. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "cache_player.h"
#include "conform.h"

enum { V = 300, TOKENS = 6000, WINDOW = 64 };

static conform target;
static const fw_cache *cache;

static player open_with(uint32_t vocabulary, uint32_t max_entries, const fw_value *values) {
    return player_open(cache, target.host, values, vocabulary, max_entries);
}

static bool unverified(void) { return FW_COVERS(cache, unverified) && cache->unverified != 0; }

/* What was stated sums to 1, far closer than the host would let pass and divide by; a tilt states
 * no sum, an unverified form has any. */
static void check_sum(const player *p) {
    const fw_prediction *stated = &p->stated;
    const bool mix = stated->form == FW_PREDICT_MIX, dense = stated->form == FW_PREDICT_DENSE;
    double sum = mix ? stated->lm_weight : 0;
    assert_true((stated->form == FW_PREDICT_UNVERIFIED) == unverified());
    for (uint32_t i = 0; mix && i < stated->n; i++) sum += p->buffers->values[i];
    for (uint32_t v = 0; dense && v < p->vocabulary; v++) sum += p->buffers->dense[v];
    if ((mix || dense) && !(fabs(sum - 1) < 1e-9))
        fail_msg("position %llu: stated sum %.12f", (unsigned long long)p->position, sum);
}

static player open_default(void) { return open_with(V, V, target.values); }

static uint64_t hash_bits(uint64_t hash, const double *values, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bits = 0;
        memcpy(&bits, &values[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(1099511628211);
        hash ^= hash >> 29;
    }
    return hash;
}

/* Play tokens, one by one in the host's order; hashes[t] is that of every bit stated at t. Updates
 * are pointers into the stream itself, so a cache that reads past its n tokens sees the future. */
static void play(player *p, const uint32_t *tokens, uint64_t n, uint64_t *hashes) {
    const uint32_t every = cache->update_every;
    const uint32_t block = every == FW_UPDATE_EVERY_WINDOW ? WINDOW : every > 1 ? every : 1;
    uint64_t told = 0;
    for (uint64_t t = 0; t < n; t++) {
        player_form_row(p);
        player_predict(p);
        if (hashes != NULL) hashes[t] = hash_bits(t, p->full, p->vocabulary);
        if ((t + 1) % block != 0) {
            player_show(p, tokens[t]);
            p->position++;
            continue;
        }
        p->position -= t - told;
        player_update(p, tokens + told, t + 1 - told);
        told = t + 1;
    }
}

static void test_descriptor(void **state) {
    (void)state;
    conform_check_descriptor(&target);
    assert_true(cache->struct_size >= offsetof(fw_cache, snapshot));
    assert_non_null(cache->create);
    assert_non_null(cache->destroy);
    assert_non_null(cache->begin);
    assert_non_null(cache->predict);
    assert_non_null(cache->update);
    if (cache->counts_only) assert_non_null(cache->prefill);
    assert_true(FW_HAS(cache, snapshot) == FW_HAS(cache, restore));
    cache->destroy(NULL);
}

static void test_distributions(void **state) {
    (void)state;
    static uint32_t tokens[TOKENS];
    player_text(tokens, TOKENS, V, 1);
    player p = open_default();
    for (uint64_t t = 0; t < TOKENS; t++) {
        player_form_row(&p);
        player_predict(&p); /* refuses what breaks the protocol */
        if (t % 10 == 0) check_sum(&p);
        player_update(&p, &tokens[t], 1);
    }
    player_close(&p);
}

/* Rows that are sure of one token, whatever comes: probabilities of exactly 0 and 1. */
static void test_extreme_rows(void **state) {
    (void)state;
    static uint32_t tokens[1000];
    player_text(tokens, 1000, V, 2);
    player p = open_default();
    for (uint64_t t = 0; t < 1000; t++) {
        memset(p.model, 0, V * sizeof *p.model);
        p.model[t % V] = 1.0;
        player_predict(&p);
        check_sum(&p);
        player_update(&p, &tokens[t], 1);
    }
    player_close(&p);
}

static void test_few_entries(void **state) {
    (void)state;
    static uint32_t tokens[1500];
    player_text(tokens, 1500, V, 3);
    for (uint32_t most = 0; most <= 7; most += 7) {
        player p = open_with(V, most, target.values);
        for (uint64_t t = 0; t < 1500; t++) {
            player_form_row(&p);
            player_predict(&p);
            if (p.stated.form == FW_PREDICT_MIX || p.stated.form == FW_PREDICT_TILT)
                assert_true(p.stated.n <= most);
            check_sum(&p);
            player_update(&p, &tokens[t], 1);
        }
        player_close(&p);
    }
}

static void test_tiny_vocabularies(void **state) {
    (void)state;
    static uint32_t tokens[500];
    for (uint32_t vocabulary = 1; vocabulary <= 3; vocabulary++) {
        player_coin(tokens, 500, vocabulary, vocabulary);
        player p = open_with(vocabulary, vocabulary, target.values);
        for (uint64_t t = 0; t < 500; t++) {
            player_form_row(&p);
            player_predict(&p);
            check_sum(&p);
            player_update(&p, &tokens[t], 1);
        }
        player_close(&p);
    }
}

/* What is stated up to t does not depend on what comes at t or later. */
static void test_future_flip(void **state) {
    (void)state;
    enum { SAME = 1200, ALL = 1500 };
    static uint32_t tokens[ALL];
    static uint64_t first[ALL], second[ALL];
    player_text(tokens, ALL, V, 4);
    player p = open_default();
    play(&p, tokens, ALL, first);
    for (uint64_t t = SAME; t < ALL; t++) tokens[t] = (tokens[t] + 1 + (uint32_t)(t % 5)) % V;
    player q = open_default();
    play(&q, tokens, ALL, second);
    for (uint64_t t = 0; t <= SAME; t++)
        if (first[t] != second[t])
            fail_msg("position %llu depends on tokens from %d on", (unsigned long long)t, SAME);
    player_close(&q);
    player_close(&p);
}

static void test_replay(void **state) {
    (void)state;
    static uint32_t tokens[2000];
    static uint64_t first[2000], second[2000];
    player_text(tokens, 2000, V, 5);
    player p = open_default();
    play(&p, tokens, 2000, first);
    player_begin(&p);
    play(&p, tokens, 2000, second);
    assert_memory_equal(first, second, sizeof first);
    player fresh = open_default();
    play(&fresh, tokens, 2000, second);
    assert_memory_equal(first, second, sizeof first);
    player_close(&fresh);
    player_close(&p);
}

/* Asking does not change the answer, nor any later one. */
static void test_predicting_twice(void **state) {
    (void)state;
    static uint32_t tokens[1500];
    static uint64_t once[1500];
    player_text(tokens, 1500, V, 6);
    if (cache->update_every > 1) return;
    player p = open_default();
    play(&p, tokens, 1500, once);
    player_begin(&p);
    for (uint64_t t = 0; t < 1500; t++) {
        player_form_row(&p);
        for (uint32_t ask = 0; ask < 1 + t % 3; ask++) {
            player_predict(&p);
            assert_true(hash_bits(t, p.full, V) == once[t]);
        }
        player_update(&p, &tokens[t], 1);
    }
    player_close(&p);
}

/* Tokens that were never predicted may come in blocks of any size. */
static void test_blocks(void **state) {
    (void)state;
    enum { WARM = 1500, ALL = 2000 };
    static uint32_t tokens[ALL];
    static uint64_t first[ALL - WARM], second[ALL - WARM];
    player_text(tokens, ALL, V, 7);
    player p = open_default(), q = open_default();
    for (uint64_t t = 0; t < WARM; t++) player_update(&p, &tokens[t], 1);
    for (uint64_t t = 0, n = 0; t < WARM; t += n) {
        n = 1 + t % 13 < WARM - t ? 1 + t % 13 : WARM - t;
        player_update(&q, &tokens[t], n);
    }
    player_update(&q, tokens, 0);
    play(&p, tokens + WARM, ALL - WARM, first);
    play(&q, tokens + WARM, ALL - WARM, second);
    assert_memory_equal(first, second, sizeof first);
    player_close(&q);
    player_close(&p);
}

/* A cache that only counts is the same after prefill as after having scored those tokens. */
static void test_prefill(void **state) {
    (void)state;
    enum { WARM = 1500, ALL = 2000 };
    static uint32_t tokens[ALL];
    static uint64_t scored[ALL - WARM], warm[ALL - WARM];
    if (!cache->counts_only) skip();
    player_text(tokens, ALL, V, 8);
    player p = open_default(), q = open_default();
    play(&p, tokens, WARM, NULL);
    play(&p, tokens + WARM, ALL - WARM, scored);
    fw_error error = {.struct_size = sizeof error};
    conform_ok(cache->prefill(q.self, tokens, WARM, &error), &error);
    q.position = WARM;
    play(&q, tokens + WARM, ALL - WARM, warm);
    assert_memory_equal(scored, warm, sizeof warm);
    player_close(&q);
    player_close(&p);
}

/* Two instances take turns: each states every other block and is prefilled with the blocks of the
 * other, and together they state what one does. */
static void test_taking_turns(void **state) {
    (void)state;
    enum { BLOCK = 37, BLOCKS = 54, ALL = BLOCK * BLOCKS };
    static uint32_t tokens[ALL];
    static uint64_t alone[ALL], together[ALL];
    if (!cache->counts_only || cache->update_every > 1) skip();
    player_text(tokens, ALL, V, 12);
    player p = open_default(), turns[2] = {open_default(), open_default()};
    for (uint64_t b = 0; b < BLOCKS; b++) {
        const uint64_t at = b * BLOCK;
        player *one = &turns[b % 2], *other = &turns[1 - b % 2];
        fw_error error = {.struct_size = sizeof error};
        play(&p, tokens + at, BLOCK, alone + at);
        play(one, tokens + at, BLOCK, together + at);
        conform_ok(cache->prefill(other->self, tokens + at, BLOCK, &error), &error);
        other->position += BLOCK;
    }
    assert_memory_equal(alone, together, sizeof alone);
    player_close(&turns[0]);
    player_close(&turns[1]);
    player_close(&p);
}

static void test_snapshot(void **state) {
    (void)state;
    enum { WARM = 1000, ALL = 1400 };
    static uint32_t tokens[ALL];
    static uint64_t first[ALL - WARM], second[ALL - WARM];
    if (!FW_HAS(cache, snapshot)) skip();
    player_text(tokens, ALL, V, 9);
    fw_error error = {.struct_size = sizeof error};
    player p = open_default(), q = open_default();
    play(&p, tokens, WARM, NULL);
    size_t bytes = 0;
    assert_int_equal(cache->snapshot(p.self, NULL, &bytes, &error), FW_E_BUFFER);
    void *copy = malloc(bytes);
    assert_non_null(copy);
    conform_ok(cache->snapshot(p.self, copy, &bytes, &error), &error);
    conform_ok(cache->restore(q.self, copy, bytes, &error), &error);
    q.position = WARM;
    play(&p, tokens + WARM, ALL - WARM, first);
    play(&q, tokens + WARM, ALL - WARM, second);
    assert_memory_equal(first, second, sizeof first);
    assert_int_not_equal(cache->restore(q.self, copy, bytes / 2, &error), FW_OK);
    free(copy);
    player_close(&q);
    player_close(&p);
}

/* No predictor gains more than k bits on a coin with probability above 2^-k. */
static void test_coin(void **state) {
    (void)state;
    enum { FLIPS = 20000, FACES = 1024 };
    static uint32_t tokens[FLIPS];
    if (unverified()) skip();
    player_coin(tokens, FLIPS, FACES, 10);
    player p = open_with(FACES, FACES, target.values);
    double gain = 0;
    for (uint32_t v = 0; v < FACES; v++) p.model[v] = 1.0 / FACES;
    for (uint64_t t = 0; t < FLIPS; t++) {
        gain += log2(player_score(&p, tokens[t]) * FACES);
        player_update(&p, &tokens[t], 1);
    }
    if (!(gain <= 40)) fail_msg("gained %.1f bits on tokens that nothing can predict", gain);
    player_close(&p);
}

static const fw_value *values_with(const char *setting) {
    const char *overrides[65] = {0};
    size_t n = 0;
    for (; n < 63 && target.overrides[n] != NULL; n++) overrides[n] = target.overrides[n];
    overrides[n] = setting;
    return test_values(target.plugin, overrides);
}

static bool has_memory_bound(void) {
    bool bounded = false;
    for (uint32_t i = 0; i < target.plugin->n_params; i++)
        bounded |= strcmp(target.plugin->params[i].key, "memory_mb") == 0;
    return bounded && FW_HAS(cache, memory_bytes);
}

/* Endless new contexts, or few with endless followers: memory stays within the bound, and
 * predictions stay valid. */
static void fill(player *p, uint64_t n, bool few_contexts, uint64_t bound) {
    uint32_t *tokens = calloc(n, sizeof *tokens);
    assert_non_null(tokens);
    player_coin(tokens, n, V, 11);
    for (uint64_t t = 0; few_contexts && t < n; t++)
        if (t % 4 != 0) tokens[t] = 0;
    for (uint64_t t = 0; t < n; t++) {
        if (t % 500 == 0) {
            player_form_row(p);
            player_predict(p);
            check_sum(p);
        }
        player_update(p, &tokens[t], 1);
        assert_true(cache->memory_bytes(p->self) <= bound);
    }
    free(tokens);
}

static void test_memory_bound(void **state) {
    (void)state;
    enum { MANY = 150000, MEBIBYTES = 5 };
    if (!has_memory_bound()) skip();
    const fw_value *values = values_with("memory_mb=5");
    player p = open_with(V, V, values);
    fill(&p, MANY, false, (uint64_t)MEBIBYTES << 20);
    assert_true(cache->memory_bytes(p.self) > (uint64_t)(MEBIBYTES - 2) << 20);
    player_close(&p);
    free((void *)(uintptr_t)values);
}

/* A full cache that begins again is as a new one: what it knew is forgotten, how it was shared out,
 * too. The text that follows fills it again. */
static void test_begin_when_full(void **state) {
    (void)state;
    enum { MANY = 150000, ALL = 60000 };
    if (!has_memory_bound() || cache->update_every > 1) skip();
    const fw_value *values = values_with("memory_mb=5");
    player p = open_with(V, V, values), fresh = open_with(V, V, values);
    fill(&p, MANY, true, UINT64_MAX);
    player_begin(&p);
    uint32_t *tokens = calloc(ALL, sizeof *tokens);
    assert_non_null(tokens);
    player_coin(tokens, ALL, 60, 13);
    for (uint64_t t = 0; t < ALL; t += 100) {
        player_update(&p, tokens + t, 100);
        player_update(&fresh, tokens + t, 100);
        player_form_row(&p);
        player_form_row(&fresh);
        player_predict(&p);
        player_predict(&fresh);
        assert_memory_equal(p.full, fresh.full, V * sizeof *p.full);
    }
    free(tokens);
    player_close(&p);
    player_close(&fresh);
    free((void *)(uintptr_t)values);
}

/* Any bound that a parameter may have is kept, or refused with a sentence. */
static void test_least_memory(void **state) {
    (void)state;
    static const char *const bounds[] = {"memory_mb=4", "memory_mb=6", "memory_mb=8"};
    static const uint32_t vocabularies[] = {1, V, 20000, 65536};
    if (!has_memory_bound()) skip();
    for (size_t i = 0; i < 12; i++) {
        const uint32_t vocabulary = vocabularies[i % 4];
        const fw_value *values = values_with(bounds[i / 4]);
        const fw_cache_shape shape = {
            .struct_size = sizeof shape, .vocabulary = vocabulary, .max_entries = vocabulary};
        fw_error error = {.struct_size = sizeof error};
        void *self = NULL;
        const uint64_t bound = (uint64_t)strtoull(bounds[i / 4] + strlen("memory_mb="), NULL, 10);
        if (cache->create(target.host, values, &shape, &self, &error) == FW_OK) {
            conform_ok(cache->begin(self, &error), &error);
            test_random random = {i};
            for (uint32_t t = 0; t < 30000; t++) {
                const uint32_t token = (uint32_t)test_below(&random, vocabulary);
                conform_ok(cache->update(self, &token, 1, &error), &error);
            }
            assert_true(cache->memory_bytes(self) <= bound << 20);
            cache->destroy(self);
        } else
            assert_true(strlen(error.message) > 10 && self == NULL);
        free((void *)(uintptr_t)values);
    }
}

int main(int argc, char **argv) {
    target = conform_open(argc, argv, FW_CACHE);
    cache = target.plugin->vtable;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_extreme_rows),
        cmocka_unit_test(test_few_entries),
        cmocka_unit_test(test_tiny_vocabularies),
        cmocka_unit_test(test_future_flip),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_predicting_twice),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_prefill),
        cmocka_unit_test(test_taking_turns),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_coin),
        cmocka_unit_test(test_memory_bound),
        cmocka_unit_test(test_begin_when_full),
        cmocka_unit_test(test_least_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
