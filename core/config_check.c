/* Checks across keys: what each table allows alone but not together. */
#include <stdlib.h>
#include <string.h>

#include "config_private.h"

static fw_status check_batch(const struct config *config, fw_error *error) {
    const struct experiment *e = &config->experiment;
    if (e->run.batch_tokens % e->data.sequence == 0) return FW_OK;
    const bool given = config_find(config, "run", "batch_tokens") != NULL;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: run.batch_tokens = %lld%s is not a multiple of data.sequence = %lld; %lld "
                   "would be",
                   given ? config_place(config, "run", "batch_tokens")
                         : config_place(config, "data", "sequence"),
                   (long long)e->run.batch_tokens, given ? "" : " (default)",
                   (long long)e->data.sequence,
                   (long long)((e->run.batch_tokens / e->data.sequence + 1) * e->data.sequence));
}

static fw_status check_stride(const struct config *config, fw_error *error) {
    const struct experiment *e = &config->experiment;
    const bool own = e->eval.window != 0;
    const int64_t window = own ? e->eval.window : e->data.sequence;
    if (e->eval.mode == EVAL_PLAIN || e->eval.stride <= window) return FW_OK;
    const bool given = config_find(config, "eval", "stride") != NULL;
    return fw_fail(
        error, FW_E_CONFIG,
        "%s: eval.stride = %lld%s exceeds the window of %lld tokens (%s), so that tokens "
        "would be skipped",
        given ? config_place(config, "eval", "stride")
              : config_place(config, own ? "eval" : "data", own ? "window" : "sequence"),
        (long long)e->eval.stride, given ? "" : " (default)", (long long)window,
        own ? "eval.window" : "data.sequence");
}

static fw_status check_faithful(const struct config *config, fw_error *error) {
    const struct eval_keys *eval = &config->experiment.eval;
    if (!eval->faithful || eval->mode == EVAL_SLIDING) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: eval.faithful = yes stands for the sliding windows of record 993; "
                   "eval.mode = %s has none (set eval.mode = sliding, or eval.faithful = no)",
                   config_place(config, "eval", "faithful"),
                   eval->mode == EVAL_PLAIN ? "plain" : "stream");
}

/* Ops count rows in 32 bits. */
static fw_status check_rows(const struct config *config, fw_error *error) {
    const struct experiment *e = &config->experiment;
    const int64_t window = e->eval.window != 0 ? e->eval.window : e->data.sequence;
    if (e->eval.batch <= INT32_MAX / window) return FW_OK;
    return fw_fail(error, FW_E_RANGE,
                   "%s: eval.batch = %lld windows of %lld tokens are more than a pass can hold; at "
                   "most %lld would be right",
                   config_place(config, "eval", "batch"), (long long)e->eval.batch,
                   (long long)window, (long long)(INT32_MAX / window));
}

static fw_status check_limit(const struct config *config, fw_error *error) {
    const struct run_keys *run = &config->experiment.run;
    if (run->steps > 0 || run->seconds > 0) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: training has no end: set [run] steps, [run] seconds or both", config->path);
}

static fw_status check_layers(const struct config *config, fw_error *error) {
    const long long layers = (long long)config->experiment.model.layers;
    for (size_t i = 0; i < config->entries.n; i++) {
        const struct config_entry *entry = &config->entries.items[i];
        if (strncmp(entry->section, "attention.", 10) != 0) continue;
        const long long layer = strtoll(entry->section + 10, NULL, 10);
        if (layer < layers) continue;
        return fw_fail(error, FW_E_CONFIG,
                       "%s: [attention.LAYERS] names layer %lld, but model.layers = %lld gives "
                       "layers 0 to %lld",
                       entry->where, layer, layers, layers - 1);
    }
    return FW_OK;
}

/* ---- The model's switches ---- */

static fw_status check_skips(const struct config *config, fw_error *error) {
    const struct model_keys *model = &config->experiment.model;
    if (!model->skips || model->layers >= 2) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: model.skips = yes needs at least 2 layers, but model.layers = %lld",
                   config_place(config, "model", "skips"), (long long)model->layers);
}

static fw_status check_bigram(const struct config *config, fw_error *error) {
    if (config->experiment.model.bigram_slots != 1) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s: model.bigram_slots = 1 leaves no slot for pairs: the last one serves the "
                   "first token of a sequence; 0 means no table, 2048 is the reference's",
                   config_place(config, "model", "bigram_slots"));
}

/* A table and its scale that both begin at zero give each other no gradient. */
static fw_status check_dead_tables(const struct config *config, fw_error *error) {
    const struct model_keys *model = &config->experiment.model;
    const bool bigram = model->bigram_slots > 0 && model->bigram_scale == 0;
    const bool value =
        model->value_layers[0] != '\0' && model->value_scale == 0 && model->value_init == 0;
    if (!bigram && !value) return FW_OK;
    const char *key = bigram ? "bigram_scale" : "value_scale";
    return fw_fail(error, FW_E_CONFIG,
                   "%s: model.%s = 0: its table begins at zero too, so that neither would ever "
                   "learn; %s is the reference's",
                   config_place(config, "model", key), key, bigram ? "0.05" : "0.1");
}

static fw_status resolve_value_layers(struct config *config, fw_error *error) {
    struct experiment *e = &config->experiment;
    uint8_t *layers = config_keep(config, CONFIG_MAX_LAYERS);
    if (layers == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    memset(layers, 0, CONFIG_MAX_LAYERS);
    fw_error why = {.struct_size = sizeof why};
    if (e->model.value_layers[0] != '\0' &&
        config_layer_list(e->model.value_layers, layers, &why) != FW_OK)
        return fw_fail(error, FW_E_CONFIG, "%s: model.value_layers = %.200s %s",
                       config_place(config, "model", "value_layers"), e->model.value_layers,
                       why.message);
    for (int64_t i = e->model.layers; i < CONFIG_MAX_LAYERS; i++)
        if (layers[i] != 0)
            return fw_fail(error, FW_E_CONFIG,
                           "%s: model.value_layers names layer %lld, but model.layers = %lld gives "
                           "layers 0 to %lld",
                           config_place(config, "model", "value_layers"), (long long)i,
                           (long long)e->model.layers, (long long)e->model.layers - 1);
    e->value_layers = layers;
    return FW_OK;
}

fw_status config_check(struct config *config, uint32_t bind, fw_error *error) {
    FW_TRY(check_batch(config, error));
    FW_TRY(check_stride(config, error));
    FW_TRY(check_faithful(config, error));
    FW_TRY(check_rows(config, error));
    FW_TRY(check_layers(config, error));
    FW_TRY(check_skips(config, error));
    FW_TRY(check_bigram(config, error));
    FW_TRY(check_dead_tables(config, error));
    FW_TRY(resolve_value_layers(config, error));
    /* Without optimizers nothing will be trained. */
    if ((bind & CONFIG_BIND(FW_OPTIMIZER)) != 0) FW_TRY(check_limit(config, error));
    return FW_OK;
}
