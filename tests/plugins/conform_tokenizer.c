/* Conformance of tokenizers: tokens and back, the byte table against the text, bounds and errors.
 * A plugin that requires the parameter `model` is given a tiny SentencePiece model. */
#include "conform.h"
#ifdef TINY_MODEL
#include "tiny_model.h"
#endif

static conform c;
static const fw_tokenizer *tokenizer;

enum { GUARD = 32, GUARD_TOKEN = 0x5a5a, GUARD_BYTE = 0x5a };

static const char *const texts[] = {
    "The cook thought about that, and then he thought about the other thing instead.",
    "a",
    "Two lines\nand a\ttab; numbers 0123456789, punctuation !?#$%&*()[]{}<>|\\/~^`\"'.",
    "na\xc3\xafve caf\xc3\xa9, \xe2\x82\xac 20 \xe2\x80\x94 \xce\xb1\xce\xb2\xce\xb3 "
    "\xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x8c\x8a.",
    "word word word word word word word word word word word word word word word word word",
    "",
};
enum { N_TEXTS = sizeof texts / sizeof texts[0] };

static void *instance_new(void) {
    void *self = NULL;
    fw_error error = {.struct_size = sizeof error};
    conform_ok(tokenizer->create(c.host, c.values, &self, &error), &error);
    return self;
}

typedef struct sequence {
    uint16_t *tokens;
    size_t n;
} sequence;

/* Tokens in a buffer of the bound with a guard behind it; the caller frees. */
static sequence encode(void *self, const char *text, size_t bytes) {
    const size_t bound = tokenizer->bound(self, bytes);
    fw_error error = {.struct_size = sizeof error};
    sequence s = {malloc((bound + GUARD) * sizeof *s.tokens), bound};
    assert_non_null(s.tokens);
    for (size_t i = 0; i < bound + GUARD; i++) s.tokens[i] = GUARD_TOKEN;
    conform_ok(tokenizer->encode(self, text, bytes, s.tokens, &s.n, &error), &error);
    assert_true(s.n <= bound);
    for (size_t i = s.n; i < bound + GUARD; i++) assert_int_equal(s.tokens[i], GUARD_TOKEN);
    for (size_t i = 0; i < s.n; i++) assert_true(s.tokens[i] < tokenizer->vocabulary(self));
    return s;
}

/* Text of the tokens, after asking for its size; the caller frees. */
static char *decode(void *self, const sequence *s, size_t *bytes) {
    fw_error error = {.struct_size = sizeof error};
    size_t needed = 0;
    const fw_status status = tokenizer->decode(self, s->tokens, s->n, NULL, &needed, &error);
    assert_int_equal(status, needed > 0 ? FW_E_BUFFER : FW_OK);
    char *text = malloc(needed + GUARD);
    assert_non_null(text);
    memset(text, GUARD_BYTE, needed + GUARD);
    *bytes = needed;
    conform_ok(tokenizer->decode(self, s->tokens, s->n, text, bytes, &error), &error);
    assert_int_equal(*bytes, needed);
    for (size_t i = 0; i < GUARD; i++) assert_int_equal(text[needed + i], GUARD_BYTE);
    return text;
}

static fw_token_info info_of(void *self, uint32_t token) {
    fw_token_info info = {.struct_size = sizeof info, .base_bytes = 0xffff};
    tokenizer->token(self, token, &info);
    return info;
}

/* Bytes by the rule of tokenizer.h; what stands before the first token is a boundary. */
static size_t counted_bytes(void *self, const sequence *s) {
    size_t bytes = 0;
    int boundary = 1;
    for (size_t i = 0; i < s->n; i++) {
        const fw_token_info info = info_of(self, s->tokens[i]);
        bytes += info.base_bytes + (size_t)(info.leading_space && !boundary);
        boundary = info.boundary;
    }
    return bytes;
}

static void test_descriptor(void **state) {
    (void)state;
    conform_check_descriptor(&c);
    assert_true(tokenizer->struct_size >= sizeof *tokenizer);
}

static void test_table(void **state) {
    (void)state;
    void *self = instance_new();
    const uint32_t vocabulary = tokenizer->vocabulary(self);
    const int64_t begin = tokenizer->begin_token(self);
    assert_in_range(vocabulary, 1, 65536);
    for (uint32_t i = 0; i < vocabulary; i++) {
        const fw_token_info info = info_of(self, i);
        assert_true(info.base_bytes < 1024 && info.leading_space <= 1 && info.boundary <= 1);
        /* boundaries have no text, and whatever has text is none */
        if (info.boundary)
            assert_true(info.base_bytes == 0 && !info.leading_space);
        else
            assert_true(info.base_bytes > 0 || info.leading_space);
    }
    assert_true(begin >= -1 && begin < (int64_t)vocabulary);
    if (begin >= 0) assert_true(info_of(self, (uint32_t)begin).boundary);
    tokenizer->destroy(self);
}

