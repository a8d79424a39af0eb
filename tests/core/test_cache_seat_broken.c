/* Caches that break the protocol or their process: a sentence with plugin, position and value, and
 * the host as it was. In its own process where that survives it, in another for all. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_child.h"
#include "cache_process.h"
#include "seat_fixture.h"

enum { AT = 5, LAST = 12 };

/* Score until it fails; which call failed, and that nothing was said before `at`. */
static fw_status live(struct seat *seat, const char *id, const char *way, bool apart,
                      double seconds) {
    char setting[64];
    double nats = -1;
    (void)snprintf(setting, sizeof setting, "way=%s", way);
    seat_find(seat, id, apart, seconds, (const char *const[]){setting, "at=5", NULL});
    FW_TRY(seat_open(seat, test_host(NULL), strcmp(id, "broken") != 0));
    for (uint32_t t = 0; t <= LAST; t++) {
        const double before = nats;
        const fw_status status = seat_score(seat, t, &nats);
        if (status == FW_OK) continue;
        assert_true(t >= AT);
        assert_true(nats == before);
        return status;
    }
    return cache_stream_end(seat->stream, &seat->error);
}

struct expected {
    const char *way, *words, *value;
    bool survives; /* the host, when the cache sits in its process */
    fw_status status;
    const char *id; /* NULL: broken */
};

/* `seconds`: for each answer. */
static void check_within(const struct expected *expected, bool apart, double seconds) {
    struct seat seat;
    const char *id = expected->id != NULL ? expected->id : "broken";
    const int descriptors = open_descriptors();
    const fw_status status = live(&seat, id, expected->way, apart, seconds);
    if (status != expected->status) print_error("%s\n", expected->way);
    assert_fails(status, expected->status, &seat.error, "[cache] plugin", id, expected->words,
                 expected->value);
    seat_close(&seat);
    assert_int_equal(open_descriptors(), descriptors);
    assert_false(has_children());
}

static void check(const struct expected *expected, bool apart) {
    check_within(expected, apart, 10);
}

static const struct expected wrong[] = {
    {"nan", "position 5: ", "mass of token 6 is nan", true, FW_E_PROTOCOL, NULL},
    {"inf", "position 5: ", "gain of token 6 is inf", true, FW_E_PROTOCOL, NULL},
    {"outside", "position 5: ", "token 65", true, FW_E_PROTOCOL, NULL},
    {"twice", "position 5: ", "token 6 twice", true, FW_E_PROTOCOL, NULL},
    {"too_many", "position 5: ", "66 tokens, more than the 65", true, FW_E_PROTOCOL, NULL},
    {"heavy", "position 5: ", "1.25", true, FW_E_PROTOCOL, NULL},
    {"form", "position 5: ", "form 77", true, FW_E_PROTOCOL, NULL},
    {"dense_nan", "position 5: ", "token 3 is nan", true, FW_E_PROTOCOL, NULL},
    {"no_function", "position 5: ", "`probability`", true, FW_E_PROTOCOL, "broken_unverified"},
    {"probability_nan", "position 5: ", "token 5 is not a number", true, FW_E_PROTOCOL,
     "broken_unverified"},
    {"error", "position 5: predict: ", "tired", true, FW_E_PROTOCOL, NULL},
    {"status", "position 5: predict: ", "status 4711", true, FW_E_PROTOCOL, NULL},
    {"begin_error", "plugin broken: begin: ", "no stream today", true, FW_E_PROTOCOL, NULL},
    {"begin_status", "plugin broken: begin: ", "status 4711", true, FW_E_PROTOCOL, NULL},
    {"create_error", "plugin broken: create: ", "no instance today", true, FW_E_PROTOCOL, NULL},
    {"create_status", "plugin broken: create: ", "status 4711", true, FW_E_PROTOCOL, NULL},
};

static void test_wrong_statements(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        for (int apart = 0; apart < 2; apart++) check(&wrong[i], apart == 1);
}

/* In the host's process update() returns its error at once; of another it is heard with the next
 * answer, and names the position all the same. */
