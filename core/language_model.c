#include "language_model.h"

#include "model.h"

static fw_status infer(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                       fw_error *error) {
    return model_infer(self, inputs, batch, tokens, error);
}

static fw_status log_probabilities(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *error) {
    return model_log_probabilities(self, first, n, host, error);
}

struct language_model language_model_of(struct model *model) {
    return (struct language_model){model, infer, log_probabilities};
}
