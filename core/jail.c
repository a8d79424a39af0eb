#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_PATH, CLONE_THREAD */
#endif
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- privileges ---- */

static fw_status drop_privileges(fw_error *error) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fw_fail(error, FW_E_UNSUPPORTED, "no jail: no_new_privs: %s", strerror(errno));
    if (syscall(SYS_capset, &header, none) != 0)
        return fw_fail(error, FW_E_UNSUPPORTED, "no jail: capset: %s", strerror(errno));
    return FW_OK;
}

/* ---- files ---- */

#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* Those of the first version, which every kernel with Landlock has. */
#define ALL_RIGHTS ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

static void allow_reading(int ruleset, const char *path) {
    const int descriptor = open(path, O_PATH | O_CLOEXEC);
    struct stat about;
    if (descriptor < 0) return;
    if (fstat(descriptor, &about) == 0) {
        const bool directory = S_ISDIR(about.st_mode);
        const struct landlock_path_beneath_attr rule = {
            .allowed_access = directory ? READ_RIGHTS : LANDLOCK_ACCESS_FS_READ_FILE,
            .parent_fd = descriptor};
        (void)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    }
    (void)close(descriptor);
}

/* A kernel without Landlock leaves it to the other parts. */
static void limit_files(const char *const *readable) {
    const struct landlock_ruleset_attr attributes = {.handled_access_fs = ALL_RIGHTS};
    const int ruleset =
        (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (ruleset < 0) return;
    for (size_t i = 0; readable != NULL && readable[i] != NULL; i++)
        allow_reading(ruleset, readable[i]);
    (void)syscall(SYS_landlock_restrict_self, ruleset, 0);
    (void)close(ruleset);
}

/* ---- refusals ---- */

enum { MOST_CALLS = 1024 };
static atomic_uint refused[MOST_CALLS]; /* times, by number */
static bool noting;

/* Instead of the refused call: note it, and have it return EPERM. */
static void note_refusal(int signal, siginfo_t *info, void *context) {
    ucontext_t *interrupted = context;
    (void)signal;
    const int call = info->si_syscall;
    if (call >= 0 && call < MOST_CALLS) (void)atomic_fetch_add(&refused[call], 1);
#if defined(__x86_64__)
    interrupted->uc_mcontext.gregs[REG_RAX] = -EPERM;
#elif defined(__aarch64__)
    interrupted->uc_mcontext.regs[0] = (unsigned long long)-EPERM;
#else
    (void)interrupted;
#endif
}

void jail_note_refusals(void) {
#if defined(__x86_64__) || defined(__aarch64__)
    struct sigaction action = {.sa_sigaction = note_refusal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    noting = sigaction(SIGSYS, &action, NULL) == 0;
#endif
}

const char *jail_refusals(char *out, size_t size) {
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < MOST_CALLS && n < size; i++) {
        const unsigned times = atomic_load(&refused[i]);
        if (times == 0) continue;
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
        n += (size_t)snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "",
                              name != NULL ? name : "an unknown call");
        if (times > 1 && n < size) n += (size_t)snprintf(out + n, size - n, " (%u times)", times);
        free(name);
    }
    return out;
}

/* ---- system calls ---- */

static const int sealed_calls[] = {
    /* descriptors that are open */
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64),
    SCMP_SYS(pwrite64), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(close), SCMP_SYS(close_range),
    SCMP_SYS(fsync),
    /* memory */
    SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    /* threads and signals of its own */
    SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity), SCMP_SYS(getcpu), SCMP_SYS(getpid), SCMP_SYS(getppid),
    SCMP_SYS(gettid), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack), SCMP_SYS(exit), SCMP_SYS(exit_group),
    /* clock and chance */
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(restart_syscall), SCMP_SYS(getrandom)};

static const int device_calls[] = {
    SCMP_SYS(ioctl),         SCMP_SYS(poll),  SCMP_SYS(ppoll),         SCMP_SYS(eventfd2),
    SCMP_SYS(pipe2),         SCMP_SYS(mlock), SCMP_SYS(munlock),       SCMP_SYS(mincore),
    SCMP_SYS(msync),         SCMP_SYS(mbind), SCMP_SYS(get_mempolicy), SCMP_SYS(set_mempolicy),
    SCMP_SYS(sysinfo),       SCMP_SYS(uname), SCMP_SYS(getrusage),     SCMP_SYS(sched_getscheduler),
    SCMP_SYS(sched_getparam)};

static const int loading_calls[] = {
    SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(access),
    SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
    SCMP_SYS(getdents64), SCMP_SYS(getcwd), SCMP_SYS(statfs), SCMP_SYS(fstatfs), SCMP_SYS(uname),
    SCMP_SYS(sysinfo), SCMP_SYS(arch_prctl), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    /* what leads from here to JAIL_SEALED */
    SCMP_SYS(seccomp), SCMP_SYS(capset), SCMP_SYS(landlock_create_ruleset),
    SCMP_SYS(landlock_add_rule), SCMP_SYS(landlock_restrict_self)};

/* Refused like others, and not worth a note: OpenBLAS asks where its memory should lie. */
static const int idle_calls[] = {SCMP_SYS(mbind)};

