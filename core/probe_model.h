/* Probes of a whole language model: whatever attention, smear, bigram table or anything else in it
 * reads, the row of a position may depend on the tokens up to it, in its own window, alone.
 *
 * A round reads windows of the stream and reads them again under conditions that must not matter:
 *   future-flip         other tokens behind a position t of each window: the rows up to t are the
 *                       same bits. Shape and place of all that is computed stay the same, so that
 *                       no rounding excuses a difference
 *   batch-independence  other tokens in some windows of the batch, after another pass: the rows of
 *                       the windows that stay are the same bits
 *   row-sums            the probabilities of a row sum to 1 within 1e-3, as float32 allows
 * A thorough round also has
 *   batch-position      each window in the place of its neighbour: the log-probabilities are the
 *                       same within `rounding`, as products of other rows add in another order
 *   document-edges      the same probes on windows made for it: a stream that begins with a
 *                       document's first token, documents of one token, of none, and two documents
 *                       in either order. Nothing is declared of documents, so nothing else holds */
#ifndef FAIRWAY_PROBE_MODEL_H
#define FAIRWAY_PROBE_MODEL_H

#include <fairway/device.h>

#include "language_model.h"
#include "token_table.h"
#include "verdicts.h"
#include "windows.h"

struct model_probes {
    struct language_model model; /* for passes of `batch` windows of windows->length tokens */
    const struct token_table *table;
    const struct windows *windows;
    const uint16_t *tokens; /* of the stream */
    int64_t batch;
    uint64_t rounds;
    uint64_t seed;    /* where to look; with all_windows only where to flip */
    int64_t rows;     /* at most so many rows of a window are compared: those up to t; 0: all */
    bool all_windows; /* round r has windows [r * batch, (r + 1) * batch) instead of any */
    bool thorough;
    double rounding; /* of a log-probability */
};

/* What a log-probability may differ by where products have other shapes: 1e-3 in float32, 0.25 in
 * bfloat16, in which the last bit of a product is worth 0.4% of it. */
double model_probe_rounding(const struct fw_device *device);

/* Rounds that cost about a hundredth of a scoring of `windows`, from 1 to 8. */
uint64_t model_probe_rounds(const struct windows *windows, int64_t batch);

/* Errors: E_MEMORY, and those of the model; a probe that fails is none. */
fw_status model_probe(const struct model_probes *probes, struct verdicts *verdicts,
                      fw_error *error);

#endif
