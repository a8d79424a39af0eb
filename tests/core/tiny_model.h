/* A model for inference with seeded random weights, at which every part matters. */
#ifndef TEST_TINY_MODEL_H
#define TEST_TINY_MODEL_H

#include "model.h"

/* A host arena of seeded random weights: matrices about 0, vectors about 1. At the initial ones
 * some parts do nothing. The caller frees. */
float *random_weights(const struct model *model, uint64_t seed, double deviation);

/* Fails the test when it cannot be made; the caller destroys it. */
struct model *tiny_model(const struct model_options *options);

#endif
