/* fairway data: text or JSON lines -> token shards, or a description of shards. */
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "clock.h"
#include "commands.h"
#include "files.h"
#include "host.h"
#include "interrupt.h"
#include "progress.h"
#include "shard.h"
#include "shard_set.h"
#include "text_source.h"
#include "tokenize.h"
#include "tokenizer_check.h"

static const char help[] =
    "usage: fairway data --out PREFIX [options] SOURCE...\n"
    "       fairway data --info SHARD...\n"
    "\n"
    "Turns text into token shards in the challenge's format: PREFIX_000000.bin and so on, each "
    "with\n"
    "a .documents file (raw bytes and SHA-256 of each document). With --info it describes shards.\n"
    "\n"
    "A SOURCE is a text file (.txt, .md) or JSON lines (.jsonl) with a \"text\" in each line, or\n"
    "  text:GLOB   text files, one document each\n"
    "  jsonl:GLOB  JSON lines, one document each line (jsonl:/dev/stdin reads a pipe)\n"
    "  list:FILE   the text files that FILE names, one a line\n"
    "\n"
    "  --out PREFIX        where shards go; nothing appears there before all is written\n"
    "  --tokenizer NAME    bytes (default), or sentencepiece with --model FILE\n"
    "  --model FILE        the SentencePiece model\n"
    "  --config FILE       the tokenizer of this INI instead\n"
    "  --hold-out N        every N-th document goes to PREFIX_val_000000.bin instead\n"
    "  --shuffle           documents in an order that --seed N (default 1337) decides\n"
    "  --shard-tokens N    most tokens in a shard (default 100M); documents stay whole\n"
    "  --force             replace PREFIX's shards, all of them, also those held out before\n"
    "  --set KEY=VALUE, --plugin-dir DIR: as for `fairway run`\n"
    "\n"
    "Bytes need nothing but text:\n"
    "  fairway data --out data/notes --hold-out 10 notes/*.md\n"
    "A SentencePiece model, a pipe, a look at the result:\n"
    "  xz -dc books.jsonl.xz | fairway data --out data/books --model bpe.model jsonl:/dev/stdin\n"
    "  fairway data --info data/books_000000.bin\n"
    "Then, in an INI:\n"
    "  [data]\n"
    "  train = data/books_[0-9]*.bin\n";

struct settings {
    const char *out, *config, *tokenizer, *model, *shard_tokens, *hold_out, *seed;
    bool shuffle, force, info;
    uint64_t max_shard_tokens;
    struct text_selection selection;
    char plugin_override[512], model_override[4200];
};

/* What tokenizing holds. */
struct conversion {
    const struct settings *settings;
    struct registry *registry;
    struct config *config;
    struct host *host;
    const fw_tokenizer *tokenizer;
    void *self;
    struct text_source *source;
    struct shard_set training, validation;
    struct token_buffer tokens;
    struct tokenizer_check *check;
    struct progress progress;
    double start;
    uint64_t stored_done, stored_total;
};

/* ---- Arguments ---- */

static fw_status parse_counts(struct settings *settings, fw_error *error) {
    uint64_t every = 0;
    settings->selection = (struct text_selection){.shuffle = settings->shuffle};
    FW_TRY(arguments_count("--shard-tokens", settings->shard_tokens, 1, (double)SHARD_MAX_TOKENS,
                           100000000, &settings->max_shard_tokens, error));
    FW_TRY(
        arguments_count("--hold-out", settings->hold_out, 2, (double)INT32_MAX, 0, &every, error));
    FW_TRY(
        arguments_count("--seed", settings->seed, 0, 9e15, 1337, &settings->selection.seed, error));
    settings->selection.every = (uint32_t)every;
    return FW_OK;
}

/* --tokenizer and --model are short for keys of [tokenizer]. */
static fw_status add_override(struct arguments *arguments, char *out, size_t size, const char *key,
                              const char *value, fw_error *error) {
    const int length = snprintf(out, size, "tokenizer.%s=%s", key, value);
    if (arguments->n_overrides == MAX_ARGUMENTS || length < 0 || (size_t)length >= size)
        return fw_fail(error, FW_E_CONFIG, "too many or too long options at \"%s\"", value);
    arguments->overrides[arguments->n_overrides++] = out;
    return FW_OK;
}

