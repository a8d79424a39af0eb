/* Tensors that quantizers are tested with: usual, awkward and small ones. */
#ifndef QUANTIZER_SAMPLES_H
#define QUANTIZER_SAMPLES_H

#include <fairway/fairway.h>

/* Normal values come first; the error of their quantization is bounded. */
enum { GAUSS, LAPLACE, OUTLIER, CONSTANT, TINY, ZERO, MATRIX_3X5, VECTOR, SCALAR, N_SAMPLES };

typedef struct samples {
    fw_weight weight[N_SAMPLES];
    float *values[N_SAMPLES];
    const fw_weight *weights[N_SAMPLES]; /* room for a plan's pointers */
} samples;

samples samples_new(void);
void samples_free(samples *s);

size_t samples_count(const fw_weight *weight);

#endif
