/* Tokenizer sentencepiece: the byte table and the tokens recorded for the challenge's model (when
 * FAIRWAY_SHARED, default ../shared, has them) and a tiny model trained here. */
#include <cjson/cJSON.h>
#include <lzma.h>
#include <stdio.h>

#include "golden.h"
#include "support.h"
#include "tiny_model.h"

static const fw_tokenizer *tokenizer;

enum { DOCUMENTS = 150 };

static fw_status create(const char *model, void **self, fw_error *error) {
    const fw_plugin *plugin = test_plugin(FW_TOKENIZER, "sentencepiece");
    char setting[4200];
    (void)snprintf(setting, sizeof setting, "model=%s", model);
    const char *const overrides[] = {setting, NULL};
    tokenizer = plugin->vtable;
    fw_value *values = test_values(plugin, overrides);
    const fw_status status = tokenizer->create(test_host(NULL), values, self, error);
    free(values);
    return status;
}

/* NULL when the model is absent. */
static void *challenge_model(void) {
    void *self = NULL;
    fw_error error = {.struct_size = sizeof error};
    char path[4096];
    (void)snprintf(path, sizeof path, "%s", golden_shared("data/fineweb_1024_bpe.model"));
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    (void)fclose(file);
    if (create(path, &self, &error) != FW_OK) fail_msg("%s", error.message);
    return self;
}

static void test_byte_table(void **state) {
    (void)state;
    void *self = challenge_model();
    if (self == NULL) skip();
    char folder[4096];
    (void)snprintf(folder, sizeof folder, "%s", golden_shared("golden/eval_stream"));
    golden bytes = golden_read(folder, "lut/base_bytes");
    golden space = golden_read(folder, "lut/leading_space");
    golden boundary = golden_read(folder, "lut/boundary");
    if (bytes.data == NULL) skip();
    assert_int_equal(tokenizer->vocabulary(self), 1024);
    assert_int_equal(bytes.rows, 1024);
    assert_int_equal(tokenizer->begin_token(self), 1);
    for (uint32_t i = 0; i < 1024; i++) {
        fw_token_info info = {.struct_size = sizeof info};
        tokenizer->token(self, i, &info);
        if (info.base_bytes != ((const int32_t *)bytes.data)[i] ||
            info.leading_space != ((const uint8_t *)space.data)[i] ||
            info.boundary != ((const uint8_t *)boundary.data)[i])
            fail_msg("token %u: %u bytes, space %u, boundary %u", i, info.base_bytes,
                     info.leading_space, info.boundary);
    }
    free(bytes.data);
    free(space.data);
    free(boundary.data);
    tokenizer->destroy(self);
}

/* The bytes of each recorded target follow from the table. */
static void test_target_bytes(void **state) {
    (void)state;
    void *self = challenge_model();
    if (self == NULL) skip();
    char folder[4096];
    (void)snprintf(folder, sizeof folder, "%s", golden_shared("golden/eval_stream"));
    golden tokens = golden_read(folder, "tokens"),
           bytes = golden_read(folder, "token_bytes_of_targets");
    if (tokens.data == NULL || bytes.data == NULL) skip();
    for (int64_t i = 0; i < bytes.rows; i++) {
        fw_token_info before = {.struct_size = sizeof before}, target = before;
        tokenizer->token(self, ((const uint16_t *)tokens.data)[i], &before);
        tokenizer->token(self, ((const uint16_t *)tokens.data)[i + 1], &target);
        assert_int_equal(target.base_bytes + (target.leading_space && !before.boundary),
                         ((const int32_t *)bytes.data)[i]);
    }
    free(tokens.data);
    free(bytes.data);
    tokenizer->destroy(self);
}

/* The first bytes of an .xz file, at most `most`; the caller frees. NULL when it is absent. */
static uint8_t *read_xz(const char *relative, size_t most, size_t *bytes) {
    static uint8_t chunk[1 << 16];
    FILE *file = fopen(golden_shared(relative), "rb");
    if (file == NULL) return NULL;
    lzma_stream stream = LZMA_STREAM_INIT;
    uint8_t *data = malloc(most);
    assert_non_null(data);
    assert_int_equal(lzma_stream_decoder(&stream, UINT64_MAX, 0), LZMA_OK);
    stream.next_out = data;
    stream.avail_out = most;
    lzma_ret result = LZMA_OK;
    while (result == LZMA_OK && stream.avail_out > 0) {
        if (stream.avail_in == 0) {
            stream.next_in = chunk;
            stream.avail_in = fread(chunk, 1, sizeof chunk, file);
        }
        result = lzma_code(&stream, stream.avail_in == 0 ? LZMA_FINISH : LZMA_RUN);
    }
    assert_true(result == LZMA_OK || result == LZMA_STREAM_END);
    *bytes = most - stream.avail_out;
    lzma_end(&stream);
    (void)fclose(file);
    return data;
}

