/* What a cache is given, checked in one way: the row it is shown and the tokens it is told. */
#ifndef CACHE_GIVEN_H
#define CACHE_GIVEN_H

#include <fairway/fairway.h>

/* E_SHAPE: a row of another vocabulary. */
static inline fw_status given_row(const fw_row *row, uint32_t vocabulary, fw_error *error) {
    if (row->vocabulary == vocabulary) return FW_OK;
    return fw_fail(error, FW_E_SHAPE, "the row at position %llu has %u tokens instead of %u",
                   (unsigned long long)row->position, row->vocabulary, vocabulary);
}

/* E_RANGE: a token outside the vocabulary, of which nothing is to be counted then. */
static inline fw_status given_tokens(const uint32_t *tokens, uint64_t n, uint32_t vocabulary,
                                     fw_error *error) {
    for (uint64_t i = 0; i < n; i++)
        if (tokens[i] >= vocabulary)
            return fw_fail(error, FW_E_RANGE, "token %u, number %llu of an update, is not below %u",
                           tokens[i], (unsigned long long)i, vocabulary);
    return FW_OK;
}

#endif
