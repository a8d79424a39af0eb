/* AdamW: Adam with decoupled weight decay, for tensors of any rank. The whole update is one device
 * op per tensor. Source: Loshchilov and Hutter, 2019. */
#include <fairway/optimizer.h>
#include <fairway/plugin.h>

enum { LEARNING_RATE, BETA1, BETA2, EPSILON, WEIGHT_DECAY };

enum { FIRST_MOMENT, SECOND_MOMENT, N_SLOTS };

typedef struct adamw {
    const fw_host *host;
    double learning_rate, beta1, beta2, epsilon, weight_decay;
} adamw;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    if (host->device == NULL || !FW_HAS(host->device->ops, adamw))
        return fw_fail(error, FW_E_UNSUPPORTED, "adamw needs a device with the op adamw");
    adamw *optimizer = host->allocate(host, sizeof *optimizer);
    if (optimizer == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for adamw (%zu bytes)", sizeof *optimizer);
    *optimizer = (adamw){.host = host,
                         .learning_rate = values[LEARNING_RATE].real,
                         .beta1 = values[BETA1].real,
                         .beta2 = values[BETA2].real,
                         .epsilon = values[EPSILON].real,
                         .weight_decay = values[WEIGHT_DECAY].real};
    *self = optimizer;
    return FW_OK;
}

static void destroy(void *self) {
    adamw *optimizer = self;
    if (optimizer != NULL) optimizer->host->release(optimizer->host, optimizer);
}

static uint32_t slots(void *self, const fw_weight *weight) {
    (void)self, (void)weight;
    return N_SLOTS;
}

static fw_status plan(void *self, const fw_weight *const *weights, uint32_t n_weights,
                      size_t *scratch_bytes, fw_error *error) {
    (void)self, (void)weights, (void)n_weights, (void)error;
    *scratch_bytes = 0;
    return FW_OK;
}

static void prepare(void *self, fw_step *step) {
    const adamw *optimizer = self;
    step->learning_rate = (float)(optimizer->learning_rate * (double)step->schedule);
    step->momentum = (float)optimizer->beta1;
    step->weight_decay = (float)optimizer->weight_decay;
}

static fw_status step(void *self, const fw_optimizer_call *call, fw_error *error) {
    const adamw *optimizer = self;
    fw_device *device = optimizer->host->device;
    for (uint32_t i = 0; i < call->n_tensors; i++) {
        const fw_optimizer_tensor *tensor = &call->tensors[i];
        const fw_adamw_step update = {.struct_size = sizeof update,
                                      .beta1 = (float)optimizer->beta1,
                                      .beta2 = (float)optimizer->beta2,
                                      .epsilon = (float)optimizer->epsilon,
                                      .step = call->step,
                                      .parameter = tensor->parameter,
                                      .gradient = tensor->gradient,
                                      .first_moment = tensor->slot[FIRST_MOMENT],
                                      .second_moment = tensor->slot[SECOND_MOMENT],
                                      .compute = tensor->compute};
        FW_TRY(device->ops->adamw(device, &update, error));
    }
    return FW_OK;
}

static const fw_param params[] = {
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "learning_rate", "0.003", 0, 100, "",
                   "step size at full schedule"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "beta1", "0.9", 0, 0.999999, "",
                   "decay of the mean of gradients"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "beta2", "0.95", 0, 0.999999, "",
                   "decay of the mean of squared gradients"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "epsilon", "1e-8", 1e-20, 1, "",
                   "added to the root of the mean square"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight_decay", "0.04", 0, 100, "",
                   "decoupled decay, applied as 1 - learning rate * weight_decay")};

static const fw_optimizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .slots = slots,
                                    .plan = plan,
                                    .prepare = prepare,
                                    .step = step};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_OPTIMIZER,
                                 .id = "adamw",
                                 .version = "1.0.0",
                                 .summary = "Adam with decoupled weight decay",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = sizeof params / sizeof params[0],
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
