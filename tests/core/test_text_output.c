/* Text of tokens as they come: with a tokenizer of the test's own, whose tokens 0 to 255 are bytes
 * and whose others are words, each with a space before it but at the beginning; a byte that is no
 * whole character is shown as a mark, as SentencePiece does. */
#include "support.h"

#include <stdio.h>

#include "text_output.h"

static bool marks; /* incomplete characters as U+FFFD; else as their bytes */
static fw_error error = {.struct_size = sizeof error};

/* Bytes of the character that begins at tokens[i], 0 when it is not whole. */
static size_t whole(const uint16_t *tokens, size_t n, size_t i) {
    const uint16_t lead = tokens[i];
    const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (lead >= 0x80 && lead < 0xC0) return 0;
    for (size_t j = 1; j < length; j++)
        if (i + j >= n || tokens[i + j] < 0x80 || tokens[i + j] >= 0xC0) return 0;
    return length;
}

static fw_status decode(void *self, const uint16_t *tokens, size_t n, char *text, size_t *bytes,
                        fw_error *why) {
    (void)self;
    char out[8192];
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] >= 256) {
            length += (size_t)sprintf(out + length, "%sw%u", i > 0 ? " " : "", tokens[i]);
            continue;
        }
        const size_t character = whole(tokens, n, i);
        if (marks && character == 0) length += (size_t)sprintf(out + length, "\xEF\xBF\xBD");
        for (size_t j = 0; j < character; j++) out[length++] = (char)tokens[i + j];
        if (!marks && character == 0) out[length++] = (char)tokens[i];
        if (character > 0) i += character - 1;
    }
    const size_t capacity = *bytes;
    *bytes = length;
    if (length > capacity) return fw_fail(why, FW_E_BUFFER, "does not fit");
    if (length > 0) memcpy(text, out, length);
    return FW_OK;
}

static const fw_tokenizer tokenizer = {.struct_size = sizeof tokenizer, .decode = decode};

static char written[8192];

static struct text_output *open_output(FILE **file) {
    struct text_output *output = NULL;
    memset(written, 0, sizeof written);
    *file = fmemopen(written, sizeof written, "w");
    assert_non_null(*file);
    assert_int_equal(text_output_create(&tokenizer, NULL, *file, &output, &error), FW_OK);
    return output;
}

static void give(struct text_output *output, uint16_t token, const char *text) {
    assert_int_equal(text_output_token(output, token, &error), FW_OK);
    assert_string_equal(written, text);
}

static void close_output(struct text_output *output, FILE *file, const char *text) {
    assert_int_equal(text_output_end(output, &error), FW_OK);
    assert_string_equal(written, text);
    text_output_destroy(output);
    (void)fclose(file);
}

static void test_words(void **state) {
    (void)state;
    FILE *file;
    struct text_output *output = open_output(&file);
    give(output, 300, "w300");
    give(output, 'x', "w300x");
    give(output, 301, "w300x w301");
    close_output(output, file, "w300x w301");
}

/* The prompt's text is there, but the space before the next word depends on it. */
static void test_behind_a_prompt(void **state) {
    (void)state;
    FILE *file;
    uint16_t prompt[400];
    for (size_t i = 0; i < 400; i++) prompt[i] = (uint16_t)(256 + i);
    for (size_t n = 0; n <= 400; n += n < 3 ? 1 : 397) {
        struct text_output *output = open_output(&file);
        assert_int_equal(text_output_skip(output, prompt, n, &error), FW_OK);
        assert_string_equal(written, "");
        give(output, 700, n > 0 ? " w700" : "w700");
        close_output(output, file, n > 0 ? " w700" : "w700");
    }
}

/* A character of several bytes appears when its last byte is there; what never becomes one, at the
 * end. */
static void test_characters(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        FILE *file;
        marks = i == 1;
        struct text_output *output = open_output(&file);
        give(output, 'a', "a");
        give(output, 0xC3, "a");
        give(output, 0xA9, "a\xC3\xA9");
        give(output, 0xF0, "a\xC3\xA9");
        give(output, 0x9F, "a\xC3\xA9");
        give(output, 0x99, "a\xC3\xA9");
        give(output, 0x82, "a\xC3\xA9\xF0\x9F\x99\x82");
        give(output, 'b',
             "a\xC3\xA9\xF0\x9F\x99\x82"
             "b");
        give(output, 0xE2,
             "a\xC3\xA9\xF0\x9F\x99\x82"
             "b");
        close_output(output, file,
                     marks ? "a\xC3\xA9\xF0\x9F\x99\x82"
                             "b\xEF\xBF\xBD"
                           : "a\xC3\xA9\xF0\x9F\x99\x82"
                             "b\xE2");
    }
    marks = false;
}

/* Far more tokens than are decoded together, words and characters of two bytes. */
static void test_a_long_text(void **state) {
    (void)state;
    FILE *file;
    struct text_output *output = open_output(&file);
    char expected[8192];
    size_t length = 0;
    for (unsigned i = 0; i < 900; i++) {
        if (i % 3 == 0) {
            length += (size_t)sprintf(expected + length, "%sw%u", i > 0 ? " " : "", 300 + i);
            give(output, (uint16_t)(300 + i), expected);
        } else {
            if (i % 3 == 2) length += (size_t)sprintf(expected + length, "\xC3\xA9");
            give(output, i % 3 == 1 ? 0xC3 : 0xA9, expected);
        }
    }
    close_output(output, file, expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_behind_a_prompt),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_a_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
