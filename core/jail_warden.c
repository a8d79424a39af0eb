#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_PATH, realpath */
#endif
#include "jail_warden.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LONGEST_PATH = PATH_MAX + 64 };

/* ---- what is asked for ---- */

static fw_status open_memory(pid_t process, int *memory, fw_error *error) {
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/mem", (int)process);
    *memory = open(path, O_RDONLY | O_CLOEXEC);
    if (*memory >= 0 || errno == ENOENT || errno == ESRCH) return FW_OK; /* or it has ended */
    return fw_fail(error, FW_E_UNSUPPORTED,
                   "what the jailed process asks for cannot be read: %s: %s (is "
                   "kernel.yama.ptrace_scope above 1?)",
                   path, strerror(errno));
}

/* The path in the process's memory. */
static bool read_path(int memory, uint64_t address, char path[PATH_MAX]) {
    size_t n = 0;
    while (memory >= 0 && n < PATH_MAX) { /* to a page's end, behind which nothing may be */
        const size_t page = 4096 - (size_t)((address + n) % 4096);
        const size_t wanted = page < PATH_MAX - n ? page : PATH_MAX - n;
        const ssize_t got = pread(memory, path + n, wanted, (off_t)(address + n));
        if (got <= 0) return false;
        if (memchr(path + n, '\0', (size_t)got) != NULL) return true;
        n += (size_t)got;
    }
    return false;
}

/* Here /proc/self would be the warden. */
static void of_process(pid_t process, const char *path, char out[LONGEST_PATH]) {
    static const char self[] = "/proc/self";
    if (path[0] != '/')
        (void)snprintf(out, LONGEST_PATH, "/proc/%d/cwd/%s", (int)process, path);
    else if (strncmp(path, self, sizeof self - 1) == 0 &&
             (path[sizeof self - 1] == '/' || path[sizeof self - 1] == '\0'))
        (void)snprintf(out, LONGEST_PATH, "/proc/%d%s", (int)process, path + sizeof self - 1);
    else
        (void)snprintf(out, LONGEST_PATH, "%s", path);
}

static bool is_library(int descriptor) {
    char mark[4];
    return pread(descriptor, mark, sizeof mark, 0) == (ssize_t)sizeof mark &&
           memcmp(mark,
                  "\x7f"
                  "ELF",
                  sizeof mark) == 0;
}

static bool is_below(const char *file, const char *folder) {
    const size_t n = strlen(folder);
    return strncmp(file, folder, n) == 0 && file[n] == '/';
}

static bool is_same(const struct stat *file, const char *entry) {
    struct stat other;
    return stat(entry, &other) == 0 && other.st_dev == file->st_dev && other.st_ino == file->st_ino;
}

/* Whether a file, which really lies at `real`, may be read because of one entry of the list; and
 * then whether only as a library. */
static bool allowed_by(const struct jail_warden *warden, const char *entry, const struct stat *file,
                       const char *real, bool *as_library) {
    char of[LONGEST_PATH], resolved[PATH_MAX];
    const size_t n = strlen(entry);
    of_process(warden->process, entry, of);
    *as_library = n > 0 && entry[n - 1] == '/' && !S_ISDIR(file->st_mode);
    if (n > 0 && !*as_library && is_same(file, of)) return true;
    return n > 0 && realpath(of, resolved) != NULL && is_below(real, resolved);
}

static bool allowed(const struct jail_warden *warden, int located, bool *as_library) {
    char link[64], real[PATH_MAX];
    struct stat file;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", located);
    const ssize_t n = readlink(link, real, sizeof real - 1);
    if (n <= 0 || fstat(located, &file) != 0) return false;
    real[n] = '\0';
    bool found = false;
    for (const char *const *entry = warden->readable; *entry != NULL; entry++) {
        bool here_as_library = false;
        if (!allowed_by(warden, *entry, &file, real, &here_as_library)) continue;
        *as_library = here_as_library && (!found || *as_library); /* one without that is enough */
        found = true;
    }
    return found;
}

/* Located, judged by where it really lies, and only then opened. -EACCES: not on the list. */
static int open_for(const struct jail_warden *warden, const char *path) {
    char of[LONGEST_PATH], link[64];
    bool as_library = false;
    of_process(warden->process, path, of);
    const int located = open(of, O_PATH | O_CLOEXEC);
    if (located < 0) return -errno;
    int descriptor = -EACCES;
    if (allowed(warden, located, &as_library)) {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", located);
        descriptor = open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (descriptor < 0) descriptor = -errno;
    }
    if (descriptor >= 0 && as_library && !is_library(descriptor)) {
        (void)close(descriptor);
        descriptor = -EACCES;
    }
    (void)close(located);
    return descriptor;
}

static void note(struct jail_warden *warden, const char *path) {
    const size_t n = strlen(warden->refused);
    if (n + strlen(path) + 3 < sizeof warden->refused && strstr(warden->refused, path) == NULL)
        (void)snprintf(warden->refused + n, sizeof warden->refused - n, "%s%.400s",
                       n > 0 ? ", " : "", path);
}

/* ---- the answer ---- */

static void refuse(const struct jail_warden *warden, uint64_t id, int why) {
    struct seccomp_notif_resp answer = {.id = id, .error = why};
    (void)ioctl(warden->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

static void hand_over(const struct jail_warden *warden, uint64_t id, int descriptor,
                      uint64_t flags) {
    const struct seccomp_notif_addfd given = {
        .id = id, .srcfd = (uint32_t)descriptor, .newfd_flags = (uint32_t)(flags & O_CLOEXEC)};
    const int there = ioctl(warden->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &given);
    struct seccomp_notif_resp answer = {.id = id, .val = there, .error = there < 0 ? -EMFILE : 0};
    if (there < 0) answer.val = 0;
    (void)ioctl(warden->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

static bool writes(uint64_t flags) {
    return (flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND)) != O_RDONLY;
}

/* `path` was asked for, with these arguments of openat() or open(). */
static void answer(struct jail_warden *warden, const struct seccomp_notif *asked,
                   const char *path) {
    const bool at = asked->data.nr == SYS_openat;
    const uint64_t flags = asked->data.args[at ? 2 : 1];
    const bool by_path = path[0] == '/' || !at || (int)asked->data.args[0] == AT_FDCWD;
    const int descriptor = by_path && !writes(flags) ? open_for(warden, path) : -EACCES;
    if (descriptor == -EACCES) note(warden, path);
    if (descriptor < 0) {
        refuse(warden, asked->id, descriptor);
        return;
    }
    hand_over(warden, asked->id, descriptor, flags);
    (void)close(descriptor);
}

fw_status jail_warden_answer(struct jail_warden *warden, fw_error *error) {
    struct seccomp_notif asked;
    char path[PATH_MAX];
    int memory = -1;
    memset(&asked, 0, sizeof asked);
    if (ioctl(warden->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) {
        if (errno == EINTR || errno == ENOENT) return FW_OK; /* it has ended */
        return fw_fail(error, FW_E_IO, "the jail's questions cannot be heard: %s", strerror(errno));
    }
    FW_TRY(open_memory(asked.pid > 0 ? (pid_t)asked.pid : warden->process, &memory, error));
    const bool at = asked.data.nr == SYS_openat;
    const bool known = read_path(memory, asked.data.args[at ? 1 : 0], path);
    if (memory >= 0) (void)close(memory);
    /* Still the same question: what was read was the memory of who asked it. */
    if (known && ioctl(warden->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked.id) == 0)
        answer(warden, &asked, path);
    else
        refuse(warden, asked.id, -EPERM);
    return FW_OK;
}
