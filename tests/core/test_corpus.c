/* core/corpus: every kind of source, the order and choice of documents, and limits. */
#include <files.h>
#include <shard.h>
#include <stdio.h>
#include <sys/stat.h>

#include "corpus_fixture.h"

/* ---- Sources ---- */

static void test_shards(void **state) {
    (void)state;
    letters_shard("s_1.bin", "def");
    letters_shard("s_0.bin", "abc");
    letters_shard("t.bin", "xyz");
    struct corpus *corpus = open_source("s_*.bin, t.bin", NULL);
    assert_int_equal(corpus_tokens(corpus), 9);
    assert_int_equal(corpus_raw_bytes(corpus), 0);
    uint64_t n = 5;
    assert_null(corpus_documents(corpus, &n));
    assert_int_equal(n, 0);
    assert_string_equal(text_of(corpus), "abcdefxyz");
    assert_string_equal(text_of(open_source(" t.bin\n s_0.bin", NULL)), "xyzabc");
}

static void test_read_wraps_around(void **state) {
    (void)state;
    letters_shard("a.bin", "ab");
    letters_shard("e.bin", "");
    letters_shard("z.bin", "cde");
    struct corpus *corpus = open_source("a.bin e.bin z.bin", NULL);
    for (uint64_t first = 0; first < 12; first++)
        for (uint64_t n = 0; n < 14; n++) {
            uint16_t tokens[15] = {0};
            corpus_read(corpus, first, n, tokens);
            for (uint64_t i = 0; i < n; i++) assert_int_equal(tokens[i], 'a' + (first + i) % 5);
            assert_int_equal(tokens[n], 0);
        }
    corpus_close(corpus);
}

static void test_text_documents(void **state) {
    (void)state;
    write_text("b.txt", "second");
    write_text("a.txt", "first\n");
    struct corpus_options options = options_for("text:*.txt", &with_begin);
    options.keep_text = true;
    struct corpus *corpus = open_with(&options);
    assert_int_equal(corpus_raw_bytes(corpus), 12);
    uint64_t n;
    const struct corpus_document *documents = corpus_documents(corpus, &n);
    assert_int_equal(n, 2);
    assert_int_equal(documents[0].first_token, 0);
    assert_int_equal(documents[1].first_token, 7);
    assert_int_equal(documents[1].raw_bytes, 6);
    uint8_t hash[32];
    sha256_bytes("second", 6, hash);
    assert_memory_equal(documents[1].hash, hash, 32);
    size_t bytes;
    assert_memory_equal(corpus_text(corpus, &bytes), "first\nsecond", 12);
    assert_int_equal(bytes, 12);
    assert_string_equal(text_of(corpus), "|first\n|second");
    corpus = open_source("text:*.txt", &plain);
    assert_null(corpus_text(corpus, &bytes));
    assert_string_equal(text_of(corpus), "first\nsecond");
}

static void test_jsonl(void **state) {
    (void)state;
    write_text("a.jsonl", "{\"text\": \"one\\n\", \"id\": 1}\r\n\n  \t\n"
                          "{\"id\": [1, {\"text\": 2}], \"text\": \"\\u00e9\\\"\\\\u0000\"} \n"
                          "{\"text\":\"\"}\n{\"text\":\"end\"}");
    assert_string_equal(text_of(open_source("jsonl:a.jsonl", &with_begin)),
                        "|one\n|\xc3\xa9\"\\u0000||end");
}

static void test_list(void **state) {
    (void)state;
    assert_int_equal(mkdir("d", 0777), 0);
    write_text("d/x y", "1");
    write_text("d/z", "2");
    write_text("d/list", "z\r\n\nx y\nz");
    assert_string_equal(text_of(open_source("list:d/list", &with_begin)), "|2|1|2");
    write_text("d/bad", "z\nnone");
    refuse("list:d/bad", &plain, FW_E_NOT_FOUND, "d/bad:2", "d/none");
}

static void test_base_and_mixed(void **state) {
    (void)state;
    assert_int_equal(mkdir("d", 0777), 0);
    write_text("d/t", "text");
    letters_shard("d/s.bin", "shard");
    struct corpus_options options = options_for("text:t s.bin", &plain);
    options.base = "d";
    struct corpus *corpus = open_with(&options);
    uint64_t n;
    assert_null(corpus_documents(corpus, &n)); /* the shard's are unknown */
    assert_int_equal(corpus_raw_bytes(corpus), 0);
    assert_string_equal(text_of(corpus), "shardtext"); /* shards first */
}

