#include "cache_opening.h"

#include <stdlib.h>
#include <string.h>

#include "params.h"

enum { MOST_VALUES = 4096 };

static bool is_text(uint32_t type) { return type == FW_PARAM_STRING || type == FW_PARAM_PATH; }

static void put_value(struct bytes *bytes, const fw_param *param, const fw_value *value) {
    uint64_t bits = 0;
    if (param->type == FW_PARAM_FLOAT)
        memcpy(&bits, &value->real, sizeof bits);
    else if (!is_text(param->type))
        memcpy(&bits, &value->integer, sizeof bits);
    const char *text = is_text(param->type) ? value->text : NULL;
    bytes_put_u64(bytes, bits);
    bytes_put_u8(bytes, text != NULL);
    if (text != NULL) bytes_put_text(bytes, text);
}

static void put_table(struct bytes *bytes, const uint8_t *table, uint32_t n) {
    bytes_put_u8(bytes, table != NULL);
    if (table != NULL) bytes_put(bytes, table, n);
}

void cache_opening_write(struct bytes *bytes, const char *path, const fw_plugin *plugin,
                         const fw_value *values, const fw_cache_shape *shape, uint64_t seed,
                         uint32_t threads) {
    bytes_put_text(bytes, path);
    bytes_put_text(bytes, plugin->id);
    bytes_put_u64(bytes, seed);
    bytes_put_u32(bytes, threads);
    bytes_put_u32(bytes, shape->vocabulary);
    bytes_put_u32(bytes, shape->max_entries);
    bytes_put_u64(bytes, shape->stream_tokens);
    put_table(bytes, shape->token_bytes, shape->vocabulary);
    put_table(bytes, shape->token_is_boundary, shape->vocabulary);
    bytes_put_u32(bytes, plugin->n_params);
    for (uint32_t i = 0; i < plugin->n_params; i++)
        put_value(bytes, param_at(plugin->params, i), &values[i]);
}

/* ---- reading ---- */

static bool take_flag(struct byte_reader *reader) {
    const uint8_t *flag = bytes_take(reader, 1);
    return flag != NULL && *flag != 0;
}

static uint8_t *take_table(struct byte_reader *reader, uint32_t n) {
    if (!take_flag(reader)) return NULL;
    const uint8_t *given = bytes_take(reader, n);
    uint8_t *table = given != NULL ? malloc(n) : NULL;
    if (table == NULL)
        reader->failed = true;
    else
        memcpy(table, given, n);
    return table;
}

static void take_value(struct byte_reader *reader, fw_value *value, char **text) {
    const uint64_t bits = bytes_take_u64(reader);
    memcpy(value, &bits, sizeof bits);
    if (!take_flag(reader)) return;
    *text = bytes_take_text(reader);
    value->text = *text;
}

static void take_values(struct byte_reader *reader, struct cache_opening *opening) {
    const uint32_t n = bytes_take_u32(reader);
    if (n > MOST_VALUES) reader->failed = true;
    if (reader->failed) return;
    opening->values = calloc(n + 1u, sizeof *opening->values);
    opening->texts = calloc(n + 1u, sizeof *opening->texts);
    if (opening->values == NULL || opening->texts == NULL) reader->failed = true;
    for (; opening->n_values < n && !reader->failed; opening->n_values++)
        take_value(reader, &opening->values[opening->n_values], &opening->texts[opening->n_values]);
}

fw_status cache_opening_read(const void *data, size_t size, struct cache_opening *opening,
                             fw_error *error) {
    struct byte_reader reader = {.data = data, .size = size};
    struct cache_opening made = {.path = bytes_take_text(&reader)};
    made.id = bytes_take_text(&reader);
    made.seed = bytes_take_u64(&reader);
    made.threads = bytes_take_u32(&reader);
    made.shape.struct_size = sizeof made.shape;
    made.shape.vocabulary = bytes_take_u32(&reader);
    made.shape.max_entries = bytes_take_u32(&reader);
    made.shape.stream_tokens = bytes_take_u64(&reader);
    made.token_bytes = take_table(&reader, made.shape.vocabulary);
    made.token_is_boundary = take_table(&reader, made.shape.vocabulary);
    made.shape.token_bytes = made.token_bytes;
    made.shape.token_is_boundary = made.token_is_boundary;
    take_values(&reader, &made);
    if (!reader.failed) {
        *opening = made;
        return FW_OK;
    }
    cache_opening_free(&made);
    return fw_fail(error, FW_E_FORMAT, "what the cache should be created from is cut short");
}

void cache_opening_free(struct cache_opening *opening) {
    for (uint32_t i = 0; i < opening->n_values; i++) free(opening->texts[i]);
    free(opening->texts);
    free(opening->values);
    free(opening->token_bytes);
    free(opening->token_is_boundary);
    free(opening->path);
    free(opening->id);
    *opening = (struct cache_opening){0};
}
