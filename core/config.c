/* The experiment: entries -> typed, checked, bound to plugins. The story is config_resolve. */
#include "config.h"

#include <fairway/cache.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_bind.h"
#include "files.h"
#include "params.h"

struct kept {
    struct kept *next;
    _Alignas(max_align_t) unsigned char bytes[];
};

void *config_keep(struct config *config, size_t bytes) {
    struct kept *kept = calloc(1, sizeof *kept + bytes);
    if (kept == NULL) return NULL;
    kept->next = config->kept;
    config->kept = kept;
    return kept->bytes;
}

const char *config_keep_text(struct config *config, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int n = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = n < 0 ? NULL : config_keep(config, (size_t)n + 1);
    if (text != NULL) (void)vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

fw_status config_load(const char *path, const char *text, const char *const *overrides,
                      size_t n_overrides, struct config **config, fw_error *error) {
    struct config *created = calloc(1, sizeof *created);
    if (created == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    created->path = config_keep_text(created, "%s", path);
    fw_status status = created->path != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "out of memory");
    if (status == FW_OK) status = config_read(created, text, overrides, n_overrides, error);
    if (status != FW_OK) {
        config_destroy(created);
        return status;
    }
    *config = created;
    return FW_OK;
}

void config_destroy(struct config *config) {
    if (config == NULL) return;
    for (struct kept *kept = config->kept, *next; kept != NULL; kept = next) {
        next = kept->next;
        free(kept);
    }
    free(config->entries.items);
    free(config);
}

const char *config_where(const struct config *config, const char *section, const char *key) {
    const struct config_entry *entry = config_find(config, section, key);
    return entry != NULL ? entry->where : "default";
}

/* Where to point for a key that may not have been given. */
const char *config_place(const struct config *config, const char *section, const char *key) {
    const struct config_entry *entry = config_find(config, section, key);
    return entry != NULL ? entry->where : config->path;
}

bool choice_is_on(const struct plugin_choice *choice) {
    return strcmp(choice->entry->plugin->id, "none") != 0;
}

bool choice_is_unverified(const struct plugin_choice *choice) {
    const fw_cache *cache = choice->entry->plugin->vtable;
    return choice->kind == FW_CACHE && FW_COVERS(cache, unverified) && cache->unverified != 0;
}

fw_status choice_fail(const struct plugin_choice *choice, fw_status status, const char *why,
                      fw_error *error) {
    return fw_fail(error, status, "%s: [%s] plugin %s: %s",
                   choice->where != NULL ? choice->where : "default", choice->section,
                   choice->entry != NULL ? choice->entry->plugin->id : choice->name, why);
}

/* ---- Core keys ---- */

static void store(struct experiment *experiment, const struct core_key *key, fw_value value) {
    void *to = (char *)experiment + key->offset;
    switch (key->param.type) {
    case FW_PARAM_BOOL: *(bool *)to = value.integer != 0; break;
    case FW_PARAM_INT:
    case FW_PARAM_ENUM: *(int64_t *)to = value.integer; break;
    case FW_PARAM_FLOAT: *(double *)to = value.real; break;
    default: *(const char **)to = value.text; break;
    }
}

static fw_status default_name(struct config *config, fw_value *value, fw_error *error) {
    if (value->text[0] == '\0') {
        const char *slash = strrchr(config->path, '/');
        const char *file = slash != NULL ? slash + 1 : config->path;
        size_t n = strlen(file);
        if (n > 4 && strcmp(file + n - 4, ".ini") == 0) n -= 4;
        value->text = config_keep_text(config, "%.*s", (int)n, file);
        if (value->text == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    }
    const char *name = value->text;
    if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return fw_fail(error, FW_E_CONFIG, "name = %s cannot be the name of a directory", name);
    return FW_OK;
}

static fw_status default_output(struct config *config, const char *directory, fw_value *value,
                                fw_error *error) {
    if (value->text[0] != '\0') return config_absolute(config, directory, &value->text, error);
    char working[PATH_MAX];
    if (getcwd(working, sizeof working) == NULL)
        return fw_fail(error, FW_E_IO, "the working directory is gone");
    value->text = config_keep_text(config, "%s/runs/%s", working, config->experiment.run.name);
    return value->text != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "out of memory");
}

static fw_status complete_text(struct config *config, const struct core_key *key,
                               const char *directory, fw_value *value, fw_error *error) {
    switch (key->text) {
    case KEY_PLAIN: return FW_OK;
    case KEY_NAME: return default_name(config, value, error);
    case KEY_OUTPUT: return default_output(config, directory, value, error);
    case KEY_SOURCES: return config_absolute_sources(config, directory, &value->text, error);
    case KEY_PLUGIN: return config_absolute_plugin(config, directory, &value->text, error);
    }
    return FW_OK;
}

static fw_status resolve_key(struct config *config, const struct core_section *section,
                             const struct core_key *key, fw_error *error) {
    const struct config_entry *entry = config_find(config, section->name, key->param.key);
    const char *text = entry != NULL ? entry->value : key->param.default_text;
    const char *directory = entry != NULL ? entry->directory : config->directory;
    fw_value value;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = param_parse(&key->param, text, &value, &why);
    if (status == FW_OK) status = complete_text(config, key, directory, &value, &why);
    if (status != FW_OK)
        return fw_fail(error, status, "%s: [%s] %s",
                       config_place(config, section->name, key->param.key), section->name,
                       why.message);
    store(&config->experiment, key, value);
    return FW_OK;
}

static fw_status resolve_core(struct config *config, fw_error *error) {
    for (size_t i = 0; i < N_CORE_SECTIONS; i++)
        for (size_t k = 0; k < core_sections[i].n_keys; k++)
            FW_TRY(resolve_key(config, &core_sections[i], &core_sections[i].keys[k], error));
    return FW_OK;
}

/* What decides the results, see config_text. */
static fw_status hash_text(const struct config *config, const char *const *sections,
                           enum config_purpose purpose, char hex[65], fw_error *error) {
    char *text = NULL;
    FW_TRY(config_write(config, sections, purpose, &text, error));
    uint8_t hash[32];
    sha256_bytes(text, strlen(text), hash);
    sha256_hex(hash, hex);
    free(text);
    return FW_OK;
}

static fw_status hash_experiment(struct config *config, fw_error *error) {
    struct experiment *experiment = &config->experiment;
    FW_TRY(hash_text(config, NULL, CONFIG_FOR_HASH, experiment->hash, error));
    return hash_text(config, NULL, CONFIG_FOR_SEEDLESS_HASH, experiment->seedless_hash, error);
}

fw_status config_sections_hash(const struct config *config, const char *const *sections,
                               char hex[65], fw_error *error) {
    return hash_text(config, sections, CONFIG_FOR_HASH, hex, error);
}

fw_status config_resolve(struct config *config, struct registry *registry, uint32_t bind,
                         const struct experiment **experiment, fw_error *error) {
    config->resolved = false;
    memset(&config->experiment, 0, sizeof config->experiment);
    FW_TRY(resolve_core(config, error));
    FW_TRY(config_check(config, bind, error));
    FW_TRY(config_bind_all(config, registry, bind, error));
    config->resolved = true;
    const fw_status status = hash_experiment(config, error);
    config->resolved = status == FW_OK;
    if (status == FW_OK) *experiment = &config->experiment;
    return status;
}

fw_status config_text(const struct config *config, const char *const *sections, char **text,
                      fw_error *error) {
    return config_write(config, sections, CONFIG_FOR_INI, text, error);
}
