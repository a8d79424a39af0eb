/* What the cheating tokenizers share: a byte is a token, and what each cheat says otherwise. */
#ifndef BYTE_TOKENS_H
#define BYTE_TOKENS_H

#include "cheat.h"

static inline fw_status byte_tokens_create(const fw_host *host, const fw_value *values, void **self,
                                           fw_error *error) {
    static int nothing;
    (void)host, (void)values, (void)error;
    *self = &nothing;
    return FW_OK;
}

static inline void byte_tokens_destroy(void *self) { (void)self; }

static inline uint32_t byte_tokens_vocabulary(void *self) { return (void)self, 256; }

static inline int64_t byte_tokens_begin(void *self) { return (void)self, -1; }

static inline void byte_tokens_token(void *self, uint32_t token, fw_token_info *info) {
    (void)self, (void)token;
    info->base_bytes = 1;
    info->leading_space = info->boundary = 0;
}

static inline void byte_tokens_fingerprint(void *self, uint8_t hash[32]) {
    (void)self;
    memset(hash, 0, 32);
    memcpy(hash, "bytes of a test", 15); /* each says that it is the same one */
}

static inline size_t byte_tokens_bound(void *self, size_t bytes) { return (void)self, bytes; }

static inline fw_status byte_tokens_encode(void *self, const char *text, size_t bytes,
                                           uint16_t *tokens, size_t *n, fw_error *error) {
    (void)self;
    if (*n < bytes) return fw_fail(error, FW_E_BUFFER, "no room for %zu tokens", bytes);
    for (size_t i = 0; i < bytes; i++) tokens[i] = (uint8_t)text[i];
    *n = bytes;
    return FW_OK;
}

static inline fw_status byte_tokens_decode(void *self, const uint16_t *tokens, size_t n, char *text,
                                           size_t *bytes, fw_error *error) {
    (void)self;
    const size_t room = *bytes;
    *bytes = n;
    if (room < n) return fw_fail(error, FW_E_BUFFER, "no room for %zu bytes", n);
    for (size_t i = 0; i < n; i++) text[i] = (char)tokens[i];
    return FW_OK;
}

#define BYTE_TOKENS                                                                                \
    .struct_size = sizeof(fw_tokenizer), .create = byte_tokens_create,                             \
    .destroy = byte_tokens_destroy, .vocabulary = byte_tokens_vocabulary,                          \
    .begin_token = byte_tokens_begin, .fingerprint = byte_tokens_fingerprint,                      \
    .bound = byte_tokens_bound, .decode = byte_tokens_decode

#define BYTE_TOKENS_MODULE(table)                                                                  \
    static const fw_plugin plugin = {.struct_size = sizeof plugin,                                 \
                                     .kind = FW_TOKENIZER,                                         \
                                     .id = CHEAT_ID,                                               \
                                     .version = "1.0.0",                                           \
                                     .summary = "cheats, or is the twin that does not",            \
                                     .vendor = "Fairway's tests",                                  \
                                     .license = "MIT",                                             \
                                     .devices = FW_CPU | FW_CUDA,                                  \
                                     .vtable = &(table)};                                          \
    FW_DEFINE_MODULE(&plugin)

#endif
