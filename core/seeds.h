/* run.seeds: the list of seeds of an experiment that is run several times. */
#ifndef FAIRWAY_SEEDS_H
#define FAIRWAY_SEEDS_H

#include <fairway/error.h>

/* Receipts are JSON, and cJSON prints 15 digits of a number: up to here two seeds are two. */
#define LARGEST_SEED INT64_C(999999999999999)

enum { MAX_SEEDS = 64 };

/* "1337, 42, 2024" -> seeds, *n; "" gives *n = 0. Errors (E_CONFIG, E_LIMIT) begin with `where`,
 * the place of the key, and name what is wrong: an empty item, no whole number from 0 on, a seed
 * that occurs twice, more than MAX_SEEDS. */
fw_status seeds_parse(const char *text, const char *where, int64_t seeds[MAX_SEEDS], size_t *n,
                      fw_error *error);

#endif
