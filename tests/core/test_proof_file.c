/* The proof file: what was written is read, and nothing else is taken for it. */
#include "support.h"

#include "files.h"
#include "proof_file.h"

static fw_error error = {.struct_size = sizeof error};
static const uint8_t coded[] = "coded tokens";

static struct proof_file example(void) {
    struct proof_file file = {.text = true,
                              .n_pins = 3,
                              .pins = {0x1234, 0, 0xffff},
                              .tokens_hash = {1, 2, 3, 4, 5, 6, 7, 8},
                              .spans = 7,
                              .span_tokens = 300,
                              .coded = coded,
                              .coded_bytes = sizeof coded};
    return file;
}

static struct bytes written(const struct proof_file *file) {
    struct bytes out = {0};
    proof_file_write(file, &out);
    assert_false(out.failed);
    return out;
}

/* Put the checksum right, as a forger would. */
static void seal(uint8_t *data, size_t size) {
    uint8_t hash[32];
    sha256_bytes(data, size - PROOF_HASH_BYTES, hash);
    memcpy(data + size - PROOF_HASH_BYTES, hash, PROOF_HASH_BYTES);
}

static void test_round_trip(void **state) {
    (void)state;
    const struct proof_file file = example();
    struct bytes out = written(&file);
    assert_int_equal(out.size, 4 + 1 + 1 + 1 + 6 + 8 + 1 + 2 + sizeof coded + 8);
    struct proof_file read;
    assert_int_equal(proof_file_read(out.data, out.size, &read, &error), FW_OK);
    assert_true(read.text && read.n_pins == 3 && read.spans == 7 && read.span_tokens == 300);
    assert_memory_equal(read.pins, file.pins, 3 * sizeof file.pins[0]);
    assert_memory_equal(read.tokens_hash, file.tokens_hash, sizeof file.tokens_hash);
    assert_int_equal(read.coded_bytes, sizeof coded);
    assert_memory_equal(read.coded, coded, sizeof coded);
    bytes_free(&out);
}

static void test_every_flipped_bit_and_every_cut(void **state) {
    (void)state;
    const struct proof_file file = example();
    struct bytes out = written(&file);
    struct proof_file read;
    for (size_t bit = 0; bit < 8 * out.size; bit++) {
        out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        const fw_status status = proof_file_read(out.data, out.size, &read, &error);
        assert_int_equal(status, bit < 40 ? FW_E_FORMAT : FW_E_CHECKSUM);
        out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < out.size; size++) {
        uint8_t *cut = malloc(size + 1); /* so that a read behind the end is one behind a block */
        assert_non_null(cut);
        memcpy(cut, out.data, size);
        assert_int_not_equal(proof_file_read(cut, size, &read, &error), FW_OK);
        free(cut);
    }
    bytes_free(&out);
}

/* Whoever puts the checksum right gets no further than a sentence, or a file whose parts lie
 * within it. */
static void test_forged_headers(void **state) {
    (void)state;
    const struct proof_file file = example();
    struct bytes out = written(&file);
    test_random random = {.state = 11};
    struct proof_file read;
    for (int round = 0; round < 20000; round++) {
        const size_t size = 13 + test_below(&random, out.size - 12);
        uint8_t *forged = malloc(size);
        assert_non_null(forged);
        memcpy(forged, out.data, size);
        for (uint64_t i = test_below(&random, 4); i-- > 0;)
            forged[5 + test_below(&random, size - 5)] = (uint8_t)test_below(&random, 256);
        seal(forged, size);
        const fw_status status = proof_file_read(forged, size, &read, &error);
        assert_true(status == FW_OK || status == FW_E_FORMAT);
        if (status == FW_OK) {
            assert_true(read.coded >= forged && read.coded_bytes <= size);
            assert_true(read.coded + read.coded_bytes <= forged + size);
            assert_true(read.n_pins <= PROOF_MOST_PINS && read.spans * read.span_tokens > 0);
        }
        free(forged);
    }
    bytes_free(&out);
}

static void test_impossible_counts(void **state) {
    (void)state;
    static const uint64_t counts[][2] = {
        {0, 5}, {5, 0}, {UINT64_C(1) << 33, 3}, {UINT64_C(1) << 36, 1}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct proof_file file = example(), read;
        file.spans = counts[i][0];
        file.span_tokens = counts[i][1];
        struct bytes out = written(&file);
        assert_int_equal(proof_file_read(out.data, out.size, &read, &error), FW_E_FORMAT);
        bytes_free(&out);
    }
    struct proof_file file = example(), read;
    file.spans = UINT64_C(1) << 17;
    file.span_tokens = UINT64_C(1) << 17;
    struct bytes out = written(&file);
    assert_int_equal(proof_file_read(out.data, out.size, &read, &error), FW_OK);
    assert_true(read.spans == file.spans && read.span_tokens == file.span_tokens);
    bytes_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_flipped_bit_and_every_cut),
        cmocka_unit_test(test_forged_headers),
        cmocka_unit_test(test_impossible_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
