#include "random.h"

#include <math.h>

struct random random_seeded(uint64_t seed) {
    return (struct random){seed};
}

uint64_t random_bits(struct random *random) {
    uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t random_below(struct random *random, uint64_t n) {
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t bits = random_bits(random);
    while (bits >= limit) bits = random_bits(random);
    return bits % n;
}

static double uniform(struct random *random) {
    return ((double)(random_bits(random) >> 11) + 0.5) * 0x1p-53;
}

uint32_t random_pick(struct random *random, const double *probabilities, uint32_t n) {
    const double at = uniform(random);
    double below = 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        below += probabilities[i];
        if (at < below) return i;
        if (probabilities[i] > 0) last = i;
    }
    return last; /* rounding left the sum a little short */
}

double random_normal(struct random *random) {
    const double radius = sqrt(-2.0 * log(uniform(random)));
    return radius * cos(6.283185307179586 * uniform(random));
}
