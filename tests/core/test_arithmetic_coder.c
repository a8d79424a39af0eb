/* The arithmetic coder: round trips, length against the ideal code, carries, damage. */
#include "support.h"

#include <math.h>

#include "arithmetic_coder.h"
#include "frequencies.h"

enum { MOST = 1024, LONG = 20000 };

static fw_error error = {.struct_size = sizeof error};
static uint64_t cumulative[65537];
static uint32_t tokens[LONG];

/* A distribution whose frequencies are `n` random cuts of 2^32, clustered at the ends when sharp.
 */
static void random_cuts(test_random *random, uint32_t n, bool sharp) {
    static double row[65536];
    for (uint32_t v = 0; v < n; v++)
        row[v] = sharp ? exp(40 * test_normal(random)) : 0.1 + test_uniform(random);
    assert_int_equal(frequencies_form(row, n, cumulative, &error), FW_OK);
}

static uint32_t drawn(test_random *random, uint32_t n) {
    const uint64_t value = test_below(random, FREQUENCY_TOTAL);
    uint32_t v = 0;
    while (v + 1 < n && cumulative[v + 1] <= value) v++;
    return v;
}

static double bits_of(uint32_t token) {
    return 32 - log2((double)(cumulative[token + 1] - cumulative[token]));
}

/* Encode `count` tokens of ever new distributions; sharp ones take the least likely token now and
 * then. Returns the ideal length in bits. */
static double encode(struct arithmetic_encoder *encoder, uint64_t seed, uint32_t n, size_t count,
                     bool sharp) {
    test_random random = {.state = seed};
    double bits = 0;
    arithmetic_encoder_begin(encoder);
    for (size_t i = 0; i < count; i++) {
        random_cuts(&random, n, sharp);
        tokens[i] = sharp && i % 3 == 0 ? (uint32_t)test_below(&random, n) : drawn(&random, n);
        bits += bits_of(tokens[i]);
        arithmetic_encode(encoder, cumulative[tokens[i]], cumulative[tokens[i] + 1]);
    }
    assert_int_equal(arithmetic_encoder_end(encoder, &error), FW_OK);
    return bits;
}

static void decode(const struct bytes *bytes, uint64_t seed, uint32_t n, size_t count, bool sharp) {
    test_random random = {.state = seed};
    struct arithmetic_decoder decoder;
    arithmetic_decoder_begin(&decoder, bytes->data, bytes->size);
    for (size_t i = 0; i < count; i++) {
        random_cuts(&random, n, sharp);
        (void)(sharp && i % 3 == 0 ? test_below(&random, n) : test_below(&random, FREQUENCY_TOTAL));
        uint32_t token = UINT32_MAX;
        assert_int_equal(arithmetic_decode(&decoder, cumulative, n, &token, &error), FW_OK);
        assert_int_equal(token, tokens[i]);
    }
    assert_int_equal(arithmetic_decoder_end(&decoder, &error), FW_OK);
}

static void test_round_trips(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 7, 256, 1024, 65536};
    for (uint64_t seed = 0; seed < 40; seed++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            const size_t count = sizes[s] > 256 ? seed % 4 : seed * 5 + 1;
            struct arithmetic_encoder encoder;
            const double bits = encode(&encoder, seed, sizes[s], count, seed % 2 == 1);
            decode(&encoder.bytes, seed, sizes[s], count, seed % 2 == 1);
            /* One byte ends the code, and up to one byte of it was not begun. */
            assert_true((double)encoder.bytes.size * 8 <= bits + 16.001);
            assert_true((double)encoder.bytes.size * 8 >= bits);
            bytes_free(&encoder.bytes);
        }
}

/* Over a long text all that is lost is the last byte. */
static void test_length_is_ideal(void **state) {
    (void)state;
    for (int sharp = 0; sharp < 2; sharp++) {
        struct arithmetic_encoder encoder;
        const double bits = encode(&encoder, 77, 17, LONG, sharp == 1);
        assert_true(fabs((double)encoder.bytes.size * 8 - bits) < 16 + 1e-6 * bits);
        decode(&encoder.bytes, 77, 17, LONG, sharp == 1);
        bytes_free(&encoder.bytes);
    }
}

