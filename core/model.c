#include "model_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- weights ---- */

static fw_weight matrix_weight(uint32_t role, int64_t rows, int64_t columns) {
    fw_weight weight = {.struct_size = sizeof weight, .role = role, .layer = -1, .rank = 2};
    const int64_t shape[FW_MAX_RANK] = {rows, columns, 1, 1};
    memcpy(weight.shape, shape, sizeof shape);
    return weight;
}

static int64_t weight_count(const fw_weight *weight) {
    return weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3];
}

/* Far more than any machine holds, far less than what overflows: sums and products with small
 * numbers need no further check. */
static const int64_t max_parameters = (int64_t)1 << 40;

static fw_status check_weight(const fw_weight *weight, int64_t so_far, fw_error *error) {
    double count = 1;
    for (int i = 0; i < FW_MAX_RANK; i++) {
        if (weight->shape[i] < 1)
            return fw_fail(error, FW_E_SHAPE, "%s has a dimension of %lld", weight->name,
                           (long long)weight->shape[i]);
        count *= (double)weight->shape[i];
    }
    if (count + (double)so_far <= (double)max_parameters) return FW_OK;
    return fw_fail(error, FW_E_LIMIT,
                   "with %s the model has more than 2^40 parameters; [model] layers, width and "
                   "mlp_width set its size",
                   weight->name);
}

static fw_weight *append(struct model *model, fw_weight weight) {
    weight.index = model->n_weights;
    model->weights[model->n_weights] = weight;
    return &model->weights[model->n_weights++];
}

static void declare_embedding(struct model *model) {
    fw_weight *weight =
        append(model, matrix_weight(FW_ROLE_EMBED, model->vocabulary, model->width));
    weight->part = FW_PART_EMBEDDING;
    weight->init = FW_INIT_NORMAL;
    weight->init_value = model->options.experiment->model.embedding_init;
    (void)strcpy(weight->name, "embedding");
}

static void declare_attention(struct model *model, int32_t index) {
    struct layer *layer = &model->layer[index];
    layer->first_weight = model->n_weights;
    for (uint32_t i = 0; i < layer->n_attention; i++) {
        fw_weight weight = {.struct_size = sizeof weight, .shape = {1, 1, 1, 1}};
        layer->attention->weight(layer->self, i, &weight);
        char name[FW_NAME_BYTES];
        (void)snprintf(name, sizeof name, "layer.%d.attention.%.32s", index, weight.name);
        (void)strcpy(weight.name, name);
        weight.part = FW_PART_ATTENTION;
        weight.layer = index;
        (void)append(model, weight);
    }
}

static void declare_mlp(struct model *model, int32_t index) {
    struct layer *layer = &model->layer[index];
    const int64_t hidden = model->mlp_width, width = model->width;
    fw_weight *up = append(model, matrix_weight(FW_ROLE_MATRIX, hidden, width));
    fw_weight *down = append(model, matrix_weight(FW_ROLE_MATRIX, width, hidden));
    (void)snprintf(up->name, sizeof up->name, "layer.%d.mlp.up", index);
    (void)snprintf(down->name, sizeof down->name, "layer.%d.mlp.down", index);
    up->init = FW_INIT_ORTHOGONAL;
    up->init_value = 1;
    down->init = FW_INIT_ZERO;
    up->part = down->part = FW_PART_MLP;
    up->layer = down->layer = index;
    layer->up = up->index;
    layer->down = down->index;
}

/* Offsets in floats. Every tensor starts on 64 floats, but for members of a pack group, which
 * follow one another without a gap. */
static fw_status assign_offsets(struct model *model, fw_error *error) {
    int64_t next = 0;
    for (uint32_t i = 0; i < model->n_weights; i++) {
        const fw_weight *weight = &model->weights[i];
        const fw_weight *before = i > 0 ? &model->weights[i - 1] : NULL;
        const bool packed = before != NULL && weight->pack_group != 0 &&
                            weight->pack_group == before->pack_group &&
                            weight->layer == before->layer;
        if (!packed) next = (next + 63) / 64 * 64;
        FW_TRY(check_weight(weight, next, error));
        model->offsets[i] = next;
        next += weight_count(weight);
        model->parameters += weight_count(weight);
    }
    model->arena_count = (next + 63) / 64 * 64;
    return FW_OK;
}

