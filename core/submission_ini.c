/* The INI of a record: the run's own, without anything that belongs to the machine it ran on. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "submission.h"
#include "text.h"

struct rewriter {
    const char *path;
    char section[128];
    char *data; /* the directory above all data, with a '/' at its end; "" when there is none */
    struct text text;
};

/* Where the path of a source begins: behind "text:" and the like. */
static const char *source_path(const char *source) {
    const size_t n = strcspn(source, " :/");
    return source[n] == ':' ? source + n + 1 : source;
}

/* Shorten `common` to what it shares with the directory of the path at `path`. */
static void share(char *common, const char *path, size_t length) {
    size_t same = 0, end = 0;
    while (same < length && common[same] != '\0' && common[same] == path[same]) {
        same++;
        if (path[same - 1] == '/') end = same;
    }
    common[end] = '\0';
}

static void share_sources(struct rewriter *rewriter, const char *list, bool *first) {
    for (const char *at = list; *at != '\0'; at += strspn(at, " ")) {
        const char *path = source_path(at);
        const size_t length = strcspn(path, " ");
        if (*path == '/' && *first) {
            const size_t literal = strcspn(path, "*?[ "); /* a glob's part has no place */
            (void)snprintf(rewriter->data, literal + 1, "%.*s", (int)literal, path);
            strrchr(rewriter->data, '/')[1] = '\0';
            *first = false;
        } else if (*path == '/') {
            share(rewriter->data, path, length);
        }
        at = path + length;
    }
}

static void put_sources(struct rewriter *rewriter, const char *list) {
    const size_t skipped = strlen(rewriter->data);
    for (const char *at = list; *at != '\0'; at += strspn(at, " ")) {
        const char *path = source_path(at);
        const size_t length = strcspn(path, " ");
        if (*path == '/')
            text_put(&rewriter->text, " %.*s@DATA@/%.*s", (int)(path - at), at,
                     (int)(length - skipped), path + skipped);
        else
            text_put(&rewriter->text, " %.*s", (int)(path + length - at), at);
        at = path + length;
    }
    text_put(&rewriter->text, "\n");
}

static bool is_data(const struct rewriter *rewriter, const char *key) {
    return strcmp(rewriter->section, "data") == 0 &&
           (strcmp(key, "train") == 0 || strcmp(key, "validation") == 0);
}

static fw_status put_key(struct rewriter *rewriter, const char *key, const char *value,
                         fw_error *error) {
    const char *slash = strrchr(value, '/');
    if (strcmp(rewriter->section, "run") == 0 && strcmp(key, "output") == 0) return FW_OK;
    text_put(&rewriter->text, "%s =", key);
    if (is_data(rewriter, key))
        put_sources(rewriter, value);
    else if (value[0] != '/')
        text_put(&rewriter->text, "%s%s\n", value[0] != '\0' ? " " : "", value);
    else if (strcmp(key, "plugin") == 0 || strcmp(key, "device") == 0)
        text_put(&rewriter->text, " @PLUGINS@/%s\n", slash + 1);
    else if (strcmp(rewriter->section, "tokenizer") == 0)
        text_put(&rewriter->text, " @TOKENIZER@\n");
    else
        return fw_fail(error, FW_E_CONFIG,
                       "%s: [%s] %s = %.200s is a path; a record folder carries no file but the "
                       "model and the sources",
                       rewriter->path, rewriter->section, key, value);
    return FW_OK;
}

/* Cut "key = value" into its parts; NULL when it is no such line. */
static char *cut_key(char *line) {
    char *equals = strchr(line, '=');
    if (equals == NULL || line[0] == '[' || line[0] == ';') return NULL;
    size_t end = (size_t)(equals - line);
    while (end > 0 && line[end - 1] == ' ') end--;
    line[end] = '\0';
    return equals + 1 + strspn(equals + 1, " ");
}

static fw_status rewrite_line(struct rewriter *rewriter, char *line, fw_error *error) {
    if (line[0] == '[')
        (void)snprintf(rewriter->section, sizeof rewriter->section, "%.*s",
                       (int)strcspn(line + 1, "]"), line + 1);
    char *value = cut_key(line);
    if (value != NULL) return put_key(rewriter, line, value, error);
    text_put(&rewriter->text, "%s\n", line);
    return FW_OK;
}

/* Call for each line of `ini`, which is cut up. */
static fw_status rewrite(struct rewriter *rewriter, char *ini, fw_error *error) {
    for (char *line = ini; *line != '\0';) {
        const size_t n = strcspn(line, "\n");
        const bool last = line[n] == '\0';
        line[n] = '\0';
        FW_TRY(rewrite_line(rewriter, line, error));
        line += n + (last ? 0 : 1);
    }
    return FW_OK;
}

/* The two data keys of a resolved INI, each on a line of its own; no other section has such. */
static void find_data(struct rewriter *rewriter, const char *ini) {
    bool first = true;
    const char *section = strstr(ini, "[data]\n");
    for (const char *line = section; line != NULL && *line != '\0';) {
        const size_t n = strcspn(line, "\n");
        if (line != section && line[0] == '[') break;
        if (strncmp(line, "train = ", 8) == 0 || strncmp(line, "validation = ", 13) == 0) {
            char *list = strndup(line, n);
            if (list != NULL) share_sources(rewriter, strchr(list, '=') + 2, &first);
            rewriter->text.failed = rewriter->text.failed || list == NULL;
            free(list);
        }
        line += n + (line[n] == '\n' ? 1 : 0);
    }
}

fw_status submission_ini(const char *path, char **ini, fw_error *error) {
    uint8_t *text = NULL;
    size_t size = 0;
    FW_TRY(file_read(path, 1 << 20, &text, &size, error));
    struct rewriter rewriter = {.path = path, .data = calloc(1, size + 1)};
    if (rewriter.data == NULL) rewriter.text.failed = true;
    fw_status status = FW_OK;
    if (!rewriter.text.failed) {
        find_data(&rewriter, (const char *)text);
        status = rewrite(&rewriter, (char *)text, error);
    }
    if (status == FW_OK) status = text_finish(&rewriter.text, ini, error);
    free(rewriter.text.bytes);
    free(rewriter.data);
    free(text);
    return status;
}
