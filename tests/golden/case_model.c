/* Model cases: logits, loss, every gradient, and one optimizer step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "distance.h"
#include "model_case.h"
#include "model_internal.h" /* the logits before the softcap are in no other interface */

/* What bfloat16 may cost. It has 8 significant bits: each rounding is off by at most 2^-8 of the
 * value, and by 2^-9 as a root mean square over many. They are independent, so that n of them add
 * up to sqrt(n) * 2^-9. On the way to a logit lie two roundings of the residual stream in each
 * layer and about ten of a branch, which is part of it: 1.2% after twelve layers, of values and of
 * their largest alike. A loss is a mean of many such, and a gradient's norm a sum: most of that
 * averages out. A gradient has the way back as well, and parts of it are small sums of large terms.
 *
 * A tensor of a few values, each a sum over all tokens, may cancel to next to nothing while the
 * rounding of the terms does not: those are held together against the norm of all of them. */
static const struct tolerances {
    double logits, loss, gradient, gradient_norm;
} exactly = {1e-5, 1e-5, 1e-4, 1e-4}, rounded = {3e-2, 5e-3, 1e-1, 2e-2};

enum { FEW_VALUES = 16 };

static const struct tolerances *tolerances_of(const struct model_case *m) {
    return m->exact ? &exactly : &rounded;
}

static bool recognise(const struct folder *folder) {
    return folder_find(folder, "input_ids") != NULL && folder_find(folder, "logits") != NULL;
}

