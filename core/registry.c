/* The registry: where plugins are looked for, which modules are loaded, and what they offer. */
#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "params.h"
#include "plugin_record.h"
#include "registry_load.h"

#define PATH_BYTES 4096

/* A module by its real path. Refusals are kept too: a constructor runs only once, so a second try
 * could not see again that loading changes the floating-point environment. */
struct loaded {
    char *path;
    fw_status status;
    char *why; /* of a refusal */
    const fw_module *module;
    struct plugin_record *record; /* of a module that another process has loaded; else NULL */
    bool apart;
    struct registry_entry *entries; /* module->n_plugins; plugin is NULL for unknown kinds */
};

/* Where a module is loaded: by this process, or by one of its own within `seconds`. */
struct place {
    bool apart;
    double seconds;
};
static const struct place here = {.apart = false};

struct registry {
    struct search_path path;
    struct loaded **loaded;
    size_t n_loaded;
    const struct registry_entry **listed; /* by registry_scan */
    size_t n_listed;
};

const char *kind_name(uint32_t kind) {
    switch (kind) {
#define KIND_CASE(name, value, text)                                                               \
    case value: return text;
        FW_KIND_MAP(KIND_CASE)
#undef KIND_CASE
    default: return "unknown";
    }
}

uint32_t kind_from_name(const char *name) {
#define KIND_TEST(kind, value, text)                                                               \
    if (strcmp(name, text) == 0) return value;
    FW_KIND_MAP(KIND_TEST)
#undef KIND_TEST
    return 0;
}