static fw_status parse(int argc, char **argv, struct settings *settings,
                       struct arguments *arguments, fw_error *error) {
    const struct option options[] = {{"--out", &settings->out, NULL},
                                     {"--config", &settings->config, NULL},
                                     {"--tokenizer", &settings->tokenizer, NULL},
                                     {"--model", &settings->model, NULL},
                                     {"--shard-tokens", &settings->shard_tokens, NULL},
                                     {"--hold-out", &settings->hold_out, NULL},
                                     {"--seed", &settings->seed, NULL},
                                     {"--shuffle", NULL, &settings->shuffle},
                                     {"--force", NULL, &settings->force},
                                     {"--info", NULL, &settings->info},
                                     {NULL, NULL, NULL}};
    FW_TRY(arguments_parse_many(argc, argv, options, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->n_inputs == 0)
        return fw_fail(error, FW_E_CONFIG, "%s; `fairway data --help` has examples",
                       settings->info ? "name the shards to describe"
                                      : "name text or JSON lines to tokenize");
    if (!settings->info && settings->out == NULL)
        return fw_fail(error, FW_E_CONFIG, "--out PREFIX is missing: where should shards go?");
    const char *plugin = settings->tokenizer;
    if (plugin == NULL && settings->config == NULL && settings->model != NULL)
        plugin = "sentencepiece";
    if (plugin != NULL)
        FW_TRY(add_override(arguments, settings->plugin_override, sizeof settings->plugin_override,
                            "plugin", plugin, error));
    if (settings->model != NULL)
        FW_TRY(add_override(arguments, settings->model_override, sizeof settings->model_override,
                            "model", settings->model, error));
    return parse_counts(settings, error);
}

/* ---- Tokenizing ---- */

static fw_status open_tokenizer(struct conversion *c, const struct arguments *arguments,
                                fw_error *error) {
    const char *config = c->settings->config;
    FW_TRY(registry_create(arguments->plugin_directories, arguments->n_plugin_directories,
                           &c->registry, error));
    FW_TRY(config_load(config != NULL ? config : "command line", config != NULL ? NULL : "",
                       arguments->overrides, arguments->n_overrides, &c->config, error));
    const struct experiment *experiment;
    FW_TRY(config_resolve(c->config, c->registry, CONFIG_BIND(FW_TOKENIZER), &experiment, error));
    FW_TRY(host_create(&(struct host_options){.registry = c->registry}, &c->host, error));
    return tokenizer_open(c->host, &experiment->tokenizer, &c->tokenizer, &c->self, error);
}

static bool ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), tail = strlen(end);
    return length > tail && strcmp(text + length - tail, end) == 0;
}

static fw_status add_source(struct text_source *source, const char *word, fw_error *error) {
    enum source_kind kind;
    const char *pattern;
    FW_TRY(corpus_source_parse(word, &kind, &pattern, error));
    const bool bare = kind == SOURCE_SHARDS;
    if (bare && (ends_with(word, ".jsonl") || ends_with(word, ".ndjson")))
        kind = SOURCE_JSONL;
    else if (bare && (ends_with(word, ".txt") || ends_with(word, ".md")))
        kind = SOURCE_TEXT;
    else if (bare)
        return fw_fail(error, FW_E_CONFIG,
                       "cannot tell from its name what %s is; write text:%s or jsonl:%s", word,
                       word, word);
    return text_source_add(source, kind, pattern, error);
}

static fw_status add_sources(struct conversion *c, const struct arguments *arguments,
                             fw_error *error) {
    FW_TRY(text_source_create(&c->source, error));
    for (size_t i = 0; i < arguments->n_inputs; i++)
        FW_TRY(add_source(c->source, arguments->inputs[i], error));
    const uint64_t n = text_source_count(c->source), every = c->settings->selection.every;
    for (uint64_t i = 0; i < n; i++) c->stored_total += text_source_stored_bytes(c->source, i);
    if (n == 0) return fw_fail(error, FW_E_FORMAT, "there is no document in the sources");
    if (n >= every) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "--hold-out %llu holds out nothing: there are only %llu documents",
                   (unsigned long long)every, (unsigned long long)n);
}

