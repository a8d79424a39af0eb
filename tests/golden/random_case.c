#include "random_case.h"

#include <math.h>
#include <string.h>

static double uniform(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

double random_normal(uint64_t *state) {
    const double radius = sqrt(-2 * log(1 - uniform(state)));
    return radius * cos(6.283185307179586 * uniform(state));
}

/* Matrices shrink with their inputs; scales, gains and mixes lie around one; gates, skips and
 * mixes with x0 around zero. */
static void fill(struct reference_tensor *t, uint64_t *state) {
    const int gain = strstr(t->name, "_scale") != NULL || strstr(t->name, ".scale") != NULL ||
                     strstr(t->name, "q_gain") != NULL;
    const int mix = strstr(t->name, "resid_mix") != NULL;
    const double inputs = (double)(t->rank == 3 ? t->shape[2] : t->shape[1]);
    double deviation = 0.2, mean = gain ? 1 : 0;
    if (reference_is_bank(t->name)) deviation = 0.6 / sqrt(inputs);
    if (reference_is_table(t->name) || strstr(t->name, ".proj.") != NULL) deviation = 0.4;
    for (int64_t i = 0; i < t->count; i++) {
        if (mix) mean = i < t->shape[1] ? 1 : 0;
        t->value[i] = (double)(float)(mean + deviation * random_normal(state));
    }
}

struct reference *random_case(const struct shape *shape, int32_t *tokens) {
    uint64_t state = (uint64_t)shape->seed;
    struct reference *reference = reference_create(shape);
    for (uint32_t i = 0; i < reference->n_tensors; i++) fill(&reference->tensor[i], &state);
    for (int64_t i = 0; i < 2 * shape->batch * shape->seq; i++)
        tokens[i] = (int32_t)(uniform(&state) * (double)shape->vocab);
    return reference;
}
