/* Jails from inside: a forked process enters one and tries what it must not be able to do, and what
 * it must. Its exit code is the number of what went wrong. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* cpu_set_t, F_OFD_SETLK */
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jail.h"
#include "support.h"
#include "workspace.h"

static char allowed[] = "inside/file", elsewhere[] = "outside/file";

static bool has_landlock(void) {
    return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

static void *answer(void *argument) {
    *(int *)argument = 42;
    return NULL;
}

static bool can_thread(void) {
    pthread_t thread;
    int told = 0;
    return pthread_create(&thread, NULL, answer, &told) == 0 && pthread_join(thread, NULL) == 0 &&
           told == 42;
}

static bool can_allocate(void) {
    const size_t bytes = (size_t)64 << 20;
    char *memory = malloc(bytes);
    if (memory == NULL) return false;
    memory[0] = memory[bytes - 1] = 1;
    free(memory);
    return true;
}

/* Open before the jail, as in the processes of caches, and one file for all of them. */
static int null_device;

/* What a library asks of descriptors, and that affinity can be set as far as it can tell. */
static bool can_ask_descriptors(void) {
    const int copy = fcntl(null_device, F_DUPFD_CLOEXEC, 10);
    cpu_set_t set;
    return copy >= 10 && fcntl(copy, F_GETFD) == FD_CLOEXEC && fcntl(copy, F_SETFD, 0) == 0 &&
           (fcntl(copy, F_GETFL) & O_ACCMODE) == O_RDWR && close(copy) == 0 &&
           sched_getaffinity(0, sizeof set, &set) == 0 &&
           sched_setaffinity(0, sizeof set, &set) == 0;
}

static bool can_read(const char *path) {
    char byte;
    const int descriptor = open(path, O_RDONLY);
    return descriptor >= 0 && read(descriptor, &byte, 1) == 1 && close(descriptor) == 0;
}

static bool can_write(const char *path) {
    return open(path, O_WRONLY) >= 0 || open(path, O_RDWR | O_CREAT, 0600) >= 0;
}

static bool can_fork(void) {
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    return pid > 0;
}

/* Record locks and owners of signals: what one process sets, another one sees or feels. */
static bool can_lock(void) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    return fcntl(null_device, F_SETLK, &lock) == 0 || fcntl(null_device, F_GETLK, &lock) == 0 ||
           fcntl(null_device, F_OFD_SETLK, &lock) == 0 ||
           fcntl(null_device, F_SETOWN, getppid()) == 0;
}

/* Neither another's, nor its own, which others may ask for. */
static bool can_move(pid_t process) {
    cpu_set_t before, one, after;
    CPU_ZERO(&one);
    if (sched_getaffinity(process, sizeof before, &before) != 0) return false;
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
    (void)sched_setaffinity(process, sizeof one, &one);
    (void)sched_getaffinity(process, sizeof after, &after);
    (void)sched_setaffinity(process, sizeof before, &before);
    return CPU_COUNT(&before) > 1 && !CPU_EQUAL(&before, &after);
}

/* Others: the test itself, which is the parent. */
static bool can_reach_others(void) {
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {allowed, 1};
    char memory[64];
    (void)snprintf(memory, sizeof memory, "/proc/%d/mem", (int)getppid());
    return syscall(SYS_process_vm_readv, getppid(), &here, 1, &there, 1, 0) == 1 ||
           ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0 || kill(getppid(), 0) == 0 ||
           open(memory, O_RDONLY) >= 0 || can_lock() || can_move(getppid()) || can_move(0);
}

static bool can_talk(void) {
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_UNIX, SOCK_DGRAM, 0) >= 0;
}

static bool can_run(void) {
    char *argv[] = {allowed, NULL};
    (void)execve("/bin/true", argv, NULL);
    return errno != EPERM;
}

/* To outlive who started it: upper halves are not looked at by the kernel. */
static bool can_outlive(void) {
    return prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) == 0 ||
           syscall(SYS_prctl, (1L << 32) | PR_SET_PDEATHSIG, 0, 0, 0, 0) == 0;
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) _exit(__LINE__ % 256);                                                   \
    } while (0)

static void expect_jailed(void) {
    EXPECT(can_allocate());
    EXPECT(can_thread());
    EXPECT(can_ask_descriptors());
    EXPECT(!can_fork());
    EXPECT(!can_reach_others());
    EXPECT(!can_talk());
    EXPECT(!can_write(allowed));
    EXPECT(!can_write(elsewhere));
    EXPECT(!can_run());
    EXPECT(!can_outlive());
}

