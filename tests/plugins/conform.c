/* See conform.h. */
#include "conform.h"

#include <math.h>
#include <stdio.h>

enum { GUARD_BYTES = 256, MAX_BLOCKS = 512, GUARD_BYTE = 0xa5, POISON_BYTE = 0xff };

typedef struct block {
    fw_device *device;
    char *base; /* guard, content, guard */
    size_t bytes;
} block;

static block blocks[MAX_BLOCKS];
static size_t n_blocks;

conform conform_open(int argc, char **argv, uint32_t kind) {
    static const char *overrides[64];
    const char *device = "cpu";
    size_t n = 0;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s ID [DEVICE] [key=value ...]\n", argv[0]);
        exit(2);
    }
    for (int i = 2; i < argc && n + 1 < sizeof overrides / sizeof overrides[0]; i++) {
        if (strchr(argv[i], '=') != NULL)
            overrides[n++] = argv[i];
        else
            device = argv[i];
    }
    const conform c = {.plugin = test_plugin(kind, argv[1]), .overrides = overrides};
    return conform_on(&c, device);
}

conform conform_on(const conform *c, const char *device) {
    conform other = *c;
    other.device = test_device(device);
    other.host = test_host(other.device);
    other.values = test_values(c->plugin, c->overrides);
    return other;
}

static bool is_name(const char *text) {
    if (text == NULL || *text == '\0') return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(text);
}

static bool is_line(const char *text) {
    return text != NULL && *text != '\0' && strchr(text, '\n') == NULL;
}

static bool is_word_of_bool(const char *text) {
    static const char *const words[] = {"yes", "no", "true", "false", "on", "off", "1", "0"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i]) == 0) return true;
    return false;
}

static bool is_choice(const fw_param *param, const char *text) {
    for (size_t i = 0; param->choices != NULL && param->choices[i] != NULL; i++)
        if (strcmp(param->choices[i], text) == 0) return true;
    return false;
}

/* A number within the range; an INT may carry a suffix K, M or G. */
static bool is_number(const fw_param *param, const char *text) {
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text) return false;
    if (param->type == FW_PARAM_INT) {
        static const char suffixes[] = "KMG";
        const char *suffix = *end == '\0' ? NULL : strchr(suffixes, *end);
        if (suffix != NULL) value *= pow(1000, (double)(suffix - suffixes + 1));
        if (suffix != NULL) end++;
        if (value != floor(value)) return false;
    }
    const bool ranged = param->min <= param->max;
    return *end == '\0' && (!ranged || (value >= param->min && value <= param->max));
}

static bool default_is_valid(const fw_param *param) {
    const char *text = param->default_text;
    if (param->type < FW_PARAM_BOOL || param->type > FW_PARAM_PATH) return false;
    if (param->type == FW_PARAM_ENUM && (param->choices == NULL || param->choices[0] == NULL))
        return false;
    if (text == NULL) return true;
    switch (param->type) {
    case FW_PARAM_BOOL: return is_word_of_bool(text);
    case FW_PARAM_INT:
    case FW_PARAM_FLOAT: return is_number(param, text);
    case FW_PARAM_ENUM: return is_choice(param, text);
    default: return true;
    }
}

static void check_param(const fw_plugin *plugin, uint32_t index) {
    const fw_param *param = &plugin->params[index];
    if (param->struct_size < sizeof *param) fail_msg("parameter %u: struct_size", index);
    if (!is_name(param->key)) fail_msg("parameter %u: a key is lower case, digits, _", index);
    for (uint32_t i = 0; i < index; i++)
        if (strcmp(plugin->params[i].key, param->key) == 0) fail_msg("%s stands twice", param->key);
    if (!is_line(param->doc)) fail_msg("%s has no one-line doc", param->key);
    if (param->doc[strlen(param->doc) - 1] == '.') fail_msg("%s: doc ends in a stop", param->key);
    if (!default_is_valid(param))
        fail_msg("%s: type, choices or default %s are wrong or out of range", param->key,
                 param->default_text == NULL ? "(none)" : param->default_text);
}

void conform_check_descriptor(const conform *c) {
    const fw_plugin *plugin = c->plugin;
    assert_true(plugin->struct_size >= sizeof *plugin);
    if (!is_name(plugin->id)) fail_msg("the id is lower case, digits, underscores");
    if (!is_line(plugin->version) || !is_line(plugin->summary)) fail_msg("version, summary");
    if (!is_line(plugin->vendor) || !is_line(plugin->license)) fail_msg("vendor, license");
    assert_non_null(plugin->vtable);
    assert_true(plugin->devices != 0 && (plugin->devices & ~(uint32_t)(FW_CPU | FW_CUDA)) == 0);
    assert_true((plugin->devices & c->device->type) != 0);
    for (uint32_t i = 0; i < plugin->n_params; i++) check_param(plugin, i);
}