/* Nearly sure tokens cost nearly nothing, the least likely ones 32 bits each. */
static void test_extremes(void **state) {
    (void)state;
    const uint64_t sure[] = {0, 1, FREQUENCY_TOTAL - 1, FREQUENCY_TOTAL};
    for (uint32_t token = 0; token < 3; token++) {
        struct arithmetic_encoder encoder;
        arithmetic_encoder_begin(&encoder);
        for (int i = 0; i < LONG; i++) arithmetic_encode(&encoder, sure[token], sure[token + 1]);
        assert_int_equal(arithmetic_encoder_end(&encoder, &error), FW_OK);
        const size_t most = token == 1 ? 2 : 4 * LONG + 2, least = token == 1 ? 1 : 4 * LONG;
        assert_in_range(encoder.bytes.size, least, most);
        struct arithmetic_decoder decoder;
        arithmetic_decoder_begin(&decoder, encoder.bytes.data, encoder.bytes.size);
        for (int i = 0; i < LONG; i++) {
            uint32_t found = 9;
            assert_int_equal(arithmetic_decode(&decoder, sure, 3, &found, &error), FW_OK);
            assert_int_equal(found, token);
        }
        assert_int_equal(arithmetic_decoder_end(&decoder, &error), FW_OK);
        bytes_free(&encoder.bytes);
    }
}

/* A long row of 0xff is written, and then a carry turns it over. */
static void test_carry_runs_back(void **state) {
    (void)state;
    struct arithmetic_encoder encoder;
    arithmetic_encoder_begin(&encoder);
    bytes_put(&encoder.bytes, "\x12\x34\xff\xff\xff\xff\xff", 7);
    encoder.low = UINT64_C(0xffffffffffffff00);
    encoder.range = UINT64_MAX;
    arithmetic_encode(&encoder, UINT64_C(0xffffffff), FREQUENCY_TOTAL);
    assert_memory_equal(encoder.bytes.data, "\x12\x35\0\0\0\0\0", 7);
    bytes_free(&encoder.bytes);
}

/* Whatever the bytes, decoding ends with tokens or with a sentence. */
static void test_damage_is_told(void **state) {
    (void)state;
    test_random random = {.state = 3};
    struct arithmetic_encoder encoder;
    (void)encode(&encoder, 8, 5, 200, false);
    size_t noticed = 0;
    for (int round = 0; round < 400; round++) {
        uint8_t bytes[512];
        size_t size = encoder.bytes.size;
        assert_true(size <= sizeof bytes);
        memcpy(bytes, encoder.bytes.data, size);
        if (round % 2 == 0)
            size = test_below(&random, size);
        else
            bytes[test_below(&random, size)] ^= (uint8_t)(1u << test_below(&random, 8));
        struct arithmetic_decoder decoder;
        arithmetic_decoder_begin(&decoder, bytes, size);
        test_random row = {.state = 8};
        fw_status status = FW_OK;
        bool same = true;
        for (size_t i = 0; i < 200 && status == FW_OK; i++) {
            random_cuts(&row, 5, false);
            (void)test_below(&row, FREQUENCY_TOTAL);
            uint32_t token = 0;
            status = arithmetic_decode(&decoder, cumulative, 5, &token, &error);
            if (status == FW_OK) assert_true(token < 5);
            if (status == FW_OK && token != tokens[i]) same = false;
        }
        if (status == FW_OK) status = arithmetic_decoder_end(&decoder, &error);
        assert_true(status == FW_OK || status == FW_E_FORMAT);
        if (round % 2 == 0) assert_int_equal(status, FW_E_FORMAT);
        if (status != FW_OK || !same) noticed++;
    }
    assert_true(noticed >= 398); /* all but flips of the last byte's lowest bits */
    bytes_free(&encoder.bytes);
    struct arithmetic_decoder empty;
    arithmetic_decoder_begin(&empty, NULL, 0);
    assert_int_equal(arithmetic_decoder_end(&empty, &error), FW_E_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),    cmocka_unit_test(test_length_is_ideal),
        cmocka_unit_test(test_extremes),       cmocka_unit_test(test_carry_runs_back),
        cmocka_unit_test(test_damage_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
