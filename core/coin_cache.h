/* `fairway coin --cache`: the coin test of a cache alone, with uniform rows and no model. */
#ifndef FAIRWAY_COIN_CACHE_H
#define FAIRWAY_COIN_CACHE_H

#include "arguments.h"

struct coin_cache_options {
    const struct arguments *arguments; /* --set and --plugin-dir */
    const char *cache;                 /* plugin */
    uint64_t tokens, seed;
    uint32_t vocabulary;
};

/* Play and print. Errors: those of the configuration and of evaluate(). */
fw_status coin_cache(const struct coin_cache_options *options, bool *invalid, fw_error *error);

#endif
