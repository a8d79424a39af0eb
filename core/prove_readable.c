#include "prove_readable.h"

#include <stdlib.h>
#include <string.h>

#include "registry.h"

static void add(struct prove_readable *readable, const char *path) {
    const size_t most = sizeof readable->paths / sizeof readable->paths[0] - 1;
    if (readable->n < most) readable->paths[readable->n++] = path;
}

/* A copy of the first n characters, with a slash behind a folder of libraries. */
static void add_copy(struct prove_readable *readable, const char *path, size_t n, bool folder) {
    const size_t room = sizeof readable->texts - readable->used;
    if (n == 0 || n + 2 > room) return;
    char *copy = readable->texts + readable->used;
    const int length = snprintf(copy, room, "%.*s%s", (int)n, path, folder ? "/" : "");
    readable->used += (size_t)length + 1;
    add(readable, copy);
}

static void add_system(struct prove_readable *readable) {
    static const char *const paths[] = {
        "/lib/",          "/lib64/",         "/usr/lib/",     "/usr/lib64/",
        "/usr/local/",    "/opt/",           "/proc/self",    "/etc/ld.so.cache",
        "/proc/cpuinfo",  "/proc/meminfo",   "/proc/version", "/etc/ld.so.preload",
        "/dev/null",      "/proc/self/fd/3", "/proc/stat",    "/sys/devices/system",
        "/proc/self/exe", "/proc/self/fd/4"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) add(readable, paths[i]);
    const char *next = getenv("LD_LIBRARY_PATH");
    while (next != NULL && *next != '\0') {
        const size_t n = strcspn(next, ":");
        add_copy(readable, next, n, true);
        next += n + (next[n] == ':' ? 1 : 0);
    }
}

/* "cache.plugin=/path/to/mine.so:ID" */
static void add_plugin(struct prove_readable *readable, const char *text) {
    static const char key[] = ".plugin";
    const size_t n = strcspn(text, "=");
    if (n < sizeof key || strncmp(text + n - (sizeof key - 1), key, sizeof key - 1) != 0) return;
    const char *path = text + n + (text[n] == '=' ? 1 : 0);
    if (path[0] != '/') return;
    const char *colon = strrchr(path, ':');
    add_copy(readable, path, strlen(path), false);
    if (colon != NULL) add_copy(readable, path, (size_t)(colon - path), false);
}

fw_status prove_readable_list(const struct arguments *arguments, const char *model,
                              struct prove_readable *readable, fw_error *error) {
    *readable = (struct prove_readable){.n = 0};
    struct registry *registry = NULL;
    FW_TRY(registry_create(arguments->plugin_directories, arguments->n_plugin_directories,
                           &registry, error));
    add_system(readable);
    for (const char *const *path = registry_directories(registry); *path != NULL; path++)
        add_copy(readable, *path, strlen(*path), true);
    registry_destroy(registry);
    for (size_t i = 0; i < arguments->n_overrides; i++)
        add_plugin(readable, arguments->overrides[i]);
    if (model != NULL) add_copy(readable, model, strlen(model), false);
    return FW_OK;
}