static void test_documents_of_shards(void **state) {
    (void)state;
    documented_shard("a_0.bin", 7);
    documented_shard("a_1.bin", 7);
    write_text("t", "xy");
    struct corpus *corpus = open_source("a_* text:t", &with_begin); /* a_* finds .documents too */
    uint64_t n;
    const struct corpus_document *documents = corpus_documents(corpus, &n);
    const uint64_t first[] = {0, 3, 5, 8, 10}, raw[] = {2, 1, 2, 1, 2};
    assert_int_equal(n, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(documents[i].first_token, first[i]);
        assert_int_equal(documents[i].raw_bytes, raw[i]);
    }
    assert_int_equal(corpus_raw_bytes(corpus), 8);
    assert_string_equal(text_of(corpus), "|ab|c|ab|c|xy");
}

/* ---- Choice and order ---- */

static void write_letters_jsonl(void) {
    char lines[1024] = "";
    for (char c = 'a'; c <= 'j'; c++) {
        const size_t used = strlen(lines);
        (void)snprintf(lines + used, sizeof lines - used, "{\"text\":\"%c\"}\n", c);
    }
    write_text("l.jsonl", lines);
}

static const char *letters_of(enum corpus_part part, uint32_t every, bool shuffle, uint64_t seed) {
    struct corpus_options options = options_for("jsonl:l.jsonl", &plain);
    options.part = part;
    options.every = every;
    options.shuffle = shuffle;
    options.seed = seed;
    return text_of(open_with(&options));
}

static void test_hold_out(void **state) {
    (void)state;
    write_letters_jsonl();
    assert_string_equal(letters_of(CORPUS_TRAINING_PART, 3, false, 0), "abdeghj");
    assert_string_equal(letters_of(CORPUS_HELD_OUT_PART, 3, false, 0), "cfi");
    assert_string_equal(letters_of(CORPUS_ALL, 3, false, 0), "abcdefghij");
    assert_string_equal(letters_of(CORPUS_TRAINING_PART, 0, false, 0), "abcdefghij");
    struct corpus_options options = options_for("jsonl:l.jsonl", &plain);
    options.part = CORPUS_HELD_OUT_PART;
    options.every = 11;
    refuse_with(&options, FW_E_CONFIG, "11-th of 10 documents", "validation");
    letters_shard("s.bin", "abc");
    options.source = "s.bin";
    refuse_with(&options, FW_E_CONFIG, "s.bin", "cannot be split");
    options.part = CORPUS_ALL;
    corpus_close(open_with(&options));
}

/* The held-out documents do not depend on the shuffle; the order only on the seed. */
static void test_shuffle(void **state) {
    (void)state;
    write_letters_jsonl();
    char first[16], held_out[16];
    (void)snprintf(first, sizeof first, "%s", letters_of(CORPUS_ALL, 0, true, 1));
    assert_string_equal(first, "ecibjdaghf"); /* by an independent program */
    assert_string_equal(letters_of(CORPUS_ALL, 0, true, 1), first);
    assert_string_not_equal(letters_of(CORPUS_ALL, 0, true, 2), first);
    for (const char *c = "abcdefghij"; *c != '\0'; c++) assert_non_null(strchr(first, *c));
    (void)snprintf(held_out, sizeof held_out, "%s", letters_of(CORPUS_HELD_OUT_PART, 3, true, 5));
    assert_int_equal(strlen(held_out), 3);
    for (const char *c = "cfi"; *c != '\0'; c++) assert_non_null(strchr(held_out, *c));
}

/* Every order of three documents comes up about equally often: 6 x 1000, sd 29. */
static void test_shuffle_is_uniform(void **state) {
    (void)state;
    write_text("a", "a");
    write_text("b", "b");
    write_text("c", "c");
    static const char *const orders[] = {"abc", "acb", "bac", "bca", "cab", "cba"};
    int counts[6] = {0};
    struct corpus_options options = options_for("text:[abc]", &plain);
    options.shuffle = true;
    for (options.seed = 0; options.seed < 6000; options.seed++) {
        const char *text = text_of(open_with(&options));
        for (int i = 0; i < 6; i++) counts[i] += strcmp(text, orders[i]) == 0;
    }
    for (int i = 0; i < 6; i++) assert_in_range(counts[i], 1000 - 150, 1000 + 150);
}

