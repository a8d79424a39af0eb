/* Tokenizer: UTF-8 text (any bytes) -> tokens, and the table from which bytes per token are
 * counted. */
#ifndef FAIRWAY_TOKENIZER_H
#define FAIRWAY_TOKENIZER_H

#include "host.h"

FW_BEGIN_DECLS

/* How a token counts, by the challenge's rule: a target counts base_bytes, plus 1 when it has a
 * leading space and the token before it is not a boundary. Control, unknown and unused tokens: 0
 * bytes and a boundary; byte tokens: 1; others: UTF-8 length without a leading U+2581. */
typedef struct fw_token_info {
    uint32_t struct_size;
    uint16_t base_bytes;
    uint8_t leading_space;
    uint8_t boundary;
} fw_token_info;

typedef struct fw_tokenizer {
    uint32_t struct_size;
    uint32_t reserved;

    /* E_IO, E_FORMAT: the model file is missing or is not one; E_CONFIG. */
    fw_status (*create)(const fw_host *host, const fw_value *values, void **self, fw_error *error);
    void (*destroy)(void *self);

    /* V, at most 65,536 (shards store uint16). */
    uint32_t (*vocabulary)(void *self);
    void (*token)(void *self, uint32_t token, fw_token_info *info);

    /* The token that begins every document, or -1 when there is none. */
    int64_t (*begin_token)(void *self);

    /* A stable hash of all that decides the tokens: 32 bytes. Artifacts and shards carry it. */
    void (*fingerprint)(void *self, uint8_t hash[32]);

    /* An upper bound of the tokens of `bytes` bytes of text. */
    size_t (*bound)(void *self, size_t bytes);

    /* Tokens of one document, without begin_token. `n_tokens` in: capacity, out: used. E_BUFFER. */
    fw_status (*encode)(void *self, const char *text, size_t bytes, uint16_t *tokens,
                        size_t *n_tokens, fw_error *error);

    /* Text of tokens. `bytes` in: capacity, out: used (needed, with E_BUFFER). Not NUL-terminated.
     */
    fw_status (*decode)(void *self, const uint16_t *tokens, size_t n_tokens, char *text,
                        size_t *bytes, fw_error *error);
} fw_tokenizer;

FW_END_DECLS

#endif
