/* Whether a tokenizer may be trusted with counting bytes: bits per byte are bits per token divided
 * by what its table says, and of the text that its tokens stand for.
 *
 * Of documents that are looked at
 *   - encoding again gives the same tokens: they are a function of the text, and carry nothing
 * else;
 *   - the tokens decode to a text whose bytes are as many as the table counts for them;
 *   - encoding that text gives these tokens;
 *   - that text is the document: but for white space, what is ASCII is there, in order. Normal
 *     forms of Unicode may write a quarter of it otherwise, as SentencePiece does;
 * A document with tokens of no bytes (unknown ones) may decode to more than is counted, and need
 * not encode to the same tokens again. Of all documents together the table counts no more bytes
 * than the text has (and a thousandth, since normal forms of a few characters are longer). The
 * first documents are looked at, up to 256 KiB, then one in 16, chosen by chance. */
#ifndef FAIRWAY_TOKENIZER_CHECK_H
#define FAIRWAY_TOKENIZER_CHECK_H

#include "token_table.h"

struct tokenizer_check;

/* `table` is the one that scores; it and the tokenizer stay the caller's. NULL: what the tokenizer
 * says now. E_PROTOCOL: the table knows fewer tokens than the tokenizer; E_MEMORY. */
fw_status tokenizer_check_open(const fw_tokenizer *tokenizer, void *self,
                               const struct token_table *table, struct tokenizer_check **check,
                               fw_error *error);
void tokenizer_check_close(struct tokenizer_check *check); /* NULL is fine */

/* A document, with the tokens that tokenize_document made of it. E_PROTOCOL names what is wrong. */
fw_status tokenizer_check_document(struct tokenizer_check *check, const char *text, size_t bytes,
                                   const uint16_t *tokens, size_t n, fw_error *error);

/* After the last document. E_PROTOCOL. */
fw_status tokenizer_check_total(const struct tokenizer_check *check, fw_error *error);

/* The same rule for bytes counted elsewhere: E_PROTOCOL when `counted` is more than `raw` allows.
 */
fw_status tokenizer_check_bytes(uint64_t counted, uint64_t raw, fw_error *error);

#endif
