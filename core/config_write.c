/* Writing: the canonical text of a resolved experiment, every key explicit, in the tables' order.
 * Loading it gives the same experiment and the same text. */
#include <stdlib.h>
#include <string.h>

#include "config_private.h"
#include "params.h"
#include "text.h"

static fw_status put_line(struct text *text, const char *section, const char *key,
                          const char *value, fw_error *error) {
    if (!config_value_writable(value))
        return fw_fail(error, FW_E_CONFIG,
                       "[%s] %s = %.200s cannot be written as one INI line: it is too long, or has "
                       "a line break, or a space before ';'",
                       section, key, value);
    text_put(text, "%s =%s%s\n", key, value[0] != '\0' ? " " : "", value);
    return FW_OK;
}

static fw_status put_value(struct text *text, const char *section, const fw_param *param,
                           const fw_value *value, fw_error *error) {
    if (param->type == FW_PARAM_STRING || param->type == FW_PARAM_PATH)
        return put_line(text, section, param->key, value->text, error);
    char formatted[256];
    (void)param_format(param, value, formatted, sizeof formatted);
    return put_line(text, section, param->key, formatted, error);
}

static fw_value load(const struct experiment *experiment, const struct core_key *key) {
    const void *from = (const char *)experiment + key->offset;
    fw_value value = {0};
    switch (key->param.type) {
    case FW_PARAM_BOOL: value.integer = *(const bool *)from ? 1 : 0; break;
    case FW_PARAM_INT:
    case FW_PARAM_ENUM: value.integer = *(const int64_t *)from; break;
    case FW_PARAM_FLOAT: value.real = *(const double *)from; break;
    default: value.text = *(const char *const *)from; break;
    }
    return value;
}

static fw_status write_core(const struct config *config, const struct core_section *section,
                            bool anonymous, struct text *text, fw_error *error) {
    text_put(text, "[%s]\n", section->name);
    for (size_t i = 0; i < section->n_keys; i++) {
        const struct core_key *key = &section->keys[i];
        if (anonymous && (key->text == KEY_NAME || key->text == KEY_OUTPUT)) continue;
        const fw_value value = load(&config->experiment, key);
        FW_TRY(put_value(text, section->name, &key->param, &value, error));
    }
    text_put(text, "\n");
    return FW_OK;
}

/* The keys of a section whose plugin is not bound, as they were given. */
static fw_status write_raw(const struct config *config, const char *section, struct text *text,
                           fw_error *error) {
    for (size_t i = 0; i < config->entries.n; i++) {
        const struct config_entry *entry = &config->entries.items[i];
        if (strcmp(entry->section, section) != 0 || strcmp(entry->key, "plugin") == 0) continue;
        FW_TRY(put_line(text, section, entry->key, entry->value, error));
    }
    return FW_OK;
}

static fw_status write_choice(const struct config *config, const struct plugin_choice *choice,
                              const char *section, struct text *text, fw_error *error) {
    text_put(text, "[%s]\n", section);
    if (choice->kind != FW_DEVICE) FW_TRY(put_line(text, section, "plugin", choice->name, error));
    if (choice->entry == NULL) {
        FW_TRY(write_raw(config, section, text, error));
    } else {
        const fw_plugin *plugin = choice->entry->plugin;
        for (uint32_t i = 0; i < plugin->n_params; i++)
            FW_TRY(
                put_value(text, section, param_at(plugin->params, i), &choice->values[i], error));
    }
    text_put(text, "\n");
    return FW_OK;
}

/* The two give the same lines. Unbound layers are written whenever they have a section. */
static bool same_choice(const struct plugin_choice *a, const struct plugin_choice *b) {
    if (a->entry == NULL || a->entry != b->entry || strcmp(a->name, b->name) != 0) return false;
    const fw_plugin *plugin = a->entry->plugin;
    for (uint32_t i = 0; i < plugin->n_params; i++) {
        const fw_param *param = param_at(plugin->params, i);
        const bool is_text = param->type == FW_PARAM_STRING || param->type == FW_PARAM_PATH;
        if (is_text && strcmp(a->values[i].text, b->values[i].text) != 0) return false;
        if (!is_text && memcmp(&a->values[i], &b->values[i], sizeof(fw_value)) != 0) return false;
    }
    return true;
}

static fw_status write_layers(const struct config *config, struct text *text, fw_error *error) {
    for (int64_t i = 0; i < config->experiment.model.layers; i++) {
        const struct plugin_choice *layer = &config->experiment.attention[i];
        if (layer->section == config->attention.section) continue;
        if (same_choice(layer, &config->attention)) continue;
        FW_TRY(write_choice(config, layer, layer->section, text, error));
    }
    return FW_OK;
}

static bool wanted(const char *const *sections, const char *name) {
    if (sections == NULL) return true;
    for (; *sections != NULL; sections++)
        if (strcmp(*sections, name) == 0) return true;
    return false;
}

static fw_status write_all(const struct config *config, const char *const *sections, bool anonymous,
                           struct text *text, fw_error *error) {
    for (size_t i = 0; i < N_CORE_SECTIONS; i++)
        if (wanted(sections, core_sections[i].name))
            FW_TRY(write_core(config, &core_sections[i], anonymous, text, error));
    for (size_t i = 0; i < N_PLUGIN_SECTIONS; i++) {
        const struct plugin_section *section = &plugin_sections[i];
        if (!wanted(sections, section->name)) continue;
        const bool attention = section->kind == FW_ATTENTION;
        const void *at = attention ? (const void *)&config->attention
                                   : (const char *)&config->experiment + section->offset;
        FW_TRY(write_choice(config, at, section->name, text, error));
        if (attention) FW_TRY(write_layers(config, text, error));
    }
    return FW_OK;
}

fw_status config_write(const struct config *config, const char *const *sections, bool anonymous,
                       char **text, fw_error *error) {
    if (!config->resolved)
        return fw_fail(error, FW_E_INTERNAL, "%s: the text was asked for before it was resolved",
                       config->path);
    struct text all = {.length = 0};
    fw_status status = write_all(config, sections, anonymous, &all, error);
    if (status == FW_OK) status = text_finish(&all, text, error);
    free(all.bytes);
    return status;
}