/* Encode one line {"text": ...} and compare it with `expected`; its number of tokens. */
static size_t check_document(void *self, const char *line, size_t bytes, const uint16_t *expected,
                             size_t most, int document) {
    cJSON *json = cJSON_ParseWithLength(line, bytes);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(json, "text"));
    assert_non_null(text);
    size_t n = tokenizer->bound(self, strlen(text));
    fw_error error = {.struct_size = sizeof error};
    uint16_t *tokens = malloc(n * sizeof *tokens);
    assert_non_null(tokens);
    if (tokenizer->encode(self, text, strlen(text), tokens, &n, &error) != FW_OK)
        fail_msg("%s", error.message);
    assert_true(n <= most);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] != expected[i])
            fail_msg("document %d, token %zu: %u, not %u", document, i, tokens[i], expected[i]);
    free(tokens);
    cJSON_Delete(json);
    return n;
}

static void test_recorded_tokens(void **state) {
    (void)state;
    enum { HEADER = 1024 };
    void *self = challenge_model();
    size_t n_text = 0, n_shard = 0;
    uint8_t *text = read_xz("data/books_val.jsonl.xz", (size_t)DOCUMENTS << 13, &n_text);
    uint8_t *shard = read_xz("data/books_val.bin.xz", (size_t)DOCUMENTS << 13, &n_shard);
    if (self == NULL || text == NULL || shard == NULL) skip();
    const uint16_t *tokens = (const uint16_t *)(shard + HEADER);
    const size_t n = (n_shard - HEADER) / 2;
    const char *line = (const char *)text;
    size_t at = 0;
    for (int document = 0; document < DOCUMENTS; document++) {
        const char *end = memchr(line, '\n', n_text - (size_t)(line - (const char *)text));
        assert_non_null(end);
        assert_int_equal(tokens[at], 1); /* BOS */
        at++;
        at += check_document(self, line, (size_t)(end - line), tokens + at, n - at, document);
        line = end + 1;
    }
    assert_int_equal(tokens[at], 1);
    free(text);
    free(shard);
    tokenizer->destroy(self);
}

static void test_tiny_model(void **state) {
    (void)state;
    static const char text[] = "The captain said \xf0\x9f\x8c\x8a before the morning.";
    void *self = NULL;
    fw_error error = {.struct_size = sizeof error};
    assert_non_null(tiny_model_path());
    if (create(tiny_model_path(), &self, &error) != FW_OK) fail_msg("%s", error.message);
    assert_int_equal(tokenizer->vocabulary(self), 320);
    assert_int_equal(tokenizer->begin_token(self), 1);
    for (uint32_t i = 0; i < 320; i++) { /* unknown, BOS, EOS, 256 bytes, pieces */
        fw_token_info info = {.struct_size = sizeof info};
        tokenizer->token(self, i, &info);
        assert_int_equal(info.boundary, i < 3);
        if (i < 3)
            assert_int_equal(info.base_bytes, 0);
        else if (i < 259)
            assert_true(info.base_bytes == 1 && info.leading_space == 0);
    }
    uint16_t tokens[200];
    char back[200];
    size_t n = 200, bytes = sizeof back, byte_tokens = 0;
    assert_int_equal(tokenizer->encode(self, text, sizeof text - 1, tokens, &n, &error), FW_OK);
    assert_int_equal(tokenizer->decode(self, tokens, n, back, &bytes, &error), FW_OK);
    for (size_t i = 0; i < n; i++) byte_tokens += tokens[i] >= 3 && tokens[i] < 259;
    assert_int_equal(byte_tokens, 4); /* the wave */
    assert_int_equal(bytes, sizeof text - 1);
    assert_memory_equal(back, text, bytes);
    tokenizer->destroy(self);
}

static void test_bad_files(void **state) {
    (void)state;
    void *self = NULL;
    fw_error error = {.struct_size = sizeof error};
    assert_int_equal(create("/nonexistent/tiny.model", &self, &error), FW_E_IO);
    assert_non_null(strstr(error.message, "/nonexistent/tiny.model"));
    assert_int_equal(create("/", &self, &error), FW_E_IO); /* a directory */
    assert_int_equal(create("/dev/null", &self, &error), FW_E_IO);

    char path[] = "/tmp/not-a-model-XXXXXX";
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    FILE *file = fdopen(descriptor, "wb");
    assert_non_null(file);
    (void)fputs("this is not a protocol buffer of any kind", file);
    (void)fclose(file);
    const fw_status status = create(path, &self, &error);
    (void)remove(path);
    assert_int_equal(status, FW_E_FORMAT);
    assert_null(self);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_table),      cmocka_unit_test(test_target_bytes),
        cmocka_unit_test(test_recorded_tokens), cmocka_unit_test(test_tiny_model),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
