/* Tokenizer bytes, exactly: every byte is the token of its value, counts one byte, comes back. */
#include "support.h"

static const fw_tokenizer *tokenizer;

static void *instance_new(const char *setting) {
    const fw_plugin *plugin = test_plugin(FW_TOKENIZER, "bytes");
    const char *const overrides[] = {setting, NULL};
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    tokenizer = plugin->vtable;
    fw_value *values = test_values(plugin, overrides);
    assert_int_equal(tokenizer->create(test_host(NULL), values, &self, &error), FW_OK);
    free(values);
    return self;
}

static void check_bytes(void *self) {
    char text[512], back[512];
    uint16_t tokens[512];
    size_t n = 512, bytes = sizeof back;
    for (int i = 0; i < 512; i++) text[i] = (char)(i * 7);
    assert_int_equal(tokenizer->bound(self, 512), 512);
    assert_int_equal(tokenizer->encode(self, text, sizeof text, tokens, &n, NULL), FW_OK);
    assert_int_equal(n, 512);
    for (int i = 0; i < 512; i++) assert_int_equal(tokens[i], (uint8_t)text[i]);
    assert_int_equal(tokenizer->decode(self, tokens, n, back, &bytes, NULL), FW_OK);
    assert_int_equal(bytes, 512);
    assert_memory_equal(back, text, 512);
    for (uint32_t i = 0; i < 256; i++) {
        fw_token_info info = {.struct_size = sizeof info, .leading_space = 9, .boundary = 9};
        tokenizer->token(self, i, &info);
        assert_true(info.base_bytes == 1 && info.leading_space == 0 && info.boundary == 0);
    }
}

static void test_with_begin(void **state) {
    (void)state;
    void *self = instance_new("begin=yes");
    assert_int_equal(tokenizer->vocabulary(self), 257);
    assert_int_equal(tokenizer->begin_token(self), 256);
    check_bytes(self);
    fw_token_info info = {.struct_size = sizeof info};
    tokenizer->token(self, 256, &info);
    assert_true(info.base_bytes == 0 && info.leading_space == 0 && info.boundary == 1);

    const uint16_t tokens[] = {256, 'a', 256, 'b'}; /* begin tokens have no text */
    char text[4];
    size_t bytes = sizeof text;
    assert_int_equal(tokenizer->decode(self, tokens, 4, text, &bytes, NULL), FW_OK);
    assert_int_equal(bytes, 2);
    assert_memory_equal(text, "ab", 2);
    tokenizer->destroy(self);
}

static void test_without_begin(void **state) {
    (void)state;
    void *self = instance_new("begin=no"), *other = instance_new("begin=yes");
    assert_int_equal(tokenizer->vocabulary(self), 256);
    assert_int_equal(tokenizer->begin_token(self), -1);
    check_bytes(self);
    uint8_t a[32], b[32];
    tokenizer->fingerprint(self, a);
    tokenizer->fingerprint(other, b);
    assert_memory_not_equal(a, b, sizeof a);
    tokenizer->destroy(self);
    tokenizer->destroy(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_begin),
        cmocka_unit_test(test_without_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
