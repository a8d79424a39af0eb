/* The registry's two halves: where modules are looked for, and how one is loaded and verified. */
#ifndef FAIRWAY_REGISTRY_LOAD_H
#define FAIRWAY_REGISTRY_LOAD_H

#include <fairway/error.h>
#include <fairway/plugin.h>
#include <stdbool.h>

/* Load and verify the module at `path` (absolute). Errors are sentences that begin with the path:
 * E_NOT_FOUND (no such file), E_IO (the dynamic loader's reason), E_ABI and E_CONFIG as described
 * in registry.h. */
fw_status module_load(const char *path, const fw_module **module, fw_error *error);

/* The checks of a module that has been loaded, or described. E_ABI, E_CONFIG. */
fw_status module_check(const char *path, const fw_module *module, fw_error *error);

/* What the module at `path` says of its caches, loaded by a process of its own and not by this one.
 * Errors: those of module_load; E_IO: that process could not be started, died, or took longer than
 * `seconds`. */
struct plugin_record;
fw_status module_describe(const char *path, double seconds, struct plugin_record **record,
                          fw_error *error);

/* Directories in the order of registry.h; NULL-terminated. Starts out zeroed; free it also when
 * building failed. Errors: E_NOT_FOUND, E_CONFIG, E_LIMIT, E_MEMORY. */
struct search_path {
    char **directories;
    size_t n;
};
fw_status search_path_build(struct search_path *list, const char *const *directories,
                            size_t n_directories, fw_error *error);
void search_path_free(struct search_path *list);

/* Lower case letters, digits and underscores, a letter first, at most 63. */
bool plugin_id_well_formed(const char *id);

#endif
