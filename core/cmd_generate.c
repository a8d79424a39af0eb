/* fairway generate: an artifact goes on with a text, token by token. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "commands.h"
#include "decoder.h"
#include "interrupt.h"
#include "params.h"
#include "sampling.h"
#include "scored_source.h"
#include "seeds.h"
#include "text_output.h"
#include "tokenize.h"

static const char help[] =
    "usage: fairway generate --artifact FILE --prompt TEXT [--tokens N] [--temperature X]\n"
    "                        [--top-k N] [--top-p X] [--seed S]\n"
    "                        [--tokenizer NAME [--model FILE]]\n"
    "                        [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n\n"
    "Goes on with TEXT: prints it and what the model makes of it, as it comes. Each token is\n"
    "computed once; attention sees the last eval.window tokens. The text ends after --tokens, or\n"
    "where the model begins another document. The tokenizer must be the one that the model was\n"
    "trained with; --tokenizer names it (bytes by default) and --model its file.\n\n"
    "  --prompt TEXT     what to go on with; \"\": nothing, a document begins\n"
    "  --tokens N        at most so many tokens (default 200)\n"
    "  --temperature X   1: as the model says (default 0.8); below: bolder choices of the\n"
    "                    probable; 0: always the most probable token\n"
    "  --top-k N         choose among the N most probable tokens (default 0: all)\n"
    "  --top-p X         choose among the fewest tokens that hold X of the probability (default\n"
    "                    1: all)\n"
    "  --seed S          of the choices (default 1337): the same seed gives the same text\n\n"
    "Speed is printed to standard error at the end.\n\n"
    "examples\n"
    "  fairway generate --artifact runs/quickstart/model.fairway --prompt \"The quick\"\n"
    "  fairway generate --artifact m.fairway --prompt \"Once upon a time\" --temperature 0 \\\n"
    "    --tokenizer sentencepiece --model sp.model\n";

struct settings {
    const char *artifact, *prompt;
    const char *tokens_text, *temperature_text, *top_k_text, *top_p_text, *seed_text;
    struct scored_source source; /* its tokenizer */
    int64_t tokens;
    struct sampling_options sampling;
};

/* ---- arguments ---- */

static fw_status parse_number(const char *name, uint32_t type, const char *text, double min,
                              double max, fw_value *value, fw_error *error) {
    if (text == NULL) return FW_OK;
    const fw_param param = FW_PARAM_RANGE(type, name, NULL, min, max, "", "a number");
    return param_parse(&param, text, value, error);
}

static fw_status parse_numbers(struct settings *s, fw_error *error) {
    fw_value tokens = {.integer = 200}, temperature = {.real = 0.8}, top_k = {.integer = 0};
    fw_value top_p = {.real = 1}, seed = {.integer = 1337};
    FW_TRY(parse_number("--tokens", FW_PARAM_INT, s->tokens_text, 1, 1e12, &tokens, error));
    FW_TRY(parse_number("--temperature", FW_PARAM_FLOAT, s->temperature_text, 0, 1e6, &temperature,
                        error));
    FW_TRY(parse_number("--top-k", FW_PARAM_INT, s->top_k_text, 0, 65536, &top_k, error));
    FW_TRY(parse_number("--top-p", FW_PARAM_FLOAT, s->top_p_text, 0, 1, &top_p, error));
    FW_TRY(
        parse_number("--seed", FW_PARAM_INT, s->seed_text, 0, (double)LARGEST_SEED, &seed, error));
    if (top_p.real <= 0)
        return fw_fail(error, FW_E_CONFIG, "--top-p %s leaves no token; more than 0 is right",
                       s->top_p_text);
    s->tokens = tokens.integer;
    s->sampling = (struct sampling_options){.temperature = temperature.real,
                                            .top_k = (uint32_t)top_k.integer,
                                            .top_p = top_p.real,
                                            .seed = (uint64_t)seed.integer};
    return FW_OK;
}

