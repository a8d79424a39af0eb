/* Tensors for tests of quantizers; see quantizer_samples.h. */
#include "quantizer_samples.h"

#include <math.h>

#include "support.h"

enum { ROWS = 160, COLUMNS = 512 }; /* more values than any usual limit of small tensors */

static float draw(test_random *random, int sample, size_t i) {
    const double x = test_normal(random);
    switch (sample) {
    case LAPLACE: return (float)copysign(-0.1 * log(1 - test_uniform(random)), x);
    case OUTLIER: return (float)(i % 1013 == 0 ? 20 * x : x);
    case CONSTANT: return 0.375f;
    case TINY: return (float)(1e-5 * x);
    case ZERO: return 0;
    default: return (float)x;
    }
}

size_t samples_count(const fw_weight *weight) {
    return (size_t)(weight->shape[0] * weight->shape[1]);
}

samples samples_new(void) {
    static const char *const names[N_SAMPLES] = {
        "layer.0.gauss", "layer.0.laplace", "layer.1.outlier", "layer.1.constant",
        "layer.2.tiny",  "layer.2.zero",    "small",           "vector",
        "scalar"};
    samples s = {0};
    test_random random = {20};
    for (int i = 0; i < N_SAMPLES; i++) {
        fw_weight *weight = &s.weight[i];
        *weight = (fw_weight){.struct_size = sizeof *weight,
                              .role = i <= MATRIX_3X5 ? FW_ROLE_MATRIX : FW_ROLE_SCALAR,
                              .init = FW_INIT_ZERO,
                              .part = i % 2 ? FW_PART_MLP : FW_PART_ATTENTION,
                              .layer = i < MATRIX_3X5 ? i / 2 : -1,
                              .rank = i <= MATRIX_3X5 ? 2 : i == VECTOR,
                              .shape = {ROWS, COLUMNS, 1, 1},
                              .index = (uint32_t)i};
        if (i == MATRIX_3X5) weight->shape[0] = 3, weight->shape[1] = 5;
        if (i == VECTOR) weight->shape[0] = 700, weight->shape[1] = 1;
        if (i == SCALAR) weight->shape[0] = weight->shape[1] = 1;
        (void)snprintf(weight->name, sizeof weight->name, "%s", names[i]);
        s.values[i] = malloc(samples_count(weight) * sizeof(float));
        assert_non_null(s.values[i]);
        for (size_t k = 0; k < samples_count(weight); k++) s.values[i][k] = draw(&random, i, k);
    }
    return s;
}

void samples_free(samples *s) {
    for (int i = 0; i < N_SAMPLES; i++) free(s->values[i]);
}
