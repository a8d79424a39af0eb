/* The memory of a pass: every buffer of a model, carved from one allocation. */
#include "model_internal.h"

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

/* What a pass needs, by the sizes of its rows. */
struct sizes {
    size_t stream, hidden, scalars, values; /* [N,C], [N,M], F32 [N], [N,G*D] in bytes */
};

static struct sizes sizes_of(const struct model *model) {
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    return (struct sizes){.stream = times(rows, (size_t)model->width * element),
                          .hidden = times(rows, (size_t)model->mlp_width * element),
                          .scalars = times(rows, sizeof(float)),
                          .values = times(rows, (size_t)model->value.columns * element)};
}

static void carve_table(const struct model *model, struct table *table, struct carver *carver) {
    if (table->weight == NO_WEIGHT) return;
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    table->rows = carve(carver, times(rows, (size_t)table->width * element));
    table->out = table->projection == NO_WEIGHT
                     ? table->rows
                     : carve(carver, times(rows, (size_t)table->columns * element));
}

static void carve_inputs(struct model *model, const struct sizes *sizes, struct carver *carver) {
    model->inputs = carve(carver, times((size_t)model->max_rows, sizeof(int32_t)));
    model->embedded = carve(carver, sizes->stream);
    model->embedded_rms = carve(carver, sizes->scalars);
    model->normed = carve(carver, sizes->stream);
    model->x0 = model->smear_gate != NO_WEIGHT ? carve(carver, sizes->stream) : model->normed;
    carve_table(model, &model->bigram, carver);
    if (model->bigram.weight != NO_WEIGHT)
        model->pairs = carve(carver, times((size_t)model->max_rows, sizeof(int32_t)));
    carve_table(model, &model->value, carver);
    if (model->value.weight != NO_WEIGHT) model->value_base = carve(carver, sizes->values);
}

/* ---- layers ---- */

/* The residual stream where it enters the layer. In inference a layer overwrites what the one
 * before left, but for x0 and what a later layer takes up again. */
static void carve_entry(struct model *model, struct layer *layer, size_t bytes,
                        struct carver *carver) {
    const int64_t index = layer - model->layer;
    const bool kept = model->options.training || index <= model->encoders;
    if (index == 0)
        layer->entry = model->x0;
    else if (kept || index == 1 || index == model->encoders + 1)
        layer->entry = carve(carver, bytes);
    else
        layer->entry = layer[-1].entry;
}

/* Where a layer saves what its passes compute; all layers share this in inference. */
static void carve_saved(struct model *model, struct layer *layer, const struct sizes *sizes,
                        struct carver *carver) {
    const struct model_keys *keys = &model->options.experiment->model;
    layer->attention_in = carve(carver, sizes->stream);
    layer->attention_rms = carve(carver, sizes->scalars);
    layer->attention_saved = carve(carver, layer->plan.saved_bytes);
    layer->middle = carve(carver, sizes->stream);
    layer->mlp_in = carve(carver, sizes->stream);
    layer->mlp_rms = carve(carver, sizes->scalars);
    layer->hidden = carve(carver, sizes->hidden);
    layer->activated = carve(carver, sizes->hidden);
    const bool scaled = keys->layer_scales && model->options.training;
    layer->attention_out = scaled ? carve(carver, sizes->stream) : model->branch;
    layer->mlp_out = scaled ? carve(carver, sizes->stream) : model->branch;
    const bool shared = !model->options.training;
    if (keys->skips && (shared || layer->skip >= 0)) layer->skipped = carve(carver, sizes->stream);
    if (keys->x0_mix) layer->stream = carve(carver, sizes->stream);
    if (model->value.weight != NO_WEIGHT && (shared || layer->takes_values))
        layer->value_add = carve(carver, sizes->values);
}

static void share_saved(struct layer *layer, const struct layer *first) {
    layer->attention_in = first->attention_in;
    layer->attention_rms = first->attention_rms;
    layer->attention_saved = first->attention_saved;
    layer->middle = first->middle;
    layer->mlp_in = first->mlp_in;
    layer->mlp_rms = first->mlp_rms;
    layer->hidden = first->hidden;
    layer->activated = first->activated;
    layer->attention_out = first->attention_out;
    layer->mlp_out = first->mlp_out;
    layer->skipped = first->skipped;
    layer->stream = first->stream;
    layer->value_add = first->value_add;
}

static void carve_layers(struct model *model, const struct sizes *sizes, struct carver *carver) {
    const struct model_keys *keys = &model->options.experiment->model;
    size_t scratch = 0;
    for (int64_t i = 0; i < model->layers; i++) {
        struct layer *layer = &model->layer[i];
        carve_entry(model, layer, sizes->stream, carver);
        if (i == 0 || model->options.training)
            carve_saved(model, layer, sizes, carver);
        else
            share_saved(layer, model->layer);
        if (layer->plan.scratch_bytes > scratch) scratch = layer->plan.scratch_bytes;
    }
    for (int64_t i = 0; i < model->layers; i++) { /* names of one buffer, where switches are off */
        struct layer *layer = &model->layer[i];
        if (layer->skip < 0) layer->skipped = layer->entry;
        if (!keys->x0_mix) layer->stream = layer->skipped;
    }
    model->scratch = carve(carver, scratch);
}

static void carve_gradients(struct model *model, const struct sizes *sizes, struct carver *carver) {
    const struct model_keys *keys = &model->options.experiment->model;
    const bool pairs = model->bigram.weight != NO_WEIGHT;
    model->d_stream = carve(carver, sizes->stream);
    model->d_branch = carve(carver, sizes->stream);
    model->d_hidden = carve(carver, sizes->hidden);
    if (keys->layer_scales || pairs) model->d_scaled = carve(carver, sizes->stream);
    if (keys->x0_mix) model->d_x0 = carve(carver, sizes->stream);
    for (int64_t i = 0; i < model->encoders; i++)
        model->layer[i].d_output = carve(carver, sizes->stream);
    const int64_t width =
        model->bigram.width > model->value.width ? model->bigram.width : model->value.width;
    const size_t element = fw_dtype_size(model->dtype);
    if (pairs || model->value.weight != NO_WEIGHT)
        model->d_rows = carve(carver, times((size_t)model->max_rows, (size_t)width * element));
    if (model->value.weight == NO_WEIGHT) return;
    model->d_value_add = carve(carver, sizes->values);
    model->d_value_base = carve(carver, sizes->values);
}

/* ---- the whole ---- */

static void carve_activations(struct model *model, struct carver *carver) {
    const bool training = model->options.training;
    const struct sizes sizes = sizes_of(model);
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    const size_t logit_rows = training ? rows : (size_t)model->options.tokens;
    const size_t vocabulary = (size_t)model->vocabulary;
    model->branch = carve(carver, sizes.stream);
    carve_inputs(model, &sizes, carver);
    carve_layers(model, &sizes, carver);
    model->final_stream = carve(carver, sizes.stream);
    model->final_in = carve(carver, sizes.stream);
    model->final_rms = carve(carver, sizes.scalars);
    model->logits = carve(carver, times(logit_rows, vocabulary * element));
    if (!training) {
        model->log_probabilities = carve(carver, times(logit_rows, vocabulary * sizeof(float)));
        return;
    }
    model->targets = carve(carver, times(rows, sizeof(int32_t)));
    model->losses = carve(carver, sizes.scalars);
    model->log_sum_exp = carve(carver, sizes.scalars);
    model->loss_sum = carve(carver, sizeof(float));
    carve_gradients(model, &sizes, carver);
}

fw_status model_allocate_activations(struct model *model, fw_error *error) {
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
