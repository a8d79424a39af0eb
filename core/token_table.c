#include "token_table.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_VOCABULARY = 65536 }; /* shards store 16-bit tokens */

static fw_status allocate(uint32_t vocabulary, struct token_table **table, fw_error *error) {
    if (vocabulary == 0 || vocabulary > MAX_VOCABULARY)
        return fw_fail(error, FW_E_FORMAT, "a vocabulary of %u tokens is outside 1 to %d",
                       vocabulary, MAX_VOCABULARY);
    struct token_table *made = calloc(1, sizeof *made);
    fw_token_info *tokens = calloc(vocabulary, sizeof *tokens);
    if (made == NULL || tokens == NULL) {
        free(made);
        free(tokens);
        return fw_fail(error, FW_E_MEMORY, "no memory for a table of %u tokens", vocabulary);
    }
    made->vocabulary = vocabulary;
    made->tokens = tokens;
    *table = made;
    return FW_OK;
}

fw_status token_table_from_tokenizer(const fw_tokenizer *tokenizer, void *self,
                                     struct token_table **table, fw_error *error) {
    FW_TRY(allocate(tokenizer->vocabulary(self), table, error));
    (*table)->begin_token = tokenizer->begin_token(self);
    tokenizer->fingerprint(self, (*table)->fingerprint);
    for (uint32_t i = 0; i < (*table)->vocabulary; i++) {
        (*table)->tokens[i].struct_size = sizeof(fw_token_info);
        tokenizer->token(self, i, &(*table)->tokens[i]);
    }
    return FW_OK;
}

fw_status token_table_copy(const struct token_table *from, struct token_table **table,
                           fw_error *error) {
    FW_TRY(allocate(from->vocabulary, table, error));
    fw_token_info *tokens = (*table)->tokens;
    **table = *from;
    (*table)->tokens = tokens;
    memcpy(tokens, from->tokens, from->vocabulary * sizeof *tokens);
    return FW_OK;
}

void token_table_destroy(struct token_table *table) {
    if (table == NULL) return;
    free(table->tokens);
    free(table);
}

uint32_t token_table_bytes(const struct token_table *table, uint32_t previous, uint32_t token) {
    const fw_token_info *info = &table->tokens[token];
    return info->base_bytes + (info->leading_space && !table->tokens[previous].boundary ? 1u : 0u);
}

uint32_t token_table_begin(const struct token_table *table) {
    if (table->begin_token >= 0) return (uint32_t)table->begin_token;
    for (uint32_t v = 0; v < table->vocabulary; v++)
        if (table->tokens[v].boundary) return v;
    return 0;
}

/* One plane for each field: neighbours are alike, so the planes compress well. */
void token_table_write(const struct token_table *table, struct bytes *bytes) {
    bytes_put_u32(bytes, table->vocabulary);
    bytes_put_u64(bytes, (uint64_t)table->begin_token);
    bytes_put(bytes, table->fingerprint, sizeof table->fingerprint);
    for (uint32_t i = 0; i < table->vocabulary; i++)
        bytes_put_u8(bytes, (uint8_t)(table->tokens[i].base_bytes & 0xff));
    for (uint32_t i = 0; i < table->vocabulary; i++)
        bytes_put_u8(bytes, (uint8_t)(table->tokens[i].base_bytes >> 8));
    for (uint32_t i = 0; i < table->vocabulary; i++)
        bytes_put_u8(bytes, (uint8_t)((table->tokens[i].leading_space ? 1 : 0) |
                                      (table->tokens[i].boundary ? 2 : 0)));
}

fw_status token_table_read(struct byte_reader *reader, struct token_table **table,
                           fw_error *error) {
    const uint32_t vocabulary = bytes_take_u32(reader);
    const int64_t begin_token = (int64_t)bytes_take_u64(reader);
    const uint8_t *fingerprint = bytes_take(reader, 32);
    const uint8_t *planes = bytes_take(reader, 3 * (size_t)vocabulary);
    if (planes == NULL || fingerprint == NULL)
        return fw_fail(error, FW_E_FORMAT, "the token table is cut short");
    FW_TRY(allocate(vocabulary, table, error));
    (*table)->begin_token = begin_token;
    memcpy((*table)->fingerprint, fingerprint, 32);
    for (uint32_t i = 0; i < vocabulary; i++)
        (*table)->tokens[i] = (fw_token_info){
            .struct_size = sizeof(fw_token_info),
            .base_bytes = (uint16_t)(planes[i] | planes[vocabulary + i] << 8),
            .leading_space = planes[2 * (size_t)vocabulary + i] & 1,
            .boundary = planes[2 * (size_t)vocabulary + i] >> 1 & 1,
        };
    return FW_OK;
}
