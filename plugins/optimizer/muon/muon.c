/* Muon: momentum whose update is replaced by an approximately orthogonal matrix of the same row and
 * column spaces (Newton-Schulz iterations), for matrices. Tensors of equal shape go through the
 * iterations together, as one batch. Source: Jordan et al., "Muon", 2024. */
#include <math.h>
#include <stdbool.h>

#include <fairway/optimizer.h>
#include <fairway/plugin.h>

enum {
    LEARNING_RATE,
    MOMENTUM,
    MOMENTUM_START,
    MOMENTUM_WARMUP_STEPS,
    NESTEROV,
    ITERATIONS,
    WEIGHT_DECAY,
    EPSILON
};

/* The quintic's coefficients from the source: steep at zero, so that five iterations lift small
 * singular values to about one, at the price of settling near 0.7 .. 1.2 instead of exactly one. */
#define COEFFICIENT_A 3.4445f
#define COEFFICIENT_B -4.7750f
#define COEFFICIENT_C 2.0315f

/* Larger batches gain nothing and cost scratch. */
enum { MAX_BATCH = 16 };

typedef struct muon {
    const fw_host *host;
    double learning_rate, momentum, momentum_start, weight_decay, epsilon;
    int64_t momentum_warmup_steps;
    uint32_t nesterov, iterations;
} muon;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    const fw_ops *ops = host->device == NULL ? NULL : host->device->ops;
    if (!FW_HAS(ops, momentum) || !FW_HAS(ops, newton_schulz) ||
        !FW_HAS(ops, newton_schulz_scratch) || !FW_HAS(ops, apply_update))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "muon needs a device with the ops momentum, newton_schulz and apply_update");
    muon *optimizer = host->allocate(host, sizeof *optimizer);
    if (optimizer == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for muon (%zu bytes)", sizeof *optimizer);
    *optimizer = (muon){.host = host,
                        .learning_rate = values[LEARNING_RATE].real,
                        .momentum = values[MOMENTUM].real,
                        .momentum_start = values[MOMENTUM_START].real,
                        .momentum_warmup_steps = values[MOMENTUM_WARMUP_STEPS].integer,
                        .nesterov = (uint32_t)values[NESTEROV].integer,
                        .iterations = (uint32_t)values[ITERATIONS].integer,
                        .weight_decay = values[WEIGHT_DECAY].real,
                        .epsilon = values[EPSILON].real};
    *self = optimizer;
    return FW_OK;
}

static void destroy(void *self) {
    muon *optimizer = self;
    if (optimizer != NULL) optimizer->host->release(optimizer->host, optimizer);
}

static uint32_t slots(void *self, const fw_weight *weight) {
    (void)self, (void)weight;
    return 1;
}

static fw_newton_schulz orthogonalisation(const muon *optimizer, int64_t n, int64_t rows,
                                          int64_t columns, void *updates) {
    const fw_tensor stack = fw_tensor_view(updates, FW_F32, 3, n, rows, columns, 1);
    return (fw_newton_schulz){.struct_size = sizeof(fw_newton_schulz),
                              .iterations = optimizer->iterations,
                              .a = COEFFICIENT_A,
                              .b = COEFFICIENT_B,
                              .c = COEFFICIENT_C,
                              .epsilon = (float)optimizer->epsilon,
                              .x = stack,
                              .out = stack};
}

/* Bytes of n updates side by side, rounded up so that what follows them is aligned. */
static size_t stack_bytes(int64_t n, int64_t rows, int64_t columns) {
    return ((size_t)(n * rows * columns) * sizeof(float) + 255) / 256 * 256;
}

static size_t batch_scratch(const muon *optimizer, int64_t n, int64_t rows, int64_t columns) {
    fw_device *device = optimizer->host->device;
    const fw_newton_schulz shapes = orthogonalisation(optimizer, n, rows, columns, NULL);
    return stack_bytes(n, rows, columns) + device->ops->newton_schulz_scratch(device, &shapes);
}

static bool same_shape(const fw_weight *a, const fw_weight *b) {
    return a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1];
}

/* Scratch is planned for the batches of all weights; a step over some of them needs no more. */
static fw_status plan(void *self, const fw_weight *const *weights, uint32_t n_weights,
                      size_t *scratch_bytes, fw_error *error) {
    const muon *optimizer = self;
    for (uint32_t i = 0; i < n_weights; i++)
        if (weights[i]->rank != 2)
            return fw_fail(error, FW_E_UNSUPPORTED,
                           "muon trains matrices, and %s has rank %u; put it in another optimizer "
                           "group",
                           weights[i]->name, weights[i]->rank);
    size_t most = 0;
    for (uint32_t i = 0; i < n_weights; i++) {
        int64_t n = 0;
        for (uint32_t j = 0; j < n_weights; j++) n += same_shape(weights[i], weights[j]);
        const size_t bytes = batch_scratch(optimizer, n < MAX_BATCH ? n : MAX_BATCH,
                                           weights[i]->shape[0], weights[i]->shape[1]);
        if (bytes > most) most = bytes;
    }
    *scratch_bytes = most;
    return FW_OK;
}

