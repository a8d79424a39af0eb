/* Plugin sections: find the plugin that each names and type its keys by the plugin's own table. */
#include "config_bind.h"

#include <fairway/device.h>
#include <string.h>

#include "params.h"

/* Later sections override earlier ones: [attention], then [attention.3]. */
struct sections {
    const char *names[2];
    size_t n;
};

struct plugin_choice *config_choice(struct config *config, const struct plugin_section *section) {
    if (section->kind == FW_ATTENTION) return &config->attention;
    return (struct plugin_choice *)(void *)((char *)&config->experiment + section->offset);
}

static const struct config_entry *find_in(const struct config *config,
                                          const struct sections *sections, const char *key) {
    const struct config_entry *entry = NULL;
    for (size_t i = sections->n; i-- > 0 && entry == NULL;)
        entry = config_find(config, sections->names[i], key);
    return entry;
}

/* Where the plugin of a section was named, or the file when it is the default. */
static const char *named_at(const struct config *config, const char *section) {
    const bool device = strcmp(section, "device") == 0;
    const struct config_entry *entry =
        config_find(config, device ? "run" : section, device ? "device" : "plugin");
    return entry != NULL ? entry->where : config->path;
}

/* Where a complaint about a section's values points: to the last layer (file or command line) that
 * touches it, there to its plugin, else to its first key. */
static const char *chosen_at(const struct config *config, const char *section) {
    const struct config_entry *best = NULL;
    for (size_t i = 0; i < config->entries.n; i++) {
        const struct config_entry *entry = &config->entries.items[i];
        if (strcmp(entry->section, section) != 0) continue;
        if (best == NULL || entry->layer > best->layer ||
            (entry->layer == best->layer && strcmp(entry->key, "plugin") == 0))
            best = entry;
    }
    return best != NULL ? best->where : named_at(config, section);
}

static bool known_key(const fw_plugin *plugin, const char *key) {
    if (strcmp(key, "plugin") == 0) return true;
    for (uint32_t i = 0; i < plugin->n_params; i++)
        if (strcmp(param_at(plugin->params, i)->key, key) == 0) return true;
    return false;
}

static fw_status unknown_key(const struct config_entry *entry, const fw_plugin *plugin,
                             fw_error *error) {
    enum { MAX_KEYS = 256 };
    const char *names[MAX_KEYS];
    size_t n = 0;
    for (; n < plugin->n_params && n < MAX_KEYS; n++)
        names[n] = param_at(plugin->params, (uint32_t)n)->key;
    const char *near = nearest_name(entry->key, names, n);
    if (near != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: [%s] %s %s has no key '%.64s'; did you mean '%s'?",
                       entry->where, entry->section, kind_name(plugin->kind), plugin->id,
                       entry->key, near);
    char known[400] = "it has none";
    for (size_t i = 0, length = 0; i < n && length < sizeof known; i++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s",
                                   i == 0 ? "it has " : ", ", names[i]);
    return fw_fail(error, FW_E_CONFIG, "%s: [%s] %s %s has no key '%.64s'; %s", entry->where,
                   entry->section, kind_name(plugin->kind), plugin->id, entry->key, known);
}

/* Every key of the last section is a parameter. Hand-me-downs may be another plugin's. */
static fw_status check_keys(const struct config *config, const struct sections *sections,
                            const fw_plugin *plugin, fw_error *error) {
    for (size_t i = 0; i < config->entries.n; i++) {
        const struct config_entry *entry = &config->entries.items[i];
        if (strcmp(entry->section, sections->names[sections->n - 1]) != 0) continue;
        if (entry->hand_me_down || known_key(plugin, entry->key)) continue;
        return unknown_key(entry, plugin, error);
    }
    return FW_OK;
}

