#include "qat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "element.h"

struct qat {
    const struct experiment *experiment;
    const fw_host *host;
    fw_device *device;
    struct model *model;
    const fw_quantizer *quantizer;
    void *self;
    uint32_t n; /* quantized tensors */
    uint32_t *weights;
    void *scratch;
    fw_step *on; /* device; nothing but `quantize` is set, for passes outside of the training */
    int64_t warmup_steps;
    struct qat_state state;
};

/* ---- one tensor ---- */

static fw_status quantize(const struct qat *q, uint32_t index, const fw_tensor *out,
                          const fw_step *step, fw_error *error) {
    const fw_tensor master = model_view(q->model, model_masters(q->model), index);
    return q->quantizer->fake_quantize(q->self, q->device, model_weight(q->model, index), &master,
                                       out, step, q->scratch, error);
}

static fw_status restore_copy(const struct qat *q, uint32_t index, fw_error *error) {
    const fw_cast cast = {.struct_size = sizeof cast,
                          .from = model_view(q->model, model_masters(q->model), index),
                          .to = model_compute_copy(q->model, index)};
    return q->device->ops->cast(q->device, &cast, error);
}

/* Whether the quantizer quantizes the tensor, by its own word, which is E_UNSUPPORTED if not. What
 * has no compute copy is tried on its gradient's memory, which nothing uses yet. */
static fw_status try_tensor(struct qat *q, uint32_t index, fw_error *why, fw_error *error) {
    const fw_tensor copy = model_compute_copy(q->model, index);
    const fw_tensor spare = model_view(q->model, model_gradients(q->model), index);
    const bool separate = copy.data != NULL;
    const fw_status status = quantize(q, index, separate ? &copy : &spare, q->on, why);
    if (status == FW_E_UNSUPPORTED) return FW_OK;
    if (status != FW_OK) return fw_fail(error, status, "%s", why->message);
    if (!separate)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "it quantizes %s, which belongs to [optimizer.scalar] and is computed with "
                       "as it is, so that run.qat_below cannot reach it",
                       model_weight(q->model, index)->name);
    q->weights[q->n++] = index;
    return restore_copy(q, index, error);
}

/* ---- creating ---- */

static fw_status allocate(struct qat *q, fw_error *error) {
    const uint32_t n = model_n_weights(q->model);
    const fw_step on = {.clip = 1, .finite = 1, .quantize = 1};
    size_t scratch = 0;
    for (uint32_t i = 0; i < n && FW_HAS(q->quantizer, fake_scratch); i++) {
        const size_t bytes = q->quantizer->fake_scratch(q->self, model_weight(q->model, i));
        if (bytes > scratch) scratch = bytes;
    }
    q->weights = calloc(n, sizeof *q->weights);
    if (q->weights == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for %u tensors", n);
    void *memory = NULL;
    FW_TRY(q->device->allocate(q->device, sizeof on, &memory, error));
    q->on = memory;
    FW_TRY(q->device->copy_from_host(q->device, q->on, &on, sizeof on, error));
    if (scratch == 0) return FW_OK;
    return model_allocate(q->model, scratch, "its scratch in training", &q->scratch, error);
}

static fw_status find_tensors(struct qat *q, fw_error *error) {
    if (!FW_HAS(q->quantizer, fake_quantize))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "it has no quantization-aware form, which run.qat_below = %g asks for; "
                       "another quantizer, or run.qat_below = 0, is right",
                       q->experiment->run.qat_below);
    fw_error why = {.struct_size = sizeof why};
    FW_TRY(q->quantizer->create(q->host, q->experiment->quantize.values, &q->self, error));
    FW_TRY(allocate(q, error));
    for (uint32_t i = 0; i < model_n_weights(q->model); i++) FW_TRY(try_tensor(q, i, &why, error));
    if (q->n > 0) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED,
                   "it quantizes no tensor of this model for run.qat_below = %g (%.500s)",
                   q->experiment->run.qat_below, why.message);
}

static fw_status check_threshold(const struct experiment *experiment,
                                 const struct schedule *schedule, fw_error *error) {
    const double lowest = schedule_lowest(schedule), below = experiment->run.qat_below;
    if (lowest < below) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "run.qat_below = %g would never be reached: the learning rate's scale falls to "
                   "%g at the lowest; raise it, or set run.warmdown_steps = %lld or more",
                   below, lowest, (long long)ceil(1 / below) + 1);
}

fw_status qat_create(const struct experiment *experiment, const fw_host *host, struct model *model,
                     const struct schedule *schedule, struct qat **qat, fw_error *error) {
    *qat = NULL;
    if (experiment->run.qat_below <= 0) return FW_OK;
    FW_TRY(check_threshold(experiment, schedule, error));
    struct qat *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for run.qat_below");
    made->experiment = experiment;
    made->host = host;
    made->device = host->device;
    made->model = model;
    made->quantizer = experiment->quantize.entry->plugin->vtable;
    made->warmup_steps = schedule->warmup_steps;
    made->state.lowest = 1;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = find_tensors(made, &why);
    if (status == FW_OK) {
        *qat = made;
        return FW_OK;
    }
    qat_destroy(made);
    return choice_fail(&experiment->quantize, status, why.message, error);
}

