/* The tokens that a model reads before it goes on with a text: never none. */
#include <token_table.h>
#include <tokenize.h>

#include "byte_tokenizer.h"
#include "support.h"

static fw_error error = {.struct_size = sizeof error};

/* Leaves out spaces, as tokenizers may at either end of a text. */
static fw_status encode_without_spaces(void *self, const char *text, size_t bytes, uint16_t *tokens,
                                       size_t *n, fw_error *why) {
    (void)self, (void)why;
    *n = 0;
    for (size_t i = 0; i < bytes; i++)
        if (text[i] != ' ') tokens[(*n)++] = (uint8_t)text[i];
    return FW_OK;
}

static void newline_begins(void *self, uint32_t token, fw_token_info *info) {
    byte_tokenizer.token(self, token, info);
    info->boundary = token == '\n';
}

static void check_prompt(fw_tokenizer tokenizer, bool begin, const char *text,
                         const uint16_t *expected, size_t n) {
    struct byte_tokenizer self = {.begin = begin};
    struct token_table *table = NULL;
    struct token_buffer buffer = {.tokens = NULL};
    tokenizer.encode = encode_without_spaces;
    assert_int_equal(token_table_from_tokenizer(&tokenizer, &self, &table, &error), FW_OK);
    assert_int_equal(tokenize_prompt(&tokenizer, &self, table, text, strlen(text), &buffer, &error),
                     FW_OK);
    assert_int_equal(buffer.n, n);
    assert_memory_equal(buffer.tokens, expected, n * sizeof *expected);
    free(buffer.tokens);
    token_table_destroy(table);
}

static void test_prompts(void **state) {
    (void)state;
    static const char *const empty[] = {"", " ", "   "};
    fw_tokenizer with_boundary = byte_tokenizer;
    with_boundary.token = newline_begins;
    check_prompt(byte_tokenizer, true, "a b", (uint16_t[]){256, 'a', 'b'}, 3);
    check_prompt(byte_tokenizer, false, "a b", (uint16_t[]){'a', 'b'}, 2);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        check_prompt(byte_tokenizer, true, empty[i], (uint16_t[]){256}, 1);
        check_prompt(byte_tokenizer, false, empty[i], (uint16_t[]){0}, 1);
        check_prompt(with_boundary, false, empty[i], (uint16_t[]){'\n'}, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
