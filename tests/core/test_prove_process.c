/* A decoder process that does what no decoder does: each time a sentence, never a crash or a wait
 * without end. The process is this program, in the role that its second argument names. */
#include "prove_process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "jail.h"
#include "workspace.h"

enum { TOKENS = 5, FLOOD = 600 };

static fw_error error = {.struct_size = sizeof error};
static struct prove_environment environment;
static struct progress progress = {.interval = 1e9};
static struct prove_outcome outcome;

/* ---- roles ---- */

static void say_tokens(size_t n) {
    uint8_t bytes[2 * FLOOD];
    for (size_t i = 0; i < n; i++) {
        bytes[2 * i] = (uint8_t)i;
        bytes[2 * i + 1] = 1;
    }
    prove_say(PROVE_TOKENS, bytes, 2 * n);
}

static void say_raw(const void *data, size_t size) {
    if (write(PROVE_RESULTS, data, size) != (ssize_t)size) _exit(9);
}

/* What it was given, as text. */
static void say_surroundings(void) {
    char text[4096];
    int n = 0;
    for (int i = PROVE_RESULTS + 1; i < 256; i++)
        if (fcntl(i, F_GETFD) >= 0) n += snprintf(text + n, 64, "open %d;", i);
    char artifact[16] = "", proof[16] = "";
    const ssize_t a = read(PROVE_ARTIFACT, artifact, sizeof artifact - 1);
    const ssize_t p = read(PROVE_PROOF, proof, sizeof proof - 1);
    n += snprintf(text + n, 256, "%zd %s;%zd %s;", a, artifact, p, proof);
    n += snprintf(text + n, 256, "%s %s %s", getenv("HOME"), getenv("FAIRWAY_TEST_KEPT"),
                  getenv("SECRET") != NULL ? "leaked" : "clean");
    prove_say(PROVE_TEXT, text, (size_t)n);
}

static void say_noise(const char *seed) {
    test_random random = {strtoull(seed, NULL, 10)};
    static const char kinds[] = "SKTRED?";
    uint8_t noise[400];
    const size_t n = test_below(&random, sizeof noise);
    for (size_t i = 0; i < n; i++) {
        noise[i] = (uint8_t)test_below(&random, 256);
        if (i % 9 == 0) noise[i] = (uint8_t)kinds[test_below(&random, 7)];
        if (i % 9 >= 2 && i % 9 <= 4 && random.state % 3 > 0) noise[i] = 0; /* short messages */
    }
    say_raw(noise, n);
}

static bool can_read(const char *path) {
    char byte;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    const bool read_it = file >= 0 && read(file, &byte, 1) == 1;
    if (file >= 0) (void)close(file);
    return read_it;
}

/* A letter for each thing that is tried: y where it can be done. */
static void try_to_read(void) {
    static const char *const paths[] = {"libraries/one.so",
                                        "libraries/deep/two.so",
                                        "alone",
                                        "/proc/self/fd/4",
                                        "libraries/model",
                                        "libraries/text",
                                        "elsewhere.so",
                                        "libraries/out.so",
                                        "/proc/self/root/etc/hostname",
                                        "libraries/../elsewhere.so",
                                        "nowhere"};
    enum { PATHS = sizeof paths / sizeof paths[0] };
    char tried[PATHS + 5] = "";
    int listener = -1;
    if (jail_enter_asking(&listener, NULL) != FW_OK) {
        prove_say(PROVE_TEXT, "unsupported", 11);
        return;
    }
    prove_say_asks(listener);
    for (int i = 0; i < PATHS; i++) tried[i] = can_read(paths[i]) ? 'y' : 'n';
    tried[PATHS] = open("alone", O_WRONLY) >= 0 ? 'y' : 'n';
    tried[PATHS + 1] = open("new", O_RDONLY | O_CREAT, 0600) >= 0 ? 'y' : 'n';
    tried[PATHS + 2] = jail_enter(JAIL_SEALED, NULL, NULL) == FW_OK ? 'y' : 'n';
    tried[PATHS + 3] = can_read("alone") ? 'y' : 'n';
    prove_say(PROVE_TEXT, tried, strlen(tried));
}