static fw_status parse(int argc, char **argv, struct settings *s, struct arguments *arguments,
                       fw_error *error) {
    const struct option table[] = {
        {"--artifact", &s->artifact, NULL},  {"--prompt", &s->prompt, NULL},
        {"--tokens", &s->tokens_text, NULL}, {"--temperature", &s->temperature_text, NULL},
        {"--top-k", &s->top_k_text, NULL},   {"--top-p", &s->top_p_text, NULL},
        {"--seed", &s->seed_text, NULL},     {"--tokenizer", &s->source.tokenizer, NULL},
        {"--model", &s->source.model, NULL}, {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (s->artifact == NULL || s->prompt == NULL)
        return fw_fail(error, FW_E_CONFIG, "%s is missing; --help shows how",
                       s->artifact == NULL ? "--artifact FILE" : "--prompt TEXT");
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "%s: unexpected; the text goes after --prompt, in quotation marks",
                       arguments->input);
    FW_TRY(written_overrides_check(arguments, error));
    return parse_numbers(s, error);
}

/* ---- what it takes ---- */

struct generation {
    const struct settings *settings;
    struct scorer scorer;
    struct session text; /* the tokenizer's */
    struct decoder *decoder;
    struct sampler *sampler;
    struct text_output *output;
    struct token_buffer prompt; /* the token that begins a document included */
    float *row;                 /* of the last token read */
    int64_t made;               /* tokens */
    double prompt_seconds, seconds;
};

/* One stream is read: what a batch of windows would take is not needed. */
static fw_status open_scorer(struct generation *g, const struct arguments *arguments,
                             fw_error *error) {
    struct arguments own = *arguments;
    size_t n = 0;
    own.overrides[n++] = "eval.batch=1";
    own.overrides[n++] = "eval.stride=1"; /* fits any window */
    own.overrides[n++] = "eval.chunk=0";
    own.overrides[n++] = "cache.plugin=none";
    for (size_t i = 0; i < arguments->n_overrides && n < MAX_ARGUMENTS; i++)
        own.overrides[n++] = arguments->overrides[i];
    own.n_overrides = n;
    return scorer_open(&own, g->settings->artifact, &g->scorer, error);
}

static fw_status open_tokenizer(struct generation *g, const struct arguments *arguments,
                                fw_error *error) {
    FW_TRY(scored_tokenizer_bind(arguments, &g->settings->source, &g->text, error));
    return scored_tokenizer_start(&g->text, g->scorer.session.host, g->scorer.artifact.table,
                                  error);
}

static fw_status encode_prompt(struct generation *g, fw_error *error) {
    const char *text = g->settings->prompt;
    return tokenize_prompt(g->text.tokenizer, g->text.tokenizer_self, g->scorer.artifact.table,
                           text, strlen(text), &g->prompt, error);
}

static fw_status open_generation(struct generation *g, const struct arguments *arguments,
                                 fw_error *error) {
    FW_TRY(open_scorer(g, arguments, error));
    FW_TRY(open_tokenizer(g, arguments, error));
    FW_TRY(encode_prompt(g, error));
    const int64_t window = evaluate_window(g->scorer.session.experiment);
    const struct decoder_options options = {
        .model = g->scorer.model, .most = window, .window = window};
    FW_TRY(decoder_create(&options, &g->decoder, error));
    const uint32_t vocabulary = g->scorer.artifact.table->vocabulary;
    FW_TRY(sampler_create(&g->settings->sampling, vocabulary, &g->sampler, error));
    FW_TRY(
        text_output_create(g->text.tokenizer, g->text.tokenizer_self, stdout, &g->output, error));
    g->row = malloc(vocabulary * sizeof *g->row);
    return g->row != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "no memory for a row");
}

static void close_generation(struct generation *g) {
    free(g->row);
    free(g->prompt.tokens);
    text_output_destroy(g->output);
    sampler_destroy(g->sampler);
    decoder_destroy(g->decoder);
    session_close(&g->text);
    scorer_close(&g->scorer);
}

/* ---- the text ---- */

/* By feeds of a window; only the last token's row is wanted. */
static fw_status read_prompt(struct generation *g, fw_error *error) {
    const size_t most = (size_t)evaluate_window(g->scorer.session.experiment);
    const double begin = clock_seconds();
    int32_t *tokens = malloc(g->prompt.n * sizeof *tokens);
    if (tokens == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the prompt's tokens");
    fw_status status = FW_OK;
    size_t last = 0;
    for (size_t i = 0; i < g->prompt.n; i++) tokens[i] = g->prompt.tokens[i];
    for (size_t i = 0; i < g->prompt.n && status == FW_OK; i += last) {
        last = g->prompt.n - i < most ? g->prompt.n - i : most;
        status = decoder_read(g->decoder, tokens + i, (int64_t)last, error);
    }
    free(tokens);
    if (status == FW_OK)
        status = model_log_probabilities(g->scorer.model, (int64_t)last - 1, 1, g->row, error);
    g->prompt_seconds = clock_seconds() - begin;
    return status;
}

static fw_status make_tokens(struct generation *g, fw_error *error) {
    const int64_t begin_token = g->scorer.artifact.table->begin_token;
    const double begin = clock_seconds();
    while (g->made < g->settings->tokens && !interrupt_seen()) {
        uint32_t token = 0;
        FW_TRY(sampler_take(g->sampler, g->row, &token, error));
        if ((int64_t)token == begin_token) break;
        FW_TRY(text_output_token(g->output, (uint16_t)token, error));
        const int32_t next = (int32_t)token;
        FW_TRY(decoder_feed(g->decoder, &next, 1, g->row, error));
        g->made++;
        g->seconds = clock_seconds() - begin;
    }
    return text_output_end(g->output, error);
}

static fw_status generate(struct generation *g, fw_error *error) {
    FW_TRY(read_prompt(g, error));
    (void)fputs(g->settings->prompt, stdout);
    (void)fflush(stdout);
    FW_TRY(text_output_skip(g->output, g->prompt.tokens, g->prompt.n, error));
    const fw_status status = make_tokens(g, error);
    (void)fputc('\n', stdout);
    (void)fflush(stdout);
    FW_TRY(status);
    (void)fprintf(stderr, "prompt: %zu tokens in %.2f s; %" PRId64 " tokens in %.2f s", g->prompt.n,
                  g->prompt_seconds, g->made, g->seconds);
    if (g->seconds > 0) (void)fprintf(stderr, ", %.1f tokens/s", (double)g->made / g->seconds);
    (void)fputc('\n', stderr);
    return FW_OK;
}

int cmd_generate(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct settings settings = {.artifact = NULL};
    fw_status status = parse(argc, argv, &settings, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    struct generation generation = {.settings = &settings};
    interrupt_catch();
    if (status == FW_OK) status = open_generation(&generation, &arguments, &error);
    if (status == FW_OK) status = generate(&generation, &error);
    close_generation(&generation);
    return report_failure(status, &error);
}
