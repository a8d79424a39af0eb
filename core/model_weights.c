/* The model's weights: their declaration in a stable order, the arenas that hold them, views. */
#include <stdlib.h>
#include <string.h>

#include "model_internal.h"

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

/* A weight of the model's own (not of an attention plugin), to be completed by the caller. */
static fw_weight *declare(struct model *model, const char *name, uint32_t role, uint32_t part,
                          int64_t rows, int64_t columns) {
    fw_weight *weight = append(model, matrix_weight(role, rows, columns));
    weight->part = part;
    (void)snprintf(weight->name, sizeof weight->name, "%s", name);
    return weight;
}

static void initialise(fw_weight *weight, uint32_t init, double value) {
    weight->init = init;
    weight->init_value = value;
}

static void declare_embedding(struct model *model) {
    fw_weight *weight = declare(model, "embedding", FW_ROLE_EMBED, FW_PART_EMBEDDING,
                                model->vocabulary, model->width);
    initialise(weight, FW_INIT_NORMAL, model->options.experiment->model.embedding_init);
}

/* A vector of scales, one for each column; a scalar has one. */
static uint32_t declare_vector(struct model *model, const char *name, int64_t columns,
                               double value) {
    fw_weight *weight = declare(model, name, FW_ROLE_SCALAR, FW_PART_OTHER, columns, 1);
    weight->rank = 1;
    initialise(weight, value != 0 ? FW_INIT_CONSTANT : FW_INIT_ZERO, value);
    return weight->index;
}

/* NAME.table, NAME.projection unless the widths are equal, NAME.scale. */
static void declare_table(struct model *model, struct table *table, const char *name, int64_t rows,
                          double deviation, double scale) {
    char full[FW_NAME_BYTES];
    (void)snprintf(full, sizeof full, "%s.table", name);
    fw_weight *weight = declare(model, full, FW_ROLE_EMBED, FW_PART_EMBEDDING, rows, table->width);
    initialise(weight, deviation != 0 ? FW_INIT_NORMAL : FW_INIT_ZERO, deviation);
    table->weight = weight->index;
    if (table->width != table->columns) {
        (void)snprintf(full, sizeof full, "%s.projection", name);
        weight = declare(model, full, FW_ROLE_SCALAR, FW_PART_OTHER, table->columns, table->width);
        initialise(weight, FW_INIT_ORTHOGONAL, 1);
        table->projection = weight->index;
    }
    (void)snprintf(full, sizeof full, "%s.scale", name);
    table->scale = declare_vector(model, full, 1, scale);
}

static void declare_inputs(struct model *model) {
    const struct model_keys *keys = &model->options.experiment->model;
    declare_embedding(model);
    if (keys->bigram_slots > 0)
        declare_table(model, &model->bigram, "bigram", keys->bigram_slots, 0, keys->bigram_scale);
    if (keys->smear) model->smear_gate = declare_vector(model, "smear.gate", model->width, 0);
    if (model->value.columns > 0)
        declare_table(model, &model->value, "value", model->vocabulary, keys->value_init,
                      keys->value_scale);
    if (model->encoders == 0) return;
    fw_weight *skips = declare(model, "skip_weights", FW_ROLE_SCALAR, FW_PART_OTHER,
                               model->encoders, model->width);
    initialise(skips, FW_INIT_CONSTANT, 1);
    model->skip_weights = skips->index;
}

static uint32_t declare_layer_vector(struct model *model, int32_t index, const char *name,
                                     int64_t columns) {
    char full[FW_NAME_BYTES];
    (void)snprintf(full, sizeof full, "layer.%d.%s", index, name);
    const uint32_t weight = declare_vector(model, full, columns, 1);
    model->weights[weight].layer = index;
    return weight;
}

/* Row 0: of the residual stream; row 1: of x0. */
static void declare_mix(struct model *model, int32_t index) {
    char name[FW_NAME_BYTES];
    (void)snprintf(name, sizeof name, "layer.%d.mix", index);
    fw_weight *mix = declare(model, name, FW_ROLE_SCALAR, FW_PART_OTHER, 2, model->width);
    initialise(mix, FW_INIT_FIRST_ROW, 1);
    mix->layer = index;
    model->layer[index].mix = mix->index;
}

/* The matrix that makes attention's output, if the plugin adds to the residual stream. It is handed
 * over as a copy where it takes up a scale, which no member of a pack group can be. */
