/* Bytes as tokens: token b is byte b and, with `begin`, token 256 begins every document. Lossless
 * for any text and needs no model, so tests and tiny runs need nothing but text. */
#include <fairway/fairway.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>

enum { N_BYTES = 256, BEGIN_TOKEN = 256 };

enum { BEGIN, N_PARAMS };
static const fw_param params[N_PARAMS] = {
    [BEGIN] = FW_PARAM_PLAIN(FW_PARAM_BOOL, "begin", "yes", "token 256 begins every document"),
};

typedef struct byte_tokenizer {
    uint32_t vocabulary;
} byte_tokenizer;

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    (void)host;
    byte_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for tokenizer bytes");
    tokenizer->vocabulary = values[BEGIN].integer != 0 ? BEGIN_TOKEN + 1 : N_BYTES;
    *self = tokenizer;
    return FW_OK;
}

static void destroy(void *self) { free(self); }

static uint32_t vocabulary(void *self) { return ((const byte_tokenizer *)self)->vocabulary; }

static void token(void *self, uint32_t token, fw_token_info *info) {
    (void)self;
    info->base_bytes = token < N_BYTES;
    info->leading_space = 0;
    info->boundary = token >= N_BYTES;
}

static int64_t begin_token(void *self) { return vocabulary(self) > N_BYTES ? BEGIN_TOKEN : -1; }

static void fingerprint(void *self, uint8_t hash[32]) {
    const char *text = vocabulary(self) > N_BYTES ? "fairway tokenizer bytes 1, begin 256"
                                                  : "fairway tokenizer bytes 1, no begin";
    SHA2_CTX context;
    SHA256Init(&context);
    SHA256Update(&context, (const uint8_t *)text, strlen(text));
    SHA256Final(hash, &context);
}

static size_t bound(void *self, size_t bytes) {
    (void)self;
    return bytes;
}

static fw_status encode(void *self, const char *text, size_t bytes, uint16_t *tokens,
                        size_t *n_tokens, fw_error *error) {
    (void)self;
    if (*n_tokens < bytes)
        return fw_fail(error, FW_E_BUFFER, "bytes: %zu tokens do not fit a buffer of %zu", bytes,
                       *n_tokens);
    for (size_t i = 0; i < bytes; i++) tokens[i] = (uint8_t)text[i];
    *n_tokens = bytes;
    return FW_OK;
}

/* Text has one byte for each token but begin tokens, which have none. */
static fw_status text_bytes(uint32_t vocabulary, const uint16_t *tokens, size_t n_tokens,
                            size_t *bytes, fw_error *error) {
    size_t count = 0;
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] >= vocabulary)
            return fw_fail(error, FW_E_RANGE, "bytes: token %zu is %u, but must be below %u", i,
                           tokens[i], vocabulary);
        count += tokens[i] < N_BYTES;
    }
    *bytes = count;
    return FW_OK;
}

static fw_status decode(void *self, const uint16_t *tokens, size_t n_tokens, char *text,
                        size_t *bytes, fw_error *error) {
    const size_t capacity = *bytes;
    size_t needed = 0;
    FW_TRY(text_bytes(vocabulary(self), tokens, n_tokens, &needed, error));
    *bytes = needed;
    if (needed > capacity)
        return fw_fail(error, FW_E_BUFFER, "bytes: %zu bytes do not fit a buffer of %zu", needed,
                       capacity);
    for (size_t i = 0; i < n_tokens; i++)
        if (tokens[i] < N_BYTES) *text++ = (char)tokens[i];
    return FW_OK;
}

static const fw_tokenizer vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .vocabulary = vocabulary,
                                    .token = token,
                                    .begin_token = begin_token,
                                    .fingerprint = fingerprint,
                                    .bound = bound,
                                    .encode = encode,
                                    .decode = decode};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_TOKENIZER,
                                 .id = "bytes",
                                 .version = "1.0.0",
                                 .summary = "every byte is a token",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
