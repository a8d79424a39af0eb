/* core/shard: the challenge's format and the documents file, written, read and refused. */
#include <files.h>
#include <shard.h>
#include <stdio.h>
#include <unistd.h>

#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};
static const uint8_t fingerprint[32] = {1, 2, 3};

static void write_two_documents(const char *path) {
    struct shard_writer *writer;
    const uint16_t tokens[] = {256, 65, 66, 256, 67};
    uint8_t hash[32] = {9};
    assert_ok(shard_create(path, fingerprint, &writer, &error), &error);
    assert_ok(shard_append(writer, tokens, 3, 2, hash, &error), &error);
    hash[0] = 8;
    assert_ok(shard_append(writer, tokens + 3, 2, 1, hash, &error), &error);
    assert_int_equal(shard_written(writer), 5);
    assert_ok(shard_commit(writer, &error), &error);
}

/* Byte for byte: 256 int32, then uint16, little-endian. */
static void test_format(void **state) {
    (void)state;
    write_two_documents("a.bin");
    assert_string_equal(listing(), "a.bin a.bin.documents ");
    size_t size;
    char *data = read_bytes("a.bin", &size);
    assert_int_equal(size, 1024 + 10);
    const uint8_t begin[12] = {0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 5, 0, 0, 0};
    assert_memory_equal(data, begin, sizeof begin);
    for (size_t i = 12; i < 1024; i++) assert_int_equal(data[i], 0);
    const uint8_t tokens[10] = {0, 1, 65, 0, 66, 0, 0, 1, 67, 0};
    assert_memory_equal(data + 1024, tokens, sizeof tokens);
    free(data);
}

static void test_round_trip(void **state) {
    (void)state;
    write_two_documents("a.bin");
    struct shard shard;
    assert_ok(shard_open("a.bin", &shard, &error), &error);
    assert_int_equal(shard.n_tokens, 5);
    assert_int_equal(shard.tokens[3], 256);
    assert_int_equal(tokens_max(shard.tokens, 5), 256);
    struct shard_documents documents;
    assert_ok(documents_read("a.bin", 5, &documents, &error), &error);
    assert_true(documents.present);
    assert_memory_equal(documents.fingerprint, fingerprint, 32);
    assert_int_equal(documents.n, 2);
    assert_int_equal(documents.documents[1].first_token, 3);
    assert_int_equal(documents.documents[0].raw_bytes, 2);
    assert_int_equal(documents.documents[1].hash[0], 8);
    documents_free(&documents);
    shard_close(&shard);
}

static void test_missing_documents_are_fine(void **state) {
    (void)state;
    struct shard_documents documents = {.n = 3};
    assert_ok(documents_read("a.bin", 5, &documents, &error), &error);
    assert_false(documents.present);
    assert_int_equal(documents.n, 0);
    documents_free(&documents);
}

static void expect_refused(const char *path, const char *why) {
    struct shard shard = {.n_tokens = 42};
    assert_fails(shard_open(path, &shard, &error), FW_E_FORMAT, &error, path, why);
    assert_int_equal(shard.n_tokens, 42);
}

static void test_not_a_shard(void **state) {
    (void)state;
    const uint16_t tokens[4] = {1, 2, 3, 4};
    write_text("short", "hello");
    expect_refused("short", "5 bytes");
    write_text("empty", "");
    expect_refused("empty", "0 bytes");
    write_shard("foreign", 20240801, 1, 4, tokens, 4);
    expect_refused("foreign", "20240801 instead of 20240520");
    write_shard("version", SHARD_MAGIC, 2, 4, tokens, 4);
    expect_refused("version", "version 2");
    write_shard("negative", SHARD_MAGIC, 1, -4, tokens, 4);
    expect_refused("negative", "-4 tokens");
    write_shard("cut", SHARD_MAGIC, 1, 5, tokens, 4);
    expect_refused("cut", "truncated: its header says 5 tokens = 1034 bytes, the file has 1032");
    write_shard("long", SHARD_MAGIC, 1, 3, tokens, 4);
    expect_refused("long", "too long: its header says 3 tokens = 1030 bytes, the file has 1032");
    struct shard shard;
    assert_fails(shard_open("none", &shard, &error), FW_E_IO, &error, "none");
}

static void test_token_range(void **state) {
    (void)state;
    const uint16_t tokens[] = {3, 1023, 1024, 65535};
    assert_ok(tokens_check("p", tokens, 2, 1024, &error), &error);
    assert_ok(tokens_check("p", tokens, 4, 65536, &error), &error);
    assert_fails(tokens_check("p", tokens, 4, 1024, &error), FW_E_RANGE, &error,
                 "p: token 1024 at position 2", "vocabulary of 1024");
}

