/* Reading a stream with a language model, window after window: the log-probabilities of all
 * positions that are to be scored, in order.
 *
 * Every forward pass has the shape [batch, window], padded if need be. A model on a device that
 * works by itself reads the next windows while the caller scores those before; the rows of a pass
 * then come in few large pieces, and what is computed after its last attention is computed for the
 * positions that are scored.
 *
 * Or the windows are pieces of one stream, side by side, and the model reads each behind the one
 * before (language_model.h's read_on). */
#ifndef FAIRWAY_READING_H
#define FAIRWAY_READING_H

#include <fairway/host.h>

#include "language_model.h"
#include "windows.h"

struct reading_options {
    const fw_host *host;
    const struct language_model *model;
    const struct windows *windows;
    const uint16_t *tokens; /* of the stream */
    int64_t batch;          /* windows of one pass */
    bool reads_on;          /* as one stream: windows do not overlap, batch is 1 */
    uint32_t vocabulary;
    int64_t most; /* rows of one piece */
};

/* Consecutive positions of one window. */
struct piece {
    uint64_t index; /* of the window */
    struct window window;
    uint64_t first; /* of the positions, within the window */
    int64_t n;
    const float *log_probabilities; /* [n, V], until the next piece is asked for */
};

struct reading;

/* What `options` points to must outlive the reading, which begins at the beginning of the stream.
 * E_MEMORY, and what the model says. */
fw_status reading_create(const struct reading_options *options, struct reading **reading,
                         fw_error *error);
void reading_destroy(struct reading *reading); /* NULL is fine */

/* The next piece; n is 0 behind the last. */
fw_status reading_next(struct reading *reading, struct piece *piece, fw_error *error);

#endif
