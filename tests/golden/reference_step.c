/* The recorded optimizer step; see reference_model.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "newton_schulz.h"
#include "reference_model.h"

int reference_is_bank(const char *name) {
    const size_t length = strlen(name);
    return length > 5 && strcmp(name + length - 5, "_bank") == 0;
}

int reference_is_table(const char *name) {
    return strcmp(name, "tok_emb.weight") == 0 || strstr(name, ".embed.weight") != NULL;
}

/* In bfloat16 the momentum, too, is one: 0.94921875. Recorded updates show it. */
void reference_muon(const double *gradient, size_t rows, size_t columns, int bf16, uint64_t seed,
                    double *value) {
    double (*keep)(double) = bf16 ? round_to_bf16 : round_to_nothing;
    const double rate = 0.025, momentum = keep(0.95), decay = 0.04;
    const double scale = rows > columns ? sqrt((double)rows / (double)columns) : 1;
    double *update = calloc(rows * columns, sizeof *update);
    if (update == NULL) abort();
    for (size_t i = 0; i < rows * columns; i++) {
        const double g = keep(gradient[i]);
        update[i] = keep(g + momentum * g);
    }
    if (bf16)
        newton_schulz_bf16(update, rows, columns, seed, update);
    else
        newton_schulz(update, rows, columns, round_to_nothing, update);
    for (size_t i = 0; i < rows * columns; i++)
        value[i] = value[i] * (1 - rate * decay) - rate * scale * update[i];
    free(update);
}

/* The first step: the corrected means are the gradient and its square. */
static void adamw(struct reference_tensor *tensor) {
    const double rate = reference_is_table(tensor->name) ? 0.035 : 0.025, decay = 0.04;
    for (int64_t i = 0; i < tensor->count; i++) {
        const double g = tensor->gradient[i];
        tensor->value[i] *= 1 - rate * decay;
        tensor->value[i] -= rate * g / (fabs(g) + 1e-8);
    }
}

float reference_clip(double norm) { return fminf(1, 1 / ((float)norm + 1e-6f) * 0.3f); }

double reference_step(struct reference *r) {
    double squares = 0;
    for (uint32_t i = 0; i < r->n_tensors; i++)
        for (int64_t j = 0; j < r->tensor[i].count; j++)
            squares += r->tensor[i].gradient[j] * r->tensor[i].gradient[j];
    const double norm = sqrt(squares);
    const float clip = reference_clip(norm);
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        struct reference_tensor *tensor = &r->tensor[i];
        const int64_t size = tensor->shape[1] * tensor->shape[2];
        for (int64_t j = 0; j < tensor->count; j++)
            tensor->gradient[j] = (double)(clip * (float)tensor->gradient[j]);
        if (!reference_is_bank(tensor->name)) adamw(tensor);
        for (int64_t j = 0; reference_is_bank(tensor->name) && j < tensor->shape[0]; j++)
            reference_muon(tensor->gradient + j * size, (size_t)tensor->shape[1],
                           (size_t)tensor->shape[2], 1, 0, tensor->value + j * size);
    }
    return norm;
}
