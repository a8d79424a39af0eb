/* Trained weights on disk, raw and averaged, in float32: what `fairway train` leaves and `fairway
 * pack` takes. One atomic, checksummed file:
 *
 *   8 bytes  "FWWEIGHT"; u32 version, 1
 *   text     hash of the configuration (u32 length, characters)
 *   ...      token table
 *   u32      number of tensors; for each: text name, u32 rank, u64 shape[rank]
 *   ...      raw tensors in order, then averaged ones, packed float32
 *   32 bytes SHA-256 of everything before it */
#ifndef FAIRWAY_WEIGHTS_FILE_H
#define FAIRWAY_WEIGHTS_FILE_H

#include "model.h"
#include "token_table.h"

struct weights_file;

fw_status weights_save(const char *path, const struct model *model, const struct token_table *table,
                       const char *config_hash, const float *raw, const float *averaged,
                       fw_error *error);

/* Errors, with the path: E_IO, E_FORMAT, E_CHECKSUM. */
fw_status weights_open(const char *path, struct weights_file **file, fw_error *error);
void weights_close(struct weights_file *file); /* NULL is fine */

const struct token_table *weights_table(const struct weights_file *file);

/* Copy the raw or averaged weights to a host arena of `model` (zeroed by the caller). E_SHAPE names
 * the first tensor that differs. */
fw_status weights_read(const struct weights_file *file, const struct model *model, bool averaged,
                       float *arena, fw_error *error);

#endif
