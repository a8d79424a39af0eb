#include "optimize.h"

#include <stdlib.h>

struct group {
    const struct plugin_choice *choice;
    const fw_optimizer *optimizer;
    void *self;
    uint32_t n_tensors;
    fw_optimizer_tensor *tensors;
    void *state; /* device; the slots of all tensors, one after the other */
    size_t state_bytes;
};

struct optimizers {
    struct model *model;
    const fw_host *host;
    fw_device *device;
    struct group group[OPTIMIZER_GROUPS];
    fw_step *steps;     /* device, one for each group */
    float *sum_squares; /* device scalars: of the gradients, */
    float *carried;     /* and what the steps before leave of theirs, 0 or not a number */
    void *scratch;
    size_t scratch_bytes;
};

static uint32_t role_of_group(int group) {
    static const uint32_t roles[OPTIMIZER_GROUPS] = {
        [OPTIMIZER_MATRIX] = FW_ROLE_MATRIX,
        [OPTIMIZER_EMBED] = FW_ROLE_EMBED,
        [OPTIMIZER_SCALAR] = FW_ROLE_SCALAR,
    };
    return roles[group];
}

/* ---- tensors and their state ---- */

static size_t slot_bytes(const fw_optimizer_tensor *tensor) {
    return ((size_t)fw_tensor_count(&tensor->parameter) * sizeof(float) + 255) / 256 * 256;
}

static void add_tensor(struct optimizers *o, struct group *group, uint32_t index) {
    fw_optimizer_tensor *tensor = &group->tensors[group->n_tensors++];
    *tensor = (fw_optimizer_tensor){
        .struct_size = sizeof *tensor,
        .weight = model_weight(o->model, index),
        .parameter = model_view(o->model, model_masters(o->model), index),
        .gradient = model_view(o->model, model_gradients(o->model), index),
        .compute = model_compute_copy(o->model, index),
    };
}

static fw_status add_tensors(struct optimizers *o, struct group *group, uint32_t role,
                             fw_error *error) {
    const uint32_t n = model_n_weights(o->model);
    group->tensors = calloc(n, sizeof *group->tensors);
    if (group->tensors == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for an optimizer");
    for (uint32_t i = 0; i < n; i++)
        if (model_weight(o->model, i)->role == role) add_tensor(o, group, i);
    return FW_OK;
}

static fw_status count_state(struct group *group, fw_error *error) {
    for (uint32_t i = 0; i < group->n_tensors; i++) {
        const fw_optimizer_tensor *tensor = &group->tensors[i];
        const uint32_t n = group->optimizer->slots(group->self, tensor->weight);
        if (n > FW_MAX_SLOTS)
            return fw_fail(error, FW_E_UNSUPPORTED, "it asks for %u state slots; at most %d fit", n,
                           FW_MAX_SLOTS);
        group->state_bytes += n * slot_bytes(tensor);
    }
    return FW_OK;
}

/* One allocation for all slots of the group: tensors of one group alone have them. */
static fw_status allocate_state(struct optimizers *o, struct group *group, fw_error *error) {
    FW_TRY(count_state(group, error));
    if (group->state_bytes > 0)
        FW_TRY(model_allocate(o->model, group->state_bytes, "its state", &group->state, error));
    char *next = group->state;
    for (uint32_t i = 0; i < group->n_tensors; i++) {
        fw_optimizer_tensor *tensor = &group->tensors[i];
        const uint32_t n = group->optimizer->slots(group->self, tensor->weight);
        for (uint32_t s = 0; s < FW_MAX_SLOTS; s++) {
            tensor->slot[s] = fw_absent();
            if (s >= n) continue;
            tensor->slot[s] = tensor->parameter;
            tensor->slot[s].data = next;
            next += slot_bytes(tensor);
        }
    }
    return FW_OK;
}

/* ---- instances ---- */

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

/* A new instance, with its tensors planned: its errors carry file, section and plugin. */
static fw_status create_instance(struct optimizers *o, struct group *group, size_t *scratch,
                                 fw_error *error) {
    fw_error why = {.struct_size = sizeof why};
    fw_status status = group->optimizer->create(o->host, group->choice->values, &group->self, &why);
    if (status == FW_OK) status = plan_group(group, scratch, &why);
    return status == FW_OK ? FW_OK : choice_fail(group->choice, status, why.message, error);
}

static fw_status zero_state(const struct optimizers *o, const struct group *group,
                            fw_error *error) {
    if (group->state_bytes == 0) return FW_OK;
    return o->device->zero(o->device, group->state, group->state_bytes, error);
}

static fw_status create_group(struct optimizers *o, int index, fw_error *error) {
    struct group *group = &o->group[index];
    FW_TRY(add_tensors(o, group, role_of_group(index), error));
    FW_TRY(create_instance(o, group, &o->scratch_bytes, error));
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = allocate_state(o, group, &why);
    if (status != FW_OK) return choice_fail(group->choice, status, why.message, error);
    return zero_state(o, group, error);
}

static fw_status allocate(struct optimizers *o, fw_error *error) {
    fw_device *device = o->device;
    void *memory = NULL;
    FW_TRY(device->allocate(device, OPTIMIZER_GROUPS * sizeof(fw_step), &memory, error));
    o->steps = memory;
    FW_TRY(device->allocate(device, sizeof(float), &memory, error));
    o->sum_squares = memory;
    FW_TRY(device->zero(device, o->sum_squares, sizeof(float), error));
    FW_TRY(device->allocate(device, sizeof(float), &memory, error));
    o->carried = memory;
    if (o->scratch_bytes == 0) return FW_OK;
    return model_allocate(o->model, o->scratch_bytes, "the optimizers' scratch", &o->scratch,
                          error);
}

fw_status optimizers_create(const struct experiment *experiment, const fw_host *host,
                            struct model *model, struct optimizers **optimizers, fw_error *error) {
    if (!FW_HAS(host->device->ops, reduce) || !FW_HAS(host->device->ops, clip) ||
        !FW_HAS(host->device->ops, axpby))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the device lacks reduce, clip or axpby, which training needs");
    struct optimizers *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the optimizers");
    made->model = model;
    made->host = host;
    made->device = host->device;
    fw_status status = FW_OK;
    for (int i = 0; i < OPTIMIZER_GROUPS && status == FW_OK; i++) {
        made->group[i].choice = &experiment->optimizer[i];
        made->group[i].optimizer = experiment->optimizer[i].entry->plugin->vtable;
        status = create_group(made, i, error);
    }
    if (status == FW_OK) status = allocate(made, error);
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
        if (group->state != NULL) o->device->release(o->device, group->state);
        free(group->tensors);
    }
    void *const owned[] = {o->steps, o->sum_squares, o->carried, o->scratch};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        if (owned[i] != NULL) o->device->release(o->device, owned[i]);
    free(o);
}