static fw_status find_output(struct model *model, int32_t index, fw_error *error) {
    struct layer *layer = &model->layer[index];
    const uint32_t output = layer->plan.output_weight;
    layer->output = NO_WEIGHT;
    if (output == 0) return FW_OK;
    if (output <= layer->n_attention) {
        const fw_weight *weight = &model->weights[layer->first_weight + output - 1];
        layer->output = weight->index;
        if (weight->rank == 2 && weight->shape[0] == model->width && weight->pack_group == 0)
            return FW_OK;
    }
    return fw_fail(error, FW_E_PROTOCOL,
                   "layer %d: attention plugin %s plans output_weight = %u; right is 1 + the index "
                   "of a matrix of %lld rows in no pack group, or 0",
                   index, model->options.experiment->attention[index].entry->plugin->id, output,
                   (long long)model->width);
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
    char name[FW_NAME_BYTES];
    (void)snprintf(name, sizeof name, "layer.%d.mlp.up", index);
    fw_weight *up = declare(model, name, FW_ROLE_MATRIX, FW_PART_MLP, hidden, width);
    (void)snprintf(name, sizeof name, "layer.%d.mlp.down", index);
    fw_weight *down = declare(model, name, FW_ROLE_MATRIX, FW_PART_MLP, width, hidden);
    initialise(up, FW_INIT_ORTHOGONAL, 1);
    initialise(down, FW_INIT_ZERO, 0);
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

static void declare_layer(struct model *model, int32_t index) {
    const struct model_keys *keys = &model->options.experiment->model;
    struct layer *layer = &model->layer[index];
    if (keys->x0_mix) declare_mix(model, index);
    declare_attention(model, index);
    declare_mlp(model, index);
    if (keys->layer_scales) {
        layer->attention_scale =
            declare_layer_vector(model, index, "attention_scale", model->width);
        layer->mlp_scale = declare_layer_vector(model, index, "mlp_scale", model->width);
    }
    if (layer->takes_values)
        layer->value_scale = declare_layer_vector(model, index, "value_scale", 1);
}

enum { MOST_INPUT_WEIGHTS = 9, MOST_LAYER_WEIGHTS = 6 }; /* beside those of attention */

fw_status model_declare_weights(struct model *model, fw_error *error) {
    size_t n = MOST_INPUT_WEIGHTS;
    for (int64_t i = 0; i < model->layers; i++)
        n += model->layer[i].n_attention + MOST_LAYER_WEIGHTS;
    model->weights = calloc(n, sizeof *model->weights);
    model->offsets = calloc(n, sizeof *model->offsets);
    model->compute = calloc(n, sizeof *model->compute);
    model->gradient_views = calloc(n, sizeof *model->gradient_views);
    model->call_weights = calloc(n, sizeof *model->call_weights);
    model->call_grads = calloc(n, sizeof *model->call_grads);
    model->scaled = calloc(n, sizeof *model->scaled);
    model->is_scaled = calloc(n, sizeof *model->is_scaled);
    if (model->scaled == NULL || model->is_scaled == NULL || model->weights == NULL ||
        model->offsets == NULL || model->compute == NULL || model->gradient_views == NULL ||
        model->call_weights == NULL || model->call_grads == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the model's list of weights");
    declare_inputs(model);
    for (int32_t i = 0; i < (int32_t)model->layers; i++) declare_layer(model, i);
    for (int32_t i = 0; i < (int32_t)model->layers; i++) FW_TRY(find_output(model, i, error));
    return assign_offsets(model, error);
}

static fw_tensor view_of(const struct model *model, void *arena, uint32_t dtype, uint32_t index) {
    const fw_weight *weight = &model->weights[index];
    char *data = (char *)arena + (size_t)model->offsets[index] * fw_dtype_size(dtype);
    return fw_tensor_view(data, dtype, weight->rank, weight->shape[0], weight->shape[1],
                          weight->shape[2], weight->shape[3]);
}

/* Ops take per-channel and per-head scales in float32, so these are their own compute copies; the
 * projections of tables, which train with them, are matrices. */
static bool has_compute_copy(const struct model *model, uint32_t index) {
    const bool projection = index == model->bigram.projection || index == model->value.projection;
    return model->compute_arena != NULL &&
           (model->weights[index].role != FW_ROLE_SCALAR || projection);
}

fw_status model_allocate_weights(struct model *model, fw_error *error) {
    FW_TRY(model_new_arena(model, "the weights", &model->masters, error));
    if (model->options.training)
        FW_TRY(model_new_arena(model, "the gradients", &model->gradients, error));
    if (model->dtype != FW_F32 || model->options.compute_copies) {
        const size_t bytes = (size_t)model->arena_count * fw_dtype_size(model->dtype);
        FW_TRY(model_allocate(model, bytes, "copies of the weights to compute with",
                              &model->compute_arena, error));
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

fw_status model_new_arena(const struct model *model, const char *what, float **arena,
                          fw_error *error) {
    void *memory = NULL;
    FW_TRY(model_allocate(model, arena_bytes(model), what, &memory, error));
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
    memset(model->is_scaled, 0, model->n_weights * sizeof *model->is_scaled);
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
