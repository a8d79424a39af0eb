#include "folder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The whole file with a NUL byte after it. */
static fw_status read_file(const char *path, char **data, size_t *size, fw_error *error) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return fw_fail(error, FW_E_IO, "%s: %s", path, strerror(errno));
    char *bytes = NULL;
    size_t used = 0, room = 0;
    do {
        room = room == 0 ? 1 << 16 : 2 * room;
        char *larger = realloc(bytes, room + 1);
        if (larger == NULL) {
            (void)fclose(file);
            free(bytes);
            return fw_fail(error, FW_E_MEMORY, "%s: no memory for %zu bytes", path, room);
        }
        bytes = larger;
        used += fread(bytes + used, 1, room - used, file);
    } while (used == room);
    const bool failed = ferror(file) != 0;
    (void)fclose(file);
    if (failed) {
        free(bytes);
        return fw_fail(error, FW_E_IO, "%s: cannot be read", path);
    }
    bytes[used] = '\0';
    *data = bytes;
    *size = used;
    return FW_OK;
}

static uint32_t dtype_of(const char *name) {
    static const struct {
        const char *name;
        uint32_t dtype;
    } known[] = {{"f32", FW_F32}, {"f64", FW_F64}, {"f16", FW_F16}, {"bf16", FW_BF16},
                 {"i8", FW_I8},   {"u8", FW_U8},   {"u16", FW_U16}, {"i32", FW_I32},
                 {"u32", FW_U32}, {"i64", FW_I64}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].dtype;
    return 0;
}

/* "name dtype rank dims... offset"; false when the line is anything else. */
static bool parse_line(const char *line, struct array *array, int64_t *offset) {
    char dtype[16];
    int at = 0;
    *array = (struct array){.shape = {1, 1, 1, 1}, .count = 1};
    if (sscanf(line, "%95s %15s %" SCNu32 "%n", array->name, dtype, &array->rank, &at) != 3)
        return false;
    array->dtype = dtype_of(dtype);
    if (array->dtype == 0 || array->rank > FW_MAX_RANK) return false;
    for (uint32_t i = 0; i <= array->rank; i++) {
        int64_t value = 0;
        int length = 0;
        if (sscanf(line + at, "%" SCNd64 "%n", &value, &length) != 1 || value < 0) return false;
        at += length;
        if (i == array->rank) {
            *offset = value;
        } else {
            if (value > 0 && array->count > INT64_MAX / 16 / value) return false;
            array->shape[i] = value;
            array->count *= value;
        }
    }
    array->bytes = (size_t)array->count * fw_dtype_size(array->dtype);
    return line[at + (int)strspn(line + at, " \t\r")] == '\0';
}

static fw_status add_array(struct folder *folder, const char *line, int number, size_t size,
                           fw_error *error) {
    struct array array;
    int64_t offset = 0;
    if (!parse_line(line, &array, &offset))
        return fw_fail(error, FW_E_FORMAT,
                       "%s/manifest.txt:%d: \"%.60s\" is not \"name dtype rank dims... offset\"",
                       folder->path, number, line);
    if ((uint64_t)offset > size || array.bytes > size - (size_t)offset)
        return fw_fail(error, FW_E_FORMAT,
                       "%s/manifest.txt:%d: %s ends at byte %llu, but data.bin has %zu",
                       folder->path, number, array.name,
                       (unsigned long long)((uint64_t)offset + array.bytes), size);
    if (folder_find(folder, array.name) != NULL)
        return fw_fail(error, FW_E_FORMAT, "%s/manifest.txt:%d: %s stands there twice",
                       folder->path, number, array.name);
    struct array *larger = realloc(folder->arrays, (folder->n_arrays + 1) * sizeof *folder->arrays);
    if (larger == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a list of arrays");
    array.data = (const char *)folder->data + offset;
    folder->arrays = larger;
    folder->arrays[folder->n_arrays++] = array;
    return FW_OK;
}

static fw_status read_arrays(struct folder *folder, char *manifest, size_t size, fw_error *error) {
    int number = 0;
    for (char *line = manifest; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL) *end = '\0';
        number++;
        if (line[strspn(line, " \t\r")] != '\0')
            FW_TRY(add_array(folder, line, number, size, error));
        line = end != NULL ? end + 1 : NULL;
    }
    return FW_OK;
}