static void play(const char *role) {
    if (strcmp(role, "asks") == 0) {
        try_to_read();
        prove_say(PROVE_DONE, "", 0);
    }
    if (strcmp(role, "asks nobody") == 0) prove_say(PROVE_ASKS, "", 0);
    if (strcmp(role, "honest") == 0) {
        prove_say(PROVE_SEALED, "", 0);
        say_tokens(2);
        say_tokens(3);
        prove_say(PROVE_TEXT, "some ", 5);
        prove_say(PROVE_TEXT, "text", 4);
        prove_say(PROVE_REFUSED, "socket", 6);
        prove_say(PROVE_DONE, "", 0);
    }
    if (strcmp(role, "surroundings") == 0) {
        say_surroundings();
        prove_say(PROVE_DONE, "", 0);
    }
    if (strcmp(role, "killed") == 0) {
        say_tokens(3);
        (void)kill(getpid(), SIGKILL);
    }
    if (strcmp(role, "silent") == 0) _exit(3);
    if (strcmp(role, "hangs") == 0)
        for (;;) (void)pause();
    if (strcmp(role, "closes") == 0) {
        (void)close(PROVE_RESULTS);
        for (;;) (void)pause();
    }
    if (strcmp(role, "many") == 0) say_tokens(TOKENS + 1);
    if (strcmp(role, "odd") == 0) prove_say(PROVE_TOKENS, "abc", 3);
    if (strcmp(role, "long") == 0) say_raw("T\xff\xff\xff\xff", 5);
    if (strcmp(role, "unknown") == 0) prove_say('x', "abc", 3);
    if (strcmp(role, "fails") == 0) prove_say(PROVE_FAILED, "\x07\0\0\0no\x1b[31m memory", 18);
    if (strcmp(role, "short") == 0) prove_say(PROVE_FAILED, "ab", 2);
    if (strcmp(role, "half") == 0) say_raw("K\x06\0\0\0ab", 7);
    if (strcmp(role, "flood") == 0) {
        static char text[1 << 16];
        for (int i = 0; i < FLOOD; i++) prove_say(PROVE_TEXT, text, sizeof text);
    }
    if (role[0] >= '0' && role[0] <= '9') say_noise(role);
}

/* ---- the other side ---- */

static const char *const readable[] = {
    "libraries/", "alone", "/proc/self/fd/4", "libraries/model", "absent/", "absent", NULL};

static fw_status listen_to(const char *role, double patience) {
    char program[] = "test", verb[] = "prove", name[32];
    (void)snprintf(name, sizeof name, "%s", role);
    char *const arguments[] = {program, verb, name, NULL};
    const int artifact = open("artifact", O_RDONLY | O_CLOEXEC);
    assert_true(artifact >= 0);
    const struct prove_order order = {.arguments = arguments,
                                      .environment = &environment,
                                      .artifact = artifact,
                                      .proof = (const uint8_t *)"a proof",
                                      .proof_bytes = 7,
                                      .readable = readable,
                                      .tokens = TOKENS,
                                      .patience = patience,
                                      .progress = &progress};
    prove_outcome_free(&outcome);
    const fw_status status = prove_decode(&order, &outcome, &error);
    (void)close(artifact);
    return status;
}

static int setup(void **state) {
    if (workspace_setup(state) != 0) return -1;
    write_text("artifact", "an artifact");
    (void)setenv("SECRET", "what a plugin left", 1);
    (void)setenv("FAIRWAY_TEST_KEPT", "kept", 1);
    return prove_environment_take(&environment, &error) == FW_OK ? 0 : -1;
}

static int teardown(void **state) {
    prove_outcome_free(&outcome);
    prove_environment_free(&environment);
    return workspace_teardown(state);
}

static void test_what_a_decoder_says(void **state) {
    (void)state;
    assert_ok(listen_to("honest", 60), &error);
    assert_int_equal(outcome.n_tokens, 5);
    assert_int_equal(outcome.tokens[1], 257);
    assert_int_equal(outcome.tokens[4], 258);
    assert_int_equal(outcome.text.size, 9);
    assert_memory_equal(outcome.text.data, "some text", 9);
    assert_string_equal(outcome.refused, "socket");
}

