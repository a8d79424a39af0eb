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
    size_t logits;
};

static struct sizes sizes_of(const struct model *model) {
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    const size_t logit_rows = model->options.training ? rows : (size_t)model->most_rows;
    return (struct sizes){.stream = times(rows, (size_t)model->width * element),
                          .hidden = times(rows, (size_t)model->mlp_width * element),
                          .scalars = times(rows, sizeof(float)),
                          .values = times(rows, (size_t)model->value.columns * element),
                          .logits = times(logit_rows, (size_t)model->vocabulary * element)};
}

static void carve_table(const struct model *model, struct table *table, struct carver *carver) {
    if (table->weight == NO_WEIGHT) return;
    const size_t rows = (size_t)model->max_rows, element = fw_dtype_size(model->dtype);
    table->rows = carve(carver, times(rows, (size_t)table->width * element));
    table->out = table->projection == NO_WEIGHT
                     ? table->rows
                     : carve(carver, times(rows, (size_t)table->columns * element));
}

/* Rows of the stream, with room for one in front of them where a decoder may read on. */
static void *carve_smeared(const struct model *model, const struct sizes *sizes,
                           struct carver *carver) {
    const size_t row = (size_t)model->width * fw_dtype_size(model->dtype);
    const bool reads_on = model->smear_gate != NO_WEIGHT && model->options.feed > 0;
    if (reads_on) (void)carve(carver, row);
    return carve(carver, sizes->stream);
}

static void carve_inputs(struct model *model, const struct sizes *sizes, struct carver *carver) {
    model->inputs = carve(carver, times((size_t)model->max_rows, sizeof(int32_t)));
    model->embedded = carve(carver, sizes->stream);
    model->embedded_rms = carve(carver, sizes->scalars);
    model->normed = carve_smeared(model, sizes, carver);
    model->x0 =
        model->smear_gate != NO_WEIGHT ? carve_smeared(model, sizes, carver) : model->normed;
    carve_table(model, &model->bigram, carver);
    if (model->bigram.weight != NO_WEIGHT)
        model->pairs = carve(carver, times((size_t)model->max_rows, sizeof(int32_t)));
    carve_table(model, &model->value, carver);
    if (model->value.weight != NO_WEIGHT) model->value_base = carve(carver, sizes->values);
}

/* ---- layers ---- */

/* Whether an attention plugin leaves it to us to add its output to the residual stream. */
static bool sums_attention(const struct model *model) {
    for (int64_t i = 0; i < model->layers; i++)
        if (model->layer[i].output == NO_WEIGHT) return true;
    return false;
}

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

/* A layer that takes up an earlier output adds it to its entry in place, unless a skip reads that
 * entry as well: the first of them takes up its own. */
static void carve_skipped(const struct model *model, struct layer *layer, size_t bytes,
                          struct carver *carver) {
    const int64_t index = layer - model->layer;
    const bool read_again = layer->skip >= 0 && index <= model->encoders;
    layer->skipped = read_again ? carve(carver, bytes) : layer->entry;
}

/* Where a layer saves what its passes compute; all layers share this in inference. */
static void carve_saved(struct model *model, struct layer *layer, const struct sizes *sizes,
                        struct carver *carver) {
    const struct model_keys *keys = &model->options.experiment->model;
    const bool training = model->options.training;
    layer->attention_in = carve(carver, sizes->stream);
    layer->attention_rms = carve(carver, sizes->scalars);
    layer->attention_saved = carve(carver, layer->plan.saved_bytes);
    layer->middle = carve(carver, sizes->stream);
    layer->mlp_in = carve(carver, sizes->stream);
    layer->mlp_rms = carve(carver, sizes->scalars);
    if (!model->linear_activation)
        layer->hidden = carve(carver, sizes->hidden);
    else if (training)
        layer->mlp_saved = carve(carver, model->mlp_saved_bytes);
    layer->activated = carve(carver, sizes->hidden);
    if (layer->output == NO_WEIGHT)
        layer->attention_out =
            keys->layer_scales && training ? carve(carver, sizes->stream) : model->branch;
    if (keys->x0_mix) layer->stream = carve(carver, sizes->stream);
    if (model->value.weight != NO_WEIGHT && (!training || layer->takes_values))
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
    layer->stream = first->stream;
    layer->value_add = first->value_add;
}

