/* Packing: weights -> quantizer -> compressor -> artifact, and back. */
#ifndef FAIRWAY_PACK_H
#define FAIRWAY_PACK_H

#include "artifact.h"
#include "model.h"

/* Create quantizer and compressor and destroy them again: their own word on their parameters. */
fw_status pack_check(const struct experiment *experiment, const fw_host *host,
                     const struct model *model, fw_error *error);

/* Streams and payload of `weights` (a host arena of `model`), by [quantize] and [compress]. The
 * caller adds config and table, and frees the artifact. Errors carry section and plugin. */
fw_status pack_weights(const struct experiment *experiment, const fw_host *host,
                       const struct model *model, const float *weights, struct artifact *artifact,
                       fw_error *error);

/* The weights of an artifact, to a host arena (zeroed by the caller). E_FORMAT when its streams do
 * not fit the model. */
fw_status unpack_weights(const struct experiment *experiment, const fw_host *host,
                         const struct model *model, const struct artifact *artifact, float *weights,
                         fw_error *error);

#endif
