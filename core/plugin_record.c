#include "plugin_record.h"

#include <fairway/cache.h>
#include <stdlib.h>
#include <string.h>

#include "params.h"

enum { MOST_PLUGINS = 256, MOST_PARAMS = 1024, MOST_CHOICES = 1024 };

/* ---- writing ---- */

static void put_optional(struct bytes *bytes, const char *text) {
    bytes_put_u8(bytes, text != NULL);
    if (text != NULL) bytes_put_text(bytes, text);
}

static void put_real(struct bytes *bytes, double real) {
    uint64_t bits;
    memcpy(&bits, &real, sizeof bits);
    bytes_put_u64(bytes, bits);
}

static void put_param(struct bytes *bytes, const fw_param *param) {
    uint32_t n = 0;
    while (param->choices != NULL && param->choices[n] != NULL) n++;
    bytes_put_u32(bytes, param->type);
    put_optional(bytes, param->key);
    put_optional(bytes, param->default_text);
    put_real(bytes, param->min);
    put_real(bytes, param->max);
    put_optional(bytes, param->unit);
    put_optional(bytes, param->doc);
    bytes_put_u32(bytes, n);
    for (uint32_t i = 0; i < n; i++) bytes_put_text(bytes, param->choices[i]);
}

static void put_declared(struct bytes *bytes, const fw_cache *cache) {
    bytes_put_u32(bytes, cache->update_every);
    bytes_put_u32(bytes, cache->needs_entropy);
    bytes_put_u32(bytes, cache->counts_only);
    bytes_put_u32(bytes, FW_COVERS(cache, unverified) ? cache->unverified : 0);
    bytes_put_u32(bytes, FW_COVERS(cache, context_tokens) ? cache->context_tokens : 0);
    bytes_put_u8(bytes, FW_HAS(cache, prefill));
    bytes_put_u8(bytes, FW_HAS(cache, snapshot) && FW_HAS(cache, restore));
    bytes_put_u8(bytes, FW_HAS(cache, memory_bytes));
}

static void put_plugin(struct bytes *bytes, const fw_plugin *plugin) {
    put_optional(bytes, plugin->id);
    put_optional(bytes, plugin->version);
    put_optional(bytes, plugin->summary);
    put_optional(bytes, plugin->vendor);
    put_optional(bytes, plugin->license);
    bytes_put_u32(bytes, plugin->devices);
    put_declared(bytes, plugin->vtable);
    bytes_put_u32(bytes, plugin->n_params);
    for (uint32_t i = 0; i < plugin->n_params; i++) put_param(bytes, param_at(plugin->params, i));
}

void plugin_record_write(struct bytes *bytes, const fw_module *module) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < module->n_plugins; i++) n += module->plugins[i]->kind == FW_CACHE;
    bytes_put_u32(bytes, n);
    for (uint32_t i = 0; i < module->n_plugins; i++)
        if (module->plugins[i]->kind == FW_CACHE) put_plugin(bytes, module->plugins[i]);
}

/* ---- functions that stand for the plugin's ---- */

static fw_status elsewhere(fw_error *error) {
    return fw_fail(error, FW_E_INTERNAL,
                   "a cache in a process of its own is asked through its seat alone");
}

static fw_status no_create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                           void **self, fw_error *error) {
    (void)host, (void)values, (void)shape, (void)self;
    return elsewhere(error);
}
static void no_destroy(void *self) { (void)self; }
static fw_status no_begin(void *self, fw_error *error) {
    (void)self;
    return elsewhere(error);
}
static fw_status no_predict(void *self, const fw_row *row, fw_prediction *prediction,
                            fw_error *error) {
    (void)self, (void)row, (void)prediction;
    return elsewhere(error);
}
static fw_status no_tokens(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    (void)self, (void)tokens, (void)n;
    return elsewhere(error);
}
static fw_status no_snapshot(void *self, void *state, size_t *bytes, fw_error *error) {
    (void)self, (void)state, (void)bytes;
    return elsewhere(error);
}
static fw_status no_restore(void *self, const void *state, size_t bytes, fw_error *error) {
    (void)self, (void)state, (void)bytes;
    return elsewhere(error);
}
static uint64_t no_memory(void *self) {
    (void)self;
    return 0;
}

/* ---- reading ---- */

struct kept {
    struct kept *next;
    _Alignas(16) char data[];
};

struct plugin_record {
    fw_module module;
    struct kept *kept; /* all that the module points to */
};

struct reader {
    struct byte_reader bytes;
    struct plugin_record *record;
};

static void *keep(struct reader *reader, size_t size) {
    struct kept *made = calloc(1, sizeof *made + size);
    if (made == NULL) {
        reader->bytes.failed = true;
        return NULL;
    }
    made->next = reader->record->kept;
    reader->record->kept = made;
    return made->data;
}

static const char *take_text(struct reader *reader) {
    const uint32_t length = bytes_take_u32(&reader->bytes);
    const uint8_t *text = bytes_take(&reader->bytes, length);
    char *copy = text != NULL ? keep(reader, (size_t)length + 1) : NULL;
    if (copy != NULL) memcpy(copy, text, length);
    return copy;
}

