/* fairway eval: score an artifact on tokens (or text), from the file alone. */
#include "commands.h"
#include "report.h"
#include "scored_source.h"

static const char help[] =
    "usage: fairway eval --artifact FILE --data SOURCE [--tokenizer NAME [--model FILE]]\n"
    "                    [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n\n"
    "Scores the artifact on SOURCE: shards (\"val_*.bin\"), or text (\"text:*.txt\",\n"
    "\"jsonl:docs.jsonl\", \"list:files.txt\"). Shards need nothing but the artifact; text needs "
    "the\n"
    "tokenizer that the model was trained with, which --tokenizer names (bytes by default). The\n"
    "artifact's own [eval] and [cache] apply unless --set changes them.\n\n"
    "examples\n"
    "  fairway eval --artifact runs/quickstart/model.fairway --data text:README.md\n"
    "  fairway eval --artifact m.fairway --data 'val_*.bin' --set eval.stride=64 --set "
    "cache.plugin=none\n"
    "  fairway eval --artifact m.fairway --data jsonl:books.jsonl --tokenizer sentencepiece "
    "--model sp.model\n";

struct eval_options {
    const char *artifact;
    struct scored_source source;
};

static fw_status parse(int argc, char **argv, struct arguments *arguments,
                       struct eval_options *options, fw_error *error) {
    const struct option table[] = {{"--artifact", &options->artifact, NULL},
                                   {"--data", &options->source.data, NULL},
                                   {"--tokenizer", &options->source.tokenizer, NULL},
                                   {"--model", &options->source.model, NULL},
                                   {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (options->artifact == NULL || options->source.data == NULL)
        return fw_fail(error, FW_E_CONFIG, "%s is missing; --help shows how",
                       options->artifact == NULL ? "--artifact FILE" : "--data SOURCE");
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; the data go after --data",
                       arguments->input);
    return scored_overrides_check(arguments, error);
}

static void print_result(const struct scorer *scorer, const struct corpus *corpus,
                         const struct evaluate_result *result) {
    const struct experiment *experiment = scorer->session.experiment;
    const uint64_t tokens = corpus_tokens(corpus), most = (uint64_t)experiment->eval.max_tokens;
    if (most > 0 && most < tokens)
        (void)printf("first %llu of %llu tokens (eval.max_tokens)\n", (unsigned long long)most,
                     (unsigned long long)tokens);
    (void)printf("%llu targets, %llu bytes, %.1f s (%.0f tokens/s)\n",
                 (unsigned long long)result->targets, (unsigned long long)result->bytes,
                 result->seconds, (double)result->targets / result->seconds);
    report_print_score_header();
    report_print_model(experiment, result);
    if (choice_is_on(&experiment->cache)) report_print_caches(experiment, result);
    report_print_audit(experiment, result);
}

static fw_status eval(const struct arguments *arguments, const struct eval_options *options,
                      fw_error *error) {
    struct scorer scorer;
    FW_TRY(scorer_open(arguments, options->artifact, &scorer, error));
    struct session text = {0};
    struct corpus *corpus = NULL;
    fw_status status =
        scored_corpus_open(arguments, &options->source, &scorer, &text, &corpus, error);
    const struct experiment *experiment = scorer.session.experiment;
    struct evaluate_result result;
    if (status == FW_OK)
        status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus,
                              experiment->eval.mode, (uint64_t)experiment->eval.max_tokens, true,
                              "evaluate", &result, error);
    if (status == FW_OK) print_result(&scorer, corpus, &result);
    corpus_close(corpus);
    session_close(&text);
    scorer_close(&scorer);
    return status;
}

int cmd_eval(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct eval_options options = {0};
    fw_status status = parse(argc, argv, &arguments, &options, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = eval(&arguments, &options, &error);
    return report_failure(status, &error);
}
