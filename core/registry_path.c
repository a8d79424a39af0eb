/* Where plugins are looked for: named directories, the environment, the user's, the installation's.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "registry_load.h"

#define PATH_BYTES 4096

/* Append a directory; the list owns a copy. Directories that do not exist stay, for messages. */
static fw_status add_directory(struct search_path *list, const char *path, fw_error *error) {
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->directories[i], path) == 0) return FW_OK;
    char **grown = realloc(list->directories, (list->n + 2) * sizeof *grown);
    if (grown == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    list->directories = grown;
    grown[list->n] = strdup(path);
    if (grown[list->n] == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    grown[++list->n] = NULL;
    return FW_OK;
}

static fw_status add_named(struct search_path *list, const char *path, fw_error *error) {
    char absolute[PATH_MAX];
    struct stat status;
    if (realpath(path, absolute) == NULL || stat(absolute, &status) != 0)
        return fw_fail(error, FW_E_NOT_FOUND, "the plugin directory %s: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return fw_fail(error, FW_E_NOT_FOUND, "the plugin directory %s is not a directory", path);
    return add_directory(list, absolute, error);
}

static fw_status add_from_environment(struct search_path *list, fw_error *error) {
    const char *rest = getenv("FAIRWAY_PLUGIN_PATH");
    while (rest != NULL && *rest != '\0') {
        const size_t n = strcspn(rest, ":");
        char path[PATH_BYTES];
        if (n >= sizeof path)
            return fw_fail(error, FW_E_LIMIT, "FAIRWAY_PLUGIN_PATH holds a path of %zu bytes", n);
        memcpy(path, rest, n);
        path[n] = '\0';
        if (n > 0 && path[0] != '/')
            return fw_fail(error, FW_E_CONFIG,
                           "FAIRWAY_PLUGIN_PATH names the relative directory %s; plugins are never "
                           "searched from the working directory, so give its absolute path",
                           path);
        if (n > 0) FW_TRY(add_directory(list, path, error));
        rest += n + (rest[n] == ':');
    }
    return FW_OK;
}

/* PREFIX/lib/fairway/v0 beside PREFIX/bin/fairway: it works in the build tree and wherever an
 * installation is moved. The configured directory is the fallback. */
static fw_status add_installed(struct search_path *list, fw_error *error) {
    char executable[PATH_BYTES], path[PATH_BYTES + 32], real[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", executable, sizeof executable - 1);
    if (n > 0) {
        executable[n] = '\0';
        char *slash = strrchr(executable, '/');
        if (slash != NULL) *slash = '\0';
        (void)snprintf(path, sizeof path, "%s/../lib/fairway/v0", executable);
        if (realpath(path, real) != NULL) FW_TRY(add_directory(list, real, error));
    }
    return add_directory(list, FAIRWAY_LIBDIR "/fairway/v0", error);
}

fw_status search_path_build(struct search_path *list, const char *const *directories,
                            size_t n_directories, fw_error *error) {
    for (size_t i = 0; i < n_directories; i++) FW_TRY(add_named(list, directories[i], error));
    FW_TRY(add_from_environment(list, error));
    const char *home = getenv("HOME");
    if (home != NULL && home[0] == '/') {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/.local/lib/fairway/v0", home);
        FW_TRY(add_directory(list, path, error));
    }
    return add_installed(list, error);
}

void search_path_free(struct search_path *list) {
    for (size_t i = 0; i < list->n; i++) free(list->directories[i]);
    free(list->directories);
}