static void test_an_update_that_fails(void **state) {
    (void)state;
    const struct expected here = {
        "update_error", "position 5: update: ", "the cache is full", true, FW_E_LIMIT, NULL};
    const struct expected there = {
        "update_error", "update after position 5: ", "the cache is full", true, FW_E_LIMIT, NULL};
    check(&here, false);
    check(&there, true);
}

static void test_a_second_stream_that_fails(void **state) {
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        struct seat seat;
        assert_ok(live(&seat, "broken", "second_begin_error", apart == 1, 10), &seat.error);
        assert_fails(cache_stream_begin(seat.stream, &seat.error), FW_E_PROTOCOL, &seat.error,
                     "[cache] plugin broken: begin: one stream is enough");
        seat_close(&seat);
    }
}

static const struct expected fatal[] = {
    {"crash", "position 5: predict: ", "signal 11", false, FW_E_PROTOCOL, NULL},
    {"update_crash", "update after position 5: ", "signal 11", false, FW_E_PROTOCOL, NULL},
    {"create_crash", "plugin broken: ", "signal 11", false, FW_E_PROTOCOL, NULL},
    {"probability_crash", "position 5: probability: ", "signal 11", false, FW_E_PROTOCOL,
     "broken_unverified"},
    {"quit", "position 5: predict: ", "exit code 7", false, FW_E_PROTOCOL, NULL},
    {"give_up", "signal 6", "last words", false, FW_E_PROTOCOL, NULL},
    {"tokens_beyond", "signal 11", "beyond the end of the tokens of its list", false, FW_E_PROTOCOL,
     NULL},
    {"values_beyond", "signal 11", "beyond the end of the values of its list", false, FW_E_PROTOCOL,
     NULL},
    {"dense_beyond", "signal 11", "beyond the end of its dense probabilities", false, FW_E_PROTOCOL,
     NULL},
    {"row_beyond", "signal 11", "beyond the end of the row's probabilities", false, FW_E_PROTOCOL,
     NULL},
    {"told_beyond", "update after position 5", "beyond the end of the tokens it is told", false,
     FW_E_PROTOCOL, NULL},
};

static void test_deaths(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++) check(&fatal[i], true);
}

static const struct expected silent[] = {
    {"hang", "position 5: predict: ", "not answered for 2 s", false, FW_E_PROTOCOL, NULL},
    {"update_hang", "update after position 5: ", "not answered for 2 s", false, FW_E_PROTOCOL,
     NULL},
    {"create_hang", "plugin broken: ", "eval.cache_timeout", false, FW_E_PROTOCOL, NULL},
    {"stop", "position 5: predict: ", "not answered", false, FW_E_PROTOCOL, NULL},
};

static void test_silence(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++) check_within(&silent[i], true, 2);
}

/* Once gone it stays gone, with the same reason. */
static void test_no_second_life(void **state) {
    (void)state;
    struct seat seat;
    double nats = -1;
    assert_int_equal(live(&seat, "broken", "crash", true, 10), FW_E_PROTOCOL);
    assert_fails(seat_score(&seat, 1, &nats), FW_E_PROTOCOL, &seat.error, "signal 11");
    assert_fails(cache_stream_begin(seat.stream, &seat.error), FW_E_PROTOCOL, &seat.error,
                 "signal 11");
    assert_true(nats == -1 || nats > 0);
    seat_close(&seat);
}

/* What happens after the last answer harms nobody. */
static void test_a_death_at_the_end(void **state) {
    (void)state;
    struct seat seat;
    assert_ok(live(&seat, "broken", "destroy_crash", true, 10), &seat.error);
    seat_close(&seat);
    assert_false(has_children());
}

/* A thread of the cache writes to its list all the time, also while the host checks: whatever is
 * scored was checked. */
