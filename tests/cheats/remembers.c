/* Tokens that are no function of the text: asked a second time for the same document, the tokenizer
 * spells it otherwise, and could choose its spelling by what it has seen before. */
#include "byte_tokens.h"

static fw_status encode(void *self, const char *text, size_t bytes, uint16_t *tokens, size_t *n,
                        fw_error *error) {
    static unsigned calls;
    FW_TRY(byte_tokens_encode(self, text, bytes, tokens, n, error));
    if (CHEATS && calls++ % 2 == 1 && *n > 0) tokens[*n - 1] = '.';
    return FW_OK;
}

static const fw_tokenizer vtable = {BYTE_TOKENS, .token = byte_tokens_token, .encode = encode};
BYTE_TOKENS_MODULE(vtable);
