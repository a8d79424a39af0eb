/* core/corpus: every bad source and file is refused, with its name and the reason. */
#include <shard.h>
#include <stdio.h>
#include <token_table.h>

#include "corpus_fixture.h"

static void test_bad_sources(void **state) {
    (void)state;
    write_text("t", "text");
    refuse("", &plain, FW_E_CONFIG, "no source", "text:");
    refuse(" ,\n ", &plain, FW_E_CONFIG, "no source", "text:");
    refuse("txt:t", &plain, FW_E_CONFIG, "txt:t", "text:FILES");
    refuse("text:", &plain, FW_E_CONFIG, "text:", "names no file");
    refuse("text:t", NULL, FW_E_CONFIG, "\"text:t\" needs a tokenizer", "[tokenizer]");
    refuse("none.bin", NULL, FW_E_NOT_FOUND, "none.bin", "no file");
    refuse("none*.bin", NULL, FW_E_NOT_FOUND, "none*.bin", "matches");
    refuse("jsonl:none", &plain, FW_E_NOT_FOUND, "none", "no file");
    refuse("list:none", &plain, FW_E_NOT_FOUND, "none", "no file");
    refuse("t", NULL, FW_E_FORMAT, "t is not a token shard", "4 bytes");
    refuse("text:.", &plain, FW_E_IO, "directory", "./*");
    refuse("jsonl:.", &plain, FW_E_IO, ".", "directory");
    refuse(".", &plain, FW_E_IO, ".", "directory");
}

static void test_bad_lists(void **state) {
    (void)state;
    write_text("t", "text");
    write_bytes("nul", "t\nt\0none\n", 9);
    refuse("list:nul", &plain, FW_E_FORMAT, "nul:2: ", "NUL");
    write_bytes("nul_line", "t\n\0\nt\n", 6);
    refuse("list:nul_line", &plain, FW_E_FORMAT, "nul_line:2: ", "NUL");
    write_bytes("nul_end", "t\0", 2);
    refuse("list:nul_end", &plain, FW_E_FORMAT, "nul_end:1: ", "NUL");
    write_text("return", "t\r\nt\rt\n"); /* only one that ends the line belongs to it */
    refuse("list:return", &plain, FW_E_NOT_FOUND, "return:2: ", "t\rt");
    write_text("directory", "t\n/\n");
    refuse("list:directory", &plain, FW_E_IO, "directory", "/*");
}

static void test_where_opens_the_message(void **state) {
    (void)state;
    struct corpus_options options = options_for("none.bin", NULL);
    options.where = "x.ini:12: data.train";
    refuse_with(&options, FW_E_NOT_FOUND, "x.ini:12: data.train: there is no file none.bin",
                "none.bin");
}

static void test_empty(void **state) {
    (void)state;
    letters_shard("e.bin", "");
    refuse("e.bin", NULL, FW_E_FORMAT, "e.bin", "no tokens");
    write_text("e.jsonl", "\n \n");
    refuse("jsonl:e.jsonl", &with_begin, FW_E_FORMAT, "e.jsonl", "no tokens");
    write_text("e.txt", "");
    refuse("text:e.txt", &plain, FW_E_FORMAT, "e.txt", "no tokens");
    assert_string_equal(text_of(open_source("text:e.txt", &with_begin)), "|");
}

static void refuse_line(const char *line, const char *why) {
    char text[256];
    (void)snprintf(text, sizeof text, "{\"text\":\"fine\"}\n\n%s\n{\"text\":\"fine\"}\n", line);
    write_text("bad.jsonl", text);
    refuse("jsonl:bad.jsonl", &plain, FW_E_FORMAT, "bad.jsonl:3: ", why);
}

