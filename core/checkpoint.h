/* A training run on disk, to go on from: RUN/checkpoint.fw. One atomic, checksummed file:
 *
 *   8 bytes  "FWCHECKP"; u32 version, 1
 *   text     hash of the configuration (u32 length, characters)
 *   32 bytes identity of the training data; 32 bytes identity of tensors and plugins
 *   u64      steps taken; f64 seconds of training; f64 running mean of the loss
 *   u32      whether quantization-aware training is on; f64 lowest scale of the schedule
 *   u64      size of the averager's host state, and that state
 *   u64      size of the device memory, and that memory: weights, optimizers' and averager's slots
 *   32 bytes SHA-256 of everything before it
 *
 * Device memory streams through a small buffer, both ways: a checkpoint takes no memory to speak
 * of. Batches and schedule are functions of the seed, the step and the seconds. */
#ifndef FAIRWAY_CHECKPOINT_H
#define FAIRWAY_CHECKPOINT_H

#include <fairway/device.h>
#include <fairway/error.h>
#include <stdbool.h>

struct checkpoint {
    char config[65];
    uint8_t data[32], layout[32];
    int64_t step;
    double elapsed, mean_loss;
    bool qat_on;
    double lowest_scale;
    const uint8_t *averager; /* host state; not owned */
    size_t averager_bytes;
};

enum { CHECKPOINT_PIECES = 16 };

struct checkpoint_memory {
    fw_device *device;
    uint32_t n;
    struct {
        void *data;
        size_t bytes;
    } piece[CHECKPOINT_PIECES];
};

/* Appends a piece; one of 0 bytes is left out. `memory` is a struct checkpoint_memory. */
void checkpoint_add_piece(void *memory, void *data, size_t bytes);

/* Replaces `path` when complete; on failure the file that was there stays. E_IO, E_MEMORY. */
fw_status checkpoint_write(const char *path, const struct checkpoint *checkpoint,
                           const struct checkpoint_memory *memory, fw_error *error);

/* Open and verify. Errors, with the path: E_NOT_FOUND, E_IO, E_FORMAT (another kind of file, or
 * version), E_CHECKSUM (truncated or damaged). */
struct checkpoint_file;
fw_status checkpoint_open(const char *path, struct checkpoint_file **file, fw_error *error);
void checkpoint_close(struct checkpoint_file *file); /* NULL is fine */

/* Valid until the file is closed. */
const struct checkpoint *checkpoint_contents(const struct checkpoint_file *file);

/* Copy the memory back, to pieces of the same sizes. E_FORMAT when they are not; then nothing was
 * written. */
fw_status checkpoint_restore(const struct checkpoint_file *file,
                             const struct checkpoint_memory *memory, fw_error *error);

#endif
