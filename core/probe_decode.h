/* The probe "model.decode": a decoder (decoder.h) that is fed token by token, and cannot look
 * ahead, gives the rows of a pass over the same tokens, but for rounding. */
#ifndef FAIRWAY_PROBE_DECODE_H
#define FAIRWAY_PROBE_DECODE_H

#include "model.h"
#include "verdicts.h"

struct decode_probe {
    struct model *model;    /* for passes of `batch` windows of `window` tokens, and for feeds */
    const uint16_t *tokens; /* of a stream's beginning */
    int64_t n;              /* of them, at most `window` */
    int64_t batch, window;
    uint32_t vocabulary;
    double rounding; /* of a log-probability */
};

/* Skipped where an attention plugin cannot decode. Errors: E_MEMORY, and those of the model. */
fw_status decode_probe(const struct decode_probe *probe, struct verdicts *verdicts,
                       fw_error *error);

#endif
