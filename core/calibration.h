/* Calibration: a quantizer that asks for it is shown what the linear layers read of training text,
 * so that it can round with least harm there. Never of what is scored: whoever calibrates has the
 * training corpus held against the validation corpus first, as before a training. */
#ifndef FAIRWAY_CALIBRATION_H
#define FAIRWAY_CALIBRATION_H

#include <fairway/quantizer.h>
#include <stdbool.h>

#include "corpus.h"
#include "model.h"

struct calibration {
    struct model *model;         /* for inference, with the weights that will be packed */
    int64_t batch, tokens;       /* B and T of its passes */
    const struct corpus *corpus; /* of training */
    uint64_t total;              /* tokens to read, rounded up to whole passes */
};

/* Whether `self` wants rows of any matrix of the model. Errors: what it says other than
 * E_UNSUPPORTED. */
fw_status calibration_is_wanted(const fw_quantizer *quantizer, void *self,
                                const struct model *model, bool *wanted, fw_error *error);

/* Have the model read sequences that lie evenly over the corpus, and show the quantizer what its
 * layers read. States the effect "calibration_tokens". Errors: the quantizer's, with the weight's
 * name, and then `refused` is set; those of model_observe. */
fw_status calibration_run(const struct calibration *calibration, const fw_host *host,
                          const fw_quantizer *quantizer, void *self, bool *refused,
                          fw_error *error);

#endif
