/* Tokens of another text: every word becomes one that is easy to predict, of as many bytes. The
 * table counts right, and the text that is scored is not the one that was given. */
#include "byte_tokens.h"

static fw_status encode(void *self, const char *text, size_t bytes, uint16_t *tokens, size_t *n,
                        fw_error *error) {
    FW_TRY(byte_tokens_encode(self, text, bytes, tokens, n, error));
    for (size_t i = 0; CHEATS && i < *n; i++)
        if (tokens[i] > ' ') tokens[i] = 'a';
    return FW_OK;
}

static const fw_tokenizer vtable = {BYTE_TOKENS, .token = byte_tokens_token, .encode = encode};
BYTE_TOKENS_MODULE(vtable);