static fw_status convert_document(struct conversion *c, uint64_t index, struct shard_set *out,
                                  fw_error *error) {
    char *text;
    size_t bytes;
    uint8_t hash[32];
    FW_TRY(text_source_read(c->source, index, &text, &bytes, error));
    sha256_bytes(text, bytes, hash);
    c->tokens.n = 0;
    fw_status status = tokenize_document(c->tokenizer, c->self, text, bytes, &c->tokens, error);
    if (status == FW_OK)
        status =
            tokenizer_check_document(c->check, text, bytes, c->tokens.tokens, c->tokens.n, error);
    free(text);
    FW_TRY(status);
    return shard_set_append(out, c->tokens.tokens, c->tokens.n, bytes, hash, error);
}

static fw_status convert_part(struct conversion *c, enum corpus_part part, struct shard_set *out,
                              fw_error *error) {
    struct text_selection selection = c->settings->selection;
    selection.part = part;
    uint64_t *order, n;
    FW_TRY(text_source_order(c->source, &selection, &order, &n, error));
    fw_status status = FW_OK;
    for (uint64_t i = 0; status == FW_OK && i < n; i++) {
        status = convert_document(c, order[i], out, error);
        c->stored_done += text_source_stored_bytes(c->source, order[i]);
        progress_work(&c->progress, "tokenizing", (double)c->stored_done / 1e6,
                      (double)c->stored_total / 1e6, "MB", c->start);
        if (status == FW_OK && interrupt_seen())
            status = fw_fail(error, FW_E_INTERRUPTED, "interrupted; nothing was written");
    }
    free(order);
    return status;
}

static fw_status open_shards(struct conversion *c, fw_error *error) {
    const struct settings *settings = c->settings;
    uint8_t fingerprint[32];
    c->tokenizer->fingerprint(c->self, fingerprint);
    FW_TRY(shard_set_open(&c->training, settings->out, settings->max_shard_tokens, fingerprint,
                          settings->force, error));
    char prefix[4096];
    /* Without --hold-out too: its shards of an earlier run would be documents of this training. */
    (void)snprintf(prefix, sizeof prefix, "%s_val", settings->out);
    return shard_set_open(&c->validation, prefix, settings->max_shard_tokens, fingerprint,
                          settings->force, error);
}

static fw_status commit(struct conversion *c, fw_error *error) {
    if (c->training.tokens == 0)
        return fw_fail(error, FW_E_FORMAT, "the sources hold no text: there are no tokens");
    FW_TRY(shard_set_prepare(&c->training, error));
    FW_TRY(shard_set_prepare(&c->validation, error));
    FW_TRY(shard_set_commit(&c->training, error));
    const fw_status status = shard_set_commit(&c->validation, error);
    if (status != FW_OK) shard_set_undo(&c->training);
    FW_TRY(status);
    FW_TRY(shard_set_remove_older(&c->training, error));
    return shard_set_remove_older(&c->validation, error);
}

static fw_status convert(struct conversion *c, const struct arguments *arguments, fw_error *error) {
    FW_TRY(open_tokenizer(c, arguments, error));
    FW_TRY(add_sources(c, arguments, error));
    FW_TRY(open_shards(c, error));
    FW_TRY(tokenizer_check_open(c->tokenizer, c->self, NULL, &c->check, error));
    interrupt_catch();
    progress_begin(&c->progress);
    c->start = clock_seconds();
    fw_status status = convert_part(c, CORPUS_TRAINING_PART, &c->training, error);
    if (status == FW_OK && c->settings->selection.every > 0)
        status = convert_part(c, CORPUS_HELD_OUT_PART, &c->validation, error);
    progress_end(&c->progress);
    if (status == FW_OK) status = tokenizer_check_total(c->check, error);
    return status == FW_OK ? commit(c, error) : status;
}

