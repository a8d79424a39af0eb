/* Files: whole reads, directories, globs, hashes (libmd) and xz sizes (liblzma). Writing is in
 * file_writer.c. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <lzma.h>
#include <sha2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18 };

/* ---- Reading ---- */

/* Report errno of what was attempted. */
static fw_status failed(const char *what, const char *path, fw_error *error) {
    return fw_fail(error, FW_E_IO, "cannot %s %s: %s", what, path, strerror(errno));
}

/* As read(2), but an interrupted call is repeated. */
static ssize_t read_some(int descriptor, void *data, size_t size) {
    for (;;) {
        const ssize_t got = read(descriptor, data, size);
        if (got >= 0 || errno != EINTR) return got;
    }
}

/* Read to the end of the file; sizes are not trusted, so pipes work too. */
static fw_status read_all(int descriptor, const char *path, size_t limit, size_t expected,
                          uint8_t **data, size_t *size, fw_error *error) {
    size_t capacity = expected + 1, used = 0;
    uint8_t *bytes = malloc(capacity);
    for (;;) {
        if (bytes == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory reading %s", path);
        const ssize_t got = read_some(descriptor, bytes + used, capacity - used);
        if (got < 0) {
            (void)failed("read", path, error);
            free(bytes);
            return FW_E_IO;
        }
        if (got == 0) break;
        used += (size_t)got;
        if (limit > 0 && used > limit) {
            free(bytes);
            return fw_fail(error, FW_E_LIMIT, "%s is larger than %zu bytes", path, limit);
        }
        if (used < capacity) continue;
        capacity += capacity / 2 + BUFFER_BYTES;
        uint8_t *larger = realloc(bytes, capacity);
        if (larger == NULL) free(bytes);
        bytes = larger;
    }
    bytes[used] = 0; /* used < capacity: the loop grows a full buffer before it reads again */
    *data = bytes;
    *size = used;
    return FW_OK;
}

fw_status file_read(const char *path, size_t limit, uint8_t **data, size_t *size, fw_error *error) {
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return failed("open", path, error);
    struct stat information;
    fw_status status = FW_OK;
    if (fstat(descriptor, &information) != 0)
        status = failed("read", path, error);
    else if (S_ISREG(information.st_mode) && limit > 0 && (uint64_t)information.st_size > limit)
        status = fw_fail(error, FW_E_LIMIT, "%s has %lld bytes, more than the %zu allowed", path,
                         (long long)information.st_size, limit);
    else
        status = read_all(descriptor, path, limit,
                          S_ISREG(information.st_mode) ? (size_t)information.st_size : BUFFER_BYTES,
                          data, size, error);
    (void)close(descriptor);
    return status;
}

fw_status file_map(const char *path, const uint8_t **data, size_t *size, fw_error *error) {
    /* O_NONBLOCK: opening a pipe without a writer would wait for ever. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return failed("open", path, error);
    struct stat information;
    fw_status status = FW_OK;
    void *mapping = NULL;
    if (fstat(descriptor, &information) != 0) {
        status = failed("read", path, error);
    } else if (!S_ISREG(information.st_mode)) {
        status = fw_fail(error, FW_E_IO, "cannot read %s: it is %s, not a file", path,
                         S_ISDIR(information.st_mode) ? "a directory" : "a pipe or a device");
    } else if (information.st_size > 0) {
        mapping = mmap(NULL, (size_t)information.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (mapping == MAP_FAILED) status = failed("read", path, error);
    }
    (void)close(descriptor);
    FW_TRY(status);
    *data = mapping;
    *size = (size_t)information.st_size;
    return FW_OK;
}

void file_unmap(const uint8_t *data, size_t size) {
    if (data == NULL) return;
    void *mapping;
    memcpy(&mapping, &data, sizeof mapping); /* munmap takes no const, though it writes nothing */
    (void)munmap(mapping, size);
}

/* ---- Directories and globs ---- */

static fw_status make_directory(const char *path, fw_error *error) {
    struct stat information;
    if (mkdir(path, 0777) == 0) return FW_OK;
    const int code = errno;
    if (stat(path, &information) == 0) {
        if (S_ISDIR(information.st_mode)) return FW_OK;
        return fw_fail(error, FW_E_IO, "cannot create directory %s: a file is in the way", path);
    }
    return fw_fail(error, FW_E_IO, "cannot create directory %s: %s", path, strerror(code));
}

fw_status file_make_directories(const char *path, fw_error *error) {
    char *partial = strdup(path);
    if (partial == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    fw_status status = FW_OK;
    for (char *c = partial; status == FW_OK && *c != '\0'; c++) {
        if (*c != '/' || c == partial) continue;
        *c = '\0';
        status = make_directory(partial, error);
        *c = '/';
    }
    free(partial);
    FW_TRY(status);
    return make_directory(path, error);
}

static int compare_paths(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static fw_status copy_paths(const char *const *found, size_t n, char ***paths, size_t *n_paths,
                            fw_error *error) {
    char **copy = calloc(n, sizeof *copy);
    bool complete = copy != NULL;
    for (size_t i = 0; complete && i < n; i++) complete = (copy[i] = strdup(found[i])) != NULL;
    if (!complete) {
        file_free_paths(copy, copy != NULL ? n : 0);
        return fw_fail(error, FW_E_MEMORY, "out of memory listing files");
    }
    /* By bytes, so that the order of shards does not depend on the locale. */
    qsort(copy, n, sizeof *copy, compare_paths);
    *paths = copy;
    *n_paths = n;
    return FW_OK;
}

fw_status file_glob(const char *pattern, char ***paths, size_t *n_paths, fw_error *error) {
    /* A name that exists is meant literally even when it contains pattern characters. */
    if (access(pattern, F_OK) == 0) return copy_paths(&pattern, 1, paths, n_paths, error);
    glob_t found;
    const int code = glob(pattern, GLOB_NOSORT, NULL, &found);
    if (code == GLOB_NOMATCH && strpbrk(pattern, "*?[") == NULL)
        return fw_fail(error, FW_E_NOT_FOUND, "there is no file %s", pattern);
    if (code == GLOB_NOMATCH) return fw_fail(error, FW_E_NOT_FOUND, "no file matches %s", pattern);
    if (code == GLOB_NOSPACE) return fw_fail(error, FW_E_MEMORY, "out of memory listing files");
    if (code != 0) return failed("list", pattern, error);
    const fw_status status =
        copy_paths((const char *const *)found.gl_pathv, found.gl_pathc, paths, n_paths, error);
    globfree(&found);
    return status;
}

void file_free_paths(char **paths, size_t n_paths) {
    for (size_t i = 0; i < n_paths; i++) free(paths[i]);
    free(paths);
}

/* ---- Hashes and sizes ---- */

void sha256_bytes(const void *data, size_t size, uint8_t hash[32]) {
    SHA2_CTX context;
    SHA256Init(&context);
    if (size > 0) SHA256Update(&context, data, size);
    SHA256Final(hash, &context);
}

void sha256_hex(const uint8_t hash[32], char hex[65]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = digits[hash[i] >> 4];
        hex[2 * i + 1] = digits[hash[i] & 15];
    }
    hex[64] = '\0';
}

fw_status sha256_file(const char *path, uint8_t hash[32], fw_error *error) {
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return failed("open", path, error);
    SHA2_CTX context;
    SHA256Init(&context);
    uint8_t buffer[1 << 15];
    ssize_t got;
    while ((got = read_some(descriptor, buffer, sizeof buffer)) > 0)
        SHA256Update(&context, buffer, (size_t)got);
    const fw_status status = got < 0 ? failed("read", path, error) : FW_OK;
    (void)close(descriptor);
    if (status == FW_OK) SHA256Final(hash, &context);
    return status;
}

size_t xz_size(const void *data, size_t size) {
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_easy_encoder(&stream, 9 | LZMA_PRESET_EXTREME, LZMA_CHECK_CRC64) != LZMA_OK) return 0;
    uint8_t discarded[1 << 14];
    stream.next_in = data;
    stream.avail_in = size;
    lzma_ret code = LZMA_OK;
    while (code == LZMA_OK) {
        stream.next_out = discarded;
        stream.avail_out = sizeof discarded;
        code = lzma_code(&stream, LZMA_FINISH);
    }
    const size_t total = code == LZMA_STREAM_END ? (size_t)stream.total_out : 0;
    lzma_end(&stream);
    return total;
}

fw_status xz_pack(const void *data, size_t size, uint8_t **packed, size_t *packed_size,
                  fw_error *error) {
    const size_t bound = lzma_stream_buffer_bound(size);
    uint8_t *made = bound > 0 ? malloc(bound) : NULL;
    size_t n = 0;
    lzma_options_lzma options;
    lzma_ret code = LZMA_MEM_ERROR;
    if (made != NULL && !lzma_lzma_preset(&options, 9 | LZMA_PRESET_EXTREME)) {
        lzma_filter filters[] = {{.id = LZMA_FILTER_LZMA2, .options = &options},
                                 {.id = LZMA_VLI_UNKNOWN}};
        if (size < options.dict_size)
            options.dict_size = size > LZMA_DICT_SIZE_MIN ? (uint32_t)size : LZMA_DICT_SIZE_MIN;
        code =
            lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC64, NULL, data, size, made, &n, bound);
    }
    if (code != LZMA_OK) {
        free(made);
        return fw_fail(error, FW_E_MEMORY, "no memory to pack %zu bytes by xz", size);
    }
    *packed = made;
    *packed_size = n;
    return FW_OK;
}
