/* A model for inference with seeded random weights, at which every part matters. */
#ifndef TEST_TINY_MODEL_H
#define TEST_TINY_MODEL_H

#include "model.h"

/* Fails the test when it cannot be made; the caller destroys it. */
struct model *tiny_model(const struct model_options *options);

#endif
