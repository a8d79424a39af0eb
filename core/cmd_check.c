/* fairway check: probes of a cache, and of an artifact's model and cache together. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_cache.h"
#include "coin.h"
#include "commands.h"
#include "probe_decode.h"
#include "probe_model.h"
#include "scored_source.h"
#include "seeds.h"
#include "synthetic.h"

static const char help[] =
    "usage: fairway check --cache NAME [--vocab V] [--tokens N] [--seed S]\n"
    "                     [--seconds N] [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n"
    "       fairway check --artifact FILE --data SOURCE [--tokenizer NAME [--model FILE]]\n"
    "                     [--tokens N] [--seed S] [--set SECTION.KEY=VALUE]... [--plugin-dir "
    "DIR]...\n\n"
    "Probes whether a score can be trusted: the same tokens are scored again with something "
    "changed\n"
    "that must not matter, and whatever changes in the answers breaks a rule.\n\n"
    "With --cache, a cache alone reads N (2048) tokens of made-up text over V (1024) tokens, each\n"
    "time in a fresh process that is ended after N (60) seconds:\n"
    "  protocol             all it states is a distribution that the host accepts\n"
    "  sum                  the probabilities of all tokens sum to one, in float64\n"
    "  target-independence  what is stated does not depend on the token that comes\n"
    "  future-flip          nor on any token after that\n"
    "  score-before-update  once told a token, the cache leaves its statement about it alone\n"
    "  replay               another instance that read something else before states the same bits\n"
    "  zero-weight          a statement that changes nothing is the model's row, bit for bit\n"
    "  fresh-process        a fresh process states the same bits, and no file is left behind\n"
    "  threads, batching    other numbers of threads, other batches of windows: the same bits\n"
    "  delivery             counts_only caches: tokens told ahead, however many at a time\n"
    "  counts-only          counts_only caches: other rows before, the same answer to the same "
    "row\n"
    "  document-edges       one-token and empty documents, a stream of one target, documents "
    "swapped\n"
    "  snapshot             where offered: the state in a fresh instance goes on as it would have\n"
    "  coin                 no gain on uniformly random tokens\n"
    "`--set eval.isolate=yes` probes it in a process of its own, as such a score is made: its "
    "rows,\n"
    "its tokens and nothing else of the host can be seen from there.\n\n"
    "With --artifact, the artifact's cache is probed in the same way, and then, on the first N "
    "tokens\n"
    "of SOURCE (see `fairway eval --help`), cache and model together:\n"
    "  model.future-flip         other tokens behind a position leave all rows up to it alone\n"
    "  model.batch-independence  so do other windows in the batch\n"
    "  model.batch-position      and another place in it, but for rounding\n"
    "  model.row-sums            rows sum to one\n"
    "  model.decode              fed token by token it gives the rows of a pass, but for rounding\n"
    "  model.document-edges      all of that on windows of very short documents\n"
    "`[eval] audit` makes the probes that cost little during every scoring.\n\n"
    "A seed decides streams and positions; without --seed nobody can know it before. Exit code 0: "
    "no\n"
    "probe failed, which proves nothing about a plugin that carries the text (`fairway prove`\n"
    "and the counted bytes are for that); 1: one failed, and no score of it counts; 2: bad "
    "input.\n\n"
    "examples\n"
    "  fairway check --cache ngram\n"
    "  fairway check --cache /home/me/cache-mine.so --set cache.order=4\n"
    "  fairway check --artifact runs/mine/model.fairway --data 'val_*.bin'\n";

struct check_options {
    const char *cache, *artifact;
    const char *vocabulary_text, *tokens_text, *seed_text, *seconds_text;
    struct scored_source source;
    uint64_t vocabulary, tokens, seed, seconds;
};

/* ---- arguments ---- */

static fw_status parse_counts(struct check_options *o, fw_error *error) {
    FW_TRY(arguments_count("--vocab", o->vocabulary_text, 2, COIN_MOST_SIDES, 1024, &o->vocabulary,
                           error));
    FW_TRY(arguments_count("--tokens", o->tokens_text, 64, 1e9, 2048, &o->tokens, error));
    FW_TRY(arguments_count("--seconds", o->seconds_text, 1, 86400, 60, &o->seconds, error));
    if (o->seed_text == NULL) return coin_fresh_seed(&o->seed, error);
    return arguments_count("--seed", o->seed_text, 0, (double)LARGEST_SEED, 0, &o->seed, error);
}

