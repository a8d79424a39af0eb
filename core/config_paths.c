/* Relative paths in an INI start at its directory, those of --set at the working directory. */
#include <string.h>

#include "config_bind.h"
#include "corpus.h"

static const char *absolute(struct config *config, const char *directory, const char *path, int n) {
    if (path[0] == '/') return config_keep_text(config, "%.*s", n, path);
    int length = (int)strlen(directory);
    /* The directory is real, so ".." may be resolved by name, but only while it comes first. */
    for (;;) {
        if (n >= 2 && strncmp(path, "./", 2) == 0) {
            path += 2, n -= 2;
        } else if (n >= 3 && strncmp(path, "../", 3) == 0) {
            path += 3, n -= 3;
            while (length > 0 && directory[--length] != '/') continue;
        } else {
            break;
        }
    }
    if (length == 1 && directory[0] == '/') length = 0;
    return config_keep_text(config, "%.*s/%.*s", length, directory, n, path);
}

fw_status config_absolute(struct config *config, const char *directory, const char **path,
                          fw_error *error) {
    if ((*path)[0] == '\0') return FW_OK;
    const char *result = absolute(config, directory, *path, (int)strlen(*path));
    if (result == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    *path = result;
    return FW_OK;
}

fw_status config_absolute_plugin(struct config *config, const char *directory, const char **name,
                                 fw_error *error) {
    if (strchr(*name, '/') == NULL) return FW_OK;
    return config_absolute(config, directory, name, error);
}

static fw_status append_item(struct config *config, const char *directory, const char *item,
                             size_t n, const char **result, fw_error *error) {
    const char *pattern;
    const enum source_kind kind = corpus_source_kind(item, &pattern);
    const size_t prefix = (size_t)(pattern - item);
    if (kind == SOURCE_UNKNOWN)
        return fw_fail(
            error, FW_E_CONFIG,
            "no source is called %.*s: write text:GLOB, jsonl:GLOB, list:FILE or the names "
            "of shards (./%.*s for a file of that name)",
            (int)prefix - 1, item, (int)n, item);
    if (prefix >= n)
        return fw_fail(error, FW_E_CONFIG, "the source %.*s names no file", (int)n, item);
    const char *path = absolute(config, directory, item + prefix, (int)(n - prefix));
    if (path == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    if (path[strcspn(path, " ,\t")] != '\0')
        return fw_fail(
            error, FW_E_CONFIG,
            "the source %s lies below a directory whose name has a space or comma, which "
            "separate sources; move it or name it by a link without them",
            path);
    *result = config_keep_text(config, "%s%s%.*s%s", *result, (*result)[0] != '\0' ? " " : "",
                               (int)prefix, item, path);
    return *result != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "out of memory");
}

fw_status config_absolute_sources(struct config *config, const char *directory, const char **list,
                                  fw_error *error) {
    const char *result = "";
    for (const char *item = *list; *item != '\0';) {
        item += strspn(item, " ,\t");
        const size_t n = strcspn(item, " ,\t");
        if (n > 0) FW_TRY(append_item(config, directory, item, n, &result, error));
        item += n;
    }
    *list = result;
    return FW_OK;
}
