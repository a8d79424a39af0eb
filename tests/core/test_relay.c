/* The relay: every consumer works through every slot in order, a slot is not filled again before
 * all are done with it, and of several errors the first by order is told, however fast each is. */
#include "relay.h"

#include <stdio.h>
#include <time.h>

#include "support.h"

enum { SLOTS = 3, POSTS = 500 };

struct track {
    uint64_t number[SLOTS];         /* what was posted in each slot */
    uint64_t seen[RELAY_CONSUMERS]; /* slots worked through by each consumer */
    uint64_t sums[RELAY_CONSUMERS];
    uint64_t fails_at[RELAY_CONSUMERS];
    uint32_t slow; /* the consumer that takes its time */
};

static void dawdle(void) {
    const struct timespec little = {0, 20000};
    (void)nanosleep(&little, NULL);
}

static fw_status consume(void *self, uint32_t consumer, uint32_t slot, fw_error *error) {
    struct track *track = self;
    const uint64_t number = track->number[slot];
    if (consumer == track->slow && number % 7 == 0) dawdle();
    if (number != track->seen[consumer] || number % SLOTS != slot)
        return fw_fail(error, FW_E_INTERNAL, "consumer %u met %llu", consumer,
                       (unsigned long long)number);
    track->seen[consumer]++;
    track->sums[consumer] += number * number;
    if (number == track->fails_at[consumer])
        return fw_fail(error, FW_E_PROTOCOL, "consumer %u fails at %llu", consumer,
                       (unsigned long long)number);
    return FW_OK;
}

static fw_status play(struct track *track, uint32_t consumers, bool threads, fw_error *error) {
    const struct relay_options options = {.slots = SLOTS,
                                          .consumers = consumers,
                                          .threads = threads,
                                          .consume = consume,
                                          .self = track};
    struct relay *relay = NULL;
    fw_error why = {.struct_size = sizeof why};
    assert_int_equal(relay_create(&options, &relay, &why), FW_OK);
    fw_status status = FW_OK;
    for (uint64_t i = 0; i < POSTS && status == FW_OK; i++) {
        uint32_t slot = 0;
        status = relay_slot(relay, &slot, error);
        if (status != FW_OK) break;
        assert_int_equal(slot, i % SLOTS);
        track->number[slot] = i;
        status = relay_post(relay, error);
    }
    const fw_status finished = relay_finish(relay, error);
    relay_destroy(relay);
    return status != FW_OK ? status : finished;
}

static void reset(struct track *track) {
    *track = (struct track){0};
    for (uint32_t i = 0; i < RELAY_CONSUMERS; i++) track->fails_at[i] = UINT64_MAX;
}

static void test_order(void **state) {
    (void)state;
    const uint64_t n = POSTS - 1, expected = n * (n + 1) * (2 * n + 1) / 6;
    struct track track;
    fw_error error = {.struct_size = sizeof error};
    for (uint32_t consumers = 0; consumers <= RELAY_CONSUMERS; consumers++)
        for (int threads = 0; threads < 2; threads++) {
            reset(&track);
            track.slow = consumers / 2;
            if (play(&track, consumers, threads != 0, &error) != FW_OK)
                fail_msg("%s", error.message);
            for (uint32_t i = 0; i < consumers; i++) assert_int_equal(track.sums[i], expected);
        }
}

static void expect_error(uint64_t first, uint64_t second, uint32_t slow, const char *message) {
    for (int threads = 0; threads < 2; threads++) {
        struct track track;
        fw_error error = {.struct_size = sizeof error};
        reset(&track);
        track.fails_at[0] = first;
        track.fails_at[1] = second;
        track.slow = slow;
        assert_int_equal(play(&track, 2, threads != 0, &error), FW_E_PROTOCOL);
        assert_string_equal(error.message, message);
    }
}

static void test_first_error(void **state) {
    (void)state;
    for (uint32_t slow = 0; slow < 2; slow++) {
        expect_error(50, 51, slow, "consumer 0 fails at 50");
        expect_error(51, 50, slow, "consumer 1 fails at 50");
        expect_error(70, 70, slow, "consumer 0 fails at 70");
        expect_error(0, UINT64_MAX, slow, "consumer 0 fails at 0");
        expect_error(UINT64_MAX, POSTS - 1, slow, "consumer 1 fails at 499");
    }
}

/* Given up in the middle: nothing hangs and nothing leaks. */
static void test_given_up(void **state) {
    (void)state;
    struct track track;
    fw_error error = {.struct_size = sizeof error};
    reset(&track);
    const struct relay_options options = {
        .slots = SLOTS, .consumers = 2, .threads = true, .consume = consume, .self = &track};
    struct relay *relay = NULL;
    assert_int_equal(relay_create(&options, &relay, &error), FW_OK);
    uint32_t slot = 0;
    assert_int_equal(relay_slot(relay, &slot, &error), FW_OK);
    assert_int_equal(relay_post(relay, &error), FW_OK);
    relay_destroy(relay);
    relay_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_first_error),
        cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