static void test_bad_json(void **state) {
    (void)state;
    refuse_line("{\"text\": \"no end}", "not one JSON object");
    refuse_line("{\"text\": \"a\"} {\"text\": \"b\"}", "not one JSON object");
    refuse_line("plain text", "not one JSON object");
    refuse_line("[\"text\"]", "not an object");
    refuse_line("\"text\"", "not an object");
    refuse_line("{\"Text\": \"a\"}", "no \"text\"");
    refuse_line("{\"text\": 5}", "not a string");
    refuse_line("{\"text\": null}", "not a string");
    refuse_line("{\"text\": \"\\ud800\"}", "not one JSON object");
    refuse_line("{\"text\": \"a\\u0000b\"}", "NUL");
    refuse_line("{\"text\": \"a\\\\\\u0000b\"}", "NUL");
    write_bytes("nul.jsonl", "{\"text\":\"a\0b\"}", 14);
    refuse("jsonl:nul.jsonl", &plain, FW_E_FORMAT, "nul.jsonl:1: ", "NUL");
}

static void test_bad_shards(void **state) {
    (void)state;
    const uint16_t tokens[4] = {1, 2, 3, 4};
    letters_shard("a.bin", "good");
    write_shard("cut.bin", SHARD_MAGIC, 1, 5, tokens, 4);
    refuse("a.bin cut.bin", NULL, FW_E_FORMAT, "cut.bin is truncated", "5 tokens = 1034 bytes");
    write_shard("v.bin", SHARD_MAGIC, 7, 4, tokens, 4);
    refuse("v.bin", NULL, FW_E_FORMAT, "v.bin", "version 7");
    write_shard("m.bin", 1, 1, 4, tokens, 4);
    refuse("m.bin", NULL, FW_E_FORMAT, "m.bin", "1 instead of 20240520");
}

/* A table that scores must count no more bytes than the text had of which shards are left. */
static void test_miscounted_bytes(void **state) {
    (void)state;
    static fw_token_info tokens[257];
    const struct token_table table = {.vocabulary = 257, .begin_token = 256, .tokens = tokens};
    struct corpus_options options = options_for("a.bin", NULL);
    options.vocabulary = 257;
    options.table = &table;
    documented_shard("a.bin", 7); /* 3 bytes of text */
    for (int i = 0; i < 256; i++) tokens[i].base_bytes = 1;
    tokens[256].boundary = 1;
    corpus_close(open_with(&options));
    for (int i = 0; i < 256; i++) tokens[i].base_bytes = 100;
    refuse_with(&options, FW_E_PROTOCOL, "counts 300 bytes where the text has 3", "factor of 100");
    options.max_tokens = 2; /* a cut document: nobody knows how many bytes are left of it */
    corpus_close(open_with(&options));
    options.max_tokens = 0;
    options.table = NULL;
    corpus_close(open_with(&options));
}

static void test_bad_documents(void **state) {
    (void)state;
    documented_shard("a.bin", 7);
    corpus_close(open_source("a.bin", &with_begin));
    corpus_close(open_source("a.bin", NULL));
    documented_shard("other.bin", 9);
    refuse("other.bin", &with_begin, FW_E_CONFIG, "other.bin", "another tokenizer");
    size_t size;
    char *data = read_bytes("a.bin.documents", &size);
    data[60] = 1;
    write_bytes("a.bin.documents", data, size);
    free(data);
    refuse("a.bin", &with_begin, FW_E_CHECKSUM, "a.bin.documents", "damaged");
    write_text("a.bin.documents", "not that");
    refuse("a.bin", &with_begin, FW_E_FORMAT, "a.bin.documents", "documents file");
}

static void test_tokenizer_out_of_bounds(void **state) {
    (void)state;
    struct byte_tokenizer stray = {.stray = 999};
    write_text("t", "abXc");
    refuse("text:t", &stray, FW_E_RANGE, "token 999", "tokenizer");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_bad_sources),
        TEST(test_bad_lists),
        TEST(test_where_opens_the_message),
        TEST(test_empty),
        TEST(test_bad_json),
        TEST(test_bad_shards),
        TEST(test_miscounted_bytes),
        TEST(test_bad_documents),
        TEST(test_tokenizer_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