/* ---- Limits ---- */

struct cut {
    uint64_t tokens, documents, raw_bytes, last_raw_bytes;
};

static void check_cut(const char *source, struct cut expected) {
    struct corpus_options options = options_for(source, &with_begin);
    options.max_tokens = expected.tokens;
    struct corpus *corpus = open_with(&options);
    uint64_t n;
    const struct corpus_document *documents = corpus_documents(corpus, &n);
    assert_int_equal(corpus_tokens(corpus), expected.tokens);
    assert_int_equal(n, expected.documents);
    assert_int_equal(corpus_raw_bytes(corpus), expected.raw_bytes);
    assert_int_equal(documents[n - 1].raw_bytes, expected.last_raw_bytes);
    const uint64_t length = expected.tokens;
    assert_int_equal(strncmp(text_of(corpus), "|ab|c|ab|c", length), 0);
}

static void test_max_tokens(void **state) {
    (void)state;
    documented_shard("a_0.bin", 7);
    documented_shard("a_1.bin", 7);
    write_text("t1", "ab");
    write_text("t2", "c");
    write_text("t3", "ab");
    write_text("t4", "c");
    const struct cut cuts[] = {{1, 1, 0, 0}, {2, 1, 0, 0}, {3, 1, 2, 2}, {4, 2, 0, 0}, {5, 2, 3, 1},
                               {6, 3, 0, 0}, {8, 3, 5, 2}, {9, 4, 0, 0}, {10, 4, 6, 1}};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        check_cut("a_*.bin", cuts[i]);
        check_cut("text:t*", cuts[i]);
        check_cut("a_0.bin text:t1,text:t2", cuts[i]);
    }
}

static void test_vocabulary(void **state) {
    (void)state;
    const uint16_t tokens[] = {5, 256, 300};
    write_shard("a.bin", SHARD_MAGIC, 1, 3, tokens, 3);
    corpus_close(open_source("a.bin", NULL));
    struct corpus_options options = options_for("a.bin", NULL);
    options.vocabulary = 300;
    refuse_with(&options, FW_E_RANGE, "a.bin: token 300 at position 2", "vocabulary of 300");
    options.vocabulary = 301;
    corpus_close(open_with(&options));
    refuse("a.bin", &with_begin, FW_E_RANGE, "token 300", "257"); /* the tokenizer's */
    options = options_for("a.bin", &with_begin);
    options.max_tokens = 2; /* the bad one is not used */
    corpus_close(open_with(&options));
    write_text("t", "abc");
    options = options_for("text:t", &plain);
    options.vocabulary = 99;
    refuse_with(&options, FW_E_RANGE, "token 99 at position 2", "vocabulary of 99");
}

/* ---- Real shards ---- */

static void test_real_shard(void **state) {
    (void)state;
    const char *shared = getenv("FAIRWAY_SHARED");
    char command[4096];
    (void)snprintf(command, sizeof command, "xz -dc '%s/data/books_val.bin.xz' 2>&1 >val.bin",
                   shared != NULL ? shared : SHARED_DIRECTORY);
    FILE *pipe = popen(command, "r");
    const bool missing = pipe == NULL || fgetc(pipe) != EOF;
    if (pipe == NULL || pclose(pipe) != 0 || missing) skip();
    struct corpus_options options = options_for("val.bin", NULL);
    options.vocabulary = 1024;
    struct corpus *corpus = open_with(&options);
    assert_int_equal(corpus_tokens(corpus), 3401390);
    uint16_t *tokens = malloc(3401390 * sizeof *tokens);
    corpus_read(corpus, 0, 3401390, tokens);
    size_t documents = 0;
    for (size_t i = 0; i < 3401390; i++) documents += tokens[i] == 1;
    assert_int_equal(tokens[0], 1);
    assert_int_equal(documents, 2345);
    free(tokens);
    corpus_close(corpus);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_shards),
        TEST(test_read_wraps_around),
        TEST(test_text_documents),
        TEST(test_jsonl),
        TEST(test_list),
        TEST(test_base_and_mixed),
        TEST(test_documents_of_shards),
        TEST(test_hold_out),
        TEST(test_shuffle),
        TEST(test_shuffle_is_uniform),
        TEST(test_max_tokens),
        TEST(test_vocabulary),
        TEST(test_real_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
