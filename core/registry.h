/* The registry: finds, loads, verifies and describes plugins.
 *
 * `plugin = NAME` in the INI is an id, searched as KIND-ID.so in: every --plugin-dir, each
 * directory of FAIRWAY_PLUGIN_PATH (colon-separated), ~/.local/lib/fairway/v0, and the
 * installation's directory (found relative to the executable, else as configured). A NAME with a
 * '/' is a path to a module; it must be absolute ("/path/to/mine.so", or "/path/to/mine.so:ID" when
 * it lists several of the kind). Never the working directory. Only named plugins are loaded. */
#ifndef FAIRWAY_REGISTRY_H
#define FAIRWAY_REGISTRY_H

#include <fairway/error.h>
#include <fairway/plugin.h>

struct registry;

struct registry_entry {
    const fw_plugin *plugin;
    const char *path;   /* of the module, absolute */
    uint8_t sha256[32]; /* of the module's file */
};

/* `directories` are searched first, in order. */
fw_status registry_create(const char *const *directories, size_t n_directories,
                          struct registry **registry, fw_error *error);
void registry_destroy(struct registry *registry); /* modules stay loaded */

/* The plugin `name` of `kind`, loaded and verified once. The error lists every path tried with its
 * reason (E_NOT_FOUND), or says what is wrong with the module: no Fairway symbol, magic, pointer
 * size, needs a newer host (E_ABI, both values printed), no plugin of that kind and id (names those
 * that it has), a library that changes the floating-point environment, a broken parameter table or
 * vtable. */
fw_status registry_find(struct registry *registry, uint32_t kind, const char *name,
                        const struct registry_entry **entry, fw_error *error);

/* The same without loading the module into this process: one of its own does, and says what it
 * found. The entry's vtable declares what the plugin's does, but its functions cannot be called.
 * Caches alone can be found so; cache_seat.h is what uses such an entry. Besides: E_CONFIG when
 * this process has loaded the module already, or is asked to later on, because then nothing would
 * be gained; E_PROTOCOL when the process dies of it or takes longer than `seconds`. */
fw_status registry_find_apart(struct registry *registry, uint32_t kind, const char *name,
                              double seconds, const struct registry_entry **entry, fw_error *error);

/* Load every module in the search path; broken ones are reported through `broken` (may be NULL) and
 * skipped. Then entries can be listed by index, sorted by kind and id; first path wins. */
fw_status registry_scan(struct registry *registry,
                        void (*broken)(void *argument, const char *path, const char *why),
                        void *argument, fw_error *error);
size_t registry_count(const struct registry *registry);
const struct registry_entry *registry_get(const struct registry *registry, size_t index);

/* The directories searched, in order; NULL-terminated, owned by the registry. */
const char *const *registry_directories(const struct registry *registry);

/* "attention" <-> FW_ATTENTION; kind_name gives "unknown" and kind_from_name 0 when there is none.
 */
const char *kind_name(uint32_t kind);
uint32_t kind_from_name(const char *name);

#endif
