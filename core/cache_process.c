#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create, posix_spawn_file_actions_addclosefrom_np, environ */
#endif
#include "cache_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

enum { WORDS_BYTES = 65536, MOST_ARGUMENTS = 4, MOST_VARIABLES = 16 };

/* ---- looking into the host ---- */

static atomic_int n_processes;

static void hide_host(void) {
    if (atomic_fetch_add(&n_processes, 1) == 0) (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void show_host(void) {
    if (atomic_fetch_sub(&n_processes, 1) == 1) (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* ---- starting ---- */

/* By what libraries are found and how they behave; nothing that says where data are. */
static void choose_environment(char *chosen[MOST_VARIABLES + 1]) {
    static const char *const names[] = {
        "LD_LIBRARY_PATH=", "LD_PRELOAD=",      "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "LSAN_OPTIONS=",
        "GOMP_SPINCOUNT=",  "OMP_WAIT_POLICY=", "LANG=",         "LC_ALL="};
    size_t n = 0;
    for (char **variable = environ; *variable != NULL && n < MOST_VARIABLES; variable++)
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            if (strncmp(*variable, names[i], strlen(names[i])) == 0) chosen[n++] = *variable;
    chosen[n] = NULL;
}

static int plan_descriptors(posix_spawn_file_actions_t *plan, int descriptor, int words) {
    int result = posix_spawn_file_actions_addopen(plan, 0, "/dev/null", O_RDONLY, 0);
    if (result == 0) result = posix_spawn_file_actions_addopen(plan, 1, "/dev/null", O_WRONLY, 0);
    if (result == 0) result = posix_spawn_file_actions_adddup2(plan, words, 2);
    if (result == 0)
        result = posix_spawn_file_actions_adddup2(plan, descriptor, CACHE_CHILD_DESCRIPTOR);
    if (result == 0)
        result = posix_spawn_file_actions_addclosefrom_np(plan, CACHE_CHILD_DESCRIPTOR + 1);
    return result;
}

/* 0 or an errno. Both descriptors are above those that the child will have. */
static int spawn(const char *const *arguments, int descriptor, int words, pid_t *pid) {
    char *argv[MOST_ARGUMENTS + 3] = {(char *)(uintptr_t) "fairway",
                                      (char *)(uintptr_t)CACHE_CHILD_VERB};
    for (int i = 0; i < MOST_ARGUMENTS && arguments[i] != NULL; i++)
        argv[i + 2] = (char *)(uintptr_t)arguments[i];
    char *variables[MOST_VARIABLES + 1];
    choose_environment(variables);
    posix_spawn_file_actions_t plan;
    int result = posix_spawn_file_actions_init(&plan);
    if (result != 0) return result;
    result = plan_descriptors(&plan, descriptor, words);
    if (result == 0) result = posix_spawn(pid, "/proc/self/exe", &plan, NULL, argv, variables);
    (void)posix_spawn_file_actions_destroy(&plan);
    return result;
}

/* Of a fixed size, so that the child cannot fill the memory with what it has to say. */
static int make_words(void) {
    const int words = memfd_create("fairway-cache-words", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (words < 0) return -1;
    const int high = fcntl(words, F_DUPFD_CLOEXEC, 10);
    (void)close(words);
    if (high >= 0 && ftruncate(high, WORDS_BYTES) == 0 &&
        fcntl(high, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
        return high;
    if (high >= 0) (void)close(high);
    return -1;
}

fw_status cache_process_start(const char *const *arguments, int descriptor,
                              struct cache_process *process, fw_error *error) {
    struct cache_process made = {.words = make_words()};
    const int high = fcntl(descriptor, F_DUPFD_CLOEXEC, 10);
    int result = made.words >= 0 && high >= 0 ? 0 : errno;
    hide_host();
    if (result == 0) result = spawn(arguments, high, made.words, &made.pid);
    if (high >= 0) (void)close(high);
    if (result == 0) {
        *process = made;
        return FW_OK;
    }
    show_host();
    if (made.words >= 0) (void)close(made.words);
    return fw_fail(error, FW_E_IO, "a process of its own cannot be started: %s", strerror(result));
}

/* ---- the end ---- */

static void describe_end(int status, char *how, size_t size) {
    if (WIFSIGNALED(status))
        (void)snprintf(how, size, "it died of signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        (void)snprintf(how, size, "it ended by itself, with exit code %d", WEXITSTATUS(status));
}

/* Whether it has ended by now, or, with `options` 0, once it has. */
static bool wait_for_it(struct cache_process *process, int options) {
    pid_t ended = 0;
    do ended = waitpid(process->pid, &process->status, options);
    while (ended < 0 && errno == EINTR);
    if (ended == 0) return false;
    process->pid = 0;
    show_host();
    return true;
}

bool cache_process_ended(struct cache_process *process, char *how, size_t size) {
    if (process->pid != 0 && !wait_for_it(process, WNOHANG)) return false;
    describe_end(process->status, how, size);
    return true;
}

void cache_process_clean(char *text) {
    for (; *text != '\0'; text++)
        if (*text < 0x20 || *text > 0x7e) *text = '?';
}

/* Sanitizers begin with a line of '='. */
void cache_process_words(const struct cache_process *process, char *words, size_t size) {
    char text[2048];
    const ssize_t n = pread(process->words, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    const char *line = text + strspn(text, "=\n ");
    (void)snprintf(words, size, "%.*s", (int)strcspn(line, "\n"), line);
    cache_process_clean(words);
}

void cache_process_stop(struct cache_process *process, double seconds) {
    const double begin = clock_seconds();
    const struct timespec moment = {.tv_nsec = 1000000};
    while (process->pid != 0 && !wait_for_it(process, WNOHANG)) {
        if (clock_seconds() - begin < seconds) {
            (void)nanosleep(&moment, NULL);
            continue;
        }
        (void)kill(process->pid, SIGKILL);
        (void)wait_for_it(process, 0);
    }
    if (process->words > 0) (void)close(process->words);
    process->words = 0;
}
