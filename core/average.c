#include "average.h"

#include <fairway/averager.h>
#include <stdlib.h>

struct averaging {
    struct model *model;
    const fw_averager *averager;
    void *self;
    float *slot[FW_MAX_SLOTS];
    float *result;
    fw_averager_tensor *tensors;
    int64_t last_step;
    double last_schedule;
};

static fw_status allocate(struct averaging *a, fw_error *error) {
    if (a->averager->n_slots > FW_MAX_SLOTS)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the averager asks for %u state slots; at most %d fit", a->averager->n_slots,
                       FW_MAX_SLOTS);
    for (uint32_t i = 0; i < a->averager->n_slots; i++)
        FW_TRY(model_new_arena(a->model, &a->slot[i], error));
    FW_TRY(model_new_arena(a->model, &a->result, error));
    const uint32_t n = model_n_weights(a->model);
    a->tensors = calloc(n, sizeof *a->tensors);
    if (a->tensors == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the averager");
    for (uint32_t i = 0; i < n; i++) {
        a->tensors[i] = (fw_averager_tensor){
            .struct_size = sizeof *a->tensors,
            .weight = model_weight(a->model, i),
            .parameter = model_view(a->model, model_masters(a->model), i),
            .result = model_view(a->model, a->result, i),
        };
        for (uint32_t s = 0; s < FW_MAX_SLOTS; s++)
            a->tensors[i].slot[s] =
                a->slot[s] != NULL ? model_view(a->model, a->slot[s], i) : fw_absent();
    }
    return FW_OK;
}

fw_status averaging_create(const struct plugin_choice *choice, const fw_host *host,
                           struct model *model, struct averaging **averaging, fw_error *error) {
    struct averaging *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the averager");
    made->model = model;
    made->averager = choice->entry->plugin->vtable;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = made->averager->create(host, choice->values, &made->self, &why);
    if (status == FW_OK) status = allocate(made, &why);
    if (status == FW_OK)
        *averaging = made;
    else
        averaging_destroy(made);
    return status == FW_OK ? FW_OK : choice_fail(choice, status, why.message, error);
}

void averaging_destroy(struct averaging *a) {
    if (a == NULL) return;
    if (a->self != NULL) a->averager->destroy(a->self);
    for (int i = 0; i < FW_MAX_SLOTS; i++) model_free_arena(a->model, a->slot[i]);
    model_free_arena(a->model, a->result);
    free(a->tensors);
    free(a);
}

bool averaging_is_on(const struct averaging *a) { return FW_HAS(a->averager, update); }

static fw_averager_call make_call(const struct averaging *a) {
    return (fw_averager_call){.struct_size = sizeof(fw_averager_call),
                              .n_tensors = model_n_weights(a->model),
                              .tensors = a->tensors,
                              .step = a->last_step,
                              .schedule = a->last_schedule};
}

fw_status averaging_update(struct averaging *a, int64_t step, double schedule, fw_error *error) {
    a->last_step = step;
    a->last_schedule = schedule;
    if (!averaging_is_on(a)) return FW_OK;
    const fw_averager_call call = make_call(a);
    return a->averager->update(a->self, &call, error);
}

fw_status averaging_result(struct averaging *a, float *host, fw_error *error) {
    const fw_averager_call call = make_call(a);
    FW_TRY(a->averager->result(a->self, &call, error));
    return model_download(a->model, a->result, host, error);
}
