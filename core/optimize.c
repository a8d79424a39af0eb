#include "optimize.h"

#include <stdlib.h>

struct group {
    const fw_optimizer *optimizer;
    void *self;
    uint32_t n_tensors;
    fw_optimizer_tensor *tensors;
};

struct optimizers {
    struct model *model;
    fw_device *device;
    struct group group[OPTIMIZER_GROUPS];
    float *slot[FW_MAX_SLOTS]; /* device arenas */
    fw_step *steps;            /* device, one for each group */
    float *sum_squares;        /* device scalar */
    void *scratch;
};

static uint32_t role_of_group(int group) {
    static const uint32_t roles[OPTIMIZER_GROUPS] = {
        [OPTIMIZER_MATRIX] = FW_ROLE_MATRIX,
        [OPTIMIZER_EMBED] = FW_ROLE_EMBED,
        [OPTIMIZER_SCALAR] = FW_ROLE_SCALAR,
    };
    return roles[group];
}

static fw_status need_slots(struct optimizers *o, uint32_t n, fw_error *error) {
    if (n > FW_MAX_SLOTS)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "an optimizer asks for %u state slots; at most %d fit", n, FW_MAX_SLOTS);
    for (uint32_t i = 0; i < n; i++)
        if (o->slot[i] == NULL) FW_TRY(model_new_arena(o->model, &o->slot[i], error));
    return FW_OK;
}

static fw_status add_tensor(struct optimizers *o, struct group *group, uint32_t index,
                            fw_error *error) {
    const fw_weight *weight = model_weight(o->model, index);
    const uint32_t slots = group->optimizer->slots(group->self, weight);
    FW_TRY(need_slots(o, slots, error));
    fw_optimizer_tensor *tensor = &group->tensors[group->n_tensors++];
    *tensor = (fw_optimizer_tensor){
        .struct_size = sizeof *tensor,
        .weight = weight,
        .parameter = model_view(o->model, model_masters(o->model), index),
        .gradient = model_view(o->model, model_gradients(o->model), index),
        .compute = model_compute_copy(o->model, index),
    };
    for (uint32_t i = 0; i < FW_MAX_SLOTS; i++)
        tensor->slot[i] = i < slots ? model_view(o->model, o->slot[i], index) : fw_absent();
    return FW_OK;
}