fw_status optimizers_reset(struct optimizers *o, fw_error *error) {
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) {
        struct group *group = &o->group[i];
        size_t scratch = 0;
        group->optimizer->destroy(group->self);
        group->self = NULL;
        FW_TRY(create_instance(o, group, &scratch, error));
        if (scratch > o->scratch_bytes)
            return fw_fail(error, FW_E_PROTOCOL,
                           "optimizer %s plans %zu bytes of scratch for what took %zu before",
                           group->choice->entry->plugin->id, scratch, o->scratch_bytes);
        FW_TRY(zero_state(o, group, error));
    }
    return o->device->zero(o->device, o->sum_squares, sizeof(float), error);
}

void optimizers_each_state(const struct optimizers *o,
                           void (*visit)(void *argument, void *memory, size_t bytes),
                           void *argument) {
    for (int i = 0; i < OPTIMIZER_GROUPS; i++)
        visit(argument, o->group[i].state, o->group[i].state_bytes);
}

fw_status optimizers_refresh_copies(struct optimizers *o, fw_error *error) {
    for (int g = 0; g < OPTIMIZER_GROUPS; g++)
        for (uint32_t i = 0; i < o->group[g].n_tensors; i++) {
            const fw_optimizer_tensor *tensor = &o->group[g].tensors[i];
            if (tensor->compute.data == NULL) continue;
            const fw_cast cast = {
                .struct_size = sizeof cast, .from = tensor->parameter, .to = tensor->compute};
            FW_TRY(o->device->ops->cast(o->device, &cast, error));
        }
    return FW_OK;
}

/* ---- a step ---- */

fw_status optimizers_prepare(struct optimizers *o, int64_t step, double schedule, bool quantize,
                             fw_step steps[OPTIMIZER_GROUPS], fw_error *error) {
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) {
        steps[i] = (fw_step){.step = step,
                             .schedule = (float)schedule,
                             .clip = 1,
                             .finite = 1,
                             .quantize = quantize ? 1 : 0};
        o->group[i].optimizer->prepare(o->group[i].self, &steps[i]);
    }
    return o->device->copy_from_host(o->device, o->steps, steps, OPTIMIZER_GROUPS * sizeof *steps,
                                     error);
}

const fw_step *optimizers_device_step(const struct optimizers *o) { return o->steps; }

/* 0 times the last sum is 0, or not a number for good: every later sum adds to it, and no step
 * whose sum is not finite changes anything. */
static fw_status carry(struct optimizers *o, fw_error *error) {
    const fw_axpby times_zero = {.struct_size = sizeof times_zero,
                                 .alpha = 0,
                                 .beta = 0,
                                 .x = fw_vector(o->sum_squares, FW_F32, 1),
                                 .y = fw_vector(o->carried, FW_F32, 1)};
    FW_TRY(o->device->ops->axpby(o->device, &times_zero, error));
    return o->device->copy(o->device, o->sum_squares, o->carried, sizeof(float), error);
}

static fw_status clip(struct optimizers *o, float max_norm, fw_error *error) {
    const fw_ops *ops = o->device->ops;
    FW_TRY(carry(o, error));
    const fw_reduce sum = {
        .struct_size = sizeof sum,
        .reduction = FW_SUM_SQUARES,
        .accumulate = 1,
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
