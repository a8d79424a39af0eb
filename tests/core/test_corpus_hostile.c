/* core/corpus on random bytes and on mutated shards, documents files, JSON lines and lists: it
 * reads them or says what is wrong, and never reads outside them (run under AddressSanitizer). */
#include <corpus.h>
#include <shard.h>

#include "byte_tokenizer.h"
#include "workspace.h"

enum { ROUNDS = 1500, LIMIT = 1 << 14 };

static struct byte_tokenizer self = {.begin = true, .fingerprint = 7};
static int opened, refused;

/* Open and use everything there is to use. */
static void exercise(const char *source) {
    fw_error error = {.struct_size = sizeof error};
    const struct corpus_options options = {
        .source = source, .keep_text = true, .tokenizer = &byte_tokenizer, .tokenizer_self = &self};
    struct corpus *corpus = NULL;
    if (corpus_open(&options, &corpus, &error) != FW_OK) {
        assert_true(strlen(error.message) > 10);
        refused++;
        return;
    }
    opened++;
    uint16_t tokens[4096];
    const uint64_t n = corpus_tokens(corpus);
    for (uint64_t first = 0; first < n; first += 4096) {
        corpus_read(corpus, first, 4096, tokens);
        for (int i = 0; i < 4096; i++) assert_true(tokens[i] < 257);
    }
    uint64_t n_documents, before = 0;
    const struct corpus_document *documents = corpus_documents(corpus, &n_documents);
    for (uint64_t i = 0; i < n_documents; i++) {
        assert_true(documents[i].first_token >= before && documents[i].first_token <= n);
        before = documents[i].first_token;
    }
    corpus_close(corpus);
}

static size_t mutate(test_random *random, char *data, size_t size) {
    const uint64_t edits = 1 + test_below(random, 4);
    for (uint64_t i = 0; i < edits && size > 0; i++) {
        char *at = data + test_below(random, size < 60 || test_below(random, 2) ? size : 60);
        switch (test_below(random, 6)) {
        case 0: *at = (char)test_below(random, 256); break;
        case 1: *at = (char)(*at ^ (1 << test_below(random, 8))); break;
        case 2: *at = "\"\\{}[]:,u\n\0 "[test_below(random, 12)]; break;
        case 3: size = test_below(random, size + 1); break;
        case 4: /* duplicate a piece */
            if (size < LIMIT / 2) {
                const size_t piece = test_below(random, (size_t)(data + size - at) + 1);
                memmove(at + piece, at, (size_t)(data + size - at));
                size += piece;
            }
            break;
        default:
            memset(at, (int)test_below(random, 2) * 255, size - (size_t)(at - data) > 8 ? 8 : 1);
        }
    }
    return size;
}

/* Mutate `name` ROUNDS times, from the original each time, and open `source`. */
static void fuzz(const char *name, const char *source, uint64_t seed) {
    test_random random = {seed};
    size_t size;
    char *original = read_bytes(name, &size);
    char *data = malloc(LIMIT);
    opened = refused = 0;
    for (int round = 0; round < ROUNDS; round++) {
        memcpy(data, original, size);
        write_bytes(name, data, mutate(&random, data, size));
        exercise(source);
    }
    assert_true(refused > 0); /* otherwise the mutations test nothing */
    free(data);
    free(original);
}

static void write_documented_shard(void) {
    fw_error error = {.struct_size = sizeof error};
    struct shard_writer *writer;
    uint8_t bytes[32];
    memset(bytes, 7, sizeof bytes);
    assert_ok(shard_create("a.bin", bytes, &writer, &error), &error);
    for (uint16_t n = 1; n < 20; n++) {
        uint16_t tokens[20] = {256, n, 2, 3};
        assert_ok(shard_append(writer, tokens, n, n, bytes, &error), &error);
    }
    assert_ok(shard_commit(writer, &error), &error);
}

static void test_random_bytes(void **state) {
    (void)state;
    test_random random = {1};
    static const char *const sources[] = {"r", "text:r", "jsonl:r", "list:r"};
    for (int round = 0; round < ROUNDS; round++) {
        char data[2000];
        const size_t size = test_below(&random, sizeof data);
        for (size_t i = 0; i < size; i++) data[i] = (char)test_below(&random, 256);
        write_bytes("r", data, size);
        exercise(sources[round % 4]);
    }
}

static void test_mutated_shard(void **state) {
    (void)state;
    write_documented_shard();
    fuzz("a.bin", "a.bin", 2);
    assert_true(opened > 0);
}

static void test_mutated_documents(void **state) {
    (void)state;
    write_documented_shard();
    fuzz("a.bin.documents", "a.bin", 3);
}

static void test_mutated_jsonl(void **state) {
    (void)state;
    write_text("a.jsonl", "{\"text\": \"one \\u00e9\\n\", \"n\": [1.5e3, {\"a\": null}]}\n"
                          "\n{\"text\":\"\\ud83d\\ude00 two\", \"x\": true}\n{\"text\":\"\"}\n");
    fuzz("a.jsonl", "jsonl:a.jsonl", 4);
    assert_true(opened > 0);
}

static void test_mutated_list(void **state) {
    (void)state;
    write_text("t1", "one");
    write_text("t2", "two");
    write_text("list", "t1\nt2\r\n\nt1\n");
    fuzz("list", "list:list", 5);
    assert_true(opened > 0);
}

/* The INI's text itself. */
static void test_mutated_source(void **state) {
    (void)state;
    test_random random = {6};
    write_documented_shard();
    write_text("t1", "one");
    for (int round = 0; round < ROUNDS; round++) {
        char source[LIMIT] = "a.bin, text:t1 jsonl:no list:t1 text:t*";
        const size_t size = mutate(&random, source, strlen(source));
        source[size] = '\0';
        if (strchr(source, '/') == NULL) exercise(source);
    }
    assert_true(refused > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_random_bytes),  TEST(test_mutated_shard), TEST(test_mutated_documents),
        TEST(test_mutated_jsonl), TEST(test_mutated_list),  TEST(test_mutated_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
