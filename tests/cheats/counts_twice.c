/* Bytes counted twice: the table says two for each token that stands for one, which halves every
 * score in bits per byte. */
#include "byte_tokens.h"

static void token(void *self, uint32_t token, fw_token_info *info) {
    byte_tokens_token(self, token, info);
    info->base_bytes = CHEATS ? 2 : 1;
}

static const fw_tokenizer vtable = {BYTE_TOKENS, .token = token, .encode = byte_tokens_encode};
BYTE_TOKENS_MODULE(vtable);
