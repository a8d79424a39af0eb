/* What tests of corpora share: opening, refusals, all tokens as text, small shards. */
#ifndef TEST_CORPUS_FIXTURE_H
#define TEST_CORPUS_FIXTURE_H

#include <corpus.h>

#include "byte_tokenizer.h"
#include "workspace.h"

extern fw_error error;
extern struct byte_tokenizer with_begin, plain;

/* `self` NULL: no tokenizer. */
struct corpus_options options_for(const char *source, struct byte_tokenizer *self);
struct corpus *open_with(const struct corpus_options *options);
struct corpus *open_source(const char *source, struct byte_tokenizer *self);

/* It must fail so, with both parts in the message. */
void refuse_with(const struct corpus_options *options, fw_status expected, const char *part,
                 const char *other);
void refuse(const char *source, struct byte_tokenizer *self, fw_status expected, const char *part,
            const char *other);

/* All tokens as text: 256 is '|', others themselves. Closes the corpus. */
const char *text_of(struct corpus *corpus);

/* A shard of letters, without a documents file. */
void letters_shard(const char *name, const char *letters);

/* A shard of two documents as `fairway data` writes it, "|ab" and "|c". */
void documented_shard(const char *name, uint8_t fingerprint_byte);

#endif
