#include <math.h>
#include <stdlib.h>

#include "model_internal.h"

static bool has_decoding(const fw_attention *attention) {
    return FW_HAS(attention, state_bytes) && FW_HAS(attention, state_reset) &&
           FW_HAS(attention, decode) && FW_HAS(attention, state_evict);
}

static bool has_retired(const fw_attention *attention) {
    bool any = false;
    for (int i = 0; i < 4 && FW_COVERS(attention, retired); i++)
        any |= attention->retired[i] != NULL;
    return any;
}

/* All calls of a layer share its scratch. One that cannot decode serves all other calls, so nobody
 * but the decoder refuses it. */
static void plan_decoding(const struct model *model, struct layer *layer) {
    const fw_attention *attention = layer->attention;
    fw_attention_plan plan = {.struct_size = sizeof plan};
    fw_error why = {.struct_size = sizeof why};
    char *words = layer->cannot_decode;
    const size_t room = sizeof layer->cannot_decode;
    if (!has_decoding(attention))
        (void)snprintf(words, room, "%s",
                       has_retired(attention)
                           ? "what it has for it was built for an interface before 0.4"
                           : "no state_bytes, state_reset, decode, state_evict");
    else if (model->options.feed > 0 &&
             attention->plan(layer->self, FW_DECODE, 1, model->options.feed, &plan, &why) != FW_OK)
        (void)snprintf(words, room, "%.500s", why.message);
    else
        layer->decodes = true;
    if (layer->decodes && plan.scratch_bytes > layer->plan.scratch_bytes)
        layer->plan.scratch_bytes = plan.scratch_bytes;
}

/* Outside training a layer may be asked to calibrate, in the same scratch. */
static void plan_calibration(const struct model *model, struct layer *layer) {
    fw_attention_plan plan = {.struct_size = sizeof plan};
    fw_error why = {.struct_size = sizeof why};
    if (model->options.training ||
        layer->attention->plan(layer->self, FW_CALIBRATE, model->options.batch,
                               model->options.tokens, &plan, &why) != FW_OK)
        return;
    if (plan.scratch_bytes > layer->plan.scratch_bytes)
        layer->plan.scratch_bytes = plan.scratch_bytes;
}

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
        plan_decoding(model, layer);
        plan_calibration(model, layer);
        layer->n_attention = layer->attention->n_weights(layer->self);
        return FW_OK;
    }
    char place[sizeof why.message];
    (void)snprintf(place, sizeof place, "layer %d: %.900s", index, why.message);
    return choice_fail(choice, status, place, error);
}

/* ---- the shape ---- */

/* The first half of the layers hands its outputs to the second, in reverse order. */
static void arrange_skips(struct model *model) {
    if (model->options.experiment->model.skips) model->encoders = model->layers / 2;
    for (int64_t i = 0; i < model->layers; i++) {
        const int64_t back = i - model->encoders;
        const bool takes = model->encoders > 0 && back >= 0 && back < model->encoders;
        model->layer[i].skip = takes ? (int32_t)back : -1;
    }
}

static void arrange_layers(struct model *model) {
    const struct experiment *experiment = model->options.experiment;
    arrange_skips(model);
    for (int64_t i = 0; i < model->layers; i++) {
        struct layer *layer = &model->layer[i];
        layer->mix = layer->attention_scale = layer->mlp_scale = layer->value_scale = NO_WEIGHT;
        layer->norm_scale =
            experiment->model.depth_norm ? (float)(1.0 / sqrt((double)(i + 1))) : 1.0f;
        layer->takes_values = experiment->value_layers[i] != 0;
    }
}

/* All layers that take value embeddings share one table, so their values have one width. */
static fw_status arrange_values(struct model *model, fw_error *error) {
    const struct experiment *experiment = model->options.experiment;
    for (int64_t i = 0; i < model->layers; i++) {
        if (!model->layer[i].takes_values) continue;
        const int64_t width = model->layer[i].plan.value_width;
        if (width < 1)
            return fw_fail(error, FW_E_CONFIG,
                           "model.value_layers names layer %lld, but attention plugin %s takes no "
                           "value embedding",
                           (long long)i, experiment->attention[i].entry->plugin->id);
        if (model->value.columns != 0 && model->value.columns != width)
            return fw_fail(error, FW_E_CONFIG,
                           "the layers of model.value_layers must have values of one width; layer "
                           "%lld has %lld, one before it %lld",
                           (long long)i, (long long)width, (long long)model->value.columns);
        model->value.columns = width;
    }
    return FW_OK;
}

