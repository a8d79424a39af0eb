/* core/corpus_overlap: training data that hold validation data are noticed; core/corpus_source:
 * what an item is. */
#include <shard.h>
#include <stdio.h>

#include "corpus_fixture.h"

/* What the two share, "" when nothing. Closes both. */
static const char *shared(struct corpus *a, struct corpus *b) {
    static char what[512];
    (void)snprintf(what, sizeof what, "untouched");
    if (!corpus_overlap(a, b, what, sizeof what)) {
        assert_string_equal(what, "untouched");
        what[0] = '\0';
    }
    corpus_close(a);
    corpus_close(b);
    return what;
}

static const char *shared_sources(const char *a, const char *b) {
    return shared(open_source(a, &with_begin), open_source(b, &with_begin));
}

static void test_shards(void **state) {
    (void)state;
    letters_shard("a.bin", "abcdef");
    letters_shard("b.bin", "abcdeg"); /* as long, another end */
    letters_shard("c.bin", "abcdef");
    letters_shard("d.bin", "abc");
    letters_shard("e.bin", "");
    assert_string_equal(shared_sources("d.bin a.bin", "b.bin"), "");
    assert_string_equal(shared_sources("d.bin e.bin", "b.bin e.bin"), ""); /* empty: no harm */
    assert_string_equal(shared_sources("d.bin a.bin", "b.bin a.bin"), "the shard a.bin");
    const char *copy = shared_sources("d.bin a.bin", "c.bin");
    assert_non_null(strstr(copy, "a.bin"));
    assert_non_null(strstr(copy, "c.bin"));
    struct corpus_options cut = options_for("a.bin", NULL);
    cut.max_tokens = 2;
    assert_string_equal(shared(open_source("a.bin", NULL), open_with(&cut)), "the shard a.bin");
}

static void test_documents(void **state) {
    (void)state;
    write_text("train1", "one");
    write_text("train2", "two");
    write_text("train3", "three");
    write_text("other", "four");
    write_text("copy", "two");
    assert_string_equal(shared_sources("text:train?", "text:other"), "");
    const char *what = shared_sources("text:train?", "text:other text:copy");
    assert_non_null(strstr(what, "1 of 2 documents"));
    assert_non_null(strstr(what, "3fc4ccfe745870e2")); /* sha256sum of "two" */
    assert_non_null(strstr(shared_sources("text:train?", "text:train?"), "3 of 3 documents"));
    assert_non_null(strstr(shared_sources("text:copy", "text:train? text:copy"), "2 of 4"));
}

static void test_documents_that_are_empty(void **state) {
    (void)state;
    write_text("a", "");
    write_text("b", "b");
    write_text("c", "c");
    assert_string_equal(shared_sources("text:a text:b", "text:a text:c"), "");
}

/* A validation set that max_tokens cuts short within a document still knows which it is. */
static void test_document_cut_short(void **state) {
    (void)state;
    write_text("a", "a long document");
    struct corpus_options cut = options_for("text:a", &with_begin);
    cut.max_tokens = 4;
    assert_non_null(
        strstr(shared(open_source("text:a", &with_begin), open_with(&cut)), "1 of 1 documents"));
}

/* Shards split otherwise, text against shards. */
static void test_documents_of_shards(void **state) {
    (void)state;
    documented_shard("a.bin", 7);
    write_text("ab", "ab");
    write_text("xy", "xy");
    assert_non_null(strstr(shared_sources("a.bin", "text:ab text:xy"), "1 of 2 documents"));
    assert_string_equal(shared_sources("a.bin", "text:xy"), "");
    letters_shard("unknown.bin", "ab"); /* one side's documents are unknown: only shards count */
    assert_string_equal(shared_sources("unknown.bin text:ab", "text:ab"), "");
}

static void test_hold_out_is_apart(void **state) {
    (void)state;
    write_text("l.jsonl",
               "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n{\"text\":\"d\"}\n");
    struct corpus_options training = options_for("jsonl:l.jsonl", &plain);
    training.every = 2;
    training.part = CORPUS_TRAINING_PART;
    struct corpus_options held_out = training;
    held_out.part = CORPUS_HELD_OUT_PART;
    assert_string_equal(shared(open_with(&training), open_with(&held_out)), "");
}

static void check_kind(const char *item, enum source_kind expected, const char *rest) {
    const char *pattern;
    assert_int_equal(corpus_source_kind(item, &pattern), expected);
    assert_string_equal(pattern, rest);
    assert_int_equal(corpus_source_kind(item, NULL), expected);
}

static void test_source_kind(void **state) {
    (void)state;
    check_kind("text:a b", SOURCE_TEXT, "a b");
    check_kind("jsonl:x:y", SOURCE_JSONL, "x:y");
    check_kind("list:", SOURCE_LIST, "");
    check_kind("a_*.bin", SOURCE_SHARDS, "a_*.bin");
    check_kind("./text:a", SOURCE_SHARDS, "./text:a");
    check_kind("Text:a", SOURCE_SHARDS, "Text:a");
    check_kind(":a", SOURCE_SHARDS, ":a");
    check_kind("", SOURCE_SHARDS, "");
    check_kind("tex:a", SOURCE_UNKNOWN, "a");
    check_kind("texts:a", SOURCE_UNKNOWN, "a");
    assert_true(corpus_source_has_text("a.bin, list:x"));
    assert_true(corpus_source_has_text("\n jsonl:x"));
    assert_false(corpus_source_has_text(" a.bin /context:text:x "));
    assert_false(corpus_source_has_text(""));
    assert_false(corpus_source_has_text("  "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_shards),
        TEST(test_documents),
        TEST(test_documents_that_are_empty),
        TEST(test_document_cut_short),
        TEST(test_documents_of_shards),
        TEST(test_hold_out_is_apart),
        TEST(test_source_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
