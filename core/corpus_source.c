/* What the items of a source are, by their prefixes: the one place that knows them. */
#include <ctype.h>
#include <string.h>

#include "corpus.h"

static const char separators[] = " ,\t\r\n";

enum source_kind corpus_source_kind(const char *item, const char **pattern) {
    static const char *const names[] = {
        [SOURCE_TEXT] = "text", [SOURCE_JSONL] = "jsonl", [SOURCE_LIST] = "list"};
    size_t length = 0;
    while (islower((unsigned char)item[length])) length++;
    const bool prefixed = length > 0 && item[length] == ':';
    if (pattern != NULL) *pattern = prefixed ? item + length + 1 : item;
    if (!prefixed) return SOURCE_SHARDS;
    for (int kind = SOURCE_TEXT; kind <= SOURCE_LIST; kind++)
        if (strlen(names[kind]) == length && strncmp(item, names[kind], length) == 0)
            return (enum source_kind)kind;
    return SOURCE_UNKNOWN;
}

bool corpus_source_has_text(const char *source) {
    for (const char *item = source + strspn(source, separators); *item != '\0';) {
        const enum source_kind kind = corpus_source_kind(item, NULL);
        if (kind != SOURCE_SHARDS && kind != SOURCE_UNKNOWN) return true;
        item += strcspn(item, separators);
        item += strspn(item, separators);
    }
    return false;
}

fw_status corpus_source_parse(const char *item, enum source_kind *kind, const char **pattern,
                              fw_error *error) {
    const char *rest;
    const enum source_kind found = corpus_source_kind(item, &rest);
    if (found == SOURCE_UNKNOWN)
        return fw_fail(error, FW_E_CONFIG,
                       "\"%s\": no source is called %.*s; there are text:FILES, jsonl:FILES, "
                       "list:FILE, and names of shards without a prefix",
                       item, (int)(rest - item - 1), item);
    if (*rest == '\0')
        return fw_fail(error, FW_E_CONFIG, "\"%s\" names no file; write %sFILE", item, item);
    *kind = found;
    *pattern = rest;
    return FW_OK;
}
