/* The list of entries: which sections and keys exist, and how one layer of the configuration (a
 * file, the command line) is laid over those before it.
 *
 * When a later layer chooses another plugin for a section, the earlier keys of that section become
 * hand-me-downs: those that the new plugin knows too still apply, the others are ignored, so that a
 * part can be swapped by one line. */
#include <stdlib.h>
#include <string.h>

#include "config_entries.h"
#include "params.h"

fw_status entry_push(struct entry_list *list, struct config_entry entry, fw_error *error) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        struct config_entry *grown = realloc(list->items, capacity * sizeof *grown);
        if (grown == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->n++] = entry;
    return FW_OK;
}

struct config_entry *entry_find(const struct entry_list *list, const char *section,
                                const char *key) {
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i].section, section) == 0 && strcmp(list->items[i].key, key) == 0)
            return &list->items[i];
    return NULL;
}

const struct config_entry *config_find(const struct config *config, const char *section,
                                       const char *key) {
    return entry_find(&config->entries, section, key);
}

fw_status config_layer_list(const char *text, uint8_t layers[CONFIG_MAX_LAYERS], fw_error *error) {
    memset(layers, 0, CONFIG_MAX_LAYERS);
    const char *at = text;
    do {
        if (at != text) at++;
        char *end = NULL;
        const bool digit = *at >= '0' && *at <= '9';
        const unsigned long first = strtoul(at, &end, 10);
        unsigned long last = first;
        if (digit && *end == '-' && end[1] >= '0' && end[1] <= '9')
            last = strtoul(end + 1, &end, 10);
        if (!digit || (*end != '\0' && *end != ',') || last < first || last >= CONFIG_MAX_LAYERS)
            return fw_fail(error, FW_E_CONFIG,
                           "does not name layers; write 3, 0-6 or 0-2,5 with numbers below %d",
                           CONFIG_MAX_LAYERS);
        for (unsigned long i = first; i <= last; i++) {
            if (layers[i] != 0) return fw_fail(error, FW_E_CONFIG, "names layer %lu twice", i);
            layers[i] = 1;
        }
        at = end;
    } while (*at == ',');
    return FW_OK;
}

static fw_status unknown_section(const char *section, fw_error *error) {
    const char *names[N_CORE_SECTIONS + N_PLUGIN_SECTIONS];
    for (size_t i = 0; i < N_CORE_SECTIONS; i++) names[i] = core_sections[i].name;
    for (size_t i = 0; i < N_PLUGIN_SECTIONS; i++)
        names[N_CORE_SECTIONS + i] = plugin_sections[i].name;
    const char *near = nearest_name(section, names, sizeof names / sizeof names[0]);
    if (near != NULL)
        return fw_fail(error, FW_E_CONFIG, "there is no section [%.64s]; did you mean [%s]?",
                       section, near);
    return fw_fail(error, FW_E_CONFIG,
                   "there is no section [%.64s]; known are run, data, model, eval, device, "
                   "tokenizer, attention, optimizer.matrix, optimizer.embed, optimizer.scalar, "
                   "average, quantize, compress, cache and counterpart",
                   section);
}

static bool layers_section(const char *section) { return strncmp(section, "attention.", 10) == 0; }

/* Known section; [attention.LAYERS] also fills `layers`. */
static fw_status check_section(const char *section, uint8_t layers[CONFIG_MAX_LAYERS],
                               fw_error *error) {
    if (layers_section(section)) {
        fw_error why = {.struct_size = sizeof why};
        if (config_layer_list(section + 10, layers, &why) == FW_OK) return FW_OK;
        return fw_fail(error, FW_E_CONFIG, "[%.200s] %s", section, why.message);
    }
    if (core_section_find(section) != NULL || plugin_section_find(section) != NULL) return FW_OK;
    return unknown_section(section, error);
}

/* Keys of plugins are checked once the plugin is known. */
static fw_status check_key(const char *section_name, const char *key, fw_error *error) {
    if (strcmp(section_name, "device") == 0 && strcmp(key, "plugin") == 0)
        return fw_fail(error, FW_E_CONFIG, "[device] has no plugin key; set device in [run]");
    const struct core_section *section = core_section_find(section_name);
    if (section == NULL || core_key_find(section, key) != NULL) return FW_OK;
    const char *names[64];
    size_t n = 0;
    for (; n < section->n_keys; n++) names[n] = section->keys[n].param.key;
    const char *near = nearest_name(key, names, n);
    if (near != NULL)
        return fw_fail(error, FW_E_CONFIG, "[%s] has no key '%.64s'; did you mean '%s'?",
                       section_name, key, near);
    for (size_t i = 0; i < N_CORE_SECTIONS; i++)
        if (core_key_find(&core_sections[i], key) != NULL)
            return fw_fail(error, FW_E_CONFIG, "[%s] has no key '%s'; it belongs to [%s]",
                           section_name, key, core_sections[i].name);
    return fw_fail(error, FW_E_CONFIG,
                   "[%s] has no key '%.64s'; `fairway plugins --reference` lists them",
                   section_name, key);
}