static bool take_flag(struct reader *reader) {
    const uint8_t *flag = bytes_take(&reader->bytes, 1);
    return flag != NULL && *flag != 0;
}

static const char *take_optional(struct reader *reader) {
    return take_flag(reader) ? take_text(reader) : NULL;
}

static double take_real(struct reader *reader) {
    const uint64_t bits = bytes_take_u64(&reader->bytes);
    double real;
    memcpy(&real, &bits, sizeof real);
    return real;
}

static uint32_t take_count(struct reader *reader, uint32_t most) {
    const uint32_t n = bytes_take_u32(&reader->bytes);
    if (n > most) reader->bytes.failed = true;
    return reader->bytes.failed ? 0 : n;
}

static void take_choices(struct reader *reader, fw_param *param) {
    const uint32_t n = take_count(reader, MOST_CHOICES);
    const char **choices = n > 0 ? keep(reader, (n + 1u) * sizeof *choices) : NULL;
    for (uint32_t i = 0; choices != NULL && i < n && !reader->bytes.failed; i++)
        choices[i] = take_text(reader);
    param->choices = choices;
}

static void take_param(struct reader *reader, fw_param *param) {
    param->struct_size = sizeof *param;
    param->type = bytes_take_u32(&reader->bytes);
    param->key = take_optional(reader);
    param->default_text = take_optional(reader);
    param->min = take_real(reader);
    param->max = take_real(reader);
    param->unit = take_optional(reader);
    param->doc = take_optional(reader);
    take_choices(reader, param);
}

static void take_declared(struct reader *reader, fw_cache *cache) {
    struct byte_reader *bytes = &reader->bytes;
    *cache = (fw_cache){.struct_size = sizeof *cache,
                        .update_every = bytes_take_u32(bytes),
                        .create = no_create,
                        .destroy = no_destroy,
                        .begin = no_begin,
                        .predict = no_predict,
                        .update = no_tokens};
    cache->needs_entropy = bytes_take_u32(bytes);
    cache->counts_only = bytes_take_u32(bytes);
    cache->unverified = bytes_take_u32(bytes);
    cache->context_tokens = bytes_take_u32(bytes);
    if (take_flag(reader)) cache->prefill = no_tokens;
    if (take_flag(reader)) {
        cache->snapshot = no_snapshot;
        cache->restore = no_restore;
    }
    if (take_flag(reader)) cache->memory_bytes = no_memory;
}

static const fw_plugin *take_plugin(struct reader *reader) {
    fw_plugin *plugin = keep(reader, sizeof *plugin);
    fw_cache *cache = keep(reader, sizeof *cache);
    if (plugin == NULL || cache == NULL) return NULL;
    plugin->struct_size = sizeof *plugin;
    plugin->kind = FW_CACHE;
    plugin->id = take_optional(reader);
    plugin->version = take_optional(reader);
    plugin->summary = take_optional(reader);
    plugin->vendor = take_optional(reader);
    plugin->license = take_optional(reader);
    plugin->devices = bytes_take_u32(&reader->bytes);
    take_declared(reader, cache);
    plugin->vtable = cache;
    plugin->n_params = take_count(reader, MOST_PARAMS);
    fw_param *params = keep(reader, (plugin->n_params + 1u) * sizeof *params);
    for (uint32_t i = 0; params != NULL && i < plugin->n_params && !reader->bytes.failed; i++)
        take_param(reader, &params[i]);
    plugin->params = params;
    return plugin;
}

static void take_module(struct reader *reader) {
    const uint32_t n = take_count(reader, MOST_PLUGINS);
    const fw_plugin **plugins = keep(reader, (n + 1u) * sizeof *plugins);
    for (uint32_t i = 0; plugins != NULL && i < n && !reader->bytes.failed; i++)
        plugins[i] = take_plugin(reader);
    reader->record->module = (fw_module){.magic = FW_MODULE_MAGIC,
                                         .struct_size = sizeof(fw_module),
                                         .pointer_size = sizeof(void *),
                                         .abi_minor = FW_ABI_MINOR,
                                         .n_plugins = n,
                                         .plugins = plugins};
}

fw_status plugin_record_read(const void *data, size_t size, struct plugin_record **record,
                             fw_error *error) {
    struct reader reader = {.bytes = {.data = data, .size = size},
                            .record = calloc(1, sizeof *reader.record)};
    if (reader.record == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    take_module(&reader);
    if (!reader.bytes.failed) {
        *record = reader.record;
        return FW_OK;
    }
    plugin_record_free(reader.record);
    return fw_fail(error, FW_E_FORMAT, "its description is malformed");
}

void plugin_record_free(struct plugin_record *record) {
    if (record == NULL) return;
    while (record->kept != NULL) {
        struct kept *next = record->kept->next;
        free(record->kept);
        record->kept = next;
    }
    free(record);
}

const fw_module *plugin_record_module(const struct plugin_record *record) {
    return &record->module;
}
