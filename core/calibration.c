#include "calibration.h"

#include <stdlib.h>

/* Every matrix is asked about, so that the instance knows which there are. */
fw_status calibration_is_wanted(const fw_quantizer *quantizer, void *self,
                                const struct model *model, bool *wanted, fw_error *error) {
    *wanted = false;
    for (uint32_t i = 0; FW_HAS(quantizer, observe) && i < model_n_weights(model); i++) {
        const fw_weight *weight = model_weight(model, i);
        fw_error why = {.struct_size = sizeof why};
        if (weight->rank != 2) continue;
        const fw_status status = quantizer->observe(self, i, NULL, 0, weight->shape[1], &why);
        if (status != FW_OK && status != FW_E_UNSUPPORTED)
            return fw_fail(error, status, "asked whether to calibrate %s: %.900s", weight->name,
                           why.message);
        *wanted |= status == FW_OK;
    }
    return FW_OK;
}

/* Who is shown the rows of a pass. */
struct pupil {
    const fw_quantizer *quantizer;
    void *self;
    const struct model *model;
    fw_status refused; /* what it said to rows, whoever else fails */
};

static fw_status show(void *self, uint32_t weight, const float *rows, int64_t n_rows,
                      int64_t n_columns, fw_error *error) {
    struct pupil *pupil = self;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status =
        pupil->quantizer->observe(pupil->self, weight, rows, n_rows, n_columns, &why);
    if (status == FW_OK || status == FW_E_UNSUPPORTED) return FW_OK;
    pupil->refused = status;
    return fw_fail(error, status, "calibrating %s: %.900s",
                   model_weight(pupil->model, weight)->name, why.message);
}

/* Sequence k of n, all of one corpus and as far apart as can be. */
static fw_status read_sequence(const struct calibration *c, uint64_t k, uint64_t n, int32_t *inputs,
                               fw_error *error) {
    const uint64_t there = corpus_tokens(c->corpus);
    uint16_t *tokens = malloc((size_t)c->tokens * sizeof *tokens);
    if (tokens == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a sequence");
    corpus_read(c->corpus, (uint64_t)((double)k / (double)n * (double)there), (uint64_t)c->tokens,
                tokens);
    for (int64_t i = 0; i < c->tokens; i++) inputs[i] = tokens[i];
    free(tokens);
    return FW_OK;
}

static fw_status read_pass(const struct calibration *c, uint64_t pass, uint64_t passes,
                           const struct model_observer *observer, int32_t *inputs,
                           fw_error *error) {
    const uint64_t batch = (uint64_t)c->batch;
    for (uint64_t b = 0; b < batch; b++)
        FW_TRY(read_sequence(c, pass * batch + b, passes * batch, inputs + b * (uint64_t)c->tokens,
                             error));
    return model_observe(c->model, inputs, c->batch, c->tokens, observer, error);
}

fw_status calibration_run(const struct calibration *c, const fw_host *host,
                          const fw_quantizer *quantizer, void *self, bool *refused,
                          fw_error *error) {
    struct pupil pupil = {quantizer, self, c->model, FW_OK};
    const struct model_observer observer = {&pupil, show};
    const uint64_t of_pass = (uint64_t)(c->batch * c->tokens);
    const uint64_t passes = (c->total + of_pass - 1) / of_pass;
    int32_t *inputs = malloc((size_t)of_pass * sizeof *inputs);
    if (inputs == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to calibrate");
    fw_status status = FW_OK;
    for (uint64_t i = 0; status == FW_OK && i < passes; i++) {
        status = read_pass(c, i, passes, &observer, inputs, error);
        host->progress(host, "calibrate, tokens", (double)((i + 1) * of_pass),
                       (double)(passes * of_pass));
    }
    free(inputs);
    *refused = pupil.refused != FW_OK;
    if (status == FW_OK) host->effect(host, "calibration_tokens", (double)(passes * of_pass));
    return status;
}
