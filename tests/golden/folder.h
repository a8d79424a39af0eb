/* A folder of recorded numbers: `manifest.txt`, one line "name dtype rank dims... offset" for each
 * array, and `data.bin`, little-endian, in C order; some have `config.txt`, lines "key = value". */
#ifndef GOLDEN_FOLDER_H
#define GOLDEN_FOLDER_H

#include <fairway/error.h>
#include <fairway/tensor.h>
#include <stdbool.h>

struct array {
    char name[96];
    uint32_t dtype; /* fw_dtype */
    uint32_t rank;
    int64_t shape[FW_MAX_RANK]; /* beyond the rank: 1; a dimension may be 0 */
    int64_t count;
    size_t bytes;
    const void *data; /* not aligned */
    bool used;        /* a case has asked for it */
};

struct folder {
    char path[4096];
    struct array *arrays;
    size_t n_arrays;
    char *config; /* text of config.txt; NULL when there is none */
    void *data;
};

/* Errors: E_IO when manifest.txt or data.bin cannot be read; E_FORMAT, with file and line, for a
 * line that is not as above, an array beyond the end of data.bin, or a name that stands twice. */
fw_status folder_open(const char *path, struct folder *folder, fw_error *error);
void folder_close(struct folder *folder);

/* The array of that name, NULL when there is none. folder_take marks it as used. */
const struct array *folder_find(const struct folder *folder, const char *name);
const struct array *folder_take(struct folder *folder, const char *name);

/* As folder_take; E_NOT_FOUND without it, E_SHAPE when type or number of values differ. */
fw_status folder_require(struct folder *folder, const char *name, uint32_t dtype, int64_t count,
                         const struct array **array, fw_error *error);

/* E_FORMAT, naming the first array that no case has used. */
fw_status folder_all_used(const struct folder *folder, fw_error *error);

/* Element i as a number; of the types that the manifests have, F16 and BF16 excepted. */
double array_value(const struct array *array, int64_t i);

#endif