/* Counted bytes are the bytes of the text that the tokens spell, and that text has these tokens. */
static void check_text(void *self, const char *text, size_t bytes) {
    sequence s = encode(self, text, bytes);
    size_t spelled = 0, again = 0;
    char *back = decode(self, &s, &spelled);
    assert_int_equal(counted_bytes(self, &s), spelled);
    sequence twice = encode(self, back, spelled);
    assert_int_equal(twice.n, s.n);
    if (s.n > 0) assert_memory_equal(twice.tokens, s.tokens, s.n * sizeof *s.tokens);
    char *back_again = decode(self, &twice, &again);
    assert_int_equal(again, spelled);
    if (spelled > 0) assert_memory_equal(back_again, back, spelled);
    free(s.tokens);
    free(twice.tokens);
    free(back);
    free(back_again);
}

static void test_texts(void **state) {
    (void)state;
    void *self = instance_new();
    for (int i = 0; i < N_TEXTS; i++) check_text(self, texts[i], strlen(texts[i]));
    tokenizer->destroy(self);
}

/* Plain words survive unchanged, whatever a tokenizer normalises. */
static void test_plain_text(void **state) {
    (void)state;
    void *self = instance_new();
    const size_t bytes = strlen(texts[0]);
    size_t spelled = 0;
    sequence s = encode(self, texts[0], bytes);
    char *back = decode(self, &s, &spelled);
    assert_int_equal(spelled, bytes);
    assert_memory_equal(back, texts[0], bytes);
    free(s.tokens);
    free(back);
    tokenizer->destroy(self);
}

/* Random code points, so that every length of UTF-8 occurs. */
static size_t put_utf8(char *to, uint32_t point) {
    if (point < 0x80) return to[0] = (char)point, 1;
    const int extra = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = (char)(lead[extra] | point >> 6 * extra);
    for (int i = 1; i <= extra; i++) to[i] = (char)(0x80 | (point >> 6 * (extra - i) & 0x3f));
    return (size_t)extra + 1;
}

static uint32_t random_point(test_random *random) {
    static const uint32_t below[] = {0x7f, 0x800, 0xd800, 0x110000};
    static const uint32_t from[] = {0x20, 0x80, 0x800, 0x10000};
    const uint64_t k = test_below(random, 4);
    return from[k] + (uint32_t)test_below(random, below[k] - from[k]);
}

static void test_random_utf8(void **state) {
    (void)state;
    void *self = instance_new();
    test_random random = {31};
    for (int trial = 0; trial < 300; trial++) {
        char text[512];
        size_t bytes = 0;
        const size_t points = test_below(&random, 100);
        for (size_t i = 0; i < points; i++) bytes += put_utf8(text + bytes, random_point(&random));
        sequence s = encode(self, text, bytes);
        size_t spelled = 0;
        char *back = decode(self, &s, &spelled);
        assert_int_equal(counted_bytes(self, &s), spelled);
        free(s.tokens);
        free(back);
    }
    tokenizer->destroy(self);
}

/* Any bytes encode within the bound, and the result decodes. */
static void test_random_bytes(void **state) {
    (void)state;
    void *self = instance_new();
    test_random random = {32};
    for (int trial = 0; trial < 300; trial++) {
        char text[400];
        size_t spelled = 0;
        const size_t bytes = test_below(&random, sizeof text);
        for (size_t i = 0; i < bytes; i++) text[i] = (char)test_below(&random, 256);
        sequence s = encode(self, text, bytes);
        free(decode(self, &s, &spelled));
        free(s.tokens);
    }
    tokenizer->destroy(self);
}

/* Each token by itself can be decoded, in any company. */
static void test_random_tokens(void **state) {
    (void)state;
    void *self = instance_new();
    const uint32_t vocabulary = tokenizer->vocabulary(self);
    test_random random = {33};
    size_t spelled = 0;
    for (uint32_t i = 0; i < vocabulary; i++) {
        uint16_t one = (uint16_t)i;
        const sequence s = {&one, 1};
        free(decode(self, &s, &spelled));
    }
    for (int trial = 0; trial < 100; trial++) {
        uint16_t tokens[64];
        const sequence s = {tokens, test_below(&random, 65)};
        for (size_t i = 0; i < s.n; i++) tokens[i] = (uint16_t)test_below(&random, vocabulary);
        free(decode(self, &s, &spelled));
    }
    tokenizer->destroy(self);
}