static fw_status declare_weights(struct model *model, fw_error *error) {
    size_t n = 1;
    for (int64_t i = 0; i < model->layers; i++) n += model->layer[i].n_attention + 2;
    model->weights = calloc(n, sizeof *model->weights);
    model->offsets = calloc(n, sizeof *model->offsets);
    model->compute = calloc(n, sizeof *model->compute);
    model->gradient_views = calloc(n, sizeof *model->gradient_views);
    if (model->weights == NULL || model->offsets == NULL || model->compute == NULL ||
        model->gradient_views == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the model's list of weights");
    declare_embedding(model);
    for (int32_t i = 0; i < (int32_t)model->layers; i++) {
        declare_attention(model, i);
        declare_mlp(model, i);
    }
    return assign_offsets(model, error);
}

static fw_tensor view_of(const struct model *model, void *arena, uint32_t dtype, uint32_t index) {
    const fw_weight *weight = &model->weights[index];
    char *data = (char *)arena + (size_t)model->offsets[index] * fw_dtype_size(dtype);
    return fw_tensor_view(data, dtype, weight->rank, weight->shape[0], weight->shape[1],
                          weight->shape[2], weight->shape[3]);
}

/* Ops take per-channel and per-head scales in float32, so these are their own compute copies. */
static bool has_compute_copy(const struct model *model, uint32_t index) {
    return model->compute_arena != NULL && model->weights[index].role != FW_ROLE_SCALAR;
}

static fw_status allocate_weights(struct model *model, fw_error *error) {
    FW_TRY(model_new_arena(model, &model->masters, error));
    if (model->options.training) FW_TRY(model_new_arena(model, &model->gradients, error));
    if (model->dtype != FW_F32 || model->options.compute_copies) {
        const size_t bytes = (size_t)model->arena_count * fw_dtype_size(model->dtype);
        FW_TRY(model->device->allocate(model->device, bytes, &model->compute_arena, error));
    }
    for (uint32_t i = 0; i < model->n_weights; i++) {
        model->compute[i] = has_compute_copy(model, i)
                                ? view_of(model, model->compute_arena, model->dtype, i)
                                : view_of(model, model->masters, FW_F32, i);
        if (model->gradients != NULL)
            model->gradient_views[i] = view_of(model, model->gradients, FW_F32, i);
    }
    return FW_OK;
}

/* ---- layers and activations ---- */

static fw_status create_layer(struct model *model, int32_t index, fw_error *error) {
    const struct plugin_choice *choice = &model->options.experiment->attention[index];
    struct layer *layer = &model->layer[index];
    const fw_attention_shape shape = {.struct_size = sizeof shape,
                                      .layer = index,
                                      .layers = (int32_t)model->layers,
                                      .width = model->width,
                                      .max_batch = model->options.batch,
                                      .max_tokens = model->options.tokens,
                                      .rope_reference = model->options.tokens};
    layer->attention = choice->entry->plugin->vtable;
    layer->plan.struct_size = sizeof layer->plan;
    fw_error why = {.struct_size = sizeof why};
    fw_status status =
        layer->attention->create(model->options.host, choice->values, &shape, &layer->self, &why);
    if (status == FW_OK)
        status =
            layer->attention->plan(layer->self, model->options.training ? FW_TRAIN : FW_INFER,
                                   model->options.batch, model->options.tokens, &layer->plan, &why);
    if (status == FW_OK) {
        layer->n_attention = layer->attention->n_weights(layer->self);
        return FW_OK;
    }
    char place[sizeof why.message];
    (void)snprintf(place, sizeof place, "layer %d: %.900s", index, why.message);
    return choice_fail(choice, status, place, error);
}

/* Sizes stop growing here; what reaches it is refused before anything is allocated. */
static const size_t max_bytes = SIZE_MAX / 4;

static size_t times(size_t a, size_t b) { return b != 0 && a > max_bytes / b ? max_bytes : a * b; }

/* Hands out pieces of one allocation in order; with base NULL it only measures. */
struct carver {
    char *base;
    size_t used;
};

static void *carve(struct carver *carver, size_t bytes) {
    void *piece = carver->base != NULL ? carver->base + carver->used : NULL;
    if (bytes >= max_bytes - carver->used)
        carver->used = max_bytes;
    else
        carver->used += (bytes + 255) / 256 * 256;
    return piece;
}

static void carve_layer(struct model *model, struct layer *layer, struct carver *carver) {
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    const size_t stream = times(rows, (size_t)model->width * element);
    const size_t hidden = times(rows, (size_t)model->mlp_width * element);
    layer->stream = carve(carver, stream);
    layer->attention_in = carve(carver, stream);
    layer->attention_rms = carve(carver, times(rows, sizeof(float)));
    layer->attention_saved = carve(carver, layer->plan.saved_bytes);
    layer->middle = carve(carver, stream);
    layer->mlp_in = carve(carver, stream);
    layer->mlp_rms = carve(carver, times(rows, sizeof(float)));
    layer->hidden = carve(carver, hidden);
    layer->activated = carve(carver, hidden);
}

/* In inference nothing is saved: all layers share the first one's buffers. */
static void carve_layers(struct model *model, struct carver *carver) {
    size_t scratch = 0;
    for (int64_t i = 0; i < model->layers; i++) {
        struct layer *layer = &model->layer[i];
        const struct layer own = *layer;
        if (i == 0 || model->options.training) {
            carve_layer(model, layer, carver);
        } else {
            *layer = model->layer[0];
            layer->attention = own.attention;
            layer->self = own.self;
            layer->first_weight = own.first_weight;
            layer->n_attention = own.n_attention;
            layer->up = own.up;
            layer->down = own.down;
            layer->plan = own.plan;
        }
        if (layer->plan.scratch_bytes > scratch) scratch = layer->plan.scratch_bytes;
    }
    model->scratch = carve(carver, scratch);
}

static void carve_activations(struct model *model, struct carver *carver) {
    const bool training = model->options.training;
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    const size_t stream = times(rows, (size_t)model->width * element);
    const size_t logit_rows = training ? rows : (size_t)model->options.tokens;
    const size_t vocabulary = (size_t)model->vocabulary;
    carve_layers(model, carver);
    model->embedded = carve(carver, stream);
    model->embedded_rms = carve(carver, times(rows, sizeof(float)));
    model->final_stream = carve(carver, stream);
    model->final_in = carve(carver, stream);
    model->final_rms = carve(carver, times(rows, sizeof(float)));
    model->branch = carve(carver, stream);
    model->logits = carve(carver, times(logit_rows, vocabulary * element));
    model->inputs = carve(carver, times(rows, sizeof(int32_t)));
    if (!training) {
        model->log_probabilities = carve(carver, times(logit_rows, vocabulary * sizeof(float)));
        return;
    }
    model->targets = carve(carver, times(rows, sizeof(int32_t)));
    model->losses = carve(carver, times(rows, sizeof(float)));
    model->log_sum_exp = carve(carver, times(rows, sizeof(float)));
    model->loss_sum = carve(carver, sizeof(float));
    model->d_stream = carve(carver, stream);
    model->d_branch = carve(carver, stream);
    model->d_hidden = carve(carver, times(rows, (size_t)model->mlp_width * element));
}

static fw_status allocate_activations(struct model *model, fw_error *error) {
    struct carver carver = {NULL, 0};
    carve_activations(model, &carver);
    if (carver.used >= max_bytes)
        return fw_fail(error, FW_E_LIMIT,
                       "a pass of %lld x %lld tokens needs more memory than can be addressed; %s "
                       "and [model] width and mlp_width set its size",
                       (long long)model->options.batch, (long long)model->options.tokens,
                       model->options.training ? "run.batch_tokens, run.micro_batch"
                                               : "eval.batch, eval.window");
    FW_TRY(model->device->allocate(model->device, carver.used, &model->activations, error));
    carver = (struct carver){model->activations, 0};
    carve_activations(model, &carver);
    return FW_OK;
}

/* ---- the whole ---- */

static fw_status check_ops(const struct model *model, fw_error *error) {
    const fw_ops *ops = model->ops;
    if (FW_HAS(ops, gemm) && FW_HAS(ops, embedding_forward) && FW_HAS(ops, embedding_backward) &&
        FW_HAS(ops, rmsnorm_forward) && FW_HAS(ops, rmsnorm_backward) &&
        FW_HAS(ops, residual_norm_forward) && FW_HAS(ops, residual_norm_backward) &&
        FW_HAS(ops, activation_forward) && FW_HAS(ops, activation_backward) &&
        FW_HAS(ops, cross_entropy_forward) && FW_HAS(ops, cross_entropy_backward) &&
        FW_HAS(ops, log_softmax) && FW_HAS(ops, reduce) && FW_HAS(ops, cast) && FW_HAS(ops, axpby))
        return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "the device lacks an op that the model needs");
}