bool config_value_writable(const char *value) {
    const size_t n = strlen(value);
    if (n == 0) return true;
    if (n > CONFIG_LINE_BYTES - 256 || strchr(" \t;", value[0]) != NULL ||
        strchr(" \t", value[n - 1]) != NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)value[i] < 0x20 && value[i] != '\t') return false;
        if (value[i] == ';' && strchr(" \t", value[i - 1]) != NULL) return false;
    }
    return true;
}

fw_status scope_enter(struct scope *scope, const char *section, fw_error *error) {
    if (section == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    FW_TRY(check_section(section, scope->layers, error));
    scope->section = section;
    scope->in_layers = layers_section(section);
    return FW_OK;
}

static fw_status add_entry(struct scope *scope, const char *section, const char *key,
                           const char *value, const char *where, fw_error *error) {
    const struct config_entry *twin = entry_find(&scope->entries, section, key);
    if (twin != NULL)
        return fw_fail(error, FW_E_CONFIG, "[%s] %s is already set at %s", section, key,
                       twin->where);
    const struct config_entry entry = {.section = section,
                                       .key = key,
                                       .value = value,
                                       .where = where,
                                       .directory = scope->directory};
    return entry_push(&scope->entries, entry, error);
}

static fw_status add_for_layers(struct scope *scope, const char *key, const char *value,
                                const char *where, fw_error *error) {
    for (int i = 0; i < CONFIG_MAX_LAYERS; i++) {
        if (scope->layers[i] == 0) continue;
        const char *section = config_keep_text(scope->config, "attention.%d", i);
        if (section == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
        FW_TRY(add_entry(scope, section, key, value, where, error));
    }
    return FW_OK;
}

static fw_status set_base(struct scope *scope, const char *value, const char *where,
                          fw_error *error) {
    if (scope->base != NULL)
        return fw_fail(error, FW_E_CONFIG, "[run] base is already set at %s", scope->base_where);
    if (value[0] == '\0') return fw_fail(error, FW_E_CONFIG, "[run] base has no value");
    scope->base = value;
    scope->base_where = where;
    return FW_OK;
}

fw_status scope_set(struct scope *scope, const char *name, const char *text, const char *where,
                    fw_error *error) {
    const char *key = config_keep_text(scope->config, "%s", name);
    const char *value = config_keep_text(scope->config, "%s", text);
    if (key == NULL || value == NULL || where == NULL)
        return fw_fail(error, FW_E_MEMORY, "out of memory");
    if (strcmp(scope->section, "run") == 0 && strcmp(key, "base") == 0)
        return set_base(scope, value, where, error);
    FW_TRY(check_key(scope->section, key, error));
    if (scope->in_layers) return add_for_layers(scope, key, value, where, error);
    return add_entry(scope, scope->section, key, value, where, error);
}

static void hand_down(struct config *config, const char *section) {
    struct entry_list *list = &config->entries;
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i].section, section) == 0) list->items[i].hand_me_down = true;
}

static const char *current_plugin(const struct config *config, const char *section) {
    const bool device = strcmp(section, "device") == 0;
    const struct config_entry *entry =
        config_find(config, device ? "run" : section, device ? "device" : "plugin");
    if (entry != NULL) return entry->value;
    if (device) return "auto";
    if (layers_section(section)) return current_plugin(config, "attention");
    return plugin_section_find(section)->default_plugin;
}

static void hand_down_replaced(struct config *config, const struct config_entry *entry) {
    const bool device = strcmp(entry->section, "run") == 0 && strcmp(entry->key, "device") == 0;
    if (!device && strcmp(entry->key, "plugin") != 0) return;
    const char *section = device ? "device" : entry->section;
    if (strcmp(current_plugin(config, section), entry->value) == 0) return;
    if (strcmp(section, "attention") == 0) {
        for (int i = 0; i < CONFIG_MAX_LAYERS; i++) {
            char layer[32];
            (void)snprintf(layer, sizeof layer, "attention.%d", i);
            if (config_find(config, layer, "plugin") == NULL) hand_down(config, layer);
        }
    }
    hand_down(config, section);
}

fw_status config_merge(struct config *config, const struct entry_list *layer, fw_error *error) {
    config->layers++;
    for (size_t i = 0; i < layer->n; i++) hand_down_replaced(config, &layer->items[i]);
    for (size_t i = 0; i < layer->n; i++) {
        struct config_entry entry = layer->items[i];
        entry.layer = config->layers;
        struct config_entry *present = entry_find(&config->entries, entry.section, entry.key);
        if (present != NULL)
            *present = entry;
        else
            FW_TRY(entry_push(&config->entries, entry, error));
    }
    return FW_OK;
}
