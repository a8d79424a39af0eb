/* The hashed cache of record 993 against what the record's own code returned for a recorded stream,
 * and position by position against a plain implementation of the same formulas; and that it is what
 * it is marked as: far from a distribution, and "better" the smaller its tables are. */
#include <math.h>
#include <stdio.h>

#include "cache_player.h"
#include "case_eval_stream.h"
#include "golden.h"

/* ---- the record's own numbers ---- */

static struct eval_stream_line lines[16];
static size_t n_lines;

static void keep(void *argument, const struct eval_stream_line *line) {
    (void)argument;
    assert_true(n_lines < 16);
    lines[n_lines++] = *line;
    if (!(fabs(line->loss - line->expected_loss) <= EVAL_STREAM_TOLERANCE) ||
        !(fabs(line->bpb - line->expected_bpb) <= EVAL_STREAM_TOLERANCE))
        fail_msg("%s: loss %.12f instead of %.12f, bpb %.12f instead of %.12f", line->name,
                 line->loss, line->expected_loss, line->bpb, line->expected_bpb);
}

static const struct eval_stream_line *line_of(const char *name) {
    for (size_t i = 0; i < n_lines; i++)
        if (strcmp(lines[i].name, name) == 0) return &lines[i];
    fail_msg("results.txt has no %s", name);
    return NULL;
}

static void test_record(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    n_lines = 0;
    if (case_eval_stream(GOLDEN_DIRECTORY "/eval_stream", NULL, keep, NULL, &error) != FW_OK)
        fail_msg("%s", error.message);
    assert_int_equal(n_lines, 6);
    /* Collisions alone: a table of 4,096 buckets "compresses" better and sums to more. */
    const struct eval_stream_line *full = line_of("hashed_ngram_adaptive_2to7");
    const struct eval_stream_line *small = line_of("hashed_ngram_small_table_4096");
    assert_true(line_of("sliding_seq2048_stride64")->mean_sum == 0);
    assert_true(full->mean_sum > 1.1 && small->mean_sum > 10 * full->mean_sum);
    assert_true(full->largest_sum >= full->mean_sum);
    assert_true(small->loss < full->loss / 2);
}

static void test_shared_record(void **state) {
    (void)state;
    char directory[4096];
    (void)snprintf(directory, sizeof directory, "%s", golden_shared("golden/eval_stream"));
    golden tokens = golden_read(directory, "tokens");
    if (tokens.data == NULL) skip();
    free(tokens.data);
    fw_error error = {.struct_size = sizeof error};
    n_lines = 0;
    if (case_eval_stream(directory, NULL, keep, NULL, &error) != FW_OK)
        fail_msg("%s", error.message);
    assert_true(n_lines > 0);
}

static void test_missing_folder(void **state) {
    (void)state;
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(case_eval_stream("/nonexistent", NULL, keep, NULL, &error), FW_E_IO);
    assert_non_null(strstr(error.message, "/nonexistent/results.txt"));
}

/* ---- a plain implementation ---- */

enum { V = 40, TOKENS = 3000, SIZE = 256, LEAST = 2, LOW = 2, HIGH = 7 };

static const uint64_t primes[] = {36313, 27191, 51647, 81929, 131071, 196613, 262147};
static uint32_t contexts[HIGH + 1][SIZE], pairs[HIGH + 1][SIZE];

static uint64_t context_hash(const uint32_t *tokens, uint64_t at, uint64_t width) {
    uint64_t hash = 0;
    for (uint64_t k = 0; k < width; k++) hash ^= tokens[at - width + k] * primes[k];
    return hash;
}

static double plain_probability(const uint32_t *tokens, uint64_t at, uint32_t token, double model,
                                double share) {
    for (uint64_t order = HIGH; order >= LOW; order--) {
        const uint64_t width = order - 1;
        if (at < width) continue;
        const uint64_t hash = context_hash(tokens, at, width);
        const uint32_t seen = contexts[order][hash % SIZE];
        if (seen < LEAST) continue;
        const uint32_t both = pairs[order][(hash ^ (token * primes[width])) % SIZE];
        return (1 - share) * model + share * (both < seen ? (double)both / seen : 1.0);
    }
    return model;
}

static void plain_count(const uint32_t *tokens, uint64_t at) {
    for (uint64_t order = LOW; order <= HIGH; order++) {
        const uint64_t width = order - 1;
        if (at < width) continue;
        const uint64_t hash = context_hash(tokens, at, width);
        contexts[order][hash % SIZE]++;
        pairs[order][(hash ^ (tokens[at] * primes[width])) % SIZE]++;
    }
}

static double plain_share(const char *alpha, const double *model) {
    double entropy = 0;
    for (uint32_t v = 0; v < V; v++) entropy -= model[v] * log(model[v]);
    if (strcmp(alpha, "alpha=fixed") == 0) return 0.40;
    if (strcmp(alpha, "alpha=linear") == 0) return 0.05 + 0.55 * fmin(entropy / log(V), 1);
    return 0.05 + 0.55 / (1 + exp(-2 * (entropy - 4)));
}

static double clipped(double p) { return fmin(fmax(p, 1e-12), 1); }