void *conform_take(const conform *c, size_t bytes) {
    const size_t padded = (bytes + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
    const size_t total = GUARD_BYTES + padded + GUARD_BYTES;
    fw_error error = {.struct_size = sizeof error};
    void *memory = NULL;
    assert_true(n_blocks < MAX_BLOCKS);
    conform_ok(c->device->allocate(c->device, total, &memory, &error), &error);
    char *pattern = malloc(total);
    assert_non_null(pattern);
    memset(pattern, GUARD_BYTE, total);
    memset(pattern + GUARD_BYTES, POISON_BYTE, bytes);
    conform_ok(c->device->copy_from_host(c->device, memory, pattern, total, &error), &error);
    free(pattern);
    blocks[n_blocks++] = (block){c->device, memory, bytes};
    return (char *)memory + GUARD_BYTES;
}

static void check_guards(const block *b) {
    const size_t padded = (b->bytes + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
    const size_t total = GUARD_BYTES + padded + GUARD_BYTES;
    fw_error error = {.struct_size = sizeof error};
    unsigned char *seen = malloc(total);
    assert_non_null(seen);
    conform_ok(b->device->copy_to_host(b->device, seen, b->base, total, &error), &error);
    for (size_t i = 0; i < total; i++) {
        const bool inside = i >= GUARD_BYTES && i < GUARD_BYTES + b->bytes;
        if (!inside && seen[i] != GUARD_BYTE)
            fail_msg("a write %td bytes from the start of a buffer of %zu bytes",
                     (ptrdiff_t)i - GUARD_BYTES, b->bytes);
    }
    free(seen);
}

size_t conform_mark(void) { return n_blocks; }

void conform_check_guards(void) {
    for (size_t i = 0; i < n_blocks; i++) check_guards(&blocks[i]);
}

void conform_release(size_t mark) {
    while (n_blocks > mark) {
        const block *b = &blocks[--n_blocks];
        check_guards(b);
        b->device->release(b->device, b->base);
    }
}

fw_tensor conform_tensor(const conform *c, uint32_t dtype, uint32_t rank, int64_t d0, int64_t d1) {
    fw_tensor tensor = fw_tensor_view(NULL, dtype, rank, d0, d1, 1, 1);
    tensor.data = conform_take(c, (size_t)fw_tensor_count(&tensor) * fw_dtype_size(dtype));
    return tensor;
}

static uint16_t to_bf16(float value) {
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static float from_bf16(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value = 0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float conform_round(uint32_t dtype, float value) {
    return dtype == FW_BF16 ? from_bf16(to_bf16(value)) : value;
}

void conform_write(const conform *c, const fw_tensor *tensor, const float *values) {
    const size_t n = (size_t)fw_tensor_count(tensor), bytes = n * fw_dtype_size(tensor->dtype);
    fw_error error = {.struct_size = sizeof error};
    assert_true(tensor->dtype == FW_F32 || tensor->dtype == FW_BF16);
    void *staged = malloc(bytes);
    assert_non_null(staged);
    if (tensor->dtype == FW_F32) memcpy(staged, values, bytes);
    for (size_t i = 0; tensor->dtype == FW_BF16 && i < n; i++)
        ((uint16_t *)staged)[i] = to_bf16(values[i]);
    conform_ok(c->device->copy_from_host(c->device, tensor->data, staged, bytes, &error), &error);
    free(staged);
}

void conform_read(const conform *c, const fw_tensor *tensor, float *values) {
    const size_t n = (size_t)fw_tensor_count(tensor), bytes = n * fw_dtype_size(tensor->dtype);
    fw_error error = {.struct_size = sizeof error};
    assert_true(tensor->dtype == FW_F32 || tensor->dtype == FW_BF16);
    void *staged = malloc(bytes);
    assert_non_null(staged);
    conform_ok(c->device->copy_to_host(c->device, staged, tensor->data, bytes, &error), &error);
    if (tensor->dtype == FW_F32) memcpy(values, staged, bytes);
    for (size_t i = 0; tensor->dtype == FW_BF16 && i < n; i++)
        values[i] = from_bf16(((const uint16_t *)staged)[i]);
    free(staged);
}

float *conform_floats(size_t n) {
    float *values = calloc(n, sizeof *values);
    assert_non_null(values);
    return values;
}

float *conform_normals(uint64_t seed, size_t n, double deviation) {
    test_random random = {seed};
    float *values = conform_floats(n);
    for (size_t i = 0; i < n; i++) values[i] = (float)(deviation * test_normal(&random));
    return values;
}

double conform_difference(const float *a, const float *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i])) return INFINITY;
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

void conform_assert_close(const char *what, const float *a, const float *b, size_t n,
                          double tolerance) {
    const double difference = conform_difference(a, b, n);
    if (!(difference <= tolerance))
        fail_msg("%s: relative difference %.3g, more than %.3g", what, difference, tolerance);
}

void conform_assert_same(const char *what, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0)
            fail_msg("%s: element %zu is %.9g, not %.9g", what, i, (double)a[i], (double)b[i]);
}

void conform_assert_finite(const char *what, const float *a, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(a[i])) fail_msg("%s: element %zu was not written, or is not finite", what, i);
}

void conform_ok(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("status %d: %s", status, error->message);
}