static void close_conversion(struct conversion *c) {
    shard_set_close(&c->training);
    shard_set_close(&c->validation);
    text_source_destroy(c->source);
    free(c->tokens.tokens);
    tokenizer_check_close(c->check);
    tokenizer_close(c->tokenizer, c->self);
    host_destroy(c->host);
    config_destroy(c->config);
    registry_destroy(c->registry);
}

/* ---- Output ---- */

static double bytes_per_token(uint64_t bytes, uint64_t tokens) {
    return tokens > 0 ? (double)bytes / (double)tokens : 0;
}

static void print_set(const char *label, const struct shard_set *set) {
    char name[4200];
    (void)shard_set_name(set, 0, name, sizeof name);
    (void)printf("%-10s %10llu %14llu %14llu %11.3f  %s", label, (unsigned long long)set->documents,
                 (unsigned long long)set->raw_bytes, (unsigned long long)set->tokens,
                 bytes_per_token(set->raw_bytes, set->tokens), name);
    if (set->n_shards > 1) (void)printf(" and %u more", set->n_shards - 1);
    (void)putchar('\n');
}

/* Say what --force removed beyond the names that were written again. */
static void print_removed(const struct shard_set *set, const char *what) {
    char name[4200];
    if (set->n_removed == 0) return;
    (void)shard_set_name(set, set->n_shards, name, sizeof name);
    (void)printf("Removed %u older %s shard%s, from %s on.\n", set->n_removed, what,
                 set->n_removed > 1 ? "s" : "", name);
}

static void print_summary(const struct conversion *c) {
    const bool split = c->settings->selection.every > 0;
    const double seconds = clock_seconds() - c->start;
    (void)printf("%-10s %10s %14s %14s %11s  %s\n", "", "documents", "raw bytes", "tokens",
                 "bytes/token", "shards");
    print_set(split ? "training" : "all", &c->training);
    if (split) print_set("validation", &c->validation);
    print_removed(&c->training, "training");
    print_removed(&c->validation, "validation");
    (void)printf("\n%.2f s, %.0f tokens/s\n\nIn an INI:\n[data]\ntrain = %s_[0-9]*.bin\n", seconds,
                 (double)(c->training.tokens + c->validation.tokens) / seconds, c->training.prefix);
    if (split) (void)printf("validation = %s_*.bin\n", c->validation.prefix);
}

static fw_status describe(const char *path, fw_error *error) {
    struct shard shard;
    struct shard_documents documents;
    FW_TRY(shard_open(path, &shard, error));
    const fw_status status = documents_read(path, shard.n_tokens, &documents, error);
    if (status == FW_OK) {
        uint64_t raw_bytes = 0;
        for (uint64_t i = 0; i < documents.n; i++) raw_bytes += documents.documents[i].raw_bytes;
        (void)printf("%s\n  header         %d, version %d\n  tokens         %llu\n"
                     "  largest token  %u\n",
                     path, SHARD_MAGIC, SHARD_VERSION, (unsigned long long)shard.n_tokens,
                     (unsigned)tokens_max(shard.tokens, shard.n_tokens));
        if (documents.present)
            (void)printf("  documents      %llu\n  raw bytes      %llu (%.3f a token)\n",
                         (unsigned long long)documents.n, (unsigned long long)raw_bytes,
                         bytes_per_token(raw_bytes, shard.n_tokens));
        else
            (void)printf("  documents      unknown: there is no %s" SHARD_DOCUMENTS_SUFFIX "\n",
                         path);
        documents_free(&documents);
    }
    shard_close(&shard);
    return status;
}

int cmd_data(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct settings settings = {0};
    fw_status status = parse(argc, argv, &settings, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    for (size_t i = 0; status == FW_OK && settings.info && i < arguments.n_inputs; i++)
        status = describe(arguments.inputs[i], &error);
    if (status != FW_OK || settings.info) return report_failure(status, &error);
    struct conversion conversion = {.settings = &settings};
    status = convert(&conversion, &arguments, &error);
    if (status == FW_OK) print_summary(&conversion);
    close_conversion(&conversion);
    return report_failure(status, &error);
}
