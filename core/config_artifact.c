/* The configuration inside an artifact: which keys travel, and what is refused when a file that may
 * come from anyone is opened. Reading such a file must open no other file and load no module but
 * those that the user's own search path, --plugin-dir or --set name. */
#include <string.h>

#include "config_private.h"
#include "params.h"

static bool is_layer(const char *section) { return strncmp(section, "attention.", 10) == 0; }

bool key_in_artifact(const char *section, const char *key) {
    static const char *const whole[] = {"model",    "attention", "quantize",
                                        "compress", "cache",     "counterpart"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (strcmp(section, whole[i]) == 0) return true;
    if (is_layer(section)) return true;
    if (strcmp(section, "data") == 0) return key == NULL || strcmp(key, "sequence") == 0;
    if (strcmp(section, "eval") != 0) return false;
    return key == NULL || (strcmp(key, "max_tokens") != 0 && strcmp(key, "ladder_tokens") != 0);
}

fw_status config_artifact_text(const struct config *config, char **text, fw_error *error) {
    return config_write(config, NULL, CONFIG_FOR_ARTIFACT, text, error);
}

static fw_status check_entry(const char *path, const struct config_entry *entry, fw_error *error) {
    if (!key_in_artifact(entry->section, entry->key))
        return fw_fail(error, FW_E_FORMAT,
                       "%s: its configuration sets [%s] %s, which an artifact never holds", path,
                       entry->section, entry->key);
    if (strcmp(entry->key, "plugin") == 0 && strchr(entry->value, '/') != NULL)
        return fw_fail(error, FW_E_FORMAT,
                       "%s: its configuration names the plugin of [%s] by the path %.200s; an "
                       "artifact names plugins by id, only --set may give a path",
                       path, entry->section, entry->value);
    return FW_OK;
}

fw_status config_check_artifact(const char *path, const char *text, fw_error *error) {
    struct config *config = NULL;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = config_load(path, text, NULL, 0, &config, &why);
    if (status == FW_E_MEMORY) return fw_fail(error, status, "%s", why.message);
    if (status != FW_OK) return fw_fail(error, FW_E_FORMAT, "%s", why.message);
    for (size_t i = 0; i < config->entries.n && status == FW_OK; i++)
        status = check_entry(path, &config->entries.items[i], error);
    config_destroy(config);
    return status;
}

/* Choices that an artifact makes ----------------------------------------------------------------
 */

typedef fw_status visit_choice(void *argument, const struct plugin_choice *choice, fw_error *error);

static fw_status each_choice(const struct config *config, visit_choice *visit, void *argument,
                             fw_error *error) {
    const struct experiment *e = &config->experiment;
    const struct plugin_choice *const choices[] = {&config->attention, &e->quantize, &e->compress,
                                                   &e->cache, &e->counterpart};
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        FW_TRY(visit(argument, choices[i], error));
    for (int64_t i = 0; i < e->model.layers; i++)
        if (e->attention[i].section != config->attention.section)
            FW_TRY(visit(argument, &e->attention[i], error));
    return FW_OK;
}

static fw_status check_paths(void *argument, const struct plugin_choice *choice, fw_error *error) {
    const struct config *config = argument;
    if (choice->entry == NULL) return FW_OK;
    const fw_plugin *plugin = choice->entry->plugin;
    for (uint32_t i = 0; i < plugin->n_params; i++) {
        const fw_param *param = param_at(plugin->params, i);
        if (param->type != FW_PARAM_PATH) continue;
        const struct config_entry *entry = config_find(config, choice->section, param->key);
        if (entry == NULL && is_layer(choice->section))
            entry = config_find(config, "attention", param->key);
        if (entry == NULL || entry->value[0] == '\0' || config_is_override(entry)) continue;
        return fw_fail(error, FW_E_FORMAT,
                       "%s: its configuration gives [%s] %s the path %.200s; only --set may give "
                       "a path",
                       config->path, entry->section, entry->key, entry->value);
    }
    return FW_OK;
}

fw_status config_check_artifact_paths(struct config *config, fw_error *error) {
    return each_choice(config, check_paths, config, error);
}

struct override_list {
    struct config *config;
    const char **overrides;
    size_t *n, most;
};

static fw_status append_override(void *argument, const struct plugin_choice *choice,
                                 fw_error *error) {
    const struct override_list *list = argument;
    if (strchr(choice->name, '/') == NULL) return FW_OK;
    if (*list->n == list->most)
        return fw_fail(error, FW_E_LIMIT, "more than %zu plugins are named by a path", list->most);
    const char *text =
        config_keep_text(list->config, "%s.plugin=%s", choice->section, choice->name);
    if (text == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    list->overrides[(*list->n)++] = text;
    return FW_OK;
}

fw_status config_plugin_overrides(struct config *config, const char **overrides, size_t *n,
                                  size_t most, fw_error *error) {
    struct override_list list = {config, overrides, n, most};
    return each_choice(config, append_override, &list, error);
}
