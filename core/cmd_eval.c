/* fairway eval: score an artifact on tokens (or text), from the file alone. */
#include <string.h>

#include "commands.h"
#include "config_keys.h"
#include "report.h"
#include "scorer.h"
#include "tokenize.h"

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
    const char *artifact, *data, *tokenizer, *model;
};

/* Sections and keys that an INI may have but that decide nothing here; what nobody knows is left to
 * the configuration, which suggests the nearest name. */
static bool is_used(const char *section, const char *key) {
    static const char *const others[] = {"run.device", "run.threads", "run.seed",
                                         "eval.max_tokens"};
    char name[128];
    (void)snprintf(name, sizeof name, "%s.%s", section, key);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0) return true;
    if (key_in_artifact(section, key) || strcmp(section, "device") == 0 ||
        strcmp(section, "tokenizer") == 0)
        return true;
    const struct core_section *core = core_section_find(section);
    if (core != NULL) return core_key_find(core, key) == NULL;
    return plugin_section_find(section) == NULL;
}

static fw_status check_override(const char *text, fw_error *error) {
    char section[64], key[64];
    const size_t n = strcspn(text, "=");
    size_t dot = n;
    while (dot > 0 && text[dot] != '.') dot--;
    if (text[n] == '\0' || dot == 0 || dot >= sizeof section || n - dot > sizeof key) return FW_OK;
    (void)snprintf(section, sizeof section, "%.*s", (int)dot, text);
    (void)snprintf(key, sizeof key, "%.*s", (int)(n - dot - 1), text + dot + 1);
    key[strcspn(key, " \t")] = '\0';
    if (is_used(section, key)) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "--set %.128s: scoring does not use [%s] %s; model, attention, quantize, "
                   "compress, eval, cache and run.device, run.threads are what it uses",
                   text, section, key);
}

static fw_status parse(int argc, char **argv, struct arguments *arguments,
                       struct eval_options *options, fw_error *error) {
    const struct option table[] = {{"--artifact", &options->artifact, NULL},
                                   {"--data", &options->data, NULL},
                                   {"--tokenizer", &options->tokenizer, NULL},
                                   {"--model", &options->model, NULL},
                                   {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (options->artifact == NULL || options->data == NULL)
        return fw_fail(error, FW_E_CONFIG, "%s is missing; --help shows how",
                       options->artifact == NULL ? "--artifact FILE" : "--data SOURCE");
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; the data go after --data",
                       arguments->input);
    for (size_t i = 0; i < arguments->n_overrides; i++)
        FW_TRY(check_override(arguments->overrides[i], error));
    return FW_OK;
}

/* Open the tokenizer for text, and make sure that it is the one the model was trained with. */
static fw_status open_tokenizer(const struct arguments *arguments,
                                const struct eval_options *options, const struct token_table *table,
                                struct session *session, fw_error *error) {
    struct arguments own = *arguments;
    char plugin[4096], model[4096];
    size_t n = 0;
    (void)snprintf(plugin, sizeof plugin, "tokenizer.plugin=%s",
                   options->tokenizer != NULL ? options->tokenizer : "bytes");
    (void)snprintf(model, sizeof model, "tokenizer.model=%s",
                   options->model != NULL ? options->model : "");
    own.overrides[n++] = plugin;
    if (options->model != NULL) own.overrides[n++] = model;
    for (size_t i = 0; i < arguments->n_overrides && n < MAX_ARGUMENTS; i++)
        if (strncmp(arguments->overrides[i], "tokenizer.", 10) == 0)
            own.overrides[n++] = arguments->overrides[i];
    own.n_overrides = n;
    const uint32_t kinds = CONFIG_BIND(FW_TOKENIZER) | CONFIG_BIND(FW_DEVICE);
    FW_TRY(session_open(&own, "command line", "", kinds, session, error));
    FW_TRY(session_open_tokenizer(session, error));
    if (memcmp(session->table->fingerprint, table->fingerprint, sizeof table->fingerprint) == 0)
        return FW_OK;
    return fw_fail(
        error, FW_E_CONFIG,
        "tokenizer %s (%u tokens) is not the one this model was trained with (%u tokens); name "
        "that one with --tokenizer and --model",
        session->experiment->tokenizer.entry->plugin->id, session->table->vocabulary,
        table->vocabulary);
}

static fw_status open_corpus(const struct arguments *arguments, const struct eval_options *options,
                             const struct scorer *scorer, struct session *text_session,
                             struct corpus **corpus, fw_error *error) {
    const struct token_table *table = scorer->artifact.table;
    if (corpus_source_has_text(options->data))
        FW_TRY(open_tokenizer(arguments, options, table, text_session, error));
    const struct corpus_options own = {
        .source = options->data,
        .where = "--data",
        .vocabulary = table->vocabulary,
        .tokenizer = text_session->tokenizer,
        .tokenizer_self = text_session->tokenizer_self,
    };
    return corpus_open(&own, corpus, error);
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
    report_print_audit(result);
}

static fw_status eval(const struct arguments *arguments, const struct eval_options *options,
                      fw_error *error) {
    struct scorer scorer;
    FW_TRY(scorer_open(arguments, options->artifact, &scorer, error));
    struct session text_session = {0};
    struct corpus *corpus = NULL;
    fw_status status = open_corpus(arguments, options, &scorer, &text_session, &corpus, error);
    const struct experiment *experiment = scorer.session.experiment;
    struct evaluate_result result;
    if (status == FW_OK)
        status = score_corpus(&scorer.session, scorer.model, scorer.artifact.table, corpus,
                              experiment->eval.mode, (uint64_t)experiment->eval.max_tokens, true,
                              "evaluate", &result, error);
    if (status == FW_OK) print_result(&scorer, corpus, &result);
    corpus_close(corpus);
    session_close(&text_session);
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