static fw_status read_value(struct config *config, const struct sections *sections,
                            const fw_plugin *plugin, const fw_param *param, fw_value *value,
                            fw_error *error) {
    const char *section = sections->names[sections->n - 1];
    const struct config_entry *entry = find_in(config, sections, param->key);
    const char *text = entry != NULL ? entry->value : param->default_text;
    if (text == NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: [%s] %s %s needs the key '%s': %s",
                       named_at(config, section), section, kind_name(plugin->kind), plugin->id,
                       param->key, param->doc);
    fw_error why = {.struct_size = sizeof why};
    fw_status status = param_parse(param, text, value, &why);
    if (status == FW_OK && param->type == FW_PARAM_PATH)
        status = config_absolute(config, entry != NULL ? entry->directory : config->directory,
                                 &value->text, &why);
    if (status == FW_OK) return FW_OK;
    return fw_fail(error, status, "%s: [%s] %s", entry != NULL ? entry->where : config->path,
                   entry != NULL ? entry->section : section, why.message);
}

/* A cache that is to be isolated is not even loaded here. */
static fw_status find_plugin(struct config *config, struct registry *registry,
                             struct plugin_choice *choice, const struct registry_entry **entry,
                             fw_error *error) {
    const struct eval_keys *eval = &config->experiment.eval;
    if (choice->kind != FW_CACHE || !eval->isolate)
        return registry_find(registry, choice->kind, choice->name, entry, error);
    struct apart *apart = config_keep(config, sizeof *apart);
    if (apart == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    *apart = (struct apart){eval->cache_timeout, (uint64_t)config->experiment.run.seed};
    choice->apart = apart;
    return registry_find_apart(registry, choice->kind, choice->name, apart->seconds, entry, error);
}

static fw_status bind(struct config *config, struct registry *registry,
                      const struct sections *sections, struct plugin_choice *choice,
                      fw_error *error) {
    const char *section = sections->names[sections->n - 1];
    fw_error why = {.struct_size = sizeof why};
    const struct registry_entry *entry = NULL;
    const fw_status status = find_plugin(config, registry, choice, &entry, &why);
    if (status != FW_OK)
        return fw_fail(error, status, "%s: [%s] %s", named_at(config, section), section,
                       why.message);
    const fw_plugin *plugin = entry->plugin;
    FW_TRY(check_keys(config, sections, plugin, error));
    fw_value *values = config_keep(config, (plugin->n_params + 1) * sizeof *values);
    if (values == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    for (uint32_t i = 0; i < plugin->n_params; i++)
        FW_TRY(
            read_value(config, sections, plugin, param_at(plugin->params, i), &values[i], error));
    choice->entry = entry;
    choice->values = values;
    return FW_OK;
}

/* ---- Devices ---- */

/* A plugin that is there but cannot be loaded, for want of a library say, is no device either, but
 * that is worth a word. */
static bool has_cuda(struct config *config, struct registry *registry) {
    const struct registry_entry *entry = NULL;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = registry_find(registry, FW_DEVICE, "cuda", &entry, &why);
    if (status != FW_OK && status != FW_E_NOT_FOUND)
        config->experiment.passed_over = config_keep_text(config, "%s", why.message);
    if (status != FW_OK) return false;
    const fw_device_driver *driver = entry->plugin->vtable;
    uint32_t count = 0;
    return driver->count(&count, &why) == FW_OK && count > 0;
}

/* run.deterministic switches off whatever the device would decide by timing. */
static void make_deterministic(const struct plugin_choice *device) {
    const fw_plugin *plugin = device->entry->plugin;
    for (uint32_t i = 0; i < plugin->n_params; i++) {
        const fw_param *param = param_at(plugin->params, i);
        if (param->type == FW_PARAM_BOOL && strncmp(param->key, "time_", 5) == 0)
            device->values[i].integer = 0;
    }
}

/* Kinds whose work runs on the device must be able to run on the one chosen. */
static fw_status check_device(const struct config *config, const char *section,
                              const struct plugin_choice *choice, fw_error *error) {
    const struct plugin_choice *device = &config->experiment.device;
    const bool on_device =
        choice->kind == FW_ATTENTION || choice->kind == FW_OPTIMIZER || choice->kind == FW_AVERAGER;
    if (!on_device || choice->entry == NULL || device->entry == NULL) return FW_OK;
    const fw_plugin *plugin = choice->entry->plugin;
    if (plugin->devices == 0 || (plugin->devices & device->entry->plugin->devices) != 0)
        return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "%s: [%s] %s %s does not run on the device %s",
                   named_at(config, section), section, kind_name(plugin->kind), plugin->id,
                   device->entry->plugin->id);
}

/* ---- Sections ---- */

static fw_status choose(struct config *config, const char *section, const char *default_name,
                        const char **name, fw_error *error) {
    const struct config_entry *entry = config_find(config, section, "plugin");
    *name = entry != NULL ? entry->value : default_name;
    if (entry == NULL) return FW_OK;
    if (entry->value[0] == '\0')
        return fw_fail(error, FW_E_CONFIG, "%s: [%s] plugin has no value", entry->where, section);
    return config_absolute_plugin(config, entry->directory, name, error);
}

/* The counterpart is bound for a cache that needs one, which stands before it in the table. */
static bool is_used(const struct config *config, const char *section) {
    const struct plugin_choice *cache = &config->experiment.cache;
    return strcmp(section, "counterpart") != 0 ||
           (cache->entry != NULL && choice_is_unverified(cache));
}

static fw_status bind_section(struct config *config, struct registry *registry, uint32_t kinds,
                              const struct plugin_section *section, fw_error *error) {
    struct plugin_choice *choice = config_choice(config, section);
    *choice = (struct plugin_choice){
        .kind = section->kind, .section = section->name, .where = chosen_at(config, section->name)};
    const bool wanted = (kinds & CONFIG_BIND(section->kind)) != 0 && is_used(config, section->name);
    if (section->kind == FW_DEVICE) {
        choice->name = config->experiment.run.device;
        if (wanted && strcmp(choice->name, "auto") == 0)
            choice->name = has_cuda(config, registry) ? "cuda" : "cpu";
        config->experiment.run.device = choice->name;
    } else {
        FW_TRY(choose(config, section->name, section->default_plugin, &choice->name, error));
    }
    if (!wanted) return FW_OK;
    const struct sections sections = {.names = {section->name}, .n = 1};
    FW_TRY(bind(config, registry, &sections, choice, error));
    if (section->kind == FW_DEVICE && config->experiment.run.deterministic)
        make_deterministic(choice);
    return check_device(config, section->name, choice, error);
}

static bool has_section(const struct config *config, const char *section) {
    for (size_t i = 0; i < config->entries.n; i++)
        if (strcmp(config->entries.items[i].section, section) == 0) return true;
    return false;
}

/* A layer keeps what [attention] says, even where it names another plugin: keys that this plugin
 * does not have are left out. */
static fw_status bind_layer(struct config *config, struct registry *registry, bool wanted,
                            struct plugin_choice *choice, fw_error *error) {
    FW_TRY(choose(config, choice->section, config->attention.name, &choice->name, error));
    if (!wanted) return FW_OK;
    const struct sections sections = {.names = {"attention", choice->section}, .n = 2};
    FW_TRY(bind(config, registry, &sections, choice, error));
    return check_device(config, choice->section, choice, error);
}

static fw_status bind_layers(struct config *config, struct registry *registry, bool wanted,
                             fw_error *error) {
    const int64_t layers = config->experiment.model.layers;
    struct plugin_choice *choices = config_keep(config, (size_t)layers * sizeof *choices);
    if (choices == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    for (int64_t i = 0; i < layers; i++) {
        choices[i] = config->attention;
        const char *section = config_keep_text(config, "attention.%d", (int)i);
        if (section == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
        if (!has_section(config, section)) continue;
        choices[i].section = section;
        choices[i].where = chosen_at(config, section);
        FW_TRY(bind_layer(config, registry, wanted, &choices[i], error));
    }
    config->experiment.attention = choices;
    return FW_OK;
}

fw_status config_bind_all(struct config *config, struct registry *registry, uint32_t kinds,
                          fw_error *error) {
    /* The device comes first in the table, so that the others can be held against it. */
    for (size_t i = 0; i < N_PLUGIN_SECTIONS; i++)
        FW_TRY(bind_section(config, registry, kinds, &plugin_sections[i], error));
    return bind_layers(config, registry, (kinds & CONFIG_BIND(FW_ATTENTION)) != 0, error);
}
