/* The tar of all sources of a run: the host's and its plugins', as the build left them beside the
 * binaries (NAME.src). What has no sources goes in as a binary. Packed, it is what the code counts
 * and what a record carries. Format: POSIX ustar. */
#ifndef FAIRWAY_CODE_BUNDLE_H
#define FAIRWAY_CODE_BUNDLE_H

#include "bytes.h"

/* Append the members of a tar. False, and nothing appended, when it is none. */
bool bundle_put_tar(struct bytes *bundle, const uint8_t *tar, size_t size);

/* Append one file, executable, under binaries/. Names are cut to 80 characters. */
void bundle_put_binary(struct bytes *bundle, const char *name, const uint8_t *data, size_t size);

/* Write the end mark: nothing can be appended after it. */
void bundle_end(struct bytes *bundle);

#endif
