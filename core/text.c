/* Text that grows as it is written. */
#include "text.h"

#include <inttypes.h>
#include <stdlib.h>

static bool reserve(struct text *text, size_t more) {
    if (text->capacity - text->length > more) return true;
    const size_t capacity = 2 * text->capacity + more + 256;
    char *grown = realloc(text->bytes, capacity);
    if (grown == NULL) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

void text_put(struct text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int n = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (n < 0) text->failed = true;
    if (n >= 0 && reserve(text, (size_t)n)) {
        (void)vsnprintf(text->bytes + text->length, (size_t)n + 1, format, again);
        text->length += (size_t)n;
    }
    va_end(again);
}

fw_status text_finish(struct text *text, char **result, fw_error *error) {
    if (!text->failed && text->bytes == NULL) text_put(text, "%s", "");
    if (text->failed) return fw_fail(error, FW_E_MEMORY, "out of memory");
    *result = text->bytes;
    *text = (struct text){.bytes = NULL};
    return FW_OK;
}

const char *text_with_commas(uint64_t value, char out[TEXT_COMMAS_BYTES]) {
    char digits[24];
    const int n = snprintf(digits, sizeof digits, "%" PRIu64, value);
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}