static fw_status check_form(const struct check_options *o, fw_error *error) {
    if ((o->cache != NULL) == (o->artifact != NULL))
        return fw_fail(error, FW_E_CONFIG,
                       "%s --cache NAME probes a cache alone, --artifact FILE --data SOURCE an "
                       "artifact; --help shows how",
                       o->cache != NULL ? "one of the two:" : "what?");
    if (o->artifact != NULL && o->source.data == NULL)
        return fw_fail(error, FW_E_CONFIG, "--data SOURCE is missing; --help shows how");
    if (o->artifact != NULL && o->vocabulary_text != NULL)
        return fw_fail(error, FW_E_CONFIG, "--vocab: an artifact has a vocabulary of its own");
    if (o->cache != NULL && o->source.data != NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "--data: a cache alone reads made-up text; an artifact "
                       "(--artifact) takes tokens of its own");
    return FW_OK;
}

static fw_status parse(int argc, char **argv, struct arguments *arguments, struct check_options *o,
                       fw_error *error) {
    const struct option table[] = {
        {"--cache", &o->cache, NULL},           {"--artifact", &o->artifact, NULL},
        {"--vocab", &o->vocabulary_text, NULL}, {"--tokens", &o->tokens_text, NULL},
        {"--seed", &o->seed_text, NULL},        {"--seconds", &o->seconds_text, NULL},
        {"--data", &o->source.data, NULL},      {"--tokenizer", &o->source.tokenizer, NULL},
        {"--model", &o->source.model, NULL},    {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; --help shows how", arguments->input);
    FW_TRY(check_form(o, error));
    return parse_counts(o, error);
}

/* Overrides of our own, which win over those given. */
static fw_status add_override(struct arguments *arguments, const char *text, fw_error *error) {
    if (arguments->n_overrides == MAX_ARGUMENTS)
        return fw_fail(error, FW_E_LIMIT, "more than %d options of one kind", MAX_ARGUMENTS - 1);
    arguments->overrides[arguments->n_overrides++] = text;
    return FW_OK;
}

/* ---- the two forms ---- */

static fw_status check_cache_alone(const struct arguments *arguments, const struct check_options *o,
                                   struct verdicts *verdicts, fw_error *error) {
    struct arguments own = *arguments;
    char plugin[4200];
    struct token_table *table = NULL;
    (void)snprintf(plugin, sizeof plugin, "cache.plugin=%s", o->cache);
    FW_TRY(add_override(&own, plugin, error));
    FW_TRY(synthetic_table((uint32_t)o->vocabulary, &table, error));
    const struct cache_check check = {.arguments = &own,
                                      .name = "command line",
                                      .text = "",
                                      .table = table,
                                      .tokens = o->tokens,
                                      .seed = o->seed,
                                      .seconds = (unsigned)o->seconds};
    const fw_status status = check_cache(&check, verdicts, error);
    token_table_destroy(table);
    return status;
}

/* Before any of its plugins is loaded into this process. */
static fw_status check_cache_of_artifact(const struct arguments *arguments,
                                         const struct check_options *o, struct verdicts *verdicts,
                                         fw_error *error) {
    struct artifact artifact = {0};
    FW_TRY(artifact_read(o->artifact, &artifact, error));
    const struct cache_check check = {.arguments = arguments,
                                      .name = o->artifact,
                                      .text = artifact.config,
                                      .table = artifact.table,
                                      .tokens = o->tokens,
                                      .seed = o->seed,
                                      .seconds = (unsigned)o->seconds};
    fw_status status = config_check_artifact(o->artifact, artifact.config, error);
    if (status == FW_OK) status = check_cache(&check, verdicts, error);
    artifact_free(&artifact);
    return status;
}

/* A cache whose statements the host refuses fails the protocol; all else ends the check. */
static fw_status judge_scoring(fw_status status, const struct evaluate_result *result,
                               struct verdicts *verdicts, const fw_error *why, fw_error *error) {
    if (status == FW_OK) verdicts_merge(verdicts, &result->verdicts);
    if (status == FW_E_PROTOCOL)
        probe_fail(verdicts_probe(verdicts, "cache", "protocol"), "%s", why->message);
    else if (status != FW_OK)
        return fw_fail(error, status, "%s", why->message);
    return FW_OK;
}

enum { DECODED = 512 /* tokens at most */ };

static fw_status probe_decoder(const struct scorer *scorer, const struct corpus *corpus,
                               struct verdicts *verdicts, fw_error *error) {
    uint16_t tokens[DECODED];
    const struct experiment *experiment = scorer->session.experiment;
    const int64_t window = evaluate_window(experiment);
    int64_t n = window < DECODED ? window : DECODED;
    if ((uint64_t)n > corpus_tokens(corpus)) n = (int64_t)corpus_tokens(corpus);
    corpus_read(corpus, 0, (uint64_t)n, tokens);
    const struct decode_probe probe = {.model = scorer->model,
                                       .tokens = tokens,
                                       .n = n,
                                       .batch = experiment->eval.batch,
                                       .window = window,
                                       .vocabulary = scorer->artifact.table->vocabulary,
                                       .rounding =
                                           model_probe_rounding(scorer->session.services->device)};
    return decode_probe(&probe, verdicts, error);
}

static fw_status score_artifact(const struct arguments *arguments, const struct check_options *o,
                                struct verdicts *verdicts, fw_error *error) {
    struct scorer scorer;
    struct session text = {0};
    struct corpus *corpus = NULL;
    struct evaluate_result result;
    fw_error why = {.struct_size = sizeof why};
    FW_TRY(scorer_open(arguments, o->artifact, &scorer, error));
    const fw_status opened =
        scored_corpus_open(arguments, &o->source, &scorer, &text, &corpus, &why);
    fw_status status = opened, decoded = FW_OK;
    if (opened == FW_OK)
        status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus,
                              scorer.session.experiment->eval.mode, o->tokens, true, "check",
                              &result, &why);
    if (opened == FW_OK && (status == FW_OK || status == FW_E_PROTOCOL))
        decoded = probe_decoder(&scorer, corpus, verdicts, error);
    corpus_close(corpus);
    session_close(&text);
    scorer_close(&scorer);
    if (opened != FW_OK) return fw_fail(error, opened, "%s", why.message);
    FW_TRY(decoded);
    return judge_scoring(status, &result, verdicts, &why, error);
}

static fw_status check_artifact(const struct arguments *arguments, const struct check_options *o,
                                struct verdicts *verdicts, fw_error *error) {
    struct arguments own = *arguments;
    char seed[48];
    (void)snprintf(seed, sizeof seed, "eval.audit_seed=%" PRIu64, o->seed);
    FW_TRY(scored_overrides_check(arguments, error));
    FW_TRY(add_override(&own, seed, error));
    FW_TRY(add_override(&own, "eval.audit=full", error));
    FW_TRY(add_override(&own, "eval.on_violation=report", error));
    FW_TRY(check_cache_of_artifact(&own, o, verdicts, error));
    return score_artifact(&own, o, verdicts, error);
}

/* ---- the verdict ---- */

static bool print_verdicts(const struct check_options *o, const struct verdicts *verdicts) {
    const struct probe *failed = verdicts_failed(verdicts, NULL);
    (void)printf("%s: probe, verdict, positions (seed %" PRIu64 ")\n",
                 o->cache != NULL ? o->cache : o->artifact, o->seed);
    verdicts_print(verdicts);
    if (failed != NULL)
        (void)printf("\nINVALID: the probe %s fails. No score that rests on it counts.\n",
                     failed->name);
    else
        (void)printf("\nNo probe failed.\n");
    return failed != NULL;
}

int cmd_check(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct check_options options = {0};
    struct verdicts verdicts = {0};
    fw_status status = parse(argc, argv, &arguments, &options, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK)
        status = options.cache != NULL ? check_cache_alone(&arguments, &options, &verdicts, &error)
                                       : check_artifact(&arguments, &options, &verdicts, &error);
    if (status != FW_OK) return report_failure(status, &error);
    return print_verdicts(&options, &verdicts) ? 1 : 0;
}