static fw_status build(struct model *model, fw_error *error) {
    FW_TRY(check_ops(model, error));
    model->layer = calloc((size_t)model->layers, sizeof *model->layer);
    if (model->layer == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the model's layers");
    for (int32_t i = 0; i < (int32_t)model->layers; i++) FW_TRY(create_layer(model, i, error));
    FW_TRY(declare_weights(model, error));
    FW_TRY(allocate_weights(model, error));
    return allocate_activations(model, error);
}

fw_status model_create(const struct model_options *options, struct model **model, fw_error *error) {
    struct model *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a model");
    const struct model_keys *keys = &options->experiment->model;
    made->options = *options;
    made->device = options->host->device;
    made->ops = made->device->ops;
    made->dtype = made->device->compute_dtype;
    made->layers = keys->layers;
    made->width = keys->width;
    made->mlp_width = keys->mlp_width;
    made->vocabulary = options->vocabulary;
    made->softcap = (float)keys->softcap;
    made->max_rows = options->batch * options->tokens;
    const fw_status status = build(made, error);
    if (status == FW_OK)
        *model = made;
    else
        model_destroy(made);
    return status;
}

void model_destroy(struct model *model) {
    if (model == NULL) return;
    for (int64_t i = 0; model->layer != NULL && i < model->layers; i++)
        if (model->layer[i].self != NULL) model->layer[i].attention->destroy(model->layer[i].self);
    void *const owned[] = {model->masters, model->gradients, model->compute_arena,
                           model->activations};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        if (owned[i] != NULL) model->device->release(model->device, owned[i]);
    free(model->layer);
    free(model->weights);
    free(model->offsets);
    free(model->compute);
    free(model->gradient_views);
    free(model);
}

uint32_t model_n_weights(const struct model *model) { return model->n_weights; }

const fw_weight *model_weight(const struct model *model, uint32_t index) {
    return &model->weights[index];
}

int64_t model_parameters(const struct model *model) { return model->parameters; }

int64_t model_arena_count(const struct model *model) { return model->arena_count; }

int64_t model_offset(const struct model *model, uint32_t index) { return model->offsets[index]; }

fw_tensor model_view(const struct model *model, float *arena, uint32_t index) {
    return view_of(model, arena, FW_F32, index);
}

float *model_masters(const struct model *model) { return model->masters; }

float *model_gradients(const struct model *model) { return model->gradients; }

fw_tensor model_compute_copy(const struct model *model, uint32_t index) {
    return has_compute_copy(model, index) ? model->compute[index] : fw_absent();
}

static size_t arena_bytes(const struct model *model) {
    return (size_t)model->arena_count * sizeof(float);
}

fw_status model_new_arena(const struct model *model, float **arena, fw_error *error) {
    void *memory = NULL;
    FW_TRY(model->device->allocate(model->device, arena_bytes(model), &memory, error));
    const fw_status status = model->device->zero(model->device, memory, arena_bytes(model), error);
    if (status == FW_OK)
        *arena = memory;
    else
        model->device->release(model->device, memory);
    return status;
}

void model_free_arena(const struct model *model, float *arena) {
    if (arena != NULL) model->device->release(model->device, arena);
}

fw_status model_download(const struct model *model, const float *arena, float *host,
                         fw_error *error) {
    return model->device->copy_to_host(model->device, host, arena, arena_bytes(model), error);
}

static fw_status refresh_compute(struct model *model, fw_error *error) {
    if (model->compute_arena == NULL) return FW_OK;
    const fw_cast cast = {.struct_size = sizeof cast,
                          .from = fw_vector(model->masters, FW_F32, model->arena_count),
                          .to = fw_vector(model->compute_arena, model->dtype, model->arena_count)};
    return model->ops->cast(model->device, &cast, error);
}

fw_status model_set_weights(struct model *model, const float *host, fw_error *error) {
    FW_TRY(model->device->copy_from_host(model->device, model->masters, host, arena_bytes(model),
                                         error));
    return refresh_compute(model, error);
}

double model_forward_flops(const struct model *model, int64_t batch, int64_t tokens) {
    const double rows = (double)(batch * tokens), width = (double)model->width;
    double flops = 2 * rows * width * (double)model->vocabulary;
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        flops += 4 * rows * width * (double)model->mlp_width;
        flops += layer->attention->forward_flops(layer->self, batch, tokens);
    }
    return flops;
}
