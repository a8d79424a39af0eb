#include "average.h"

#include <fairway/averager.h>
#include <stdlib.h>
#include <string.h>

struct averaging {
    struct model *model;
    const fw_host *host;
    const struct plugin_choice *choice;
    const fw_averager *averager;
    void *self;
    float *slot[FW_MAX_SLOTS];
    fw_averager_tensor *tensors;
    int64_t last_step;
    double last_schedule;
};

/* The result goes where the gradients were, which nobody needs by then. */
static fw_status allocate(struct averaging *a, fw_error *error) {
    if (a->averager->n_slots > FW_MAX_SLOTS)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "the averager asks for %u state slots; at most %d fit", a->averager->n_slots,
                       FW_MAX_SLOTS);
    for (uint32_t i = 0; i < a->averager->n_slots; i++)
        FW_TRY(model_new_arena(a->model, "its averages", &a->slot[i], error));
    const uint32_t n = model_n_weights(a->model);
    a->tensors = calloc(n, sizeof *a->tensors);
    if (a->tensors == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the averager");
    for (uint32_t i = 0; i < n; i++) {
        a->tensors[i] = (fw_averager_tensor){
            .struct_size = sizeof *a->tensors,
            .weight = model_weight(a->model, i),
            .parameter = model_view(a->model, model_masters(a->model), i),
            .result = model_view(a->model, model_gradients(a->model), i),
        };
        for (uint32_t s = 0; s < FW_MAX_SLOTS; s++)
            a->tensors[i].slot[s] =
                a->slot[s] != NULL ? model_view(a->model, a->slot[s], i) : fw_absent();
    }
    return FW_OK;
}

static fw_status create_instance(struct averaging *a, fw_error *error) {
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = a->averager->create(a->host, a->choice->values, &a->self, &why);
    return status == FW_OK ? FW_OK : choice_fail(a->choice, status, why.message, error);
}

fw_status averaging_create(const struct plugin_choice *choice, const fw_host *host,
                           struct model *model, struct averaging **averaging, fw_error *error) {
    struct averaging *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the averager");
    made->model = model;
    made->host = host;
    made->choice = choice;
    made->averager = choice->entry->plugin->vtable;
    fw_status status = create_instance(made, error);
    if (status == FW_OK) {
        fw_error why = {.struct_size = sizeof why};
        status = allocate(made, &why);
        if (status != FW_OK) (void)choice_fail(choice, status, why.message, error);
    }
    if (status == FW_OK)
        *averaging = made;
    else
        averaging_destroy(made);
    return status;
}

void averaging_destroy(struct averaging *a) {
    if (a == NULL) return;
    if (a->self != NULL) a->averager->destroy(a->self);
    for (int i = 0; i < FW_MAX_SLOTS; i++) model_free_arena(a->model, a->slot[i]);
    free(a->tensors);
    free(a);
}

/* Only its word on the window counts: an instance that cannot do without tensors is no error. */
static fw_status rehearse(const fw_averager *averager, void *self, const struct schedule *schedule,
                          fw_error *error) {
    fw_averager_call call = {.struct_size = sizeof call};
    for (call.step = 0; call.step < schedule->steps; call.step++) {
        call.schedule = schedule_scale(schedule, call.step, 0);
        if (averager->update(self, &call, NULL) != FW_OK) return FW_OK;
    }
    call.step--;
    return averager->result(self, &call, error) == FW_E_LIMIT ? FW_E_LIMIT : FW_OK;
}

fw_status averaging_rehearse(const struct plugin_choice *choice, const fw_host *host,
                             const struct schedule *schedule, fw_error *error) {
    const int64_t most_steps = 10000000; /* a second or so */
    const fw_averager *averager = choice->entry->plugin->vtable;
    if (!FW_HAS(averager, update) || schedule->seconds > 0 || schedule->steps > most_steps)
        return FW_OK;
    fw_host quiet = *host;
    quiet.effect = NULL; /* nothing of a rehearsal is an effect */
    void *self = NULL;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = averager->create(&quiet, choice->values, &self, &why);
    if (status == FW_OK) {
        status = rehearse(averager, self, schedule, &why);
        averager->destroy(self);
    }
    return status == FW_OK ? FW_OK : choice_fail(choice, status, why.message, error);
}

static size_t arena_bytes(const struct averaging *a) {
    return (size_t)model_arena_count(a->model) * sizeof(float);
}

fw_status averaging_reset(struct averaging *a, fw_error *error) {
    fw_device *device = a->host->device;
    a->averager->destroy(a->self);
    a->self = NULL;
    FW_TRY(create_instance(a, error));
    for (uint32_t i = 0; i < a->averager->n_slots; i++)
        FW_TRY(device->zero(device, a->slot[i], arena_bytes(a), error));
    return FW_OK;
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
    fw_device *device = a->host->device;
    float *result = model_gradients(a->model);
    const fw_averager_call call = make_call(a);
    FW_TRY(device->zero(device, result, arena_bytes(a), error));
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = a->averager->result(a->self, &call, &why);
    if (status != FW_OK) return choice_fail(a->choice, status, why.message, error);
    return model_download(a->model, result, host, error);
}

/* ---- checkpoints ---- */

void averaging_each_state(const struct averaging *a,
                          void (*visit)(void *argument, void *memory, size_t bytes),
                          void *argument) {
    for (uint32_t i = 0; i < a->averager->n_slots; i++) visit(argument, a->slot[i], arena_bytes(a));
}

/* How much there is, only the plugin knows: the buffer grows until it fits. */
static fw_status save_instance(const struct averaging *a, struct bytes *state, fw_error *error) {
    if (!FW_HAS(a->averager, save)) return FW_OK;
    fw_status status = FW_E_BUFFER;
    for (size_t room = 4096; status == FW_E_BUFFER && room <= (size_t)1 << 30; room *= 4) {
        void *buffer = malloc(room);
        if (buffer == NULL)
            return fw_fail(error, FW_E_MEMORY, "no memory for the averager's state");
        size_t used = room;
        status = a->averager->save(a->self, buffer, &used, error);
        if (status == FW_OK && used > room)
            status = fw_fail(error, FW_E_PROTOCOL, "the averager saved more than it had room for");
        if (status == FW_OK) bytes_put(state, buffer, used);
        free(buffer);
    }
    return status;
}

fw_status averaging_save(const struct averaging *a, struct bytes *state, fw_error *error) {
    bytes_put_u64(state, (uint64_t)a->last_step);
    bytes_put(state, &a->last_schedule, sizeof a->last_schedule);
    return save_instance(a, state, error);
}

fw_status averaging_load(struct averaging *a, const uint8_t *state, size_t size, fw_error *error) {
    struct byte_reader reader = {state, size, 0, false};
    const int64_t step = (int64_t)bytes_take_u64(&reader);
    const uint8_t *schedule = bytes_take(&reader, sizeof a->last_schedule);
    if (reader.failed) return fw_fail(error, FW_E_FORMAT, "the averager's state is cut short");
    if (FW_HAS(a->averager, load))
        FW_TRY(a->averager->load(a->self, state + reader.offset, size - reader.offset, error));
    a->last_step = step;
    memcpy(&a->last_schedule, schedule, sizeof a->last_schedule);
    return FW_OK;
}
