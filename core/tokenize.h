/* The tokenizer of an experiment, opened; and documents turned into tokens with it. */
#ifndef FAIRWAY_TOKENIZE_H
#define FAIRWAY_TOKENIZE_H

#include <fairway/tokenizer.h>

#include "bytes.h"

struct host;
struct plugin_choice;
struct token_table;

/* Create the tokenizer that `choice` (bound, config.h) names. E_CONFIG when none is named; E_ABI
 * when its vocabulary or begin token is impossible; else what its create() returns. */
fw_status tokenizer_open(struct host *host, const struct plugin_choice *choice,
                         const fw_tokenizer **tokenizer, void **self, fw_error *error);
void tokenizer_close(const fw_tokenizer *tokenizer, void *self); /* NULL is fine */

/* Tokens that grow; `tokens` is freed by its owner. */
struct token_buffer {
    uint16_t *tokens;
    size_t n, capacity;
};

/* Append one document: its begin token where there is one, then its text. E_MEMORY; E_PROTOCOL,
 * E_RANGE when the tokenizer breaks its own bounds; else what encode() returns. The buffer is as
 * before then. */
fw_status tokenize_document(const fw_tokenizer *tokenizer, void *self, const char *text,
                            size_t bytes, struct token_buffer *buffer, fw_error *error);

/* The same for a text that a model goes on with, which needs a token to read: where there is none,
 * as of an empty text without a begin token, one that begins a document by `table`. */
fw_status tokenize_prompt(const fw_tokenizer *tokenizer, void *self,
                          const struct token_table *table, const char *text, size_t bytes,
                          struct token_buffer *buffer, fw_error *error);

/* Text of tokens, appended to `text`: each document by itself, without its begin token. E_MEMORY;
 * else what decode() returns. */
fw_status detokenize(const fw_tokenizer *tokenizer, void *self, const uint16_t *tokens, size_t n,
                     struct bytes *text, fw_error *error);

#endif
