/* Recorded arrays; see golden.h. */
#include "golden.h"

#include <inttypes.h>
#include <stdio.h>

#include "support.h"

static size_t element_bytes(const char *dtype) {
    static const struct {
        const char *name;
        size_t bytes;
    } known[] = {{"f32", 4}, {"f16", 2}, {"i32", 4}, {"u16", 2}, {"i8", 1}, {"u8", 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(dtype, known[i].name) == 0) return known[i].bytes;
    fail_msg("manifest: unknown type %s", dtype);
    return 0;
}

/* 1 when the line describes `name`; fills the array's shape and its place in data.bin. */
static int parse_line(const char *line, const char *name, golden *array, int64_t *offset) {
    char found[128], dtype[16];
    int rank = 0;
    int64_t n[3] = {0};
    if (sscanf(line, "%127s %15s %d %" SCNd64 " %" SCNd64 " %" SCNd64, found, dtype, &rank, &n[0],
               &n[1], &n[2]) < 5 ||
        strcmp(found, name) != 0)
        return 0;
    if (rank < 1 || rank > 2) fail_msg("manifest: %s has rank %d", name, rank);
    array->rows = n[0];
    array->columns = rank == 2 ? n[1] : 1;
    array->bytes = (size_t)(array->rows * array->columns) * element_bytes(dtype);
    *offset = n[rank];
    return 1;
}

golden golden_read(const char *folder, const char *name) {
    char path[4096], line[256];
    golden array = {0};
    int64_t offset = -1;
    (void)snprintf(path, sizeof path, "%s/manifest.txt", folder);
    FILE *file = fopen(path, "r");
    if (file == NULL) return array;
    while (offset < 0 && fgets(line, sizeof line, file) != NULL)
        (void)parse_line(line, name, &array, &offset);
    (void)fclose(file);
    if (offset < 0) return (golden){0};

    (void)snprintf(path, sizeof path, "%s/data.bin", folder);
    file = fopen(path, "rb");
    array.data = malloc(array.bytes);
    if (file == NULL || array.data == NULL || fseek(file, (long)offset, SEEK_SET) != 0 ||
        fread(array.data, 1, array.bytes, file) != array.bytes)
        fail_msg("%s: %s cannot be read", path, name);
    (void)fclose(file);
    return array;
}

const char *golden_shared(const char *relative) {
    static char path[4096];
    const char *root = getenv("FAIRWAY_SHARED");
    (void)snprintf(path, sizeof path, "%s/%s", root != NULL ? root : SHARED_DIRECTORY, relative);
    return path;
}
