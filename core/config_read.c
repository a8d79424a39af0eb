/* Reading: an INI file by inih, and its bases, merged into one list of entries.
 *
 * inih reports values without line numbers, so the reader callback counts the lines that it hands
 * over; it also sees the section headers itself, because inih truncates long names and stays silent
 * about empty sections. */
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_entries.h"
#include "files.h"

enum { MAX_FILE = 1 << 20, MAX_BASES = 16 };

/* A file being read, and those that inherit from it. */
struct source {
    struct scope scope;
    const struct source *heir;
    const char *path, *real;
    const char *cursor, *end;
    int line;
    fw_error *error;
    int failed_line; /* 0: no failure yet */
    fw_status status;
};

static bool fail_at(struct source *source, const fw_error *why) {
    source->failed_line = source->line;
    source->status =
        fw_fail(source->error, why->status, "%s:%d: %s", source->path, source->line, why->message);
    return false;
}

/* The name in a line "[name]", checked. */
static bool read_header(struct source *source, const char *line) {
    fw_error why = {.struct_size = sizeof why};
    const char *close = strchr(line, ']');
    if (close == NULL) return true; /* inih reports it */
    const char *rest = close + 1 + strspn(close + 1, " \t\r\n");
    if (*rest != '\0' && *rest != ';' && *rest != '#') {
        (void)fw_fail(&why, FW_E_CONFIG,
                      "nothing but a comment may follow a [section] on its line");
        return fail_at(source, &why);
    }
    const char *name =
        config_keep_text(source->scope.config, "%.*s", (int)(close - line - 1), line + 1);
    if (scope_enter(&source->scope, name, &why) != FW_OK) return fail_at(source, &why);
    return true;
}

/* inih's reader: the next line, like fgets; NULL ends the parse. */
static char *next_line(char *line, int size, void *user) {
    struct source *source = user;
    if (source->cursor == source->end || source->failed_line != 0) return NULL;
    const char *newline = memchr(source->cursor, '\n', (size_t)(source->end - source->cursor));
    const size_t n = (size_t)((newline != NULL ? newline + 1 : source->end) - source->cursor);
    source->line++;
    if (n >= (size_t)size) {
        fw_error why = {.struct_size = sizeof why};
        (void)fw_fail(&why, FW_E_LIMIT, "a line of %zu bytes; %d is the most", n, size - 1);
        (void)fail_at(source, &why);
        return NULL;
    }
    memcpy(line, source->cursor, n);
    line[n] = '\0';
    source->cursor += n;
    const char *start = line + strspn(line, " \t\r\n\v\f");
    return *start != '[' || read_header(source, start) ? line : NULL;
}

/* inih's handler: one key = value. The section comes from read_header. */
static int handle(void *user, const char *section, const char *name, const char *value) {
    struct source *source = user;
    (void)section;
    if (source->failed_line != 0) return 0;
    fw_error why = {.struct_size = sizeof why};
    const char *where = config_keep_text(source->scope.config, "%s:%d", source->path, source->line);
    if (source->scope.section == NULL)
        (void)fw_fail(&why, FW_E_CONFIG, "'%.64s' stands before the first [section]", name);
    else if (scope_set(&source->scope, name, value, where, &why) == FW_OK)
        return 1;
    return fail_at(source, &why) ? 1 : 0;
}

static fw_status check_text(const char *path, const uint8_t *data, size_t size, fw_error *error) {
    int line = 1;
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n') line++;
        if (data[i] >= 0x20 || data[i] == '\n' || data[i] == '\r' || data[i] == '\t') continue;
        return fw_fail(error, FW_E_FORMAT, "%s:%d: not an INI file: it holds the byte 0x%02x", path,
                       line, data[i]);
    }
    return FW_OK;
}