static fw_status read_folder(struct folder *folder, fw_error *error) {
    char path[sizeof folder->path + 16], *bytes = NULL;
    size_t size = 0, length = 0;
    (void)snprintf(path, sizeof path, "%s/data.bin", folder->path);
    FW_TRY(read_file(path, &bytes, &size, error));
    folder->data = bytes;
    (void)snprintf(path, sizeof path, "%s/manifest.txt", folder->path);
    FW_TRY(read_file(path, &bytes, &length, error));
    const fw_status status = read_arrays(folder, bytes, size, error);
    free(bytes);
    FW_TRY(status);
    (void)snprintf(path, sizeof path, "%s/config.txt", folder->path);
    FILE *config = fopen(path, "r");
    if (config == NULL) return FW_OK;
    (void)fclose(config);
    return read_file(path, &folder->config, &length, error);
}

fw_status folder_open(const char *path, struct folder *folder, fw_error *error) {
    *folder = (struct folder){0};
    if (strlen(path) >= sizeof folder->path)
        return fw_fail(error, FW_E_ARGUMENT, "the path %.60s... is too long", path);
    (void)strcpy(folder->path, path);
    const fw_status status = read_folder(folder, error);
    if (status != FW_OK) folder_close(folder);
    return status;
}

void folder_close(struct folder *folder) {
    free(folder->arrays);
    free(folder->config);
    free(folder->data);
    *folder = (struct folder){0};
}

const struct array *folder_find(const struct folder *folder, const char *name) {
    for (size_t i = 0; i < folder->n_arrays; i++)
        if (strcmp(folder->arrays[i].name, name) == 0) return &folder->arrays[i];
    return NULL;
}

const struct array *folder_take(struct folder *folder, const char *name) {
    const struct array *array = folder_find(folder, name);
    if (array != NULL) folder->arrays[array - folder->arrays].used = true;
    return array;
}

fw_status folder_require(struct folder *folder, const char *name, uint32_t dtype, int64_t count,
                         const struct array **array, fw_error *error) {
    const struct array *found = folder_take(folder, name);
    if (found == NULL)
        return fw_fail(error, FW_E_NOT_FOUND, "%s/manifest.txt: there is no %s", folder->path,
                       name);
    if (found->dtype != dtype || found->count != count)
        return fw_fail(error, FW_E_SHAPE,
                       "%s/manifest.txt: %s has %lld values of %zu bytes; it should have %lld of "
                       "%zu",
                       folder->path, name, (long long)found->count, fw_dtype_size(found->dtype),
                       (long long)count, fw_dtype_size(dtype));
    *array = found;
    return FW_OK;
}

fw_status folder_all_used(const struct folder *folder, fw_error *error) {
    for (size_t i = 0; i < folder->n_arrays; i++)
        if (!folder->arrays[i].used && folder->arrays[i].count > 0)
            return fw_fail(error, FW_E_FORMAT,
                           "%s/manifest.txt: %s belongs to no case that is known here",
                           folder->path, folder->arrays[i].name);
    return FW_OK;
}

#define READ(type)                                                                                 \
    do {                                                                                           \
        type value_;                                                                               \
        memcpy(&value_, (const char *)array->data + (size_t)i * sizeof value_, sizeof value_);     \
        return (double)value_;                                                                     \
    } while (0)

double array_value(const struct array *array, int64_t i) {
    switch (array->dtype) {
    case FW_F32: READ(float);
    case FW_F64: READ(double);
    case FW_I8: READ(int8_t);
    case FW_U8: READ(uint8_t);
    case FW_U16: READ(uint16_t);
    case FW_I32: READ(int32_t);
    case FW_U32: READ(uint32_t);
    case FW_I64: READ(int64_t);
    default: return 0;
    }
}
