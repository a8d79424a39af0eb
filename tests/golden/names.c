#include "names.h"

#include <string.h>

struct pair {
    const char *ours, *recorded;
    int half; /* of a bank: 1 for its second half */
};

static const struct pair plain[] = {
    {"embedding", "tok_emb.weight", 0},
    {"bigram.table", "bigram.embed.weight", 0},
    {"bigram.projection", "bigram.proj.weight", 0},
    {"bigram.scale", "bigram.scale", 0},
    {"smear.gate", "smear.gate", 0},
    {"value.table", "ve_shared.embed.weight", 0},
    {"value.projection", "ve_shared.proj.weight", 0},
    {"value.scale", "ve_shared.scale", 0},
    {"skip_weights", "skip_weights", 0},
};

/* After "layer.I." */
static const struct pair stacked[] = {
    {"attention.wq", "qo_bank", 0}, {"attention.wo", "qo_bank", 1},
    {"attention.wk", "kv_bank", 0}, {"attention.wv", "kv_bank", 1},
    {"mlp.up", "mlp_up_bank", 0},   {"mlp.down", "mlp_down_bank", 0},
};
static const struct pair single[] = {
    {"attention_scale", "attn_scale", 0},
    {"mlp_scale", "mlp_scale", 0},
    {"mix", "resid_mix", 0},
    {"attention.q_gain", "attn.q_gain", 0},
};

#define FIND(table, name) find(table, sizeof table / sizeof table[0], name)
static const struct pair *find(const struct pair *table, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].ours, name) == 0) return &table[i];
    return NULL;
}

static int place_in_layer(const struct shape *shape, const char *part, int layer,
                          struct place *place) {
    const struct pair *pair = FIND(stacked, part);
    if (pair != NULL) {
        (void)snprintf(place->name, sizeof place->name, "%s", pair->recorded);
        place->offset = (pair->half * shape->layers + layer) * place->count;
        return 1;
    }
    pair = FIND(single, part);
    const int64_t slot = shape_value_slot(shape, layer);
    if (pair != NULL)
        (void)snprintf(place->name, sizeof place->name, "blocks.%d.%s", layer, pair->recorded);
    else if (strcmp(part, "value_scale") == 0 && slot >= 0)
        (void)snprintf(place->name, sizeof place->name, "ve_layer_scales.%d", (int)slot);
    else
        return 0;
    return 1;
}

fw_status place_of(const struct shape *shape, const fw_weight *weight, struct place *place,
                   fw_error *error) {
    const int64_t *dims = weight->shape;
    struct place found = {.count = dims[0] * dims[1] * dims[2] * dims[3]};
    const struct pair *pair = FIND(plain, weight->name);
    int layer = -1, at = 0;
    if (pair != NULL) {
        (void)snprintf(found.name, sizeof found.name, "%s", pair->recorded);
    } else if (sscanf(weight->name, "layer.%d.%n", &layer, &at) != 1 || at == 0 ||
               !place_in_layer(shape, weight->name + at, layer, &found)) {
        return fw_fail(error, FW_E_NOT_FOUND,
                       "the model's weight %s has no counterpart in recorded cases", weight->name);
    }
    *place = found;
    return FW_OK;
}
