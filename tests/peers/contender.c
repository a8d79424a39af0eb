#include "contender.h"

#include <stdlib.h>
#include <string.h>

/* The part behind KEY=, or NULL. */
static const char *value_of(const char *text, const char *key) {
    const size_t size = strlen(key);
    for (const char *part = strpbrk(text, ":,"); part != NULL; part = strpbrk(part + 1, ":,"))
        if (strncmp(part + 1, key, size) == 0 && part[1 + size] == '=') return part + size + 2;
    return NULL;
}

fw_status contender_number(const char *text, const char *key, double least, double most,
                           double *value, fw_error *error) {
    const char *written = value_of(text, key);
    if (written == NULL) return FW_OK;
    char *end = NULL;
    const double number = strtod(written, &end);
    if (end == written || (*end != '\0' && *end != ',') || !(number >= least && number <= most))
        return fw_fail(error, FW_E_CONFIG, "%s: %s is a number from %g to %g", text, key, least,
                       most);
    *value = number;
    return FW_OK;
}

static bool is_listed(const char *key, size_t size, const char *keys) {
    for (const char *at = keys; at[0] != '\0'; at += strspn(at, " ")) {
        const size_t length = strcspn(at, " ");
        if (length == size && strncmp(at, key, size) == 0) return true;
        at += length;
    }
    return false;
}

fw_status contender_check_keys(const char *text, const char *keys, fw_error *error) {
    for (const char *part = strpbrk(text, ":,"); part != NULL; part = strpbrk(part + 1, ":,")) {
        const size_t size = strcspn(part + 1, "=,");
        if (part[1 + size] != '=' || !is_listed(part + 1, size, keys))
            return fw_fail(error, FW_E_CONFIG, "%s: \"%.*s\" is none of its keys: %s", text,
                           (int)size, part + 1, keys);
    }
    return FW_OK;
}
