/* Packing: weights -> quantizer -> compressor -> artifact, and back. */
#ifndef FAIRWAY_PACK_H
#define FAIRWAY_PACK_H

#include "artifact.h"
#include "calibration.h"
#include "model.h"

/* Create quantizer and compressor and destroy them again: their own word on their parameters. */
fw_status pack_check(const struct experiment *experiment, const fw_host *host,
                     const struct model *model, fw_error *error);

/* Whether the quantizer wants to see what the model reads of training text. */
fw_status pack_wants_calibration(const struct experiment *experiment, const fw_host *host,
                                 const struct model *model, bool *wanted, fw_error *error);

struct pack_options {
    const struct experiment *experiment;
    const fw_host *host;
    const struct model *model;
    const float *weights;                  /* a host arena of `model` */
    const struct calibration *calibration; /* for a quantizer that wants it; NULL: not this time */
    bool fit; /* lower the rate until the artifact's file has at most `limit` bytes */
    size_t limit;
};

/* How the artifact came to its size; fit.h has the terms. Sizes are those of the whole file. */
struct pack_result {
    double rate;
    int encodes;
    bool fits; /* always so when fitting was not asked for */
    size_t full_bytes, least_bytes;
    double calibration_seconds;
};

/* True when the quantizer has a rate that can be lowered. */
bool pack_has_rate(const struct experiment *experiment);

/* Streams and payload by [quantize] and [compress]. The artifact has its config and table already;
 * the caller frees it. With `fit`, result->fits may be false: then there is no payload. Errors
 * carry section and plugin. */
fw_status pack_weights(const struct pack_options *options, struct artifact *artifact,
                       struct pack_result *result, fw_error *error);

/* The weights of an artifact, to a host arena (zeroed by the caller). E_FORMAT when its streams do
 * not fit the model. */
fw_status unpack_weights(const struct experiment *experiment, const fw_host *host,
                         const struct model *model, const struct artifact *artifact, float *weights,
                         fw_error *error);

#endif
