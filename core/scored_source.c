#include "scored_source.h"

#include <string.h>

#include "config_keys.h"
#include "tokenize.h"

/* ---- settings ---- */

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

/* Of that, what a text that the model writes depends on: the model itself and its window. */
static bool is_used_in_writing(const char *section, const char *key) {
    const struct core_section *core = core_section_find(section);
    if (strcmp(section, "cache") == 0 || strcmp(section, "counterpart") == 0) return false;
    if (core != NULL && core_key_find(core, key) != NULL) {
        if (strcmp(section, "eval") == 0) return strcmp(key, "window") == 0;
        if (strcmp(section, "run") == 0 && strcmp(key, "seed") == 0) return false;
    }
    return is_used(section, key);
}

enum { NAME_ROOM = 64 }; /* no name is as long */

/* What an override sets; false where it has no such form, which the configuration refuses. */
static bool read_name(const char *text, char section[NAME_ROOM], char key[NAME_ROOM]) {
    const size_t n = strcspn(text, "=");
    size_t dot = n;
    while (dot > 0 && text[dot] != '.') dot--;
    if (text[n] == '\0' || dot == 0 || dot >= NAME_ROOM || n - dot > NAME_ROOM) return false;
    (void)snprintf(section, NAME_ROOM, "%.*s", (int)dot, text);
    (void)snprintf(key, NAME_ROOM, "%.*s", (int)(n - dot - 1), text + dot + 1);
    key[strcspn(key, " \t")] = '\0';
    return true;
}

static fw_status check_overrides(const struct arguments *arguments,
                                 bool used(const char *section, const char *key), const char *what,
                                 const char *uses, fw_error *error) {
    char section[NAME_ROOM], key[NAME_ROOM];
    for (size_t i = 0; i < arguments->n_overrides; i++) {
        const char *text = arguments->overrides[i];
        if (!read_name(text, section, key) || used(section, key)) continue;
        return fw_fail(error, FW_E_CONFIG, "--set %.128s: %s does not use [%s] %s; %s", text, what,
                       section, key, uses);
    }
    return FW_OK;
}

fw_status scored_overrides_check(const struct arguments *arguments, fw_error *error) {
    return check_overrides(arguments, is_used, "scoring",
                           "model, attention, quantize, compress, eval, cache and run.device, "
                           "run.threads are what it uses",
                           error);
}

fw_status written_overrides_check(const struct arguments *arguments, fw_error *error) {
    return check_overrides(arguments, is_used_in_writing, "writing a text",
                           "model, attention, quantize, compress, tokenizer, eval.window and "
                           "run.device, run.threads are what it uses, and --seed is its seed",
                           error);
}

/* ---- the tokenizer ---- */

fw_status scored_tokenizer_bind(const struct arguments *arguments,
                                const struct scored_source *source, struct session *text,
                                fw_error *error) {
    struct arguments own = *arguments;
    char plugin[4096], model[4096];
    size_t n = 0;
    (void)snprintf(plugin, sizeof plugin, "tokenizer.plugin=%s",
                   source->tokenizer != NULL ? source->tokenizer : "bytes");
    (void)snprintf(model, sizeof model, "tokenizer.model=%s",
                   source->model != NULL ? source->model : "");
    own.overrides[n++] = plugin;
    if (source->model != NULL) own.overrides[n++] = model;
    for (size_t i = 0; i < arguments->n_overrides && n < MAX_ARGUMENTS; i++)
        if (strncmp(arguments->overrides[i], "tokenizer.", 10) == 0)
            own.overrides[n++] = arguments->overrides[i];
    own.n_overrides = n;
    return session_bind(&own, "command line", "", CONFIG_BIND(FW_TOKENIZER), text, error);
}

fw_status scored_tokenizer_start(struct session *text, struct host *host,
                                 const struct token_table *table, fw_error *error) {
    FW_TRY(tokenizer_open(host, &text->experiment->tokenizer, &text->tokenizer,
                          &text->tokenizer_self, error));
    FW_TRY(token_table_from_tokenizer(text->tokenizer, text->tokenizer_self, &text->table, error));
    if (memcmp(text->table->fingerprint, table->fingerprint, sizeof table->fingerprint) == 0)
        return FW_OK;
    return fw_fail(
        error, FW_E_CONFIG,
        "tokenizer %s (%u tokens) is not the one this model was trained with (%u tokens); name "
        "that one with --tokenizer and --model",
        text->experiment->tokenizer.entry->plugin->id, text->table->vocabulary, table->vocabulary);
}

/* ---- the corpus ---- */

fw_status scored_corpus_open(const struct arguments *arguments, const struct scored_source *source,
                             const struct scorer *scorer, struct session *text,
                             struct corpus **corpus, fw_error *error) {
    const struct token_table *table = scorer->artifact.table;
    if (corpus_source_has_text(source->data) || source->tokenizer != NULL) {
        FW_TRY(scored_tokenizer_bind(arguments, source, text, error));
        FW_TRY(scored_tokenizer_start(text, scorer->session.host, table, error));
    }
    const struct corpus_options own = {
        .source = source->data,
        .where = "--data",
        .vocabulary = table->vocabulary,
        .keep_text = source->keep_text,
        .tokenizer = text->tokenizer,
        .tokenizer_self = text->tokenizer_self,
        .table = table,
    };
    return corpus_open(&own, corpus, error);
}
