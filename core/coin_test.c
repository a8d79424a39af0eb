#include "coin_test.h"

#include <math.h>
#include <stdlib.h>

#include "clock.h"

/* ---- a model that knows the coin ---- */

static fw_status read_nothing(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                              fw_error *error) {
    (void)self, (void)inputs, (void)batch, (void)tokens, (void)error;
    return FW_OK;
}

static fw_status restart_nothing(void *stream, fw_error *error) {
    (void)stream, (void)error;
    return FW_OK;
}

static fw_status read_on_nothing(void *stream, const int32_t *inputs, int64_t tokens,
                                 fw_error *error) {
    return read_nothing(stream, inputs, 1, tokens, error);
}

static fw_status give_uniform_rows(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *error) {
    const struct token_table *table = self;
    (void)first, (void)error;
    const float l = -logf((float)table->vocabulary);
    for (int64_t i = 0; i < n * (int64_t)table->vocabulary; i++) host[i] = l;
    return FW_OK;
}

static struct language_model uniform_model(const struct token_table *table) {
    return (struct language_model){.self = (void *)(uintptr_t)table,
                                   .infer = read_nothing,
                                   .log_probabilities = give_uniform_rows,
                                   .most_read = INT64_MAX,
                                   .restart = restart_nothing,
                                   .read_on = read_on_nothing};
}

/* ---- one pass ---- */

/* Seeds of the passes differ, so that no pass tells the tokens of another. */
static struct random random_of(uint64_t seed, enum coin_rows rows) {
    struct random random = random_seeded(seed);
    for (int i = 0; i < (int)rows; i++) random.state = random_bits(&random);
    return random;
}

static fw_status open_tokens(const struct evaluate_options *score, uint64_t tokens,
                             struct random *random, struct corpus **corpus, fw_error *error) {
    uint16_t *tossed = malloc((tokens + 1) * sizeof *tossed);
    if (tossed == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a coin test of %llu tokens",
                       (unsigned long long)tokens);
    coin_toss(random, score->table->vocabulary, tokens + 1, tossed); /* the first is not scored */
    const fw_status status = corpus_of_tokens(tossed, tokens + 1, corpus, error);
    free(tossed);
    return status;
}

static struct coin_line line_of(const struct score *score, double cost) {
    const double bits = score->nats / log(2.0);
    return (struct coin_line){true, bits, cost - bits};
}

static void note(const struct evaluate_result *result, bool with_cache, double cost,
                 struct coin_pass *pass) {
    *pass = (struct coin_pass){.tokens = result->targets, .cost = cost};
    pass->model = line_of(&result->model, cost);
    if (with_cache) pass->cache = line_of(&result->cached, cost);
    if (result->has_counterpart) pass->counterpart = line_of(&result->counterpart, cost);
}

static fw_status toss_pass(const struct evaluate_options *given, enum coin_rows rows,
                           uint64_t tokens, uint64_t seed, struct coin_pass *pass,
                           fw_error *error) {
    struct evaluate_options options = *given;
    struct random random = random_of(seed, rows);
    struct corpus *corpus = NULL;
    struct evaluate_result result;
    FW_TRY(open_tokens(given, tokens, &random, &corpus, error));
    options.corpus = corpus;
    options.max_tokens = 0;
    options.label = rows == COIN_UNIFORM ? "coin, uniform rows" : "coin, the model's rows";
    if (rows == COIN_UNIFORM) options.model = uniform_model(given->table);
    const fw_status status = evaluate(&options, &result, error);
    corpus_close(corpus);
    if (status == FW_OK)
        note(&result, options.with_cache, coin_cost(result.targets, given->table->vocabulary),
             pass);
    return status;
}

static fw_status draw_pass(const struct evaluate_options *given, uint64_t tokens, uint64_t seed,
                           struct coin_pass *pass, fw_error *error) {
    struct evaluate_options options = *given;
    struct random random = random_of(seed, COIN_DRAWN);
    struct evaluate_result result;
    const uint64_t most = given->max_tokens;
    options.max_tokens = most > 0 && most <= tokens ? most : tokens + 1;
    options.draw = &random;
    options.label = "coin, drawn from the rows";
    FW_TRY(evaluate(&options, &result, error));
    note(&result, options.with_cache, result.model.nats / log(2.0), pass);
    return FW_OK;
}

/* ---- all of them ---- */

fw_status coin_test(const struct evaluate_options *score, uint64_t tokens, uint64_t seed,
                    struct coin_result *result, fw_error *error) {
    struct coin_result made = {.seed = seed};
    struct experiment experiment = *score->experiment;
    experiment.eval.faithful = false;
    struct evaluate_options options = *score;
    options.experiment = &experiment;
    options.audited = 0;
    options.check_tokens = 0;
    const bool has_model = options.model.infer != NULL;
    const double begin = clock_seconds();
    if (options.with_cache)
        FW_TRY(toss_pass(&options, COIN_UNIFORM, tokens, seed, &made.passes[COIN_UNIFORM], error));
    if (has_model)
        FW_TRY(toss_pass(&options, COIN_MODEL, tokens, seed, &made.passes[COIN_MODEL], error));
    if (has_model && options.with_cache)
        FW_TRY(draw_pass(&options, tokens, seed, &made.passes[COIN_DRAWN], error));
    made.seconds = clock_seconds() - begin;
    *result = made;
    return FW_OK;
}
