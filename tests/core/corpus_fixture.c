#include "corpus_fixture.h"

#include <files.h>
#include <shard.h>

fw_error error = {.struct_size = sizeof error};
struct byte_tokenizer with_begin = {.begin = true, .fingerprint = 7};
struct byte_tokenizer plain = {.fingerprint = 8};

struct corpus_options options_for(const char *source, struct byte_tokenizer *self) {
    return (struct corpus_options){.source = source,
                                   .tokenizer = self != NULL ? &byte_tokenizer : NULL,
                                   .tokenizer_self = self};
}

struct corpus *open_with(const struct corpus_options *options) {
    struct corpus *corpus = NULL;
    assert_ok(corpus_open(options, &corpus, &error), &error);
    return corpus;
}

struct corpus *open_source(const char *source, struct byte_tokenizer *self) {
    const struct corpus_options options = options_for(source, self);
    return open_with(&options);
}

void refuse_with(const struct corpus_options *options, fw_status expected, const char *part,
                 const char *other) {
    struct corpus *corpus = NULL;
    assert_fails(corpus_open(options, &corpus, &error), expected, &error, part, other);
    assert_null(corpus);
}

void refuse(const char *source, struct byte_tokenizer *self, fw_status expected, const char *part,
            const char *other) {
    const struct corpus_options options = options_for(source, self);
    refuse_with(&options, expected, part, other);
}

const char *text_of(struct corpus *corpus) {
    static char text[512];
    uint16_t tokens[512];
    const uint64_t n = corpus_tokens(corpus);
    assert_true(n < 512);
    corpus_read(corpus, 0, n, tokens);
    for (uint64_t i = 0; i < n; i++) text[i] = tokens[i] == 256 ? '|' : (char)tokens[i];
    text[n] = '\0';
    corpus_close(corpus);
    return text;
}

void letters_shard(const char *name, const char *letters) {
    uint16_t tokens[64] = {0};
    const size_t n = strlen(letters);
    for (size_t i = 0; i < n; i++) tokens[i] = (uint8_t)letters[i];
    write_shard(name, SHARD_MAGIC, 1, (int32_t)n, tokens, n);
}

void documented_shard(const char *name, uint8_t fingerprint_byte) {
    uint8_t fingerprint[32], hash[32];
    memset(fingerprint, fingerprint_byte, sizeof fingerprint);
    struct shard_writer *writer;
    assert_ok(shard_create(name, fingerprint, &writer, &error), &error);
    sha256_bytes("ab", 2, hash);
    assert_ok(shard_append(writer, (uint16_t[]){256, 'a', 'b'}, 3, 2, hash, &error), &error);
    sha256_bytes("c", 1, hash);
    assert_ok(shard_append(writer, (uint16_t[]){256, 'c'}, 2, 1, hash, &error), &error);
    assert_ok(shard_commit(writer, &error), &error);
}