static float bf16_to_f32(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The logits that the last model_log_probabilities() left on the device, capped here. */
static fw_status read_logits(struct model *model, int64_t count, float *logits, fw_error *error) {
    const size_t bytes = (size_t)count * fw_dtype_size(model->dtype);
    void *raw = malloc(bytes);
    if (raw == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for logits");
    const fw_status status =
        model->device->copy_to_host(model->device, raw, model->logits, bytes, error);
    for (int64_t i = 0; status == FW_OK && i < count; i++) {
        const float z =
            model->dtype == FW_BF16 ? bf16_to_f32(((uint16_t *)raw)[i]) : ((float *)raw)[i];
        logits[i] = (float)(30 * tanh((double)z / 30));
    }
    free(raw);
    return status;
}

/* Logits and log-probabilities [N,V] of the whole batch. */
static fw_status infer(struct model_case *m, struct model *model, const float *weights,
                       float *logits, float *rows, fw_error *error) {
    const int64_t n = m->shape.batch * m->shape.seq, V = m->shape.vocab;
    const int64_t most = model_most_rows(model);
    FW_TRY(model_set_weights(model, weights, error));
    FW_TRY(model_infer(model, m->inputs, m->shape.batch, m->shape.seq, error));
    for (int64_t i = 0; i < n; i += most) {
        const int64_t some = n - i < most ? n - i : most;
        FW_TRY(model_log_probabilities(model, i, some, rows + i * V, error));
        FW_TRY(read_logits(model, some * V, logits + i * V, error));
    }
    return FW_OK;
}

static void expected_rows(const struct array *logits, int64_t n, int64_t v, float *expected,
                          float *rows) {
    for (int64_t t = 0; t < n; t++) {
        double sum = 0;
        for (int64_t i = 0; i < v; i++) sum += exp(array_value(logits, t * v + i));
        for (int64_t i = 0; i < v; i++) {
            expected[t * v + i] = (float)array_value(logits, t * v + i);
            rows[t * v + i] = (float)(array_value(logits, t * v + i) - log(sum));
        }
    }
}

static fw_status compare_logits(struct model_case *m, struct model *model, const float *weights,
                                struct verdicts *verdicts, fw_error *error) {
    const int64_t n = m->shape.batch * m->shape.seq, v = m->shape.vocab;
    const struct array *recorded = NULL;
    FW_TRY(folder_require(m->folder, "logits", FW_F32, n * v, &recorded, error));
    float *buffer = calloc((size_t)(4 * n * v), sizeof *buffer);
    if (buffer == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for logits");
    float *logits = buffer, *rows = logits + n * v, *expected = rows + n * v;
    expected_rows(recorded, n, v, expected, expected + n * v);
    const fw_status status = infer(m, model, weights, logits, rows, error);
    const double tolerance = tolerances_of(m)->logits;
    if (status == FW_OK) {
        verdict_line(verdicts, "logits, of the largest", "", largest_error(logits, expected, n * v),
                     tolerance);
        verdict_line(verdicts, "log-probabilities, of the largest", "",
                     largest_error(rows, expected + n * v, n * v), tolerance);
    }
    free(buffer);
    return status;
}

static fw_status check_logits(struct model_case *m, const float *weights, struct verdicts *verdicts,
                              fw_error *error) {
    const struct model_options options = {.experiment = m->session.experiment,
                                          .host = m->session.services,
                                          .vocabulary = (uint32_t)m->shape.vocab,
                                          .batch = m->shape.batch,
                                          .tokens = m->shape.seq};
    struct model *model = NULL;
    FW_TRY(model_create(&options, &model, error));
    const fw_status status = compare_logits(m, model, weights, verdicts, error);
    model_destroy(model);
    return status;
}

static fw_status recorded_scalar(struct model_case *m, const char *name, double *value,
                                 fw_error *error) {
    const struct array *array = NULL;
    FW_TRY(folder_require(m->folder, name, FW_F64, 1, &array, error));
    *value = array_value(array, 0);
    return FW_OK;
}

static fw_status check_loss(struct model_case *m, const char *name, const char *quantity,
                            double tolerance, struct verdicts *verdicts, fw_error *error) {
    double expected = 0, loss = 0;
    FW_TRY(recorded_scalar(m, name, &expected, error));
    FW_TRY(model_case_loss(m, &loss, error));
    verdict_line(verdicts, quantity, "", fabs(loss - expected) / fabs(expected), tolerance);
    return FW_OK;
}

/* Gradients that the last pass left, each against the norm of what was recorded for it. */
static void compare_gradients(const struct model_case *m, const float *gradients,
                              const float *expected, struct verdicts *verdicts) {
    struct worst worst = {0};
    struct error_sum few = {0, 0};
    for (uint32_t i = 0; i < model_n_weights(m->model); i++) {
        const int64_t offset = model_offset(m->model, i), n = m->places[i].count;
        if (m->exact || n > FEW_VALUES)
            worst_add(&worst, norm_error(gradients + offset, expected + offset, n),
                      model_weight(m->model, i)->name);
        else
            for (int64_t j = offset; j < offset + n; j++)
                error_add(&few, (double)gradients[j], (double)expected[j]);
    }
    const double tolerance = tolerances_of(m)->gradient;
    verdict_line(verdicts, "each gradient, of its norm", worst.where, worst.error, tolerance);
    if (!m->exact)
        verdict_line(verdicts, "gradients of a few values, together", "", error_of(&few),
                     tolerance);
}

static fw_status check_gradients(struct model_case *m, const float *expected,
                                 struct verdicts *verdicts, fw_error *error) {
    float *gradients = NULL;
    double norm = 0, squares = 0;
    FW_TRY(recorded_scalar(m, "grad_norm", &norm, error));
    FW_TRY(model_case_download(m, model_gradients(m->model), &gradients, error));
    compare_gradients(m, gradients, expected, verdicts);
    for (uint32_t i = 0; i < model_n_weights(m->model); i++)
        for (int64_t j = 0; j < m->places[i].count; j++) {
            const double g = (double)gradients[model_offset(m->model, i) + j];
            squares += g * g;
        }
    free(gradients);
    verdict_line(verdicts, "gradient norm", "", fabs(sqrt(squares) - norm) / norm,
                 tolerances_of(m)->gradient_norm);
    return FW_OK;
}

static fw_status run_with(struct model_case *m, const float *weights, const float *gradients,
                          struct verdicts *verdicts, fw_error *error) {
    FW_TRY(check_logits(m, weights, verdicts, error));
    FW_TRY(model_set_weights(m->model, weights, error));
    FW_TRY(check_loss(m, "loss", "loss", tolerances_of(m)->loss, verdicts, error));
    FW_TRY(check_gradients(m, gradients, verdicts, error));
    FW_TRY(model_case_step(m, weights, gradients, verdicts, error));
    return check_loss(m, "loss_after_step", "loss after the step", 1e-2, verdicts, error);
}

static fw_status run(struct folder *folder, const struct case_options *options,
                     struct verdicts *verdicts, fw_error *error) {
    struct model_case m;
    float *weights = NULL, *gradients = NULL;
    FW_TRY(model_case_open(folder, options, &m, error));
    fw_status status = model_case_recorded(&m, "param", &weights, error);
    if (status == FW_OK) status = model_case_recorded(&m, "grad", &gradients, error);
    if (status == FW_OK) status = run_with(&m, weights, gradients, verdicts, error);
    free(weights);
    free(gradients);
    model_case_close(&m);
    return status;
}

const struct case_kind case_model = {
    "model", "config.txt, weights, tokens: logits, loss, gradients, one optimizer step", recognise,
    run};
