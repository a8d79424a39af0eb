#include "text_output.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Tokens that are decoded together: from MOST on, all but the last FEW of them are forgotten. */
enum { MOST = 256, FEW = 32 };

struct text_output {
    const fw_tokenizer *tokenizer;
    void *self;
    FILE *out;
    uint16_t tokens[MOST];
    size_t n;
    char *text; /* of these tokens */
    size_t capacity, bytes, written;
};

fw_status text_output_create(const fw_tokenizer *tokenizer, void *self, FILE *out,
                             struct text_output **output, fw_error *error) {
    struct text_output *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for text");
    made->tokenizer = tokenizer;
    made->self = self;
    made->out = out;
    *output = made;
    return FW_OK;
}

void text_output_destroy(struct text_output *o) {
    if (o == NULL) return;
    free(o->text);
    free(o);
}

static fw_status decode(struct text_output *o, fw_error *error) {
    o->bytes = o->capacity;
    fw_status status = o->tokenizer->decode(o->self, o->tokens, o->n, o->text, &o->bytes, error);
    if (status != FW_E_BUFFER) return status;
    const size_t wanted = 2 * o->bytes + 64;
    char *larger = realloc(o->text, wanted);
    if (larger == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %zu bytes of text", wanted);
    o->text = larger;
    o->capacity = o->bytes = wanted;
    return o->tokenizer->decode(o->self, o->tokens, o->n, o->text, &o->bytes, error);
}

static bool ends_with_replacement(const char *text, size_t n) {
    return n >= 3 && memcmp(text + n - 3, "\xEF\xBF\xBD", 3) == 0;
}

/* Bytes of `text` that will stay: neither the beginning of a character at its end, nor the mark by
 * which a tokenizer shows such a beginning. */
static size_t certain(const char *text, size_t n) {
    size_t back = 0;
    while (ends_with_replacement(text, n)) n -= 3;
    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xC0) == 0x80) back++;
    if (back == n) return n;
    const unsigned char lead = (unsigned char)text[n - 1 - back];
    const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    return length > back + 1 ? n - 1 - back : n;
}

/* Behind a text that is written whole, earlier tokens are not needed any more. */
static fw_status forget(struct text_output *o, fw_error *error) {
    if (o->n < MOST || o->written < o->bytes) return FW_OK;
    memmove(o->tokens, o->tokens + o->n - FEW, FEW * sizeof *o->tokens);
    o->n = FEW;
    FW_TRY(decode(o, error));
    o->written = o->bytes;
    return FW_OK;
}

/* A text that never becomes certain is written as it is, so that there is room. */
static fw_status append(struct text_output *o, uint16_t token, fw_error *error) {
    if (o->n == MOST) {
        FW_TRY(text_output_end(o, error));
        FW_TRY(forget(o, error));
    }
    o->tokens[o->n++] = token;
    return decode(o, error);
}

static fw_status write_until(struct text_output *o, size_t end, fw_error *error) {
    if (end <= o->written) return FW_OK;
    const size_t n = end - o->written;
    if (fwrite(o->text + o->written, 1, n, o->out) != n || fflush(o->out) != 0)
        return fw_fail(error, FW_E_IO, "the text cannot be written");
    o->written = end;
    return FW_OK;
}

fw_status text_output_skip(struct text_output *o, const uint16_t *tokens, size_t n,
                           fw_error *error) {
    const size_t from = n > FEW ? n - FEW : 0;
    for (size_t i = from; i < n; i++) {
        FW_TRY(append(o, tokens[i], error));
        o->written = o->bytes;
    }
    return FW_OK;
}

fw_status text_output_token(struct text_output *o, uint16_t token, fw_error *error) {
    FW_TRY(append(o, token, error));
    FW_TRY(write_until(o, certain(o->text, o->bytes), error));
    return forget(o, error);
}

fw_status text_output_end(struct text_output *o, fw_error *error) {
    return write_until(o, o->bytes, error);
}