static fw_status add_tensors(struct optimizers *o, struct group *group, uint32_t role,
                             fw_error *error) {
    const uint32_t n = model_n_weights(o->model);
    group->tensors = calloc(n, sizeof *group->tensors);
    if (group->tensors == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for an optimizer");
    for (uint32_t i = 0; i < n; i++)
        if (model_weight(o->model, i)->role == role) FW_TRY(add_tensor(o, group, i, error));
    return FW_OK;
}

static fw_status plan_group(const struct group *group, size_t *scratch, fw_error *error) {
    const fw_weight **weights = calloc(group->n_tensors + 1, sizeof *weights);
    if (weights == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for an optimizer's plan");
    for (uint32_t i = 0; i < group->n_tensors; i++) weights[i] = group->tensors[i].weight;
    size_t bytes = 0;
    const fw_status status =
        group->optimizer->plan(group->self, weights, group->n_tensors, &bytes, error);
    if (bytes > *scratch) *scratch = bytes;
    free(weights);
    return status;
}

static fw_status create_group(struct optimizers *o, const struct plugin_choice *choice, int index,
                              const fw_host *host, size_t *scratch, fw_error *error) {
    struct group *group = &o->group[index];
    group->optimizer = choice->entry->plugin->vtable;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = group->optimizer->create(host, choice->values, &group->self, &why);
    if (status == FW_OK) status = add_tensors(o, group, role_of_group(index), &why);
    if (status == FW_OK) status = plan_group(group, scratch, &why);
    return status == FW_OK ? FW_OK : choice_fail(choice, status, why.message, error);
}

static fw_status allocate(struct optimizers *o, size_t scratch, fw_error *error) {
    fw_device *device = o->device;
    void *memory = NULL;
    FW_TRY(device->allocate(device, OPTIMIZER_GROUPS * sizeof(fw_step), &memory, error));
    o->steps = memory;
    FW_TRY(device->allocate(device, sizeof(float), &memory, error));
    o->sum_squares = memory;
    return scratch > 0 ? device->allocate(device, scratch, &o->scratch, error) : FW_OK;
}

fw_status optimizers_create(const struct experiment *experiment, const fw_host *host,
                            struct model *model, struct optimizers **optimizers, fw_error *error) {
    if (!FW_HAS(host->device->ops, reduce) || !FW_HAS(host->device->ops, clip))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the device lacks the ops reduce and clip, which training needs");
    struct optimizers *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the optimizers");
    made->model = model;
    made->device = host->device;
    size_t scratch = 0;
    fw_status status = FW_OK;
    for (int i = 0; i < OPTIMIZER_GROUPS && status == FW_OK; i++)
        status = create_group(made, &experiment->optimizer[i], i, host, &scratch, error);
    if (status == FW_OK) status = allocate(made, scratch, error);
    if (status == FW_OK)
        *optimizers = made;
    else
        optimizers_destroy(made);
    return status;
}

void optimizers_destroy(struct optimizers *o) {
    if (o == NULL) return;
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) {
        struct group *group = &o->group[i];
        if (group->self != NULL) group->optimizer->destroy(group->self);
        free(group->tensors);
    }
    for (int i = 0; i < FW_MAX_SLOTS; i++) model_free_arena(o->model, o->slot[i]);
    void *const owned[] = {o->steps, o->sum_squares, o->scratch};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        if (owned[i] != NULL) o->device->release(o->device, owned[i]);
    free(o);
}

fw_status optimizers_prepare(struct optimizers *o, int64_t step, double schedule, fw_error *error) {
    fw_step steps[OPTIMIZER_GROUPS];
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) {
        steps[i] = (fw_step){.step = step, .schedule = (float)schedule, .clip = 1, .finite = 1};
        o->group[i].optimizer->prepare(o->group[i].self, &steps[i]);
    }
    return o->device->copy_from_host(o->device, o->steps, steps, sizeof steps, error);
}

static fw_status clip(struct optimizers *o, float max_norm, fw_error *error) {
    const fw_ops *ops = o->device->ops;
    const fw_reduce sum = {
        .struct_size = sizeof sum,
        .reduction = FW_SUM_SQUARES,
        .x = fw_vector(model_gradients(o->model), FW_F32, model_arena_count(o->model)),
        .y = fw_absent(),
        .result = fw_vector(o->sum_squares, FW_F32, 1)};
    FW_TRY(ops->reduce(o->device, &sum, error));
    const fw_clip clip = {.struct_size = sizeof clip,
                          .max_norm = max_norm,
                          .n_steps = OPTIMIZER_GROUPS,
                          .sum_squares = fw_vector(o->sum_squares, FW_F32, 1),
                          .steps = o->steps};
    return ops->clip(o->device, &clip, error);
}

fw_status optimizers_step(struct optimizers *o, float max_norm, fw_error *error) {
    FW_TRY(clip(o, max_norm, error));
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) {
        const struct group *group = &o->group[i];
        const fw_optimizer_call call = {.struct_size = sizeof call,
                                        .n_tensors = group->n_tensors,
                                        .tensors = group->tensors,
                                        .step = &o->steps[i],
                                        .scratch = o->scratch};
        if (group->n_tensors > 0) FW_TRY(group->optimizer->step(group->self, &call, error));
    }
    return FW_OK;
}

fw_status optimizers_outcome(struct optimizers *o, fw_step *step, fw_error *error) {
    return o->device->copy_to_host(o->device, step, o->steps, sizeof *step, error);
}