/* 0 or a negative errno. Calls that this architecture does not have are left out. */
static int allow(scmp_filter_ctx filter, const int *calls, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
        if (result != 0 && result != -EDOM) return result;
    }
    return 0;
}

/* A call whose argument `which` must be one of a few; the kernel looks at its lower half alone. */
static int allow_some(scmp_filter_ctx filter, int call, unsigned which, const int *values,
                      size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct scmp_arg_cmp is =
            SCMP_CMP(which, SCMP_CMP_MASKED_EQ, UINT32_MAX, (scmp_datum_t)values[i]);
        const int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, is);
        if (result != 0) return result;
    }
    return 0;
}

/* What concerns a descriptor of its own: a lock, say, is seen by all who have the file open, as
 * /dev/null. */
static int allow_descriptors(scmp_filter_ctx filter) {
    static const int commands[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL};
    return allow_some(filter, SCMP_SYS(fcntl), 1, commands, sizeof commands / sizeof(int));
}

/* What leads from here to JAIL_SEALED, and names; nothing by which a process could outlive the one
 * that it is to end with. */
static int allow_leading_on(scmp_filter_ctx filter) {
    static const int options[] = {PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_SECCOMP,
                                  PR_GET_SECCOMP,      PR_CAPBSET_READ,     PR_SET_NAME,
                                  PR_GET_NAME,         PR_SET_VMA};
    return allow_some(filter, SCMP_SYS(prctl), 0, options, sizeof options / sizeof(int));
}

/* Files for reading alone. */
static int allow_opening(scmp_filter_ctx filter) {
    const scmp_datum_t writes = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND;
    const int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                                        SCMP_A2(SCMP_CMP_MASKED_EQ, writes, O_RDONLY));
    if (result != 0) return result;
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(open), 1,
                            SCMP_A1(SCMP_CMP_MASKED_EQ, writes, O_RDONLY));
}

/* Threads, not processes; clone3 hides its flags from a filter, and the C library does without.
 * Signals to itself alone, which is what abort() sends. */
static int allow_threads(scmp_filter_ctx filter) {
    const scmp_datum_t thread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
    int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));
    if (result == 0) result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                  SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    return result;
}

/* Who asks for processors is told that it has them: a set that a process could change, its own or
 * another's of the same user, would be a word to all who ask for it. */
static int allow_sealed(scmp_filter_ctx filter) {
    int result = allow(filter, sealed_calls, sizeof sealed_calls / sizeof(int));
    if (result == 0) result = allow_descriptors(filter);
    if (result == 0) result = allow_threads(filter);
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(0), SCMP_SYS(sched_setaffinity), 0);
    return result;
}

static int allow_loading(scmp_filter_ctx filter) {
    const int result = allow(filter, loading_calls, sizeof loading_calls / sizeof(int));
    return result == 0 ? allow_leading_on(filter) : result;
}

static int limit_calls(scmp_filter_ctx filter, enum jail jail) {
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (result == 0) result = allow_sealed(filter);
    if (result == 0 && noting && jail == JAIL_SEALED)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), idle_calls[0], 0);
    if (result == 0 && jail == JAIL_SEALED_WITH_DEVICE)
        result = allow(filter, device_calls, sizeof device_calls / sizeof(int));
    if (result == 0 && jail == JAIL_LOADING) {
        result = allow_loading(filter);
        if (result == 0) result = allow_opening(filter);
    }
    return result == 0 ? seccomp_load(filter) : result;
}

fw_status jail_enter(enum jail jail, const char *const *readable, fw_error *error) {
    FW_TRY(drop_privileges(error));
    limit_files(readable);
    const bool noted = jail == JAIL_SEALED && noting;
    scmp_filter_ctx filter = seccomp_init(noted ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM));
    if (filter == NULL) return fw_fail(error, FW_E_MEMORY, "no jail: no memory for a filter");
    const int result = limit_calls(filter, jail);
    seccomp_release(filter);
    if (result == 0) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "no jail: this kernel refuses seccomp: %s",
                   strerror(-result));
}

/* ---- the jail that asks ---- */

static int limit_to_asking(scmp_filter_ctx filter) {
    int result = allow_sealed(filter);
    if (result == 0) result = allow_loading(filter);
    if (result == 0) result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sendmsg), 0);
    if (result == 0) result = seccomp_rule_add(filter, SCMP_ACT_NOTIFY, SCMP_SYS(openat), 0);
    const int old = result == 0 ? seccomp_rule_add(filter, SCMP_ACT_NOTIFY, SCMP_SYS(open), 0) : 0;
    if (old != 0 && old != -EDOM) result = old;
    return result == 0 ? seccomp_load(filter) : result;
}

fw_status jail_enter_asking(int *listener, fw_error *error) {
    FW_TRY(drop_privileges(error));
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (filter == NULL) return fw_fail(error, FW_E_MEMORY, "no jail: no memory for a filter");
    const int result = limit_to_asking(filter);
    const int descriptor = result == 0 ? seccomp_notify_fd(filter) : -1;
    seccomp_release(filter);
    if (descriptor >= 0) {
        *listener = descriptor;
        return FW_OK;
    }
    return fw_fail(error, FW_E_UNSUPPORTED, "no jail that asks: %s", strerror(-result));
}