/* Rewrite the documents file with one change and a checksum that fits it. */
static void corrupt_documents(size_t offset, uint64_t value) {
    write_two_documents("a.bin");
    size_t size;
    char *data = read_bytes("a.bin.documents", &size);
    assert_true(offset + 8 <= size - 32);
    memcpy(data + offset, &value, 8);
    sha256_bytes(data, size - 32, (uint8_t *)data + size - 32);
    write_bytes("a.bin.documents", data, size);
    free(data);
}

static void test_bad_documents(void **state) {
    (void)state;
    struct shard_documents found = {.n = 99};
    enum { TOKENS = 40, COUNT = 48, FIRST = 56, SECOND = 104 };
    corrupt_documents(0, 1);
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error,
                 "a.bin.documents");
    corrupt_documents(TOKENS, 6);
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error, "another shard");
    corrupt_documents(COUNT, 3);
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error, "3 documents");
    corrupt_documents(COUNT, UINT64_MAX / 48 + 2);
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error, "documents");
    corrupt_documents(FIRST, 1);
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error, "document 0");
    corrupt_documents(SECOND, 6);
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error,
                 "document 1 begins at token 6 of 5");
    assert_int_equal(found.n, 99);
    write_text("a.bin.documents", "");
    assert_fails(documents_read("a.bin", 5, &found, &error), FW_E_FORMAT, &error,
                 "a.bin.documents");
}

/* Every single flipped bit and every truncation is noticed. */
static void test_damaged_documents(void **state) {
    (void)state;
    write_two_documents("a.bin");
    size_t size;
    char *data = read_bytes("a.bin.documents", &size);
    struct shard_documents found;
    for (size_t bit = 0; bit < 8 * size; bit += 3) {
        data[bit / 8] = (char)(data[bit / 8] ^ (1 << bit % 8));
        write_bytes("a.bin.documents", data, size);
        assert_int_equal(documents_read("a.bin", 5, &found, &error),
                         bit < 64 ? FW_E_FORMAT : FW_E_CHECKSUM);
        data[bit / 8] = (char)(data[bit / 8] ^ (1 << bit % 8));
    }
    for (size_t length = 0; length < size; length++) {
        write_bytes("a.bin.documents", data, length);
        assert_int_not_equal(documents_read("a.bin", 5, &found, &error), FW_OK);
    }
    free(data);
}

static void test_abandon_and_no_room(void **state) {
    (void)state;
    struct shard_writer *writer;
    const uint16_t tokens[1000] = {0};
    const uint8_t hash[32] = {0};
    assert_ok(shard_create("a.bin", fingerprint, &writer, &error), &error);
    assert_ok(shard_append(writer, tokens, 1000, 1, hash, &error), &error);
    shard_abandon(writer);
    shard_abandon(NULL);
    assert_string_equal(listing(), "");
    for (size_t room = 100; room < 3000; room += 400) {
        assert_ok(shard_create("a.bin", fingerprint, &writer, &error), &error);
        assert_ok(shard_append(writer, tokens, 1000, 1, hash, &error), &error);
        limit_file_size(room);
        const fw_status status = shard_commit(writer, &error);
        limit_file_size(0);
        assert_fails(status, FW_E_IO, &error, "a.bin");
        assert_string_equal(listing(), "");
    }
}

/* A replaced shard and its documents stay until the commit; then both are the new ones. */
static void test_replace(void **state) {
    (void)state;
    write_two_documents("a.bin");
    struct shard_writer *writer;
    struct shard_documents documents;
    const uint16_t tokens[3] = {0};
    const uint8_t hash[32] = {0};
    for (int commit = 0; commit < 2; commit++) {
        assert_ok(shard_create("a.bin", fingerprint, &writer, &error), &error);
        assert_ok(shard_append(writer, tokens, 3, 1, hash, &error), &error);
        assert_ok(shard_prepare(writer, &error), &error);
        assert_ok(documents_read("a.bin", 5, &documents, &error), &error);
        assert_int_equal(documents.n, 2);
        documents_free(&documents);
        if (commit == 0)
            shard_abandon(writer);
        else
            assert_ok(shard_commit(writer, &error), &error);
        assert_string_equal(listing(), "a.bin a.bin.documents ");
    }
    struct shard shard;
    assert_ok(shard_open("a.bin", &shard, &error), &error);
    assert_int_equal(shard.n_tokens, 3);
    assert_ok(documents_read("a.bin", 3, &documents, &error), &error);
    assert_int_equal(documents.n, 1);
    documents_free(&documents);
    shard_close(&shard);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_format),
        TEST(test_round_trip),
        TEST(test_missing_documents_are_fine),
        TEST(test_not_a_shard),
        TEST(test_token_range),
        TEST(test_bad_documents),
        TEST(test_damaged_documents),
        TEST(test_abandon_and_no_room),
        TEST(test_replace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