/* The two files and the pipe, and of the environment what was there before plugins were. */
static void test_what_a_decoder_is_given(void **state) {
    (void)state;
    (void)setenv("FAIRWAY_TEST_KEPT", "changed since", 1);
    assert_ok(listen_to("surroundings", 60), &error);
    char expected[512];
    (void)snprintf(expected, sizeof expected, "11 an artifact;7 a proof;%s kept clean",
                   getenv("HOME"));
    assert_int_equal(outcome.text.size, strlen(expected));
    assert_memory_equal(outcome.text.data, expected, outcome.text.size);
}

/* Libraries of a folder, single files, and nothing else, by whatever name it is asked for. */
static void test_a_jail_that_asks(void **state) {
    (void)state;
    assert_int_equal(mkdir("libraries", 0700), 0);
    assert_int_equal(mkdir("libraries/deep", 0700), 0);
    write_text("libraries/one.so", "\x7f"
                                   "ELF ...");
    write_text("libraries/deep/two.so", "\x7f"
                                        "ELF ...");
    write_text("libraries/text", "what shall be predicted");
    write_text("elsewhere.so", "\x7f"
                               "ELF ...");
    write_text("alone", "a model file");
    write_text("libraries/model", "another");
    assert_int_equal(symlink("../elsewhere.so", "libraries/out.so"), 0);
    assert_ok(listen_to("asks", 60), &error);
    bytes_put_u8(&outcome.text, 0);
    if (strcmp((const char *)outcome.text.data, "unsupported") == 0) skip();
    assert_string_equal((const char *)outcome.text.data, "yyyyynnnnnnnnyn");
    assert_non_null(strstr(outcome.unread, "libraries/text, elsewhere.so, libraries/out.so"));
    assert_null(strstr(outcome.unread, "nowhere"));
}

static void test_ends(void **state) {
    (void)state;
    assert_fails(listen_to("killed", 60), FW_E_PROTOCOL, &error, "signal 9", "after 3 tokens");
    assert_fails(listen_to("silent", 60), FW_E_PROTOCOL, &error, "exit code 3", "without a word");
    assert_fails(listen_to("half", 60), FW_E_PROTOCOL, &error, "exit code 0", "without a word");
    const double begin = clock_seconds();
    assert_fails(listen_to("closes", 60), FW_E_PROTOCOL, &error, "without a way to say more");
    assert_fails(listen_to("hangs", 1), FW_E_PROTOCOL, &error, "said nothing");
    assert_true(clock_seconds() - begin < 30);
}

static void test_nonsense(void **state) {
    (void)state;
    assert_fails(listen_to("many", 60), FW_E_PROTOCOL, &error, "more tokens than the proof has");
    assert_fails(listen_to("odd", 60), FW_E_PROTOCOL, &error, "more tokens");
    assert_fails(listen_to("long", 60), FW_E_PROTOCOL, &error, "too long");
    assert_fails(listen_to("unknown", 60), FW_E_PROTOCOL, &error, "unknown kind");
    assert_fails(listen_to("asks nobody", 60), FW_E_PROTOCOL, &error, "nobody can answer");
    assert_fails(listen_to("short", 60), FW_E_PROTOCOL, &error, "without a status");
    assert_fails(listen_to("flood", 60), FW_E_PROTOCOL, &error, "more text");
    assert_fails(listen_to("fails", 60), (fw_status)7, &error, "no?[31m memory");
}

static void test_noise(void **state) {
    (void)state;
    for (int seed = 0; seed < 60; seed++) {
        char role[16];
        (void)snprintf(role, sizeof role, "%d", seed);
        const fw_status status = listen_to(role, 60);
        assert_true(outcome.n_tokens <= TOKENS);
        if (status != FW_OK) assert_true(error.message[0] != '\0');
    }
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "prove") == 0) {
        play(argv[2]);
        _exit(0);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_a_decoder_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_a_decoder_is_given, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_jail_that_asks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