static void test_what_is_checked_is_what_counts(void **state) {
    (void)state;
    int scored = 0, refused = 0;
    for (int life = 0; life < 20; life++) {
        struct seat seat;
        double nats = -1;
        fw_status status = FW_OK;
        seat_find(&seat, "broken", true, 10, (const char *const[]){"way=race", NULL});
        assert_ok(seat_open(&seat, test_host(NULL), false), &seat.error);
        for (int t = 0; t < 500 && status == FW_OK; t++) {
            status = seat_score(&seat, 6, &nats);
            const double valid = -log((0.5 * seat.probabilities[6] + 0.5));
            if (status == FW_OK && !(fabs(nats - valid) < 1e-12))
                fail_msg("position %d: %.17g nats instead of %.17g", t, nats, valid);
            scored += status == FW_OK;
        }
        if (status != FW_OK) assert_fails(status, FW_E_PROTOCOL, &seat.error, "sum to 1.4");
        refused += status != FW_OK;
        seat_close(&seat);
    }
    assert_true(scored > 0);
    (void)refused; /* chance decides how many */
}

/* ---- modules that cannot be loaded ---- */

static void test_modules_that_cannot_be_loaded(void **state) {
    (void)state;
    static const char *const directories[] = {TEST_MODULES, "."};
    const struct {
        const char *name;
        fw_status status;
        const char *words[2];
    } cases[] = {
        {"magic", FW_E_ABI, {"cache-magic.so", "magic"}},
        {"params", FW_E_ABI, {"cache-params.so", "parameter table"}},
        {"mxcsr", FW_E_ABI, {"cache-mxcsr.so", "floating-point environment"}},
        {"incomplete", FW_E_ABI, {"cache-incomplete.so", "vtable"}},
        {"text", FW_E_IO, {"cache-text.so", "cannot be loaded"}},
        {"nowhere", FW_E_NOT_FOUND, {"no cache plugin 'nowhere'", "no such file"}},
    };
    struct registry *registry = NULL;
    fw_error error = {.struct_size = sizeof error};
    const int descriptors = open_descriptors();
    write_text("cache-text.so", "no module");
    assert_ok(registry_create(directories, 2, &registry, &error), &error);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct registry_entry *entry = NULL;
        assert_fails(registry_find_apart(registry, FW_CACHE, cases[i].name, 10, &entry, &error),
                     cases[i].status, &error, cases[i].words[0], cases[i].words[1]);
        assert_null(entry);
    }
    registry_destroy(registry);
    assert_int_equal(open_descriptors(), descriptors);
    assert_false(has_children());
}

/* What counts of the time to load a module is what this process and its child had of it. */
static void test_a_machine_that_sleeps(void **state) {
    (void)state;
    static const char *const directories[] = {BROKEN_CACHES};
    const pid_t host = fork();
    assert_true(host >= 0);
    if (host == 0) {
        struct registry *registry = NULL;
        const struct registry_entry *entry = NULL;
        (void)setpgid(0, 0);
        if (registry_create(directories, 1, &registry, NULL) != FW_OK) _exit(99);
        _exit(registry_find_apart(registry, FW_CACHE, "broken_slow", 2.5, &entry, NULL));
    }
    (void)setpgid(host, host);
    (void)usleep(200000);
    assert_int_equal(kill(-host, SIGSTOP), 0);
    (void)usleep(3500000);
    assert_int_equal(kill(-host, SIGCONT), 0);
    int status = -1;
    assert_int_equal(waitpid(host, &status, 0), host);
    assert_int_equal(status, FW_OK);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], CACHE_CHILD_VERB) == 0)
        return cache_child_main(argc - 1, argv + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_statements),
        cmocka_unit_test(test_an_update_that_fails),
        cmocka_unit_test(test_a_second_stream_that_fails),
        cmocka_unit_test(test_deaths),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_no_second_life),
        cmocka_unit_test(test_a_death_at_the_end),
        cmocka_unit_test(test_what_is_checked_is_what_counts),
        cmocka_unit_test_setup_teardown(test_modules_that_cannot_be_loaded, workspace_setup,
                                        workspace_teardown),
        cmocka_unit_test(test_a_machine_that_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