void qat_destroy(struct qat *q) {
    if (q == NULL) return;
    if (q->self != NULL) q->quantizer->destroy(q->self);
    if (q->scratch != NULL) q->device->release(q->device, q->scratch);
    if (q->on != NULL) q->device->release(q->device, q->on);
    free(q->weights);
    free(q);
}

/* ---- training ---- */

bool qat_begins(struct qat *q, int64_t step, double scale) {
    if (q == NULL) return false;
    if (step >= q->warmup_steps && scale < q->state.lowest) q->state.lowest = scale;
    if (q->state.lowest < q->experiment->run.qat_below) q->state.on = true;
    return q->state.on;
}

fw_status qat_apply(const struct qat *q, const fw_step *step, fw_error *error) {
    for (uint32_t i = 0; i < q->n; i++) {
        const fw_tensor copy = model_compute_copy(q->model, q->weights[i]);
        FW_TRY(quantize(q, q->weights[i], &copy, step, error));
    }
    return FW_OK;
}

bool qat_covers(const struct qat *q, uint32_t index) {
    for (uint32_t i = 0; q != NULL && i < q->n; i++)
        if (q->weights[i] == index) return true;
    return false;
}

fw_status qat_check_packed(const bool *covered, const struct model *model, const fw_stream *streams,
                           uint32_t n_streams, fw_error *error) {
    for (uint32_t i = 0; i < n_streams;) {
        const uint32_t tensor = streams[i].tensor;
        bool symbols = false, floats = true;
        for (; i < n_streams && streams[i].tensor == tensor; i++) {
            symbols = symbols || streams[i].kind == FW_STREAM_SYMBOLS;
            floats = floats && streams[i].kind == FW_STREAM_FLOATS;
        }
        const char *name = model_weight(model, tensor)->name;
        if (symbols && !covered[tensor])
            return fw_fail(error, FW_E_LIMIT,
                           "%s was packed quantized, but run.qat_below did not reach it: the "
                           "quantizer's fake_quantize and its streams disagree",
                           name);
        if (floats && covered[tensor])
            return fw_fail(error, FW_E_LIMIT,
                           "%s was trained as if quantized, but packed as it is: the quantizer's "
                           "fake_quantize and its streams disagree",
                           name);
    }
    return FW_OK;
}

/* ---- effects ---- */

struct difference {
    double changed, squares, norm;
};

/* Both sides in the compute type, so that a device's own rounding does not count as a change. */
static fw_status compare(const struct qat *q, uint32_t index, void *exact, void *quantized,
                         struct difference *sum, fw_error *error) {
    const fw_tensor copy = model_compute_copy(q->model, index);
    const int64_t n = fw_tensor_count(&copy);
    const size_t bytes = (size_t)n * fw_dtype_size(copy.dtype);
    FW_TRY(quantize(q, index, &copy, q->on, error));
    FW_TRY(q->device->copy_to_host(q->device, quantized, copy.data, bytes, error));
    FW_TRY(restore_copy(q, index, error));
    FW_TRY(q->device->copy_to_host(q->device, exact, copy.data, bytes, error));
    for (int64_t i = 0; i < n; i++) {
        const double a = (double)element_at(exact, copy.dtype, i);
        const double b = (double)element_at(quantized, copy.dtype, i);
        sum->changed += a != b;
        sum->squares += (a - b) * (a - b);
        sum->norm += a * a;
    }
    return FW_OK;
}

static fw_status compare_tensor(const struct qat *q, uint32_t index, struct difference *sum,
                                fw_error *error) {
    const fw_tensor copy = model_compute_copy(q->model, index);
    const size_t bytes = (size_t)fw_tensor_count(&copy) * fw_dtype_size(copy.dtype);
    void *exact = malloc(bytes), *quantized = malloc(bytes);
    const fw_status status =
        exact != NULL && quantized != NULL
            ? compare(q, index, exact, quantized, sum, error)
            : fw_fail(error, FW_E_MEMORY, "no memory to compare %zu bytes of weights", bytes);
    free(exact);
    free(quantized);
    return status;
}

fw_status qat_state_effects(const struct qat *q, fw_error *error) {
    if (q == NULL) return FW_OK;
    if (!q->state.on)
        return fw_fail(error, FW_E_LIMIT,
                       "run.qat_below = %g was never reached: the learning rate's scale fell to %g "
                       "at the lowest; raise it, or lengthen run.warmdown_steps",
                       q->experiment->run.qat_below, q->state.lowest);
    struct difference sum = {0};
    for (uint32_t i = 0; i < q->n; i++) FW_TRY(compare_tensor(q, q->weights[i], &sum, error));
    if (!FW_HAS(q->host, effect)) return FW_OK;
    q->host->effect(q->host, "qat_changed_weights", sum.changed);
    q->host->effect(q->host, "qat_relative_distance",
                    sum.norm > 0 ? sqrt(sum.squares / sum.norm) : sqrt(sum.squares));
    return FW_OK;
}

/* ---- checkpoints ---- */

struct qat_state qat_save(const struct qat *q) {
    return q != NULL ? q->state : (struct qat_state){.lowest = 1};
}

void qat_load(struct qat *q, const struct qat_state *state) {
    if (q != NULL) q->state = *state;
}