fw_status registry_create(const char *const *directories, size_t n_directories,
                          struct registry **registry, fw_error *error) {
    struct registry *created = calloc(1, sizeof *created);
    if (created == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    const fw_status status = search_path_build(&created->path, directories, n_directories, error);
    if (status != FW_OK) {
        registry_destroy(created);
        return status;
    }
    *registry = created;
    return FW_OK;
}

static void loaded_free(struct loaded *loaded) {
    free(loaded->path);
    free(loaded->why);
    free(loaded->entries);
    plugin_record_free(loaded->record);
    free(loaded);
}

void registry_destroy(struct registry *registry) {
    if (registry == NULL) return;
    for (size_t i = 0; i < registry->n_loaded; i++) loaded_free(registry->loaded[i]);
    search_path_free(&registry->path);
    free(registry->loaded);
    free(registry->listed);
    free(registry);
}

const char *const *registry_directories(const struct registry *registry) {
    return (const char *const *)registry->path.directories;
}

static bool kind_listed(uint32_t kind) { return strcmp(kind_name(kind), "unknown") != 0; }

static fw_status fill_entries(struct loaded *loaded, fw_error *error) {
    uint8_t hash[32];
    FW_TRY(sha256_file(loaded->path, hash, error));
    loaded->entries = calloc(loaded->module->n_plugins, sizeof *loaded->entries);
    if (loaded->entries == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    for (uint32_t i = 0; i < loaded->module->n_plugins; i++) {
        const fw_plugin *plugin = loaded->module->plugins[i];
        if (!kind_listed(plugin->kind)) continue;
        loaded->entries[i].plugin = plugin;
        loaded->entries[i].path = loaded->path;
        memcpy(loaded->entries[i].sha256, hash, sizeof hash);
    }
    return FW_OK;
}

static fw_status load_at(const char *path, struct place place, struct loaded *loaded,
                         fw_error *error) {
    if (!place.apart) return module_load(path, &loaded->module, error);
    FW_TRY(module_describe(path, place.seconds, &loaded->record, error));
    loaded->module = plugin_record_module(loaded->record);
    return FW_OK;
}

/* Load `path` for the first time and remember the outcome. */
static fw_status remember(struct registry *registry, const char *path, struct place place,
                          struct loaded **result, fw_error *error) {
    struct loaded **grown =
        realloc(registry->loaded, (registry->n_loaded + 1) * sizeof(struct loaded *));
    struct loaded *loaded = calloc(1, sizeof *loaded);
    if (grown != NULL) registry->loaded = grown;
    if (loaded == NULL || grown == NULL || (loaded->path = strdup(path)) == NULL) {
        free(loaded);
        return fw_fail(error, FW_E_MEMORY, "out of memory");
    }
    registry->loaded[registry->n_loaded++] = loaded;
    fw_error why = {.struct_size = sizeof why};
    loaded->apart = place.apart;
    loaded->status = load_at(path, place, loaded, &why);
    if (loaded->status == FW_OK) loaded->status = fill_entries(loaded, &why);
    if (loaded->status != FW_OK) loaded->why = strdup(why.message);
    *result = loaded;
    return FW_OK;
}

/* A process of its own holds nothing back from a module that this process runs as well. */
static fw_status check_place(const struct loaded *loaded, struct place place, fw_error *error) {
    if (loaded->apart == place.apart) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: the run uses this module both in its own process and, for eval.isolate, in "
                   "another, which would isolate nothing; a cache to be isolated needs a module of "
                   "its own",
                   loaded->path);
}

/* The module at `path`, loaded once. A file that is absent is not remembered. */
static fw_status load(struct registry *registry, const char *path, struct place place,
                      const struct loaded **result, fw_error *error) {
    char real[PATH_MAX];
    if (realpath(path, real) == NULL)
        return fw_fail(error, FW_E_NOT_FOUND, "%s: %s", path,
                       errno == ENOENT ? "no such file" : strerror(errno));
    struct loaded *loaded = NULL;
    for (size_t i = 0; i < registry->n_loaded && loaded == NULL; i++)
        if (strcmp(registry->loaded[i]->path, real) == 0) loaded = registry->loaded[i];
    if (loaded == NULL) FW_TRY(remember(registry, real, place, &loaded, error));
    FW_TRY(check_place(loaded, place, error));
    if (loaded->status != FW_OK)
        return fw_fail(error, loaded->status, "%s",
                       loaded->why != NULL ? loaded->why : "the module was refused");
    *result = loaded;
    return FW_OK;
}

/* A growing sentence in a fixed buffer; what does not fit is cut. */
struct sentence {
    char text[900];
    size_t length;
};

static void append(struct sentence *sentence, const char *format, ...) FW_PRINTF(2, 3);
static void append(struct sentence *sentence, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const size_t room = sizeof sentence->text - sentence->length;
    const int n = vsnprintf(sentence->text + sentence->length, room, format, arguments);
    va_end(arguments);
    if (n > 0) sentence->length += (size_t)n < room ? (size_t)n : room - 1;
}

/* The plugin of `kind` with id `id` (NULL: the only one of the kind) in a module. */
static fw_status pick(const struct loaded *loaded, uint32_t kind, const char *id,
                      const struct registry_entry **entry, fw_error *error) {
    const struct registry_entry *found = NULL;
    size_t n_found = 0;
    struct sentence offers = {.text = ""};
    for (uint32_t i = 0; i < loaded->module->n_plugins; i++) {
        const struct registry_entry *candidate = &loaded->entries[i];
        if (candidate->plugin == NULL) continue;
        append(&offers, "%s%s %s", offers.length > 0 ? ", " : "",
               kind_name(candidate->plugin->kind), candidate->plugin->id);
        if (candidate->plugin->kind != kind) continue;
        if (id != NULL && strcmp(candidate->plugin->id, id) != 0) continue;
        found = candidate;
        n_found++;
    }
    if (n_found == 1) {
        *entry = found;
        return FW_OK;
    }
    if (n_found > 1)
        return fw_fail(error, FW_E_CONFIG,
                       "%s holds several plugins of kind %s; choose one as %s:ID (it has %s)",
                       loaded->path, kind_name(kind), loaded->path, offers.text);
    return fw_fail(error, FW_E_NOT_FOUND, "%s has no %s%s%s; it has %s", loaded->path,
                   kind_name(kind), id != NULL ? " " : "", id != NULL ? id : "",
                   offers.length > 0 ? offers.text : "none that this host knows");
}

static fw_status find_by_path(struct registry *registry, uint32_t kind, const char *name,
                              struct place place, const struct registry_entry **entry,
                              fw_error *error) {
    if (name[0] != '/')
        return fw_fail(error, FW_E_CONFIG, "the plugin's path %s is not absolute", name);
    char path[PATH_BYTES];
    if (strlen(name) >= sizeof path)
        return fw_fail(error, FW_E_LIMIT, "a plugin's path of %zu bytes is too long", strlen(name));
    memcpy(path, name, strlen(name) + 1);
    char *colon = strrchr(path, ':');
    const char *id = NULL;
    if (colon != NULL && colon > strrchr(path, '/') && access(path, F_OK) != 0) {
        *colon = '\0';
        id = colon + 1;
    }
    const struct loaded *loaded = NULL;
    FW_TRY(load(registry, path, place, &loaded, error));
    return pick(loaded, kind, id, entry, error);
}

/* The id inside "KIND-ID.so", or false. */
static bool id_of_file(const char *file, uint32_t kind, char *id, size_t size) {
    const size_t prefix = strlen(kind_name(kind)), length = strlen(file);
    if (length < prefix + 5 || strncmp(file, kind_name(kind), prefix) != 0 || file[prefix] != '-' ||
        strcmp(file + length - 3, ".so") != 0 || length - prefix - 4 >= size)
        return false;
    memcpy(id, file + prefix + 1, length - prefix - 4);
    id[length - prefix - 4] = '\0';
    return true;
}

enum { MAX_SUGGESTIONS = 64 };

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static size_t list_ids(const struct registry *registry, uint32_t kind,
                       char ids[MAX_SUGGESTIONS][64]) {
    size_t n = 0;
    for (size_t i = 0; i < registry->path.n; i++) {
        DIR *directory = opendir(registry->path.directories[i]);
        if (directory == NULL) continue;
        for (struct dirent *e; n < MAX_SUGGESTIONS && (e = readdir(directory)) != NULL;)
            if (id_of_file(e->d_name, kind, ids[n], sizeof ids[n])) n++;
        (void)closedir(directory);
    }
    qsort(ids, n, sizeof ids[0], by_text);
    return n;
}

/* "; did you mean X?" or "; there are A, B" from the files present. */
static void suggest(const struct registry *registry, uint32_t kind, const char *name,
                    struct sentence *sentence) {
    char ids[MAX_SUGGESTIONS][64];
    const char *names[MAX_SUGGESTIONS];
    const size_t n = list_ids(registry, kind, ids);
    for (size_t i = 0; i < n; i++) names[i] = ids[i];
    const char *near = nearest_name(name, names, n);
    if (near != NULL) {
        append(sentence, "; did you mean '%s'?", near);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
            append(sentence, "%s'%s'", i == 0 ? "; there are " : ", ", names[i]);
}

static fw_status find(struct registry *registry, uint32_t kind, const char *name,
                      struct place place, const struct registry_entry **entry, fw_error *error) {
    if (strchr(name, '/') != NULL) return find_by_path(registry, kind, name, place, entry, error);
    if (!plugin_id_well_formed(name))
        return fw_fail(error, FW_E_CONFIG,
                       "'%s' does not name a plugin: use an id of lower case letters, digits and "
                       "_, or a path with a '/'",
                       name);
    struct sentence tried = {.text = ""};
    for (size_t i = 0; i < registry->path.n; i++) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s-%s.so", registry->path.directories[i],
                       kind_name(kind), name);
        const struct loaded *loaded = NULL;
        fw_error why = {.struct_size = sizeof why};
        const fw_status status = load(registry, path, place, &loaded, &why);
        if (status == FW_OK) return pick(loaded, kind, name, entry, error);
        /* A broken module is not passed over: the next one of that name may be another program. */
        if (status != FW_E_NOT_FOUND) return fw_fail(error, status, "%s", why.message);
        append(&tried, "%s%s", i > 0 ? "; " : "", why.message);
    }
    struct sentence hint = {.text = ""};
    suggest(registry, kind, name, &hint);
    const size_t n = strlen(hint.text);
    const bool asks = n > 0 && hint.text[n - 1] == '?';
    return fw_fail(error, FW_E_NOT_FOUND, "no %s plugin '%s'%s%s Tried %s", kind_name(kind), name,
                   hint.text, asks ? "" : ".", tried.text);
}

