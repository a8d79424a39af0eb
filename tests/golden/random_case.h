/* A float64 reference model with seeded random weights at which every part matters; all of them,
 * and the tokens, are exact in float32. */
#ifndef GOLDEN_RANDOM_CASE_H
#define GOLDEN_RANDOM_CASE_H

#include "reference_model.h"

/* `tokens` receives batch * seq inputs, then as many targets. */
struct reference *random_case(const struct shape *shape, int32_t *tokens);

/* SplitMix64 and a normal number from it. */
double random_normal(uint64_t *state);

#endif
