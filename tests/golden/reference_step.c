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

/* The momentum, too, is a bfloat16 there: 0.94921875. Recorded updates show it. */
void reference_muon(const double *gradient, size_t rows, size_t columns, double (*keep)(double),
                    double *value) {
    const double rate = 0.025, momentum = keep(0.95), decay = 0.04;
    const double scale = rows > columns ? sqrt((double)rows / (double)columns) : 1;
    double *update = calloc(rows * columns, sizeof *update);
    if (update == NULL) abort();
    for (size_t i = 0; i < rows * columns; i++) {
        const double g = keep(gradient[i]);
        update[i] = keep(g + momentum * g);
    }
    newton_schulz(update, rows, columns, keep, update);
    for (size_t i = 0; i < rows * columns; i++)
        value[i] = value[i] * (1 - rate * decay) - rate * scale * update[i];
    free(update);
}

/* The first step: the corrected means are the gradient and its square. */
static void adamw(struct reference_tensor *tensor, double clip) {
    const double rate = reference_is_table(tensor->name) ? 0.035 : 0.025, decay = 0.04;
    for (int64_t i = 0; i < tensor->count; i++) {
        const double g = clip * tensor->gradient[i];
        tensor->value[i] *= 1 - rate * decay;
        tensor->value[i] -= rate * g / (fabs(g) + 1e-8);
    }
}

double reference_step(struct reference *r) {
    double squares = 0;
    for (uint32_t i = 0; i < r->n_tensors; i++)
        for (int64_t j = 0; j < r->tensor[i].count; j++)
            squares += r->tensor[i].gradient[j] * r->tensor[i].gradient[j];
    const double norm = sqrt(squares), clip = fmin(1, 0.3 / (norm + 1e-6));
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        struct reference_tensor *tensor = &r->tensor[i];
        if (!reference_is_bank(tensor->name)) {
            adamw(tensor, clip);
            continue;
        }
        const int64_t size = tensor->shape[1] * tensor->shape[2];
        for (int64_t j = 0; j < tensor->count; j++) tensor->gradient[j] *= clip;
        for (int64_t j = 0; j < tensor->shape[0]; j++)
            reference_muon(tensor->gradient + j * size, (size_t)tensor->shape[1],
                           (size_t)tensor->shape[2], round_to_bf16, tensor->value + j * size);
    }
    return norm;
}
