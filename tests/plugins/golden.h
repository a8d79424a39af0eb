/* Recorded arrays: a folder with `manifest.txt`, one line "name dtype rank dims... offset" for each
 * array, and `data.bin`, little-endian, in C order. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <stddef.h>
#include <stdint.h>

typedef struct golden {
    void *data; /* NULL when the folder or the array is absent; else the caller frees it */
    size_t bytes;
    int64_t rows, columns; /* of rank 1: rows values in one column */
} golden;

/* The array `name` of the folder. A folder that exists but is damaged fails the test. */
golden golden_read(const char *folder, const char *name);

/* A folder of larger reference data, which is optional: `relative` below the directory that the
 * environment variable FAIRWAY_SHARED names, else below `shared` beside the source tree; tests skip
 * what is not there. In static memory. */
const char *golden_shared(const char *relative);

#endif
