/* Text that grows as it is written. */
#ifndef FAIRWAY_TEXT_H
#define FAIRWAY_TEXT_H

#include <fairway/error.h>
#include <stdbool.h>

/* Starts out zeroed; release `bytes` with free(). */
struct text {
    char *bytes;
    size_t length, capacity;
    bool failed; /* out of memory; text_finish reports it */
};

void text_put(struct text *text, const char *format, ...) FW_PRINTF(2, 3);

/* Hand over the text, NUL-terminated; the caller frees it. E_MEMORY. */
fw_status text_finish(struct text *text, char **result, fw_error *error);

/* 26993756 -> "26,993,756". Returns `out`. */
enum { TEXT_COMMAS_BYTES = 32 };
const char *text_with_commas(uint64_t value, char out[TEXT_COMMAS_BYTES]);

#endif