static void carve_layers(struct model *model, const struct sizes *sizes, struct carver *carver) {
    const struct model_keys *keys = &model->options.experiment->model;
    for (int64_t i = 0; i < model->layers; i++) {
        struct layer *layer = &model->layer[i];
        carve_entry(model, layer, sizes->stream, carver);
        carve_skipped(model, layer, sizes->stream, carver);
        if (i == 0 || model->options.training)
            carve_saved(model, layer, sizes, carver);
        else
            share_saved(layer, model->layer);
        if (!keys->x0_mix) layer->stream = layer->skipped; /* two names of one buffer */
    }
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Attention's scratch, the gradient inside an MLP and the logits are never there together. */
static void carve_passing(struct model *model, const struct sizes *sizes, struct carver *carver) {
    size_t bytes = sizes->logits;
    for (int64_t i = 0; i < model->layers; i++)
        bytes = larger(bytes, model->layer[i].plan.scratch_bytes);
    if (model->options.training) bytes = larger(bytes, sizes->hidden);
    model->scratch = model->d_hidden = model->logits = carve(carver, bytes);
}

/* The next matrix of the model, in the order of the layers, that takes up a scale; NO_WEIGHT behind
 * the last. */
static uint32_t next_scaled(const struct model *model, int64_t *index) {
    for (; *index < 2 * model->layers; ++*index) {
        const struct layer *layer = &model->layer[*index / 2];
        const uint32_t weight = *index % 2 == 0 ? layer->output : layer->down;
        if (weight == NO_WEIGHT) continue;
        ++*index;
        return weight;
    }
    return NO_WEIGHT;
}

/* Matrices that take up a scale: one at a time in training, where they change with each step; each
 * in a place of its own, where it is scaled once. */
static void carve_scaled(struct model *model, struct carver *carver) {
    if (!model->options.experiment->model.layer_scales) return;
    const size_t element = fw_dtype_size(model->dtype);
    const bool training = model->options.training;
    size_t most = 0;
    int64_t index = 0;
    for (uint32_t w = 0; (w = next_scaled(model, &index)) != NO_WEIGHT;) {
        const size_t count = times((size_t)model->weights[w].shape[1], (size_t)model->width);
        most = larger(most, count);
        if (!training) model->scaled[w] = carve(carver, times(count, element));
    }
    if (!training) return;
    void *shared = carve(carver, times(most, element));
    index = 0;
    for (uint32_t w = 0; (w = next_scaled(model, &index)) != NO_WEIGHT;) model->scaled[w] = shared;
    model->d_scaled_weight = carve(carver, times(most, sizeof(float)));
}

static void carve_gradients(struct model *model, const struct sizes *sizes, struct carver *carver) {
    const struct model_keys *keys = &model->options.experiment->model;
    const bool pairs = model->bigram.weight != NO_WEIGHT;
    model->d_stream = carve(carver, sizes->stream);
    model->d_branch = carve(carver, sizes->stream);
    if (pairs || (keys->layer_scales && sums_attention(model)))
        model->d_scaled = carve(carver, sizes->stream);
    if (keys->x0_mix) model->d_x0 = carve(carver, sizes->stream);
    for (int64_t i = 0; i < model->layers; i++)
        if (model->layer[i].skip >= 0)
            model->layer[model->encoders - 1 - model->layer[i].skip].d_output =
                model->layer[i].mlp_in;
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
    const size_t rows = (size_t)model->max_rows;
    if (sums_attention(model) && (!training || !model->options.experiment->model.layer_scales))
        model->branch = carve(carver, sizes.stream);
    carve_inputs(model, &sizes, carver);
    carve_layers(model, &sizes, carver);
    carve_passing(model, &sizes, carver);
    carve_scaled(model, carver);
    model->final_stream = carve(carver, sizes.stream);
    model->final_in = carve(carver, sizes.stream);
    model->final_rms = carve(carver, sizes.scalars);
    if (!training) {
        const size_t row = (size_t)model->vocabulary * sizeof(float);
        const size_t rows_there = times(model->places, (size_t)model->most_rows);
        model->log_probabilities = carve(carver, times(rows_there, row));
        return;
    }
    model->targets = carve(carver, times(rows, sizeof(int32_t)));
    model->losses = carve(carver, sizes.scalars);
    model->log_sum_exp = carve(carver, sizes.scalars);
    model->loss_sum = carve(carver, sizeof(float));
    carve_gradients(model, &sizes, carver);
}

/* What the device's linear_activation keeps of a pass, for the layers' widths alone matter to it.
 */
static size_t mlp_saved_bytes(const struct model *model) {
    const int64_t rows = model->max_rows, width = model->width, hidden = model->mlp_width;
    const fw_linear_activation shapes = {.struct_size = sizeof shapes,
                                         .kind = FW_LEAKY_RELU_SQUARED,
                                         .slope = MODEL_LEAKY_SLOPE,
                                         .x = fw_matrix(NULL, model->dtype, rows, width),
                                         .weight = fw_matrix(NULL, model->dtype, hidden, width),
                                         .out = fw_matrix(NULL, model->dtype, rows, hidden),
                                         .d_y = fw_matrix(NULL, model->dtype, rows, width),
                                         .next_weight =
                                             fw_matrix(NULL, model->dtype, width, hidden),
                                         .d_hidden = fw_matrix(NULL, model->dtype, rows, hidden)};
    return model->ops->linear_activation_saved(model->device, &shapes);
}

/* Whether rows go to the host while what comes next is computed, from places of their own. */
static bool copies_beside(const struct model *model) {
    return staging_is_possible(model->device) && FW_HAS(model->device, copy_to_host_beside);
}

/* Rows of log-probabilities that are worth one call: a window's, or more on a device that computes
 * them while the host scores those before, where several such pieces are under way. No more than
 * 16 MiB: what lies ready for rows of a large vocabulary would be gigabytes. */
static int64_t most_rows(const struct model *model) {
    enum { VALUES = 1 << 22 };
    const bool ahead = staging_is_possible(model->device);
    const int64_t wanted = ahead ? model->max_rows : model->options.tokens;
    const int64_t rows = VALUES / model->vocabulary;
    return wanted < rows ? wanted : rows > 0 ? rows : 1;
}

/* What takes most of a device's memory are the buffers of a pass, whatever is allocated last. */
fw_status model_allocate(const struct model *model, size_t bytes, const char *what, void **memory,
                         fw_error *error) {
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = model->device->allocate(model->device, bytes, memory, &why);
    if (status == FW_OK) return FW_OK;
    if (status != FW_E_MEMORY) return fw_fail(error, status, "%s", why.message);
    const long long batch = (long long)model->options.batch;
    const bool training = model->options.training;
    const char *key = training ? "run.micro_batch" : "eval.batch";
    if (batch > 1)
        return fw_fail(error, status, "no memory for %s (%.3f GB): %.600s; %s = %lld needs less",
                       what, 1e-9 * (double)bytes, why.message, key, batch / 2);
    return fw_fail(error, status, "no memory for %s (%.3f GB): %.600s; a smaller %s or [model] %s",
                   what, 1e-9 * (double)bytes, why.message,
                   training ? "data.sequence" : "eval.window", "needs less");
}

static fw_status allocate_pass(struct model *model, size_t bytes, fw_error *error) {
    char what[128];
    (void)snprintf(what, sizeof what, "the buffers of passes of %lld x %lld tokens",
                   (long long)model->options.batch, (long long)model->options.tokens);
    return model_allocate(model, bytes, what, &model->activations, error);
}

/* Attention sees its output's matrix and gradient where they are scaled. */
static void arrange_calls(struct model *model) {
    for (uint32_t i = 0; i < model->n_weights; i++) {
        model->call_weights[i] = model->compute[i];
        model->call_grads[i] = model->gradient_views[i];
    }
    for (int64_t i = 0; i < model->layers; i++) {
        const uint32_t output = model->layer[i].output;
        if (output == NO_WEIGHT || model->scaled[output] == NULL) continue;
        model->call_weights[output].data = model->scaled[output];
        model->call_grads[output].data = model->d_scaled_weight;
    }
}

fw_status model_allocate_activations(struct model *model, fw_error *error) {
    struct carver carver = {NULL, 0};
    model->linear_activation = FW_HAS(model->ops, linear_activation_saved) &&
                               FW_HAS(model->ops, linear_activation_forward) &&
                               FW_HAS(model->ops, linear_activation_backward);
    model->most_rows = most_rows(model);
    model->places = copies_beside(model) ? MODEL_SENDS : 1;
    if (model->linear_activation) model->mlp_saved_bytes = mlp_saved_bytes(model);
    carve_activations(model, &carver);
    if (carver.used >= max_bytes)
        return fw_fail(error, FW_E_LIMIT,
                       "a pass of %lld x %lld tokens needs more memory than can be addressed; %s "
                       "and [model] width and mlp_width set its size",
                       (long long)model->options.batch, (long long)model->options.tokens,
                       model->options.training ? "run.batch_tokens, run.micro_batch"
                                               : "eval.batch, eval.window");
    model->activation_bytes = carver.used;
    FW_TRY(allocate_pass(model, carver.used, error));
    carver = (struct carver){model->activations, 0};
    carve_activations(model, &carver);
    arrange_calls(model);
    return staging_create(model->device, 2, 3 * (size_t)model->max_rows * sizeof(int32_t),
                          &model->staging, error);
}
