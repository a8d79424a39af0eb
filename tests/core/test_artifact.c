/* The artifact file: what is written is read back; every truncation and every flipped bit is
 * refused. */
#include "support.h"

#include <stdio.h>
#include <unistd.h>

#include "artifact.h"
#include "files.h"

static fw_error error = {.struct_size = sizeof error};
static char path[] = "/tmp/fairway-artifact-XXXXXX";

static struct artifact make_artifact(void) {
    struct artifact artifact = {.n_streams = 2, .payload_bytes = 300};
    artifact.config = strdup("[model]\nlayers = 3\n");
    artifact.streams = calloc(2, sizeof *artifact.streams);
    artifact.payload = malloc(artifact.payload_bytes);
    assert_true(artifact.config != NULL && artifact.streams != NULL && artifact.payload != NULL);
    artifact.streams[0] = (fw_stream){.struct_size = sizeof(fw_stream),
                                      .kind = FW_STREAM_SYMBOLS,
                                      .dtype = FW_I8,
                                      .rows = 7,
                                      .columns = 5,
                                      .symbol_min = -127,
                                      .symbol_max = 127};
    artifact.streams[1] = (fw_stream){.struct_size = sizeof(fw_stream),
                                      .kind = FW_STREAM_SCALES,
                                      .dtype = FW_F16,
                                      .tensor = 1,
                                      .rows = 7,
                                      .columns = 1};
    test_random random = {5};
    for (size_t i = 0; i < artifact.payload_bytes; i++)
        artifact.payload[i] = (uint8_t)test_below(&random, 256);
    struct token_table *table = calloc(1, sizeof *table);
    assert_non_null(table);
    table->vocabulary = 300;
    table->begin_token = 1;
    table->tokens = calloc(table->vocabulary, sizeof *table->tokens);
    assert_non_null(table->tokens);
    for (uint32_t i = 0; i < table->vocabulary; i++)
        table->tokens[i] = (fw_token_info){.struct_size = sizeof(fw_token_info),
                                           .base_bytes = (uint16_t)(i * 7),
                                           .leading_space = i % 2 == 0,
                                           .boundary = i % 3 == 0};
    for (int i = 0; i < 32; i++) table->fingerprint[i] = (uint8_t)(i * i);
    artifact.table = table;
    return artifact;
}

/* As file_write, without waiting for the disk each of the thousands of times. */
static void overwrite(const uint8_t *data, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void write_fresh(void) {
    struct artifact artifact = make_artifact();
    if (artifact_write(path, &artifact, &error) != FW_OK) fail_msg("%s", error.message);
    artifact_free(&artifact);
}

static void test_round_trip(void **state) {
    (void)state;
    struct artifact expected = make_artifact(), read = {0};
    write_fresh();
    if (artifact_read(path, &read, &error) != FW_OK) fail_msg("%s", error.message);
    assert_string_equal(read.config, expected.config);
    assert_int_equal(read.n_streams, expected.n_streams);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read.streams[i].kind, expected.streams[i].kind);
        assert_int_equal(read.streams[i].dtype, expected.streams[i].dtype);
        assert_int_equal(read.streams[i].tensor, expected.streams[i].tensor);
        assert_int_equal(read.streams[i].rows, expected.streams[i].rows);
        assert_int_equal(read.streams[i].columns, expected.streams[i].columns);
        assert_int_equal(read.streams[i].symbol_min, expected.streams[i].symbol_min);
    }
    assert_int_equal(read.payload_bytes, expected.payload_bytes);
    assert_memory_equal(read.payload, expected.payload, expected.payload_bytes);
    assert_int_equal(read.table->begin_token, 1);
    assert_memory_equal(read.table->fingerprint, expected.table->fingerprint, 32);
    for (uint32_t i = 0; i < 300; i++) {
        assert_int_equal(read.table->tokens[i].base_bytes, expected.table->tokens[i].base_bytes);
        assert_int_equal(read.table->tokens[i].boundary, expected.table->tokens[i].boundary);
        assert_int_equal(read.table->tokens[i].leading_space,
                         expected.table->tokens[i].leading_space);
    }
    artifact_free(&read);
    artifact_free(&expected);
}

static void test_every_truncation_is_refused(void **state) {
    (void)state;
    uint8_t *data = NULL;
    size_t size = 0;
    write_fresh();
    assert_int_equal(file_read(path, 0, &data, &size, &error), FW_OK);
    for (size_t n = 0; n < size; n++) {
        overwrite(data, n);
        struct artifact read = {0};
        const fw_status status = artifact_read(path, &read, &error);
        if (status != FW_E_FORMAT) fail_msg("%zu of %zu bytes: status %d", n, size, (int)status);
        assert_null(read.payload);
    }
    free(data);
}

static void test_every_flipped_bit_is_refused(void **state) {
    (void)state;
    uint8_t *data = NULL;
    size_t size = 0;
    write_fresh();
    assert_int_equal(file_read(path, 0, &data, &size, &error), FW_OK);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        overwrite(data, size);
        struct artifact read = {0};
        const fw_status status = artifact_read(path, &read, &error);
        if (status != FW_E_FORMAT && status != FW_E_CHECKSUM)
            fail_msg("bit %zu: status %d", bit, (int)status);
        assert_non_null(strstr(error.message, path));
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(data);
}

static void test_foreign_files_are_refused(void **state) {
    (void)state;
    struct artifact read = {0};
    assert_int_equal(file_write(path,
                                "GIF89a, not an artifact at all, but long enough to be one.....",
                                60, &error),
                     FW_OK);
    assert_int_equal(artifact_read(path, &read, &error), FW_E_FORMAT);
    assert_non_null(strstr(error.message, "not a Fairway artifact"));
    assert_int_equal(artifact_read("/nonexistent/file", &read, &error), FW_E_IO);
}

static void test_bytes_per_token_follow_the_rule(void **state) {
    (void)state;
    fw_token_info infos[3] = {
        {sizeof(fw_token_info), 0, 0, 1}, /* begin: nothing, and a boundary */
        {sizeof(fw_token_info), 3, 1, 0}, /* "_the": 3, and 1 after a token that is no boundary */
        {sizeof(fw_token_info), 2, 0, 0},
    };
    const struct token_table table = {.vocabulary = 3, .tokens = infos};
    assert_int_equal(token_table_bytes(&table, 0, 1), 3);
    assert_int_equal(token_table_bytes(&table, 2, 1), 4);
    assert_int_equal(token_table_bytes(&table, 1, 2), 2);
    assert_int_equal(token_table_bytes(&table, 2, 0), 0);
}

int main(void) {
    const int file = mkstemp(path);
    if (file < 0) return 1;
    (void)close(file);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_foreign_files_are_refused),
        cmocka_unit_test(test_bytes_per_token_follow_the_rule),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)remove(path);
    return failed;
}
