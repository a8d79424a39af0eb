/* Errors: stable status codes from one list, and a caller-owned message.
 *
 * A function that fails returns a code other than FW_OK, leaves its outputs untouched and, when
 * `error` is not NULL, writes one sentence: what was wrong, where, and what would be right. Nothing
 * in a plugin may call exit, abort or raise. */
#ifndef FAIRWAY_ERROR_H
#define FAIRWAY_ERROR_H

#include <stdarg.h>
#include <stdio.h>

#include "abi.h"

/* One list yields codes, names and descriptions. Codes are stable and only appended. */
#define FW_STATUS_MAP(X)                                                                           \
    X(OK, 0, "success")                                                                            \
    X(E_ARGUMENT, 1, "invalid argument")                                                           \
    X(E_CONFIG, 2, "invalid configuration")                                                        \
    X(E_NOT_FOUND, 3, "not found")                                                                 \
    X(E_IO, 4, "input/output error")                                                               \
    X(E_FORMAT, 5, "malformed data")                                                               \
    X(E_CHECKSUM, 6, "checksum mismatch")                                                          \
    X(E_MEMORY, 7, "out of memory")                                                                \
    X(E_UNSUPPORTED, 8, "unsupported")                                                             \
    X(E_ABI, 9, "binary interface mismatch")                                                       \
    X(E_RANGE, 10, "value out of range")                                                           \
    X(E_SHAPE, 11, "shape mismatch")                                                               \
    X(E_DEVICE, 12, "device error")                                                                \
    X(E_NUMERIC, 13, "not a finite number")                                                        \
    X(E_PROTOCOL, 14, "protocol violation")                                                        \
    X(E_BUFFER, 15, "buffer too small")                                                            \
    X(E_LIMIT, 16, "limit exceeded")                                                               \
    X(E_INTERRUPTED, 17, "interrupted")                                                            \
    X(E_INTERNAL, 18, "internal error")

typedef int32_t fw_status;

enum {
#define FW_STATUS_ENUM(name, value, text) FW_##name = value,
    FW_STATUS_MAP(FW_STATUS_ENUM)
#undef FW_STATUS_ENUM
};

/* A message buffer owned by the caller; `message` is always NUL-terminated. */
typedef struct fw_error {
    uint32_t struct_size;
    fw_status status;
    char message[1016];
} fw_error;

/* Fill `error` (may be NULL) and return `status`, so that `return fw_fail(...)` reads naturally. */
static inline fw_status fw_fail(fw_error *error, fw_status status, const char *format, ...)
    FW_PRINTF(3, 4);

static inline fw_status fw_fail(fw_error *error, fw_status status, const char *format, ...) {
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        (void)vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

/* Return the status of `expression` from the calling function unless it is FW_OK. For use where the
 * caller holds nothing that must be released. */
#define FW_TRY(expression)                                                                         \
    do {                                                                                           \
        const fw_status fw_try_status_ = (expression);                                             \
        if (fw_try_status_ != FW_OK) return fw_try_status_;                                        \
    } while (0)

#endif
