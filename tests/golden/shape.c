#include "shape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct key {
    const char *name;
    size_t offset;
    int64_t least, most;
    int optional; /* 1: absent means 1 */
};

#define KEY(name, least, most)                                                                     \
    { #name, offsetof(struct shape, name), least, most, 0 }
#define SWITCH(name)                                                                               \
    { #name, offsetof(struct shape, name), 0, 1, 1 }
static const struct key keys[] = {KEY(vocab, 1, 1 << 16),
                                  KEY(layers, 1, MAX_LAYERS),
                                  KEY(dim, 1, 1 << 16),
                                  KEY(heads, 1, 1 << 10),
                                  KEY(kv, 1, 1 << 10),
                                  KEY(bigram_slots, 0, 1 << 24),
                                  KEY(bigram_dim, 0, 1 << 16),
                                  KEY(xsa, 0, 1 << 10),
                                  KEY(rope_dims, 0, 1 << 12),
                                  KEY(ve_dim, 0, 1 << 16),
                                  KEY(batch, 1, 1 << 16),
                                  KEY(seq, 1, 1 << 20),
                                  {"seed", offsetof(struct shape, seed), 0, INT64_MAX, 1},
                                  SWITCH(smear),
                                  SWITCH(x0_mix),
                                  SWITCH(skips),
                                  SWITCH(layer_scales),
                                  SWITCH(depth_norm)};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

static int64_t *member(struct shape *shape, const struct key *key) {
    return (int64_t *)(void *)((char *)shape + key->offset);
}

static fw_status parse_number(const char *path, const struct key *key, const char *text,
                              struct shape *shape, fw_error *error) {
    char *end = NULL;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < key->least || value > key->most)
        return fw_fail(error, FW_E_CONFIG, "%s: %s = %s; it should be an integer from %lld to %lld",
                       path, key->name, text, (long long)key->least, (long long)key->most);
    *member(shape, key) = value;
    return FW_OK;
}

static fw_status parse_layers(const char *path, const char *text, struct shape *shape,
                              fw_error *error) {
    shape->n_ve = 0;
    for (const char *at = text; *at != '\0';) {
        char *end = NULL;
        const long long layer = strtoll(at, &end, 10);
        if (end == at || (*end != '\0' && *end != ',') || layer < 0 || layer >= MAX_LAYERS ||
            shape->n_ve == MAX_LAYERS)
            return fw_fail(error, FW_E_CONFIG,
                           "%s: ve_layers = %s; it should be layers such as 4,5, or empty", path,
                           text);
        shape->ve_layer[shape->n_ve++] = layer;
        at = *end == ',' ? end + 1 : end;
    }
    return FW_OK;
}

static fw_status parse_key(const char *path, const char *name, const char *value,
                           struct shape *shape, double *mlp, unsigned *seen, fw_error *error) {
    for (unsigned i = 0; i < N_KEYS; i++) {
        if (strcmp(name, keys[i].name) != 0) continue;
        *seen |= 1u << i;
        return parse_number(path, &keys[i], value, shape, error);
    }
    if (strcmp(name, "ve_layers") == 0) return parse_layers(path, value, shape, error);
    if (strcmp(name, "mlp") == 0) {
        char *end = NULL;
        *mlp = strtod(value, &end);
        if (end != value && *end == '\0' && *mlp > 0 && *mlp <= 1024) return FW_OK;
        return fw_fail(error, FW_E_CONFIG, "%s: mlp = %s; it should be a number such as 3.0", path,
                       value);
    }
    (void)fprintf(stderr, "golden: %s: the key %s is not known here and not heeded\n", path, name);
    return FW_OK;
}

static char *strip(char *text) {
    text += strspn(text, " \t\r");
    for (size_t n = strlen(text); n > 0 && strchr(" \t\r", text[n - 1]) != NULL;) text[--n] = '\0';
    return text;
}

static fw_status check(const char *path, const struct shape *s, fw_error *error) {
    const char *why = NULL;
    if (s->heads % s->kv != 0) why = "kv does not divide heads";
    if (s->dim % s->heads != 0) why = "heads does not divide dim";
    if (why == NULL && (shape_rope_dims(s) > shape_head(s) || shape_rope_dims(s) % 2 != 0))
        why = "rope_dims is odd or above the head's width";
    if (s->bigram_slots == 1) why = "bigram_slots = 1 leaves no slot for pairs";
    if (s->bigram_slots > 0 && s->bigram_dim == 0) why = "the bigram table has no width";
    if (s->n_ve > 0 && s->ve_dim == 0) why = "the value embedding has no width";
    for (int64_t i = 0; i < s->n_ve; i++)
        if (s->ve_layer[i] >= s->layers) why = "ve_layers names a layer that is not there";
    return why == NULL ? FW_OK : fw_fail(error, FW_E_CONFIG, "%s: %s", path, why);
}

fw_status shape_parse(const char *path, const char *text, struct shape *shape, fw_error *error) {
    struct shape parsed = {0};
    double mlp = 0;
    unsigned seen = 0;
    for (unsigned i = 0; i < N_KEYS; i++)
        if (keys[i].optional) *member(&parsed, &keys[i]) = 1, seen |= 1u << i;
    while (*text != '\0') {
        char line[1024];
        const size_t length = strcspn(text, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)(length < 1000 ? length : 1000), text);
        text += length + (text[length] == '\n');
        char *equals = strchr(line, '=');
        if (equals == NULL && *strip(line) == '\0') continue;
        if (equals == NULL)
            return fw_fail(error, FW_E_CONFIG, "%s: \"%.60s\" is not \"key = value\"", path, line);
        *equals = '\0';
        FW_TRY(parse_key(path, strip(line), strip(equals + 1), &parsed, &mlp, &seen, error));
    }
    for (unsigned i = 0; i < N_KEYS; i++)
        if ((seen >> i & 1u) == 0)
            return fw_fail(error, FW_E_CONFIG, "%s: the key %s is missing", path, keys[i].name);
    if (!(mlp > 0)) return fw_fail(error, FW_E_CONFIG, "%s: the key mlp is missing", path);
    parsed.mlp_width = (int64_t)(mlp * (double)parsed.dim);
    if (parsed.mlp_width < 1)
        return fw_fail(error, FW_E_CONFIG, "%s: mlp * dim is less than 1", path);
    FW_TRY(check(path, &parsed, error));
    *shape = parsed;
    return FW_OK;
}

/* The first half of the layers leave their outputs for the second half, which may be longer. */
int64_t shape_skips(const struct shape *shape) { return shape->skips ? shape->layers / 2 : 0; }

int64_t shape_head(const struct shape *shape) { return shape->dim / shape->heads; }

int64_t shape_kv_width(const struct shape *shape) { return shape->kv * shape_head(shape); }

int64_t shape_rope_dims(const struct shape *shape) {
    return shape->rope_dims > 0 ? shape->rope_dims : shape_head(shape);
}

int64_t shape_value_slot(const struct shape *shape, int64_t layer) {
    for (int64_t i = 0; i < shape->n_ve; i++)
        if (shape->ve_layer[i] == layer) return i;
    return -1;
}

int shape_excludes_self(const struct shape *shape, int64_t layer) {
    return layer >= shape->layers - shape->xsa;
}
