/* Files: whole reads, writes that are complete or absent, hashes (libmd) and xz sizes (liblzma).
 *
 * The writer follows the usual recipe for atomic replacement on POSIX: write a temporary file in
 * the same directory, fsync it, rename it over the name, fsync the directory. */
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

/* Reading ------------------------------------------------------------------------------------- */

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

/* Writing ------------------------------------------------------------------------------------- */

struct file_writer {
    char *path;
    char *temporary; /* NULL: a device, written directly */
    int descriptor;  /* -1 after a failure */
    size_t used;
    uint8_t buffer[BUFFER_BYTES];
};

static void writer_discard(struct file_writer *writer) {
    if (writer->descriptor < 0) return;
    (void)close(writer->descriptor);
    if (writer->temporary != NULL) (void)unlink(writer->temporary);
    writer->descriptor = -1;
}

/* Report errno and remove what was written. */
static fw_status writer_fail(struct file_writer *writer, fw_error *error) {
    const int code = errno;
    writer_discard(writer);
    const bool full = code == ENOSPC || code == EDQUOT;
    return fw_fail(error, FW_E_IO, "cannot write %s: %s%s", writer->path,
                   full ? "the disk is full" : strerror(code),
                   writer->temporary != NULL ? "; the incomplete file was removed" : "");
}

static fw_status writer_check(const struct file_writer *writer, fw_error *error) {
    if (writer->descriptor >= 0) return FW_OK;
    return fw_fail(error, FW_E_IO, "cannot write %s: an earlier write failed", writer->path);
}

static fw_status write_at(struct file_writer *writer, const uint8_t *data, size_t size,
                          const uint64_t *offset, fw_error *error) {
    for (size_t done = 0; done < size;) {
        const ssize_t got = offset == NULL ? write(writer->descriptor, data + done, size - done)
                                           : pwrite(writer->descriptor, data + done, size - done,
                                                    (off_t)(*offset + done));
        if (got > 0) done += (size_t)got;
        if (got < 0 && errno != EINTR) return writer_fail(writer, error);
    }
    return FW_OK;
}

static fw_status writer_flush(struct file_writer *writer, fw_error *error) {
    FW_TRY(writer_check(writer, error));
    FW_TRY(write_at(writer, writer->buffer, writer->used, NULL, error));
    writer->used = 0;
    return FW_OK;
}

static char *temporary_name(const char *path) {
    const size_t size = strlen(path) + sizeof ".tmp-" + 20;
    char *name = malloc(size);
    if (name != NULL) (void)snprintf(name, size, "%s.tmp-%ld", path, (long)getpid());
    return name;
}

static void writer_free(struct file_writer *writer) {
    free(writer->path);
    free(writer->temporary);
    free(writer);
}

/* Renaming onto a device or pipe would replace it by a file, so these are opened as they are. */
static fw_status writer_open(struct file_writer *writer, fw_error *error) {
    struct stat information;
    const bool exists = stat(writer->path, &information) == 0;
    if (exists && S_ISDIR(information.st_mode))
        return fw_fail(error, FW_E_IO, "cannot write %s: it is a directory", writer->path);
    if (exists && !S_ISREG(information.st_mode)) {
        writer->descriptor = open(writer->path, O_WRONLY | O_CLOEXEC);
    } else {
        writer->temporary = temporary_name(writer->path);
        if (writer->temporary == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
        /* A leftover of a killed process that had our process id, common in containers. */
        (void)unlink(writer->temporary);
        writer->descriptor =
            open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    }
    if (writer->descriptor >= 0) return FW_OK;
    return fw_fail(error, FW_E_IO, "cannot create %s: %s", writer->path, strerror(errno));
}

fw_status file_create(const char *path, struct file_writer **out, fw_error *error) {
    struct file_writer *writer = malloc(sizeof *writer);
    if (writer == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory writing %s", path);
    writer->temporary = NULL;
    writer->descriptor = -1;
    writer->used = 0;
    writer->path = strdup(path);
    const fw_status status = writer->path != NULL ? writer_open(writer, error)
                                                  : fw_fail(error, FW_E_MEMORY, "out of memory");
    if (status != FW_OK)
        writer_free(writer);
    else
        *out = writer;
    return status;
}

fw_status file_append(struct file_writer *writer, const void *data, size_t size, fw_error *error) {
    if (size > BUFFER_BYTES - writer->used) FW_TRY(writer_flush(writer, error));
    FW_TRY(writer_check(writer, error));
    if (size >= BUFFER_BYTES) return write_at(writer, data, size, NULL, error);
    if (size > 0) memcpy(writer->buffer + writer->used, data, size);
    writer->used += size;
    return FW_OK;
}

fw_status file_patch(struct file_writer *writer, uint64_t offset, const void *data, size_t size,
                     fw_error *error) {
    FW_TRY(writer_flush(writer, error));
    return write_at(writer, data, size, &offset, error);
}

/* The rename must reach the disk too. Some file systems cannot sync a directory, which is fine. */
static fw_status sync_directory(const char *path, fw_error *error) {
    const char *slash = strrchr(path, '/');
    char *directory = slash == NULL   ? strdup(".")
                      : slash == path ? strdup("/")
                                      : strndup(path, (size_t)(slash - path));
    if (directory == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory writing %s", path);
    const int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(directory);
    if (descriptor < 0) return FW_OK;
    const int code = fsync(descriptor) != 0 ? errno : 0;
    (void)close(descriptor);
    if (code == EIO || code == ENOSPC)
        return fw_fail(error, FW_E_IO, "cannot write the directory of %s: %s", path,
                       strerror(code));
    return FW_OK;
}

static fw_status writer_publish(struct file_writer *writer, fw_error *error) {
    FW_TRY(writer_flush(writer, error));
    const bool device = writer->temporary == NULL; /* which may know no fsync */
    if (fsync(writer->descriptor) != 0 && !(device && (errno == EINVAL || errno == EROFS)))
        return writer_fail(writer, error);
    const int descriptor = writer->descriptor;
    if (device) {
        writer->descriptor = -1;
        return close(descriptor) == 0 ? FW_OK : writer_fail(writer, error);
    }
    if (rename(writer->temporary, writer->path) != 0) return writer_fail(writer, error);
    writer->descriptor = -1;
    (void)close(descriptor); /* fsync has reported all that close could */
    return sync_directory(writer->path, error);
}

fw_status file_commit(struct file_writer *writer, fw_error *error) {
    const fw_status status = writer_publish(writer, error);
    file_abandon(writer);
    return status;
}

void file_abandon(struct file_writer *writer) {
    if (writer == NULL) return;
    writer_discard(writer);
    writer_free(writer);
}

fw_status file_write(const char *path, const void *data, size_t size, fw_error *error) {
    struct file_writer *writer;
    FW_TRY(file_create(path, &writer, error));
    const fw_status status = file_append(writer, data, size, error);
    if (status == FW_OK) return file_commit(writer, error);
    file_abandon(writer);
    return status;
}

/* Directories and globs ------------------------------------------------------------------------ */

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

/* Hashes and sizes ------------------------------------------------------------------------------
 */

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
