/* Files that are complete or absent, by the usual recipe for atomic replacement on POSIX: write a
 * temporary file in the same directory, fsync it, rename it over the name, fsync the directory. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18 };

struct file_writer {
    char *path;
    char *temporary; /* NULL: a device, written directly */
    int descriptor;  /* -1 after a failure, and when prepared */
    bool prepared;   /* complete on the disk; only the rename is left */
    size_t used;
    uint8_t buffer[BUFFER_BYTES];
};

static void writer_discard(struct file_writer *writer) {
    if (writer->descriptor < 0 && !writer->prepared) return;
    if (writer->descriptor >= 0) (void)close(writer->descriptor);
    if (writer->temporary != NULL) (void)unlink(writer->temporary);
    writer->descriptor = -1;
    writer->prepared = false;
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
    writer->prepared = false;
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

fw_status file_prepare(struct file_writer *writer, fw_error *error) {
    FW_TRY(writer_flush(writer, error));
    const bool device = writer->temporary == NULL; /* which may know no fsync */
    if (fsync(writer->descriptor) != 0 && !(device && (errno == EINVAL || errno == EROFS)))
        return writer_fail(writer, error);
    const int descriptor = writer->descriptor;
    writer->descriptor = -1;
    writer->prepared = true;
    return close(descriptor) == 0 ? FW_OK : writer_fail(writer, error);
}

static fw_status writer_publish(struct file_writer *writer, fw_error *error) {
    if (!writer->prepared) FW_TRY(file_prepare(writer, error));
    if (writer->temporary == NULL) return FW_OK;
    if (rename(writer->temporary, writer->path) != 0) return writer_fail(writer, error);
    writer->prepared = false;
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
