/* What scoring needs of a tokenizer: how many bytes each token counts, and which tokenizer it was.
 * It travels inside the artifact, so that scoring needs no tokenizer. */
#ifndef FAIRWAY_TOKEN_TABLE_H
#define FAIRWAY_TOKEN_TABLE_H

#include <fairway/tokenizer.h>

#include "bytes.h"

struct token_table {
    uint32_t vocabulary;
    int64_t begin_token; /* -1: none */
    uint8_t fingerprint[32];
    fw_token_info *tokens; /* vocabulary entries */
};

fw_status token_table_from_tokenizer(const fw_tokenizer *tokenizer, void *self,
                                     struct token_table **table, fw_error *error);
fw_status token_table_copy(const struct token_table *from, struct token_table **table,
                           fw_error *error);
void token_table_destroy(struct token_table *table); /* NULL is fine */

/* Bytes of text that `token` stands for after `previous`, by the rule in fairway/tokenizer.h. */
uint32_t token_table_bytes(const struct token_table *table, uint32_t previous, uint32_t token);

/* A token that begins a document: the one that the tokenizer names, or the first that is a
 * boundary, or token 0. */
uint32_t token_table_begin(const struct token_table *table);

void token_table_write(const struct token_table *table, struct bytes *bytes);
fw_status token_table_read(struct byte_reader *reader, struct token_table **table, fw_error *error);

#endif
