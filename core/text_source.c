/* Text files, JSON lines and lists of files as one index of documents. The index holds places, not
 * text, so that a collection larger than memory can be tokenized document by document. */
#include "text_source.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "random.h"

struct text_file {
    char *path;
    const uint8_t *data; /* of JSON lines; NULL for text files */
    size_t size;
    bool mapped;
};

struct text_place {
    uint64_t offset, bytes, line; /* line 0: the whole file */
    size_t file;
};

struct text_source {
    struct text_file *files;
    size_t n_files, files_capacity;
    struct text_place *places;
    size_t n_places, places_capacity;
};

/* Make room for one more element of `size` bytes. */
static fw_status grow(void **array, size_t n, size_t *capacity, size_t size, fw_error *error) {
    if (n < *capacity) return FW_OK;
    const size_t larger = *capacity * 2 + 16;
    void *memory = realloc(*array, larger * size);
    if (memory == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory listing documents");
    *array = memory;
    *capacity = larger;
    return FW_OK;
}

fw_status text_source_create(struct text_source **source, fw_error *error) {
    struct text_source *created = calloc(1, sizeof *created);
    if (created == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory listing documents");
    *source = created;
    return FW_OK;
}

static void release_data(struct text_file *file) {
    if (file->mapped) {
        file_unmap(file->data, file->size);
    } else {
        uint8_t *owned;
        memcpy(&owned, &file->data, sizeof owned);
        free(owned);
    }
}

void text_source_destroy(struct text_source *source) {
    if (source == NULL) return;
    for (size_t i = 0; i < source->n_files; i++) {
        release_data(&source->files[i]);
        free(source->files[i].path);
    }
    free(source->files);
    free(source->places);
    free(source);
}

/* ---- Adding ---- */

static fw_status add_file(struct text_source *source, const char *path, fw_error *error) {
    void *files = source->files;
    FW_TRY(grow(&files, source->n_files, &source->files_capacity, sizeof *source->files, error));
    source->files = files;
    char *copy = strdup(path);
    if (copy == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory listing documents");
    source->files[source->n_files++] = (struct text_file){.path = copy};
    return FW_OK;
}

/* A place in the file added last. */
static fw_status add_place(struct text_source *source, uint64_t offset, uint64_t bytes,
                           uint64_t line, fw_error *error) {
    void *places = source->places;
    FW_TRY(
        grow(&places, source->n_places, &source->places_capacity, sizeof *source->places, error));
    source->places = places;
    source->places[source->n_places++] =
        (struct text_place){offset, bytes, line, source->n_files - 1};
    return FW_OK;
}

static fw_status add_text(struct text_source *source, const char *path, fw_error *error) {
    struct stat information;
    if (stat(path, &information) != 0)
        return fw_fail(error, FW_E_NOT_FOUND, "there is no file %s", path);
    if (S_ISDIR(information.st_mode))
        return fw_fail(error, FW_E_IO, "%s is a directory; to read its files write %s/*", path,
                       path);
    FW_TRY(add_file(source, path, error));
    return add_place(source, 0, (uint64_t)information.st_size, 0, error);
}

static bool is_blank(const uint8_t *line, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (strchr(" \t\r", line[i]) == NULL || line[i] == 0) return false;
    return true;
}

static fw_status index_lines(struct text_source *source, fw_error *error) {
    const struct text_file file = source->files[source->n_files - 1];
    uint64_t line = 1;
    for (size_t offset = 0; offset < file.size; line++) {
        const uint8_t *begin = file.data + offset;
        const uint8_t *end = memchr(begin, '\n', file.size - offset);
        const size_t bytes = end != NULL ? (size_t)(end - begin) : file.size - offset;
        if (!is_blank(begin, bytes)) FW_TRY(add_place(source, offset, bytes, line, error));
        offset += bytes + 1;
    }
    return FW_OK;
}

/* A pipe cannot be mapped, so `jsonl:/dev/stdin` is read instead. */
static fw_status add_jsonl(struct text_source *source, const char *path, fw_error *error) {
    struct stat information;
    const bool regular = stat(path, &information) == 0 && S_ISREG(information.st_mode);
    FW_TRY(add_file(source, path, error));
    struct text_file *file = &source->files[source->n_files - 1];
    if (regular) {
        FW_TRY(file_map(path, &file->data, &file->size, error));
        file->mapped = true;
    } else {
        uint8_t *data;
        FW_TRY(file_read(path, 0, &data, &file->size, error));
        file->data = data;
    }
    return index_lines(source, error);
}

static fw_status add_listed(struct text_source *source, const char *list, size_t line,
                            const char *name, fw_error *error) {
    const char *slash = strrchr(list, '/');
    const int directory = name[0] == '/' || slash == NULL ? 0 : (int)(slash - list) + 1;
    char path[4096];
    const int length = snprintf(path, sizeof path, "%.*s%s", directory, list, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return fw_fail(error, FW_E_FORMAT, "%s:%zu: this is not the name of a file", list, line);
    struct stat information;
    if (stat(path, &information) != 0)
        return fw_fail(error, FW_E_NOT_FOUND, "%s:%zu: there is no file %s", list, line, path);
    return add_text(source, path, error);
}

/* One line of a list, `end` behind its last character. */
static fw_status add_list_line(struct text_source *source, const char *list, size_t line,
                               char *name, char *end, fw_error *error) {
    if (end > name && end[-1] == '\r') end--;
    if (memchr(name, 0, (size_t)(end - name)) != NULL)
        return fw_fail(error, FW_E_FORMAT,
                       "%s:%zu: it contains a NUL byte; a list holds one file name a line", list,
                       line);
    *end = '\0';
    return *name != '\0' ? add_listed(source, list, line, name, error) : FW_OK;
}

static fw_status add_list(struct text_source *source, const char *path, fw_error *error) {
    uint8_t *data;
    size_t size;
    FW_TRY(file_read(path, 0, &data, &size, error)); /* with a NUL behind its last byte */
    fw_status status = FW_OK;
    char *next = (char *)data, *const last = next + size;
    for (size_t line = 1; status == FW_OK && next < last; line++) {
        char *end = memchr(next, '\n', (size_t)(last - next));
        if (end == NULL) end = last;
        status = add_list_line(source, path, line, next, end, error);
        next = end + 1;
    }
    free(data);
    return status;
}

fw_status text_source_add(struct text_source *source, enum source_kind kind, const char *pattern,
                          fw_error *error) {
    static fw_status (*const add[])(struct text_source *, const char *, fw_error *) = {
        [SOURCE_TEXT] = add_text, [SOURCE_JSONL] = add_jsonl, [SOURCE_LIST] = add_list};
    char **paths;
    size_t n_paths;
    FW_TRY(file_glob(pattern, &paths, &n_paths, error));
    fw_status status = FW_OK;
    for (size_t i = 0; status == FW_OK && i < n_paths; i++)
        status = add[kind](source, paths[i], error);
    file_free_paths(paths, n_paths);
    return status;
}

/* ---- Reading ---- */

uint64_t text_source_count(const struct text_source *source) { return source->n_places; }

uint64_t text_source_stored_bytes(const struct text_source *source, uint64_t index) {
    return source->places[index].bytes;
}

/* cJSON ends strings at a NUL, so text with one would be cut without a word: look for the byte and
 * for the escape \u0000 (an odd number of backslashes before u0000). */
static bool contains_nul(const uint8_t *line, size_t bytes) {
    if (memchr(line, 0, bytes) != NULL) return true;
    size_t backslashes = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (backslashes % 2 == 1 && bytes - i >= 5 && memcmp(line + i, "u0000", 5) == 0)
            return true;
        backslashes = line[i] == '\\' ? backslashes + 1 : 0;
    }
    return false;
}

static const char *blanks_end(const char *text, const char *end) {
    while (text < end && strchr(" \t\r", *text) != NULL) text++;
    return text;
}

/* What is wrong with a JSON line, or NULL; then *text is its "text". */
static const char *parse_line(const char *line, size_t bytes, char **text) {
    if (contains_nul((const uint8_t *)line, bytes)) return "it contains a NUL character";
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(line, bytes, &end, 0);
    const char *wrong = NULL;
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(json, "text");
    if (json == NULL || blanks_end(end, line + bytes) != line + bytes)
        wrong = "this is not one JSON object";
    else if (!cJSON_IsObject(json))
        wrong = "this is JSON, but not an object such as {\"text\": \"...\"}";
    else if (field == NULL)
        wrong = "the object has no \"text\"";
    else if (!cJSON_IsString(field))
        wrong = "\"text\" is not a string";
    else if ((*text = strdup(field->valuestring)) == NULL)
        wrong = "out of memory";
    cJSON_Delete(json);
    return wrong;
}

fw_status text_source_read(const struct text_source *source, uint64_t index, char **text,
                           size_t *bytes, fw_error *error) {
    const struct text_place *place = &source->places[index];
    const struct text_file *file = &source->files[place->file];
    if (place->line == 0) {
        uint8_t *data;
        FW_TRY(file_read(file->path, 0, &data, bytes, error));
        *text = (char *)data;
        return FW_OK;
    }
    const char *wrong =
        parse_line((const char *)file->data + place->offset, (size_t)place->bytes, text);
    if (wrong != NULL)
        return fw_fail(error, FW_E_FORMAT, "%s:%llu: %s", file->path,
                       (unsigned long long)place->line, wrong);
    *bytes = strlen(*text);
    return FW_OK;
}

/* ---- Order ---- */

static bool selected(const struct text_selection *selection, uint64_t index) {
    if (selection->part == CORPUS_ALL || selection->every == 0) return true;
    const bool held_out = index % selection->every == selection->every - 1;
    return held_out == (selection->part == CORPUS_HELD_OUT_PART);
}

fw_status text_source_order(const struct text_source *source,
                            const struct text_selection *selection, uint64_t **order, uint64_t *n,
                            fw_error *error) {
    uint64_t *indices = malloc((source->n_places + 1) * sizeof *indices), count = 0;
    if (indices == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory listing documents");
    for (uint64_t i = 0; i < source->n_places; i++)
        if (selected(selection, i)) indices[count++] = i;
    struct random random = random_seeded(selection->seed);
    for (uint64_t i = count; selection->shuffle && i > 1; i--) {
        const uint64_t j = random_below(&random, i), last = indices[i - 1];
        indices[i - 1] = indices[j];
        indices[j] = last;
    }
    *order = indices;
    *n = count;
    return FW_OK;
}