fw_status registry_find(struct registry *registry, uint32_t kind, const char *name,
                        const struct registry_entry **entry, fw_error *error) {
    return find(registry, kind, name, here, entry, error);
}

fw_status registry_find_apart(struct registry *registry, uint32_t kind, const char *name,
                              double seconds, const struct registry_entry **entry,
                              fw_error *error) {
    const struct place apart = {.apart = true, .seconds = seconds};
    if (kind != FW_CACHE)
        return fw_fail(error, FW_E_INTERNAL,
                       "a plugin of kind %s cannot sit in a process of its own", kind_name(kind));
    return find(registry, kind, name, apart, entry, error);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_module(const struct dirent *entry) {
    const size_t n = strlen(entry->d_name);
    return n > 3 && strcmp(entry->d_name + n - 3, ".so") == 0;
}

/* The module's file is KIND-ID.so, so that registry_find would find the plugin there. */
static bool own_file(const struct registry_entry *entry) {
    char id[64];
    const char *file = strrchr(entry->path, '/') + 1;
    return id_of_file(file, entry->plugin->kind, id, sizeof id) &&
           strcmp(id, entry->plugin->id) == 0;
}

static bool same_directory(const char *a, const char *b) {
    const ptrdiff_t n = strrchr(a, '/') - a;
    return n == strrchr(b, '/') - b && strncmp(a, b, (size_t)n) == 0;
}

static fw_status list_entry(struct registry *registry, const struct registry_entry *entry,
                            fw_error *error) {
    if (entry->plugin == NULL) return FW_OK;
    for (size_t i = 0; i < registry->n_listed; i++) {
        const struct registry_entry *other = registry->listed[i];
        if (other->plugin->kind != entry->plugin->kind ||
            strcmp(other->plugin->id, entry->plugin->id) != 0)
            continue;
        if (own_file(entry) && same_directory(entry->path, other->path))
            registry->listed[i] = entry;
        return FW_OK;
    }
    const struct registry_entry **grown =
        realloc(registry->listed, (registry->n_listed + 1) * sizeof(const struct registry_entry *));
    if (grown == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    registry->listed = grown;
    grown[registry->n_listed++] = entry;
    return FW_OK;
}

struct scan {
    void (*broken)(void *argument, const char *path, const char *why);
    void *argument;
};

static fw_status scan_file(struct registry *registry, const char *path, const struct scan *scan,
                           fw_error *error) {
    const struct loaded *loaded = NULL;
    fw_error why = {.struct_size = sizeof why};
    if (load(registry, path, here, &loaded, &why) != FW_OK) {
        const size_t n = strlen(path);
        const char *reason = why.message;
        if (strncmp(reason, path, n) == 0 && reason[n] == ':') reason += n + 2;
        if (scan->broken != NULL) scan->broken(scan->argument, path, reason);
        return FW_OK;
    }
    for (uint32_t i = 0; i < loaded->module->n_plugins; i++)
        FW_TRY(list_entry(registry, &loaded->entries[i], error));
    return FW_OK;
}

static fw_status scan_directory(struct registry *registry, const char *directory,
                                const struct scan *scan, fw_error *error) {
    struct dirent **files = NULL;
    const int n = scandir(directory, &files, is_module, by_name);
    fw_status status = FW_OK;
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", directory, files[i]->d_name);
        if (status == FW_OK) status = scan_file(registry, path, scan, error);
        free(files[i]);
    }
    free(files);
    return status;
}

static int by_kind_and_id(const void *a, const void *b) {
    const fw_plugin *left = (*(const struct registry_entry *const *)a)->plugin;
    const fw_plugin *right = (*(const struct registry_entry *const *)b)->plugin;
    if (left->kind != right->kind) return left->kind < right->kind ? -1 : 1;
    return strcmp(left->id, right->id);
}

fw_status registry_scan(struct registry *registry,
                        void (*broken)(void *argument, const char *path, const char *why),
                        void *argument, fw_error *error) {
    const struct scan scan = {.broken = broken, .argument = argument};
    registry->n_listed = 0;
    for (size_t i = 0; i < registry->path.n; i++)
        FW_TRY(scan_directory(registry, registry->path.directories[i], &scan, error));
    if (registry->n_listed > 0)
        qsort(registry->listed, registry->n_listed, sizeof *registry->listed, by_kind_and_id);
    return FW_OK;
}

size_t registry_count(const struct registry *registry) { return registry->n_listed; }

const struct registry_entry *registry_get(const struct registry *registry, size_t index) {
    return index < registry->n_listed ? registry->listed[index] : NULL;
}