static fw_status arrange_tables(struct model *model, fw_error *error) {
    const struct model_keys *keys = &model->options.experiment->model;
    const struct table none = {.weight = NO_WEIGHT, .projection = NO_WEIGHT, .scale = NO_WEIGHT};
    model->smear_gate = model->skip_weights = NO_WEIGHT;
    model->bigram = model->value = none;
    model->value.width = keys->value_width;
    if (keys->bigram_slots > 0) {
        model->bigram.width = keys->bigram_width;
        model->bigram.columns = model->width;
    }
    return arrange_values(model, error);
}

/* ---- the whole ---- */

/* Products add what lies elsewhere (fw_gemm.addend); a device from before that would add to what
 * happens to be there. Its table of ops ends before those that came with it. */
static fw_status check_addend(const fw_ops *ops, fw_error *error) {
    if (FW_COVERS(ops, scale_rows_backward)) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED,
                   "the device was built for an interface before 0.3, whose gemm has no addend; "
                   "built anew for %d.%d it is right",
                   FW_ABI_MAJOR, FW_ABI_MINOR);
}

static fw_status check_ops(const struct model *model, fw_error *error) {
    const fw_ops *ops = model->ops;
    FW_TRY(check_addend(ops, error));
    if (FW_HAS(ops, gemm) && FW_HAS(ops, embedding_forward) && FW_HAS(ops, embedding_backward) &&
        FW_HAS(ops, rmsnorm_forward) && FW_HAS(ops, residual_norm_forward) &&
        FW_HAS(ops, residual_norm_backward) && FW_HAS(ops, activation_forward) &&
        FW_HAS(ops, activation_backward) && FW_HAS(ops, cross_entropy_forward) &&
        FW_HAS(ops, cross_entropy_backward) && FW_HAS(ops, log_softmax) && FW_HAS(ops, reduce) &&
        FW_HAS(ops, cast) && FW_HAS(ops, axpby) &&
        (!model->options.experiment->model.layer_scales ||
         (FW_HAS(ops, scale_rows_forward) && FW_HAS(ops, scale_rows_backward))) &&
        (!model->options.experiment->model.smear ||
         (FW_HAS(ops, smear_forward) && FW_HAS(ops, smear_backward))))
        return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "the device lacks an op that the model needs");
}

/* All that can be known before any memory of the model's size is taken. */
static fw_status declare(struct model *model, fw_error *error) {
    FW_TRY(check_ops(model, error));
    model->layer = calloc((size_t)model->layers, sizeof *model->layer);
    if (model->layer == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the model's layers");
    arrange_layers(model);
    for (int32_t i = 0; i < (int32_t)model->layers; i++) FW_TRY(create_layer(model, i, error));
    FW_TRY(arrange_tables(model, error));
    return model_declare_weights(model, error);
}

static fw_status create_declared(const struct model_options *options, struct model **model,
                                 fw_error *error) {
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
    if (options->feed > made->max_rows) made->max_rows = options->feed;
    const fw_status status = declare(made, error);
    if (status == FW_OK)
        *model = made;
    else
        model_destroy(made);
    return status;
}

fw_status model_count(const struct model_options *options, int64_t *parameters, fw_error *error) {
    struct model *declared = NULL;
    FW_TRY(create_declared(options, &declared, error));
    *parameters = declared->parameters;
    model_destroy(declared);
    return FW_OK;
}

fw_status model_create(const struct model_options *options, struct model **model, fw_error *error) {
    struct model *made = NULL;
    FW_TRY(create_declared(options, &made, error));
    fw_status status = model_allocate_weights(made, error);
    if (status == FW_OK) status = model_allocate_activations(made, error);
    if (status == FW_OK)
        *model = made;
    else
        model_destroy(made);
    return status;
}

void model_destroy(struct model *model) {
    if (model == NULL) return;
    staging_destroy(model->staging);
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
    free(model->call_weights);
    free(model->call_grads);
    free(model->scaled);
    free(model->is_scaled);
    free(model);
}

size_t model_activation_bytes(const struct model *model) { return model->activation_bytes; }

static double table_flops(const struct table *table, double rows) {
    if (table->projection == NO_WEIGHT) return 0;
    return 2 * rows * (double)table->width * (double)table->columns;
}

double model_forward_flops(const struct model *model, int64_t batch, int64_t tokens) {
    const double rows = (double)(batch * tokens), width = (double)model->width;
    double flops = 2 * rows * width * (double)model->vocabulary;
    flops += table_flops(&model->bigram, rows) + table_flops(&model->value, rows);
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        flops += 4 * rows * width * (double)model->mlp_width;
        flops += layer->attention->forward_flops(layer->self, batch, tokens);
    }
    return flops;
}
