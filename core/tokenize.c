/* The tokenizer plugin, opened; and documents into tokens: the begin token, then what the tokenizer
 * makes of the text, distrusted. */
#include "tokenize.h"

#include <stdlib.h>

#include "host.h"
#include "shard.h"
#include "token_table.h"

static fw_status check(const fw_tokenizer *tokenizer, void *self, const char *name,
                       fw_error *error) {
    const uint32_t vocabulary = tokenizer->vocabulary(self);
    if (vocabulary == 0 || vocabulary > UINT16_MAX + 1u)
        return fw_fail(error, FW_E_ABI, "tokenizer %s: a vocabulary of %u; it must be 1 to 65536",
                       name, vocabulary);
    const int64_t begin = tokenizer->begin_token(self);
    if (begin >= -1 && begin < (int64_t)vocabulary) return FW_OK;
    return fw_fail(error, FW_E_ABI, "tokenizer %s: begin token %lld, but the vocabulary is %u",
                   name, (long long)begin, vocabulary);
}

fw_status tokenizer_open(struct host *host, const struct plugin_choice *choice,
                         const fw_tokenizer **tokenizer, void **self, fw_error *error) {
    if (choice->entry == NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "no tokenizer is named: write plugin = bytes in [tokenizer], or plugin = "
                       "sentencepiece with model = FILE");
    const fw_tokenizer *table = choice->entry->plugin->vtable;
    void *created = NULL;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = table->create(host_table(host), choice->values, &created, &why);
    if (status != FW_OK) return choice_fail(choice, status, why.message, error);
    status = check(table, created, choice->name, error);
    if (status != FW_OK) {
        table->destroy(created);
        return status;
    }
    *tokenizer = table;
    *self = created;
    return FW_OK;
}

void tokenizer_close(const fw_tokenizer *tokenizer, void *self) {
    if (tokenizer != NULL) tokenizer->destroy(self);
}

static fw_status reserve(struct token_buffer *buffer, size_t more, fw_error *error) {
    if (buffer->capacity - buffer->n >= more) return FW_OK;
    size_t capacity = buffer->capacity + buffer->capacity / 2;
    if (capacity < buffer->n + more) capacity = buffer->n + more;
    uint16_t *larger = capacity < SIZE_MAX / sizeof *larger && buffer->n + more >= more
                           ? realloc(buffer->tokens, capacity * sizeof *larger)
                           : NULL;
    if (larger == NULL)
        return fw_fail(error, FW_E_MEMORY, "out of memory for %zu tokens", capacity);
    buffer->tokens = larger;
    buffer->capacity = capacity;
    return FW_OK;
}

fw_status tokenize_document(const fw_tokenizer *tokenizer, void *self, const char *text,
                            size_t bytes, struct token_buffer *buffer, fw_error *error) {
    const size_t bound = tokenizer->bound(self, bytes);
    if (bound > SIZE_MAX / 4) return fw_fail(error, FW_E_PROTOCOL, "tokenizer: impossible bound");
    FW_TRY(reserve(buffer, bound + 1, error));
    uint16_t *tokens = buffer->tokens + buffer->n;
    const int64_t begin = tokenizer->begin_token(self);
    const size_t first = begin >= 0 ? 1 : 0;
    size_t n = bound;
    FW_TRY(tokenizer->encode(self, text, bytes, tokens + first, &n, error));
    if (n > bound)
        return fw_fail(error, FW_E_PROTOCOL, "tokenizer: %zu tokens where at most %zu can be", n,
                       bound);
    const uint32_t vocabulary = tokenizer->vocabulary(self);
    FW_TRY(tokens_check("tokenizer", tokens + first, n, vocabulary, error));
    if (begin >= 0) tokens[0] = (uint16_t)begin;
    buffer->n += first + n;
    return FW_OK;
}

fw_status tokenize_prompt(const fw_tokenizer *tokenizer, void *self,
                          const struct token_table *table, const char *text, size_t bytes,
                          struct token_buffer *buffer, fw_error *error) {
    FW_TRY(tokenize_document(tokenizer, self, text, bytes, buffer, error));
    if (buffer->n > 0) return FW_OK;
    FW_TRY(reserve(buffer, 1, error));
    buffer->tokens[buffer->n++] = (uint16_t)token_table_begin(table);
    return FW_OK;
}

static fw_status detokenize_document(const fw_tokenizer *tokenizer, void *self,
                                     const uint16_t *tokens, size_t n, struct bytes *text,
                                     fw_error *error) {
    size_t bytes = 8 * n + 64;
    char *buffer = malloc(bytes);
    fw_status status = FW_E_BUFFER;
    for (int attempt = 0; buffer != NULL && status == FW_E_BUFFER && attempt < 2; attempt++) {
        if (attempt > 0) {
            char *larger = realloc(buffer, bytes + 1);
            if (larger == NULL) break;
            buffer = larger;
        }
        status = tokenizer->decode(self, tokens, n, buffer, &bytes, error);
    }
    if (status == FW_OK) bytes_put(text, buffer, bytes);
    free(buffer);
    return status == FW_E_BUFFER || text->failed
               ? fw_fail(error, FW_E_MEMORY, "no memory for the text of %zu tokens", n)
               : status;
}

fw_status detokenize(const fw_tokenizer *tokenizer, void *self, const uint16_t *tokens, size_t n,
                     struct bytes *text, fw_error *error) {
    const int64_t begin = tokenizer->begin_token(self);
    for (size_t from = 0, to; from < n; from = to) {
        to = from + 1;
        while (to < n && tokens[to] != begin) to++;
        const size_t skipped = tokens[from] == begin ? 1 : 0;
        FW_TRY(detokenize_document(tokenizer, self, tokens + from + skipped, to - from - skipped,
                                   text, error));
    }
    return FW_OK;
}