static void test_small_buffers(void **state) {
    (void)state;
    void *self = instance_new();
    fw_error error = {.struct_size = sizeof error};
    sequence s = encode(self, texts[0], strlen(texts[0]));
    uint16_t tokens[256] = {0};
    char text[256] = {0};
    assert_in_range(s.n, 2, 255);
    for (size_t capacity = 0; capacity < s.n; capacity++) {
        size_t n = capacity;
        assert_int_equal(tokenizer->encode(self, texts[0], strlen(texts[0]), tokens, &n, &error),
                         FW_E_BUFFER);
        assert_int_equal(tokens[0], 0);
    }
    size_t n = s.n;
    conform_ok(tokenizer->encode(self, texts[0], strlen(texts[0]), tokens, &n, &error), &error);
    assert_memory_equal(tokens, s.tokens, n * sizeof *tokens);
    for (size_t capacity = 0; capacity < strlen(texts[0]); capacity++) {
        size_t bytes = capacity;
        assert_int_equal(tokenizer->decode(self, s.tokens, s.n, text, &bytes, &error), FW_E_BUFFER);
        assert_int_equal(bytes, strlen(texts[0]));
        assert_int_equal(text[0], 0);
    }
    free(s.tokens);
    tokenizer->destroy(self);
}

static void test_token_out_of_range(void **state) {
    (void)state;
    void *self = instance_new();
    const uint32_t vocabulary = tokenizer->vocabulary(self);
    if (vocabulary == 65536) skip();
    fw_error error = {.struct_size = sizeof error};
    const uint16_t tokens[] = {0, (uint16_t)vocabulary};
    char text[256] = {0};
    size_t bytes = sizeof text;
    assert_int_equal(tokenizer->decode(self, tokens, 2, text, &bytes, &error), FW_E_RANGE);
    assert_int_equal(text[0], 0);
    assert_int_equal(bytes, sizeof text);
    assert_true(error.message[0] != '\0');
    tokenizer->destroy(self);
}

static void test_fingerprint(void **state) {
    (void)state;
    static const uint8_t zero[32];
    void *first = instance_new(), *second = instance_new();
    uint8_t a[32] = {0}, b[32] = {1};
    tokenizer->fingerprint(first, a);
    sequence s = encode(second, texts[0], strlen(texts[0]));
    tokenizer->fingerprint(second, b);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, zero, sizeof a);
    free(s.tokens);
    tokenizer->destroy(first);
    tokenizer->destroy(second);
}

/* 1 when the plugin cannot be created without the parameter `model`. */
static int requires_model(const char *id) {
    const fw_plugin *plugin = test_plugin(FW_TOKENIZER, id);
    for (uint32_t i = 0; i < plugin->n_params; i++)
        if (strcmp(plugin->params[i].key, "model") == 0)
            return plugin->params[i].default_text == NULL;
    return 0;
}

/* The setting to append to the command line; NULL when no model can be trained here. */
static char *model_setting(void) {
#ifdef TINY_MODEL
    static char setting[4200];
    (void)snprintf(setting, sizeof setting, "model=%s", tiny_model_path());
    return setting;
#else
    return NULL;
#endif
}

int main(int argc, char **argv) {
    char *arguments[66] = {0};
    int given = 0;
    if (argc < 2 || argc > 64) return 2;
    for (int i = 0; i < argc; i++) {
        arguments[i] = argv[i];
        given |= strncmp(argv[i], "model=", 6) == 0;
    }
    if (!given && requires_model(argv[1])) {
        arguments[argc] = model_setting();
        if (arguments[argc++] == NULL) {
            (void)fprintf(stderr, "skipped: pass model=PATH, none can be trained here\n");
            return 0;
        }
    }
    c = conform_open(argc, arguments, FW_TOKENIZER);
    tokenizer = c.plugin->vtable;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor),    cmocka_unit_test(test_table),
        cmocka_unit_test(test_texts),         cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_random_utf8),   cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_random_tokens), cmocka_unit_test(test_small_buffers),
        cmocka_unit_test(test_fingerprint),   cmocka_unit_test(test_token_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
