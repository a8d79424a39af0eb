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

/* A text being written, and what for. */
struct writer {
    const struct config *config;
    enum config_purpose purpose;
    struct text text;
};

static bool is_hashed(const struct writer *writer) {
    return writer->purpose == CONFIG_FOR_HASH || writer->purpose == CONFIG_FOR_SEEDLESS_HASH;
}

static const char *last_component(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* "text:/a/b.txt /c/d.bin" -> "text:b.txt d.bin": sources without their directories. */
static void put_names(struct writer *writer, const char *key, const char *list) {
    text_put(&writer->text, "%s =", key);
    while (*list != '\0') {
        const size_t n = strcspn(list, " "), prefix = strcspn(list, ":/");
        const int kept = prefix < n && list[prefix] == ':' ? (int)prefix + 1 : 0;
        size_t from = n;
        while (from > 0 && list[from - 1] != '/') from--;
        text_put(&writer->text, " %.*s%.*s", from > 0 ? kept : 0, list, (int)(n - from),
                 list + from);
        list += n + strspn(list + n, " ");
    }
    text_put(&writer->text, "\n");
}

static fw_status put_path(struct writer *writer, const char *section, const char *key,
                          const char *path, fw_error *error) {
    if (is_hashed(writer)) path = last_component(path);
    if (writer->purpose == CONFIG_FOR_ARTIFACT && path[0] != '\0')
        return fw_fail(error, FW_E_CONFIG,
                       "[%s] %s = %.200s is a path, and an artifact holds none: it could not be "
                       "scored from the file alone",
                       section, key, path);
    return put_line(&writer->text, section, key, path, error);
}

static fw_status put_value(struct writer *writer, const char *section, const fw_param *param,
                           const fw_value *value, fw_error *error) {
    if (param->type == FW_PARAM_PATH)
        return put_path(writer, section, param->key, value->text, error);
    if (param->type == FW_PARAM_STRING)
        return put_line(&writer->text, section, param->key, value->text, error);
    char formatted[256];
    (void)param_format(param, value, formatted, sizeof formatted);
    return put_line(&writer->text, section, param->key, formatted, error);
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

static bool left_out(const struct writer *writer, const char *section, const struct core_key *key) {
    if (writer->purpose == CONFIG_FOR_ARTIFACT) return !key_in_artifact(section, key->param.key);
    if (!is_hashed(writer)) return false;
    if (key->offset == offsetof(struct experiment, run.seed))
        return writer->purpose == CONFIG_FOR_SEEDLESS_HASH;
    return key->text == KEY_NAME || key->text == KEY_OUTPUT ||
           key->offset == offsetof(struct experiment, run.seeds);
}

/* A plugin's name is a path or an id; where no path may stand, its id. */
static const char *plugin_text(const struct writer *writer, const struct plugin_choice *choice) {
    if (writer->purpose == CONFIG_FOR_INI) return choice->name;
    return choice->entry != NULL ? choice->entry->plugin->id : last_component(choice->name);
}

static fw_status write_core(struct writer *writer, const struct core_section *section,
                            fw_error *error) {
    const struct experiment *experiment = &writer->config->experiment;
    text_put(&writer->text, "[%s]\n", section->name);
    for (size_t i = 0; i < section->n_keys; i++) {
        const struct core_key *key = &section->keys[i];
        if (left_out(writer, section->name, key)) continue;
        fw_value value = load(experiment, key);
        if (key->text == KEY_PLUGIN) value.text = plugin_text(writer, &experiment->device);
        if (key->text == KEY_SOURCES && is_hashed(writer))
            put_names(writer, key->param.key, value.text);
        else
            FW_TRY(put_value(writer, section->name, &key->param, &value, error));
    }
    text_put(&writer->text, "\n");
    return FW_OK;
}

/* The keys of a section whose plugin is not bound, as they were given. */
static fw_status write_raw(struct writer *writer, const char *section, fw_error *error) {
    const struct entry_list *entries = &writer->config->entries;
    for (size_t i = 0; i < entries->n; i++) {
        const struct config_entry *entry = &entries->items[i];
        if (strcmp(entry->section, section) != 0 || strcmp(entry->key, "plugin") == 0) continue;
        FW_TRY(put_line(&writer->text, section, entry->key, entry->value, error));
    }
    return FW_OK;
}

static fw_status write_choice(struct writer *writer, const struct plugin_choice *choice,
                              const char *section, fw_error *error) {
    text_put(&writer->text, "[%s]\n", section);
    if (choice->kind != FW_DEVICE)
        FW_TRY(put_line(&writer->text, section, "plugin", plugin_text(writer, choice), error));
    if (choice->entry == NULL) {
        FW_TRY(write_raw(writer, section, error));
    } else {
        const fw_plugin *plugin = choice->entry->plugin;
        for (uint32_t i = 0; i < plugin->n_params; i++)
            FW_TRY(
                put_value(writer, section, param_at(plugin->params, i), &choice->values[i], error));
    }
    text_put(&writer->text, "\n");
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

static fw_status write_layers(struct writer *writer, fw_error *error) {
    const struct config *config = writer->config;
    for (int64_t i = 0; i < config->experiment.model.layers; i++) {
        const struct plugin_choice *layer = &config->experiment.attention[i];
        if (layer->section == config->attention.section) continue;
        if (same_choice(layer, &config->attention)) continue;
        FW_TRY(write_choice(writer, layer, layer->section, error));
    }
    return FW_OK;
}

static bool wanted(const struct writer *writer, const char *const *sections, const char *name) {
    if (writer->purpose == CONFIG_FOR_ARTIFACT) return key_in_artifact(name, NULL);
    if (sections == NULL) return true;
    for (; *sections != NULL; sections++)
        if (strcmp(*sections, name) == 0) return true;
    return false;
}

static fw_status write_all(struct writer *writer, const char *const *sections, fw_error *error) {
    const struct config *config = writer->config;
    for (size_t i = 0; i < N_CORE_SECTIONS; i++)
        if (wanted(writer, sections, core_sections[i].name))
            FW_TRY(write_core(writer, &core_sections[i], error));
    for (size_t i = 0; i < N_PLUGIN_SECTIONS; i++) {
        const struct plugin_section *section = &plugin_sections[i];
        if (!wanted(writer, sections, section->name)) continue;
        const bool attention = section->kind == FW_ATTENTION;
        const void *at = attention ? (const void *)&config->attention
                                   : (const char *)&config->experiment + section->offset;
        FW_TRY(write_choice(writer, at, section->name, error));
        if (attention) FW_TRY(write_layers(writer, error));
    }
    return FW_OK;
}

fw_status config_write(const struct config *config, const char *const *sections,
                       enum config_purpose purpose, char **text, fw_error *error) {
    if (!config->resolved)
        return fw_fail(error, FW_E_INTERNAL, "%s: the text was asked for before it was resolved",
                       config->path);
    struct writer writer = {.config = config, .purpose = purpose};
    fw_status status = write_all(&writer, sections, error);
    if (status == FW_OK) status = text_finish(&writer.text, text, error);
    free(writer.text.bytes);
    return status;
}