static void prepare(void *self, fw_step *step) {
    const muon *optimizer = self;
    const double warmup = (double)optimizer->momentum_warmup_steps;
    const double start = optimizer->momentum_start;
    const double done = (double)step->step < warmup ? (double)step->step / warmup : 1.0;
    step->learning_rate = (float)(optimizer->learning_rate * (double)step->schedule);
    step->momentum = (float)(start + (optimizer->momentum - start) * done);
    step->weight_decay = (float)optimizer->weight_decay;
}

static fw_status add_momentum(const muon *optimizer, const fw_optimizer_call *call,
                              const fw_optimizer_tensor *tensor, float *update, fw_error *error) {
    fw_device *device = optimizer->host->device;
    const fw_momentum_step momentum = {
        .struct_size = sizeof momentum,
        .nesterov = optimizer->nesterov,
        .step = call->step,
        .gradient = tensor->gradient,
        .momentum = tensor->slot[0],
        .update =
            fw_matrix(update, FW_F32, tensor->parameter.shape[0], tensor->parameter.shape[1])};
    return device->ops->momentum(device, &momentum, error);
}

/* An orthogonal update has singular values of one whatever its shape; the scale gives tall matrices
 * the same change per output as square ones. */
static fw_status apply(const muon *optimizer, const fw_optimizer_call *call,
                       const fw_optimizer_tensor *tensor, float *update, fw_error *error) {
    fw_device *device = optimizer->host->device;
    const int64_t rows = tensor->parameter.shape[0], columns = tensor->parameter.shape[1];
    const double ratio = (double)rows / (double)columns;
    const fw_apply_update update_step = {.struct_size = sizeof update_step,
                                         .scale = (float)sqrt(ratio > 1 ? ratio : 1),
                                         .step = call->step,
                                         .parameter = tensor->parameter,
                                         .update = fw_matrix(update, FW_F32, rows, columns),
                                         .compute = tensor->compute};
    return device->ops->apply_update(device, &update_step, error);
}

/* One update of up to MAX_BATCH tensors of equal shape. */
static fw_status step_batch(const muon *optimizer, const fw_optimizer_call *call,
                            const uint32_t *members, uint32_t n, fw_error *error) {
    fw_device *device = optimizer->host->device;
    const fw_tensor *shape = &call->tensors[members[0]].parameter;
    const int64_t rows = shape->shape[0], columns = shape->shape[1], count = rows * columns;
    float *updates = call->scratch;

    for (uint32_t i = 0; i < n; i++)
        FW_TRY(
            add_momentum(optimizer, call, &call->tensors[members[i]], updates + i * count, error));
    fw_newton_schulz orthogonal = orthogonalisation(optimizer, n, rows, columns, updates);
    orthogonal.scratch = (char *)call->scratch + stack_bytes(n, rows, columns);
    orthogonal.scratch_bytes = device->ops->newton_schulz_scratch(device, &orthogonal);
    FW_TRY(device->ops->newton_schulz(device, &orthogonal, error));
    for (uint32_t i = 0; i < n; i++)
        FW_TRY(apply(optimizer, call, &call->tensors[members[i]], updates + i * count, error));
    return FW_OK;
}

static bool shape_came_before(const fw_optimizer_call *call, uint32_t index) {
    for (uint32_t i = 0; i < index; i++)
        if (same_shape(call->tensors[i].weight, call->tensors[index].weight)) return true;
    return false;
}

static fw_status step(void *self, const fw_optimizer_call *call, fw_error *error) {
    const muon *optimizer = self;
    for (uint32_t first = 0; first < call->n_tensors; first++) {
        if (shape_came_before(call, first)) continue;
        uint32_t members[MAX_BATCH], n = 0;
        for (uint32_t i = first; i < call->n_tensors; i++) {
            if (!same_shape(call->tensors[first].weight, call->tensors[i].weight)) continue;
            members[n++] = i;
            if (n < MAX_BATCH) continue;
            FW_TRY(step_batch(optimizer, call, members, n, error));
            n = 0;
        }
        if (n > 0) FW_TRY(step_batch(optimizer, call, members, n, error));
    }
    return FW_OK;
}

static const fw_param params[] = {
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "learning_rate", "0.025", 0, 100, "",
                   "step size at full schedule"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "momentum", "0.99", 0, 0.999999, "",
                   "momentum after its warm-up"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "momentum_start", "0.92", 0, 0.999999, "",
                   "momentum of the first step"),
    FW_PARAM_RANGE(FW_PARAM_INT, "momentum_warmup_steps", "1500", 0, 1e9, "steps",
                   "steps over which the momentum rises linearly, 0: it is constant"),
    FW_PARAM_PLAIN(FW_PARAM_BOOL, "nesterov", "yes", "look ahead by one step of momentum"),
    FW_PARAM_RANGE(FW_PARAM_INT, "iterations", "5", 1, 100, "", "Newton-Schulz iterations"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "weight_decay", "0.04", 0, 100, "",
                   "decoupled decay, applied as 1 - learning rate * weight_decay"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "epsilon", "1e-7", 1e-20, 1, "",
                   "added to the Frobenius norm before the iterations")};

static const fw_optimizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .slots = slots,
                                    .plan = plan,
                                    .prepare = prepare,
                                    .step = step};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_OPTIMIZER,
                                 .id = "muon",
                                 .version = "1.0.0",
                                 .summary = "momentum with orthogonalised updates, for matrices",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = sizeof params / sizeof params[0],
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
