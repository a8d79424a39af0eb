/* `--set section.key=value`: one more layer over the files, for trying things out. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_entries.h"

static const char COMMAND_LINE[] = "command line";

bool config_is_override(const struct config_entry *entry) { return entry->where == COMMAND_LINE; }

static const char *trimmed(struct config *config, const char *text, size_t n) {
    while (n > 0 && strchr(" \t", text[n - 1]) != NULL) n--;
    while (n > 0 && strchr(" \t", text[0]) != NULL) text++, n--;
    return config_keep_text(config, "%.*s", (int)n, text);
}

static fw_status bad_override(const char *text, fw_error *error) {
    const size_t n = strcspn(text, "=");
    for (size_t i = 0; i < N_CORE_SECTIONS; i++)
        for (size_t k = 0; k < core_sections[i].n_keys; k++) {
            const char *key = core_sections[i].keys[k].param.key;
            if (strlen(key) != n || strncmp(key, text, n) != 0) continue;
            return fw_fail(error, FW_E_CONFIG,
                           "--set %.128s: the key lacks its section; did you mean %s.%s?", text,
                           core_sections[i].name, key);
        }
    return fw_fail(error, FW_E_CONFIG,
                   "--set %.128s: expected SECTION.KEY=VALUE, such as run.steps=100", text);
}

/* "section.key=value": the key begins after the last dot before the '='. */
static fw_status read_override(struct scope *scope, const char *text, fw_error *error) {
    const char *equals = strchr(text, '=');
    const char *dot = equals;
    while (dot != NULL && dot > text && *dot != '.') dot--;
    if (equals == NULL || dot == text || dot + 1 == equals) return bad_override(text, error);
    const char *section = trimmed(scope->config, text, (size_t)(dot - text));
    const char *key = trimmed(scope->config, dot + 1, (size_t)(equals - dot - 1));
    const char *value = trimmed(scope->config, equals + 1, strlen(equals + 1));
    if (section == NULL || key == NULL || value == NULL)
        return fw_fail(error, FW_E_MEMORY, "out of memory");
    if (strcmp(section, "run") == 0 && strcmp(key, "base") == 0)
        return fw_fail(error, FW_E_CONFIG, "run.base can only be set in a file");
    if (!config_value_writable(value))
        return fw_fail(error, FW_E_CONFIG,
                       "--set %.128s: a value is one line without a space before ';'", text);
    FW_TRY(scope_enter(scope, section, error));
    return scope_set(scope, key, value, COMMAND_LINE, error);
}

/* The last of several overrides of one key wins, as is usual on a command line. */
static void forget_twins(struct entry_list *list, size_t first_new) {
    for (size_t i = first_new; i < list->n; i++)
        for (size_t j = 0; j < first_new; j++)
            if (strcmp(list->items[i].section, list->items[j].section) == 0 &&
                strcmp(list->items[i].key, list->items[j].key) == 0)
                list->items[j] = list->items[i];
}

fw_status config_read_overrides(struct config *config, const char *const *overrides, size_t n,
                                fw_error *error) {
    char directory[PATH_MAX];
    if (n == 0) return FW_OK;
    if (getcwd(directory, sizeof directory) == NULL)
        return fw_fail(error, FW_E_IO, "the working directory is gone");
    struct entry_list all = {.items = NULL};
    fw_status status = FW_OK;
    for (size_t i = 0; i < n && status == FW_OK; i++) {
        struct scope scope = {.config = config};
        scope.directory = config_keep_text(config, "%s", directory);
        fw_error why = {.struct_size = sizeof why};
        status = read_override(&scope, overrides[i], &why);
        if (status != FW_OK) (void)fw_fail(error, status, "command line: %s", why.message);
        const size_t first_new = all.n;
        for (size_t k = 0; k < scope.entries.n && status == FW_OK; k++)
            status = entry_push(&all, scope.entries.items[k], error);
        forget_twins(&all, first_new);
        free(scope.entries.items);
    }
    if (status == FW_OK) status = config_merge(config, &all, error);
    free(all.items);
    return status;
}