static fw_status parse(struct source *source, const uint8_t *data, size_t size, fw_error *error) {
    FW_TRY(check_text(source->path, data, size, error));
    const size_t mark = size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    source->cursor = (const char *)data + mark;
    source->end = (const char *)data + size;
    source->error = error;
    ini_max_line = CONFIG_LINE_BYTES;
    ini_allow_multiline = false; /* so that indented keys are keys */
    const int line = ini_parse_stream(next_line, source, handle, source);
    if (line > 0 && (source->failed_line == 0 || line < source->failed_line))
        return fw_fail(error, FW_E_CONFIG, "%s:%d: expected [section], key = value or a comment",
                       source->path, line);
    if (source->failed_line != 0) return source->status;
    if (line < 0) return fw_fail(error, FW_E_MEMORY, "%s: out of memory", source->path);
    return FW_OK;
}

/* Directory of a path as written: "" or ending in '/'. */
static int directory_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (int)(slash - path) + 1 : 0;
}

static fw_status place(struct source *source, fw_error *error) {
    struct config *config = source->scope.config;
    char real[PATH_MAX];
    const int n = directory_length(source->path);
    const char *directory = config_keep_text(config, "%.*s.", n, source->path);
    const bool found = directory != NULL && realpath(directory, real) != NULL;
    if (!found && getcwd(real, sizeof real) == NULL)
        return fw_fail(error, FW_E_IO, "%s: the working directory is gone", source->path);
    source->scope.directory = config_keep_text(config, "%s", real);
    if (realpath(source->path, real) != NULL) source->real = config_keep_text(config, "%s", real);
    if (source->scope.directory == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    return FW_OK;
}

static fw_status read_source(struct source *source, const char *text, fw_error *error);

static fw_status read_base(struct source *source, fw_error *error) {
    struct config *config = source->scope.config;
    struct source base = {.scope = {.config = config}, .heir = source};
    base.path = source->scope.base[0] == '/'
                    ? source->scope.base
                    : config_keep_text(config, "%.*s%s", directory_length(source->path),
                                       source->path, source->scope.base);
    if (base.path == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    char real[PATH_MAX];
    int depth = 0;
    const bool exists = realpath(base.path, real) != NULL;
    for (const struct source *s = source; s != NULL; s = s->heir, depth++)
        if (exists && s->real != NULL && strcmp(s->real, real) == 0)
            return fw_fail(error, FW_E_CONFIG, "%s: base = %s leads back to %s",
                           source->scope.base_where, source->scope.base, s->path);
    if (depth > MAX_BASES)
        return fw_fail(error, FW_E_LIMIT, "%s: more than %d bases", source->scope.base_where,
                       MAX_BASES);
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = read_source(&base, NULL, &why);
    if (status == FW_OK) return FW_OK;
    return fw_fail(error, status, exists ? "%.0s%s" : "%s: base: %s", source->scope.base_where,
                   why.message);
}

/* Parse, then the base below it, then its own entries on top. */
static fw_status read_source(struct source *source, const char *text, fw_error *error) {
    FW_TRY(place(source, error));
    if (source->heir == NULL) source->scope.config->directory = source->scope.directory;
    uint8_t *data = NULL;
    size_t size = text != NULL ? strlen(text) : 0;
    if (text == NULL) FW_TRY(file_read(source->path, MAX_FILE, &data, &size, error));
    fw_status status = parse(source, text != NULL ? (const uint8_t *)text : data, size, error);
    free(data);
    if (status == FW_OK && source->scope.base != NULL)
        status = text == NULL ? read_base(source, error)
                              : fw_fail(error, FW_E_CONFIG, "%s: base can only be set in a file",
                                        source->scope.base_where);
    if (status == FW_OK) status = config_merge(source->scope.config, &source->scope.entries, error);
    free(source->scope.entries.items);
    return status;
}

fw_status config_read(struct config *config, const char *text, const char *const *overrides,
                      size_t n_overrides, fw_error *error) {
    struct source source = {.scope = {.config = config}, .path = config->path};
    FW_TRY(read_source(&source, text, error));
    return config_read_overrides(config, overrides, n_overrides, error);
}
