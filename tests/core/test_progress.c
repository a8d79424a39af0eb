/* core/progress: rewritten in place on a terminal, whole lines elsewhere, nothing too often. */
#include <fcntl.h>
#include <progress.h>
#include <stdio.h>
#include <unistd.h>

#include "workspace.h"

/* Standard error goes to `stream` until the return. */
static int redirect(int stream) {
    (void)fflush(stderr);
    const int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(stream, STDERR_FILENO) >= 0);
    return saved;
}

static void restore(int saved) {
    (void)fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
}

/* Three updates, of which `interval` lets through what it lets through; what began the work. */
static struct progress work(int stream, double interval) {
    const int saved = redirect(stream);
    struct progress progress, begun;
    progress_begin(&progress);
    begun = progress;
    if (interval >= 0) progress.interval = interval;
    for (int step = 1; step <= 3; step++) progress_update(&progress, "step %d", step);
    progress_end(&progress);
    restore(saved);
    return begun;
}

static struct progress work_on_file(double interval) {
    const int file = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0);
    const struct progress begun = work(file, interval);
    (void)close(file);
    return begun;
}

static void expect_file(const char *expected) {
    size_t size;
    char *text = read_bytes("out", &size);
    assert_string_equal(text, expected);
    free(text);
}

static void test_file(void **state) {
    (void)state;
    assert_false(work_on_file(0).terminal);
    expect_file("step 1\nstep 2\nstep 3\n");
}

/* Elsewhere lines stay, so they come seldom, and not before some time has passed. */
static void test_file_by_default(void **state) {
    (void)state;
    assert_true(work_on_file(-1).interval >= 10);
    expect_file("");
}

/* All that was written to the other end, which is closed: the kernel hands it over in pieces of
   its own choice, and says EIO behind the last. */
static size_t read_terminal(int terminal, char *text, size_t capacity) {
    size_t size = 0;
    ssize_t piece;
    while (size < capacity && (piece = read(terminal, text + size, capacity - size)) > 0)
        size += (size_t)piece;
    return size;
}

static void expect_terminal(double interval, const char *expected) {
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) skip();
    const int other = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    if (other < 0) skip();
    const struct progress begun = work(other, interval);
    (void)close(other);
    char text[256];
    text[read_terminal(terminal, text, sizeof text - 1)] = '\0';
    (void)close(terminal);
    assert_true(begun.terminal);
    assert_true(begun.interval <= 1);
    assert_string_equal(text, expected);
}

static void test_terminal(void **state) {
    (void)state;
    expect_terminal(0, "\r\033[Kstep 1\r\033[Kstep 2\r\033[Kstep 3\r\033[K");
}

/* The first update is shown at once, those right behind it are not: also where the interval is
   longer than the machine has been up, which is all that the clock tells. */
static void test_terminal_not_too_often(void **state) {
    (void)state;
    expect_terminal(1e12, "\r\033[Kstep 1\r\033[K");
}

static void test_work(void **state) {
    (void)state;
    const int file = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int saved = redirect(file);
    struct progress progress;
    progress_begin(&progress);
    progress.interval = 0;
    progress_work(&progress, "packed", 25, 100, "MB", 0); /* begun when the clock did */
    progress_end(&progress);
    restore(saved);
    (void)close(file);
    size_t size;
    char *text = read_bytes("out", &size);
    assert_int_equal(strncmp(text, "packed  25%  25 of 100 MB, ", 27), 0);
    assert_non_null(strstr(text, " MB/s, "));
    assert_string_equal(text + size - 6, " left\n");
    free(text);
}

static void test_duration(void **state) {
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{-1, "?"},
                 {0, "0 s"},
                 {59.4, "59 s"},
                 {60, "1 min 00 s"},
                 {190, "3 min 10 s"},
                 {3599, "59 min 59 s"},
                 {3600, "1 h 00 min"},
                 {3720, "1 h 02 min"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(format_duration(cases[i].seconds, text, sizeof text), cases[i].text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_file),     TEST(test_file_by_default),
        TEST(test_terminal), TEST(test_terminal_not_too_often),
        TEST(test_work),     TEST(test_duration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
