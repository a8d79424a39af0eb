/* Row numbers sorted by token, stably: what scatter-adds need to add in a fixed order. */
#ifndef FAIRWAY_CUDA_ROW_SORT_H
#define FAIRWAY_CUDA_ROW_SORT_H

#include "cuda_device.h"

/* The most rows of one sort. */
#define ROW_SORT_MOST (1 << 20)

/* Where a sort keeps its arrays, all of them device memory; filled by row_sort_carve. */
typedef struct row_sort {
    int64_t n, vocabulary;
    uint32_t *keys[2], *rows[2]; /* [n]; the result is in keys[0], rows[0] */
    uint32_t *counts, *totals;
} row_sort;

/* Lays out a sort of n rows (up to ROW_SORT_MOST) from `memory` on, aligned to 256 bytes, and
 * returns the end of what it takes: at most 20 MiB. */
char *row_sort_carve(char *memory, int64_t n, int64_t vocabulary, row_sort *sort);

/* keys[0] = tokens in ascending order, `vocabulary` standing for any that is not in [0,
 * vocabulary); rows[0] = where each of them was, ascending among equal tokens. */
fw_status row_sort_run(cuda_device *cuda, const char *op, const int32_t *tokens, row_sort *sort,
                       fw_error *error);

#endif
