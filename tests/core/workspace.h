/* A temporary directory for a test, files in it, and what lies there afterwards. */
#ifndef TEST_WORKSPACE_H
#define TEST_WORKSPACE_H

#include "support.h"

/* cmocka fixtures: a fresh directory as working directory of each test; its removal. */
int workspace_setup(void **state);
int workspace_teardown(void **state);

/* Write a file of the working directory. */
void write_text(const char *name, const char *text);
void write_bytes(const char *name, const void *data, size_t size);

/* The whole file, with a NUL behind it; the caller frees. Fails the test when it is missing. */
char *read_bytes(const char *name, size_t *size);

/* Write a shard with this header and these tokens. */
void write_shard(const char *name, int32_t magic, int32_t version, int32_t count,
                 const uint16_t *tokens, size_t n);

/* Names in the working directory, sorted, each followed by a space. Static buffer. */
const char *listing(void);

/* Limit the size of files that this process writes, as a disk that becomes full would; 0 lifts it.
 */
void limit_file_size(size_t bytes);

/* Fail unless the status is `expected` and the message contains each part (NULL-terminated). */
#define assert_fails(status, expected, error, ...)                                                 \
    check_failure(__FILE__, __LINE__, (status), (expected), (error),                               \
                  (const char *const[]){__VA_ARGS__, NULL})
#define assert_ok(status, error) check_ok(__FILE__, __LINE__, (status), (error))
void check_failure(const char *file, int line, fw_status status, fw_status expected,
                   const fw_error *error, const char *const *parts);
void check_ok(const char *file, int line, fw_status status, const fw_error *error);

#endif
