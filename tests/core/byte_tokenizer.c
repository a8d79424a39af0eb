#include "byte_tokenizer.h"

static uint32_t vocabulary(void *self) {
    return ((const struct byte_tokenizer *)self)->begin ? 257 : 256;
}

static int64_t begin_token(void *self) {
    return ((const struct byte_tokenizer *)self)->begin ? 256 : -1;
}

static void fingerprint(void *self, uint8_t hash[32]) {
    memset(hash, ((const struct byte_tokenizer *)self)->fingerprint, 32);
}

static size_t bound(void *self, size_t bytes) {
    (void)self;
    return bytes;
}

static fw_status encode(void *self, const char *text, size_t bytes, uint16_t *tokens,
                        size_t *n_tokens, fw_error *error) {
    const struct byte_tokenizer *tokenizer = self;
    if (*n_tokens < bytes) return fw_fail(error, FW_E_BUFFER, "too small");
    for (size_t i = 0; i < bytes; i++)
        tokens[i] = text[i] == 'X' && tokenizer->stray != 0 ? tokenizer->stray : (uint8_t)text[i];
    *n_tokens = bytes;
    return FW_OK;
}

static void token(void *self, uint32_t token, fw_token_info *info) {
    (void)self;
    info->base_bytes = token < 256;
    info->leading_space = 0;
    info->boundary = token >= 256;
}

static fw_status decode(void *self, const uint16_t *tokens, size_t n_tokens, char *text,
                        size_t *bytes, fw_error *error) {
    (void)self;
    const size_t room = *bytes;
    *bytes = n_tokens;
    if (room < n_tokens) return fw_fail(error, FW_E_BUFFER, "too small");
    for (size_t i = 0; i < n_tokens; i++) text[i] = (char)tokens[i];
    return FW_OK;
}

const fw_tokenizer byte_tokenizer = {.struct_size = sizeof(fw_tokenizer),
                                     .vocabulary = vocabulary,
                                     .token = token,
                                     .decode = decode,
                                     .begin_token = begin_token,
                                     .fingerprint = fingerprint,
                                     .bound = bound,
                                     .encode = encode};