/* Blocks of changing length, as windows would deliver them; some tokens come without being asked.
 */
static void compare(const char *alpha) {
    static uint32_t tokens[TOKENS];
    const fw_plugin *plugin = test_plugin(FW_CACHE, "ngram_hashed");
    fw_value *values = test_values(plugin, (const char *const[]){alpha, "table_size=256", NULL});
    player p = player_open(plugin->vtable, test_host(NULL), values, V, V);
    memset(contexts, 0, sizeof contexts);
    memset(pairs, 0, sizeof pairs);
    player_text(tokens, TOKENS, V, 3);
    for (uint64_t begin = 0, n = 0; begin < TOKENS; begin += n) {
        n = begin == 0 ? 300 : 1 + begin % 64;
        if (n > TOKENS - begin) n = TOKENS - begin;
        const bool asked = begin % 7 != 3;
        for (uint64_t t = begin; asked && t < begin + n; t++) {
            p.position = t;
            player_form_row(&p);
            player_predict(&p);
            const double share = plain_share(alpha, p.model);
            for (uint32_t v = 0; v < V; v++) {
                const double expected = clipped(plain_probability(tokens, t, v, p.model[v], share));
                if (!(fabs(p.full[v] - expected) <= 1e-12))
                    fail_msg("position %llu, token %u: %.15f instead of %.15f",
                             (unsigned long long)t, v, p.full[v], expected);
            }
            player_show(&p, tokens[t]);
        }
        p.position = begin;
        player_update(&p, tokens + begin, n);
        for (uint64_t t = begin; t < begin + n; t++) plain_count(tokens, t);
    }
    player_close(&p);
    free(values);
}

static void test_formulas(void **state) {
    (void)state;
    compare("alpha=sigmoid_raw_entropy");
    compare("alpha=linear");
    compare("alpha=fixed");
}

/* Below 5.1 nats on coins that cost ln 1024 = 6.93, whoever predicts them: the reason for the mark.
 */
static void test_gains_on_a_coin(void **state) {
    (void)state;
    enum { FLIPS = 200000, FACES = 1024, BLOCK = 64 };
    uint32_t *tokens = calloc(FLIPS, sizeof *tokens);
    assert_non_null(tokens);
    const fw_plugin *plugin = test_plugin(FW_CACHE, "ngram_hashed");
    fw_value *values = test_values(plugin, (const char *const[]){"table_size=131072", NULL});
    player p = player_open(plugin->vtable, test_host(NULL), values, FACES, FACES);
    player_coin(tokens, FLIPS, FACES, 12);
    for (uint32_t v = 0; v < FACES; v++) p.model[v] = 1.0 / FACES;
    double nats = 0;
    for (uint64_t begin = 0; begin < FLIPS; begin += BLOCK) {
        const uint64_t n = FLIPS - begin < BLOCK ? FLIPS - begin : BLOCK;
        for (uint64_t t = begin; t < begin + n; t++) {
            p.position = t;
            nats -= log(player_score(&p, tokens[t]));
            player_show(&p, tokens[t]);
        }
        p.position = begin;
        player_update(&p, tokens + begin, n);
    }
    assert_true(nats / FLIPS < 5.1);
    player_close(&p);
    free(values);
    free(tokens);
}

/* ---- refusals ---- */

static void test_refusals(void **state) {
    (void)state;
    player_refused("ngram_hashed", (const char *const[]){"min_order=5", "max_order=4", NULL}, 100,
                   FW_E_CONFIG, "min_order 5 is above max_order 4");
    player_refused("ngram_hashed", (const char *const[]){"table_size=1000", NULL}, 100, FW_E_CONFIG,
                   "power of two");
    player_refused("ngram_hashed", (const char *const[]){"alpha_base=0.5", "alpha_range=0.6", NULL},
                   100, FW_E_CONFIG, "alpha_base + alpha_range = 1.1");
    player_refused("ngram_hashed", NULL, 0, FW_E_UNSUPPORTED, "vocabulary of 0");
}

/* A token outside the vocabulary is refused before anything is counted. */
static void test_bad_token(void **state) {
    (void)state;
    const fw_plugin *plugin = test_plugin(FW_CACHE, "ngram_hashed");
    const fw_cache *cache = plugin->vtable;
    fw_value *values = test_values(plugin, (const char *const[]){"min_count=1", NULL});
    player p = player_open(cache, test_host(NULL), values, 10, 10);
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(cache->update(p.self, (uint32_t[]){1, 1, 1, 10}, 4, &error), FW_E_RANGE);
    assert_non_null(strstr(error.message, "token 10"));
    p.past = calloc(1, sizeof *p.past);
    assert_non_null(p.past);
    p.past[0] = 1;
    p.n_past = p.room = 1;
    player_form_row(&p);
    assert_true(player_score(&p, 1) == p.model[1]);
    const fw_row row = {.struct_size = sizeof row, .vocabulary = 11};
    assert_int_equal(cache->predict(p.self, &row, &p.stated, &error), FW_E_SHAPE);
    player_close(&p);
    free(values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),          cmocka_unit_test(test_shared_record),
        cmocka_unit_test(test_missing_folder),  cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_gains_on_a_coin), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
