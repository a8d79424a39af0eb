/* What linear layers read, brought to the host: the rows of a pass, one layer after the other. */
#include <stdio.h>
#include <stdlib.h>

#include "element.h"
#include "model_pass.h"

/* Room for rows of float32, which first holds them as the device has them. */
static fw_status bring(const struct pass *pass, const fw_tensor *rows, float **brought) {
    const int64_t n = fw_tensor_count(rows);
    const size_t bytes = (size_t)n * fw_dtype_size(rows->dtype);
    fw_device *device = pass->model->device;
    char *raw = malloc(bytes + 1);
    float *values = malloc((size_t)n * sizeof *values + 1);
    fw_status status = raw != NULL && values != NULL
                           ? device->copy_to_host(device, raw, rows->data, bytes, pass->error)
                           : fw_fail(pass->error, FW_E_MEMORY, "no memory for rows to observe");
    for (int64_t i = 0; status == FW_OK && i < n; i++) values[i] = element_at(raw, rows->dtype, i);
    free(raw);
    if (status != FW_OK) free(values);
    if (status == FW_OK) *brought = values;
    return status;
}

static bool is_matrix_for(const fw_tensor *rows, const fw_weight *weight) {
    return rows->rank == 2 && rows->shape[1] == weight->shape[1] && rows->stride[1] == 1 &&
           rows->stride[0] == rows->shape[1] && fw_dtype_size(rows->dtype) > 0;
}

/* Of one layer's attention plugin. */
struct attention_observer {
    const struct pass *pass;
    const struct layer *layer;
    char who[160]; /* begins a sentence about it */
    bool heard;
    fw_status status;
};

fw_status observe_rows(const struct pass *pass, uint32_t weight, const fw_tensor *rows) {
    const struct model_observer *observer = pass->observer;
    const struct model *model = pass->model;
    float *values = NULL;
    if (observer == NULL) return FW_OK;
    if (weight >= model->n_weights || !is_matrix_for(rows, &model->weights[weight]))
        return fw_fail(pass->error, FW_E_PROTOCOL,
                       "weight %u is said to read %lld x %lld values, which it cannot", weight,
                       (long long)rows->shape[0], (long long)rows->shape[1]);
    FW_TRY(bring(pass, rows, &values));
    const fw_status status =
        observer->rows(observer->self, weight, values, rows->shape[0], rows->shape[1], pass->error);
    free(values);
    return status;
}

static void hear(void *context, uint32_t weight, const fw_tensor *rows) {
    struct attention_observer *observer = context;
    if (observer->status != FW_OK) return;
    observer->heard = true;
    if (weight >= observer->layer->n_attention)
        observer->status = fw_fail(observer->pass->error, FW_E_PROTOCOL,
                                   "%sit shows what weight %u reads, of %u that it has",
                                   observer->who, weight, observer->layer->n_attention);
    else
        observer->status =
            observe_rows(observer->pass, observer->layer->first_weight + weight, rows);
}

fw_status attention_observed(const struct pass *pass, const struct layer *layer,
                             fw_attention_call *call) {
    const struct model *model = pass->model;
    const int64_t index = layer - model->layer;
    struct attention_observer observer = {.pass = pass, .layer = layer};
    (void)snprintf(observer.who, sizeof observer.who,
                   "layer %lld: attention plugin %.100s: ", (long long)index,
                   model->options.experiment->attention[index].entry->plugin->id);
    call->observe = hear;
    call->observe_context = &observer;
    FW_TRY(layer->attention->forward(layer->self, call, pass->error));
    if (observer.status != FW_OK || observer.heard) return observer.status;
    return fw_fail(pass->error, FW_E_PROTOCOL,
                   "%sit shows nothing of what its matrices read, so that nobody can calibrate",
                   observer.who);
}

fw_status plan_observation(const struct model *model, int64_t batch, int64_t tokens,
                           fw_error *error) {
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        fw_attention_plan plan = {.struct_size = sizeof plan};
        fw_error why = {.struct_size = sizeof why};
        fw_status status =
            layer->attention->plan(layer->self, FW_CALIBRATE, batch, tokens, &plan, &why);
        if (status == FW_OK && plan.scratch_bytes > layer->plan.scratch_bytes)
            status = fw_fail(&why, FW_E_INTERNAL, "it needs more memory than it once planned");
        if (status != FW_OK)
            return fw_fail(error, status,
                           "layer %lld: attention plugin %s cannot calibrate: %.900s", (long long)i,
                           model->options.experiment->attention[i].entry->plugin->id, why.message);
    }
    return FW_OK;
}