/* `readable` is a folder of `allowed`, but not of `elsewhere`. */
static void live_in_jail(const char *const *readable) {
    fw_error error = {.struct_size = sizeof error};
    EXPECT(can_read(allowed));
    EXPECT(can_read(elsewhere));
    EXPECT(jail_enter(JAIL_LOADING, readable, &error) == FW_OK);
    EXPECT(can_read(allowed));
    EXPECT(!has_landlock() || !can_read(elsewhere));
    expect_jailed();
    EXPECT(jail_enter(JAIL_SEALED, NULL, &error) == FW_OK);
    EXPECT(!can_read(allowed));
    EXPECT(!can_read(elsewhere));
    expect_jailed();
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1); /* the call itself is gone */
    _exit(0);
}

static int status_of(void (*life)(const char *const *), const char *const *readable) {
    null_device = open("/dev/null", O_RDWR);
    const pid_t pid = fork();
    assert_true(pid >= 0 && null_device >= 0);
    if (pid == 0) life(readable);
    (void)close(null_device);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_a_jail_holds(void **state) {
    (void)state;
    assert_int_equal(mkdir("inside", 0700), 0);
    assert_int_equal(mkdir("outside", 0700), 0);
    write_text(allowed, "text");
    write_text(elsewhere, "text");
    const char *const readable[] = {"inside", "/nowhere/at/all", NULL};
    const int status = status_of(live_in_jail, readable);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status %d: line %d of this file (modulo 256)", status, WEXITSTATUS(status));
}

/* What was begun in the first jail is in the second as well. */
static _Atomic int sealed, thread_reads = -1;

static void *read_later(void *argument) {
    (void)argument;
    while (!sealed) (void)usleep(1000);
    thread_reads = can_read(allowed);
    return NULL;
}

static void thread_from_before(const char *const *readable) {
    pthread_t thread;
    EXPECT(jail_enter(JAIL_LOADING, readable, NULL) == FW_OK);
    EXPECT(pthread_create(&thread, NULL, read_later, NULL) == 0);
    EXPECT(jail_enter(JAIL_SEALED, NULL, NULL) == FW_OK);
    sealed = 1;
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(thread_reads == 0);
    _exit(0);
}

static void test_a_thread_does_not_stay_outside(void **state) {
    (void)state;
    assert_int_equal(mkdir("inside", 0700), 0);
    write_text(allowed, "text");
    const char *const readable[] = {"inside", NULL};
    const int status = status_of(thread_from_before, readable);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status %d: line %d of this file (modulo 256)", status, WEXITSTATUS(status));
}

/* Refusals that are noted are refusals all the same, and are named with their number. */
static void live_noted(const char *const *readable) {
    char refusals[512], few[8];
    jail_note_refusals();
    EXPECT(jail_enter(JAIL_LOADING, readable, NULL) == FW_OK);
    EXPECT(jail_enter(JAIL_SEALED, NULL, NULL) == FW_OK);
    EXPECT(jail_refusals(refusals, sizeof refusals)[0] == '\0');
    EXPECT(!can_read(allowed) && errno == EPERM);
    EXPECT(strstr(jail_refusals(refusals, sizeof refusals), "openat") != NULL);
    EXPECT(strchr(refusals, ',') == NULL && strchr(refusals, '(') == NULL);
    expect_jailed();
    EXPECT(strstr(jail_refusals(refusals, sizeof refusals), "socket (2 times)") != NULL);
    EXPECT(strstr(refusals, "execve") != NULL);
    EXPECT(strlen(jail_refusals(few, sizeof few)) < sizeof few);
    _exit(0);
}

static void test_refusals_are_noted(void **state) {
    (void)state;
    assert_int_equal(mkdir("inside", 0700), 0);
    write_text(allowed, "text");
    const char *const readable[] = {"inside", NULL};
    const int status = status_of(live_noted, readable);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status %d: line %d of this file (modulo 256)", status, WEXITSTATUS(status));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_jail_holds, workspace_setup, workspace_teardown),
        cmocka_unit_test_setup_teardown(test_a_thread_does_not_stay_outside, workspace_setup,
                                        workspace_teardown),
        cmocka_unit_test_setup_teardown(test_refusals_are_noted, workspace_setup,
                                        workspace_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
