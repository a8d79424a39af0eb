/* Template of an optimizer: stochastic gradient descent with momentum, made of two device ops.
 *
 *     cc -shared -fPIC -O2 -fvisibility=hidden $(pkg-config --cflags fairway) optimizer.c \
 *        -o optimizer-template.so
 *
 * In the INI:  [optimizer.matrix]  plugin = /path/to/optimizer-template.so */
#include <fairway/fairway.h>
#include <stdlib.h>

enum { LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [LEARNING_RATE] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "learning_rate", "0.05", 0, 100, "",
                                     "step size at full schedule"),
    [MOMENTUM] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "momentum", "0.9", 0, 0.999999, "",
                                "share of the last update that each step keeps"),
    [WEIGHT_DECAY] = FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight_decay", "0", 0, 100, "",
                                    "decoupled decay, applied as 1 - learning rate * weight_decay"),
};

typedef struct descent {
    const fw_host *host;
    double learning_rate, momentum, weight_decay;
} descent;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (host->device == NULL || !FW_HAS(host->device->ops, momentum) ||
        !FW_HAS(host->device->ops, apply_update))
        return fw_fail(error, FW_E_UNSUPPORTED, "the device lacks the ops momentum, apply_update");
    descent *optimizer = calloc(1, sizeof *optimizer);
    if (optimizer == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the optimizer");
    *optimizer = (descent){.host = host,
                           .learning_rate = values[LEARNING_RATE].real,
                           .momentum = values[MOMENTUM].real,
                           .weight_decay = values[WEIGHT_DECAY].real};
    *self = optimizer;
    return FW_OK;
}

static void destroy(void *self) { free(self); }

/* The host allocates, zeroes and checkpoints one tensor like the weight: the momentum. */
static uint32_t slots(void *self, const fw_weight *weight) {
    (void)self, (void)weight;
    return 1;
}

static size_t weight_bytes(const fw_weight *weight) {
    return (size_t)(weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3]) *
           sizeof(float);
}

/* One update at a time, so the largest tensor decides. */
static fw_status plan(void *self, const fw_weight *const *weights, uint32_t n_weights,
                      size_t *scratch_bytes, fw_error *error) {
    (void)self, (void)error;
    size_t most = 0;
    for (uint32_t i = 0; i < n_weights; i++)
        if (weight_bytes(weights[i]) > most) most = weight_bytes(weights[i]);
    *scratch_bytes = most;
    return FW_OK;
}

/* Scalars that change from step to step reach the device through fw_step, never by value. */
static void prepare(void *self, fw_step *step) {
    const descent *optimizer = self;
    step->learning_rate = (float)(optimizer->learning_rate * (double)step->schedule);
    step->momentum = (float)optimizer->momentum;
    step->weight_decay = (float)optimizer->weight_decay;
}

static fw_status step_tensor(const descent *optimizer, const fw_optimizer_call *call,
                             const fw_optimizer_tensor *tensor, fw_error *error) {
    fw_device *device = optimizer->host->device;
    fw_tensor update = tensor->parameter; /* its shape, in scratch */
    update.data = call->scratch;
    const fw_momentum_step momentum = {.struct_size = sizeof momentum,
                                       .step = call->step,
                                       .gradient = tensor->gradient,
                                       .momentum = tensor->slot[0],
                                       .update = update};
    FW_TRY(device->ops->momentum(device, &momentum, error));
    const fw_apply_update apply = {.struct_size = sizeof apply,
                                   .scale = 1,
                                   .step = call->step,
                                   .parameter = tensor->parameter,
                                   .update = update,
                                   .compute = tensor->compute};
    return device->ops->apply_update(device, &apply, error);
}

static fw_status step(void *self, const fw_optimizer_call *call, fw_error *error) {
    for (uint32_t i = 0; i < call->n_tensors; i++)
        FW_TRY(step_tensor(self, call, &call->tensors[i], error));
    return FW_OK;
}

static const fw_optimizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .slots = slots,
                                    .plan = plan,
                                    .prepare = prepare,
                                    .step = step};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_OPTIMIZER,
                                 .id = "template",
                                 .version = "1.0.0",
                                 .summary = "gradient descent with momentum",
                                 .vendor = "yours",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
