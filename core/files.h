/* Files: whole reads, writes that are either complete or absent, hashes, and compressed sizes. */
#ifndef FAIRWAY_FILES_H
#define FAIRWAY_FILES_H

#include <fairway/error.h>

/* Read a whole file into memory that the caller frees (one NUL byte follows the data). Errors: E_IO
 * with path and reason; E_LIMIT when it is larger than `limit` bytes (0: no limit). */
fw_status file_read(const char *path, size_t limit, uint8_t **data, size_t *size, fw_error *error);

/* Map a file read-only; unmap with file_unmap. E_IO. An empty file maps to NULL, 0. */
fw_status file_map(const char *path, const uint8_t **data, size_t *size, fw_error *error);
void file_unmap(const uint8_t *data, size_t size);

/* A file that appears under its name only when complete: written beside it under a temporary name
 * (NAME.tmp-PID), fsynced and renamed by file_commit. Any failure (a full disk, say) or
 * file_abandon removes it; after a failed file_append the writer is still to be abandoned. A
 * device, such as /dev/null, is written directly. E_IO. */
struct file_writer;
fw_status file_create(const char *path, struct file_writer **writer, fw_error *error);
fw_status file_append(struct file_writer *writer, const void *data, size_t size, fw_error *error);
/* Overwrite `size` bytes at `offset`, all of which were appended before. */
fw_status file_patch(struct file_writer *writer, uint64_t offset, const void *data, size_t size,
                     fw_error *error);
/* Bring all to the disk, still under the temporary name, so that only the rename is left to fail:
 * for files that appear together. After it only file_commit and file_abandon are allowed. */
fw_status file_prepare(struct file_writer *writer, fw_error *error);
fw_status file_commit(struct file_writer *writer, fw_error *error); /* frees the writer, always */
void file_abandon(struct file_writer *writer);                      /* NULL is fine */
fw_status file_write(const char *path, const void *data, size_t size, fw_error *error);

/* Create a directory and its parents. E_IO. */
fw_status file_make_directories(const char *path, fw_error *error);

/* Paths that match a glob, sorted, each to be freed along with the array. E_NOT_FOUND when none. */
fw_status file_glob(const char *pattern, char ***paths, size_t *n_paths, fw_error *error);
void file_free_paths(char **paths, size_t n_paths);

/* SHA-256. `hex` has room for 65 characters. */
void sha256_bytes(const void *data, size_t size, uint8_t hash[32]);
void sha256_hex(const uint8_t hash[32], char hex[65]);
fw_status sha256_file(const char *path, uint8_t hash[32], fw_error *error);

/* Size in bytes of `data` as an .xz file at preset 9 | extreme (what `xz -9e` makes), or 0 when out
 * of memory. */
size_t xz_size(const void *data, size_t size);

/* Such a file in memory, which the caller frees; its dictionary is no larger than the data, which
 * saves most of the time and memory and moves the size by a few bytes at most. E_MEMORY. */
fw_status xz_pack(const void *data, size_t size, uint8_t **packed, size_t *packed_size,
                  fw_error *error);

#endif
