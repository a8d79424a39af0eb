/* Text of tokens that come one by one: what is certain of it is written at once. A token's text may
 * depend on those before it, and a character may be made of several tokens; so the latest tokens
 * are decoded together each time, and what is not a whole character yet is held back. */
#ifndef FAIRWAY_TEXT_OUTPUT_H
#define FAIRWAY_TEXT_OUTPUT_H

#include <fairway/tokenizer.h>
#include <stdio.h>

struct text_output;

/* `tokenizer` and `out` stay the caller's and must outlive it. E_MEMORY. */
fw_status text_output_create(const fw_tokenizer *tokenizer, void *self, FILE *out,
                             struct text_output **output, fw_error *error);
void text_output_destroy(struct text_output *output); /* NULL is fine */

/* Tokens whose text is there already: it is not written. */
fw_status text_output_skip(struct text_output *output, const uint16_t *tokens, size_t n,
                           fw_error *error);

/* The next token; its text is written and flushed, as far as it is certain. */
fw_status text_output_token(struct text_output *output, uint16_t token, fw_error *error);

/* What is held back, whatever it is. */
fw_status text_output_end(struct text_output *output, fw_error *error);

#endif
