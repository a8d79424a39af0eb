#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create, close_range, pipe2 */
#endif
#include "prove_process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "jail_warden.h"

/* ---- environment ---- */

extern char **environ;

static bool is_passed_on(const char *variable) {
    static const char *const prefixes[] = {
        "PATH=",     "HOME=", "LANG=",  "LC_",     "LD_LIBRARY_PATH=", "OMP_",    "GOMP_",
        "OPENBLAS_", "CUDA_", "CUBLAS", "NVIDIA_", "FAIRWAY_",         "MALLOC_", "UBSAN_OPTIONS="};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

/* Looking for leaks takes system calls that no jail allows. */
static const char leaks_off[] = "ASAN_OPTIONS=detect_leaks=0";

fw_status prove_environment_take(struct prove_environment *environment, fw_error *error) {
    size_t n = 0, kept = 0;
    while (environ != NULL && environ[n] != NULL) n++;
    environment->variables = calloc(n + 2, sizeof *environment->variables);
    if (environment->variables == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    for (size_t i = 0; i <= n; i++) {
        const char *variable = i < n ? environ[i] : leaks_off;
        if (i < n && !is_passed_on(variable)) continue;
        environment->variables[kept] = strdup(variable);
        if (environment->variables[kept++] == NULL)
            return fw_fail(error, FW_E_MEMORY, "out of memory");
    }
    return FW_OK;
}

void prove_environment_free(struct prove_environment *environment) {
    for (size_t i = 0; environment->variables != NULL && environment->variables[i] != NULL; i++)
        free(environment->variables[i]);
    free(environment->variables);
    environment->variables = NULL;
}

/* ---- starting ---- */

static fw_status failed(const char *what, fw_error *error) {
    return fw_fail(error, FW_E_IO, "the decoder process: %s: %s", what, strerror(errno));
}

static fw_status put_in_memory(const uint8_t *data, size_t size, int *descriptor, fw_error *error) {
    const int made = memfd_create("proof", MFD_CLOEXEC);
    if (made < 0) return failed("memfd_create", error);
    for (size_t at = 0; at < size;) {
        const ssize_t n = write(made, data + at, size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            (void)close(made);
            return failed("write", error);
        }
        at += (size_t)n;
    }
    (void)lseek(made, 0, SEEK_SET);
    *descriptor = made;
    return FW_OK;
}

/* In the child, until exec: only calls that are safe behind a fork of a program with threads. The
 * descriptors first move out of each other's way. */
static _Noreturn void become_decoder(const struct prove_order *order, int proof, int results) {
    const int above = 64;
    const int moved[] = {fcntl(order->artifact, F_DUPFD, above), fcntl(proof, F_DUPFD, above),
                         fcntl(results, F_DUPFD, above)};
    const int null = open("/dev/null", O_RDWR);
    if (moved[0] < 0 || moved[1] < 0 || moved[2] < 0 || null < 0) _exit(126);
    for (int i = 0; i < 3; i++)
        if (dup2(moved[i], PROVE_ARTIFACT + i) < 0) _exit(126);
    for (int i = 0; i < 3; i++) {
#if defined(__SANITIZE_ADDRESS__)
        if (i == STDERR_FILENO) continue; /* for the sanitizer's reports */
#endif
        if (dup2(null, i) < 0) _exit(126);
    }
    if (close_range(PROVE_RESULTS + 1, ~0u, 0) != 0) _exit(126);
    (void)execve("/proc/self/exe", order->arguments, order->environment->variables);
    _exit(127);
}

static fw_status start(const struct prove_order *order, pid_t *process, int *results,
                       fw_error *error) {
    int proof = -1, ends[2] = {-1, -1};
    FW_TRY(put_in_memory(order->proof, order->proof_bytes, &proof, error));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        (void)close(proof);
        return failed("socketpair", error);
    }
    const pid_t made = fork();
    if (made == 0) become_decoder(order, proof, ends[1]);
    (void)close(proof);
    (void)close(ends[1]);
    if (made < 0) {
        (void)close(ends[0]);
        return failed("fork", error);
    }
    *process = made;
    *results = ends[0];
    return FW_OK;
}

/* ---- listening ---- */

struct listening {
    const struct prove_order *order;
    struct prove_outcome *outcome;
    struct bytes buffer; /* what came and was not understood yet */
    size_t most_text;
    struct jail_warden warden;
    int came; /* a descriptor that came along; -1: none */
    double begin;
    bool ended; /* the last word was said */
    bool shut;  /* no word can come any more, and the process went on */
};

static fw_status nonsense(const char *what, fw_error *error) {
    return fw_fail(error, FW_E_PROTOCOL, "the decoder process sends %s", what);
}

static void keep_text(char *to, size_t size, const uint8_t *data, size_t n) {
    if (n >= size) n = size - 1;
    for (size_t i = 0; i < n; i++) to[i] = data[i] >= ' ' && data[i] < 127 ? (char)data[i] : '?';
    to[n] = '\0';
}

static fw_status keep_tokens(struct listening *l, const uint8_t *data, size_t size,
                             fw_error *error) {
    struct prove_outcome *outcome = l->outcome;
    if (size % 2 != 0 || size / 2 > l->order->tokens - outcome->n_tokens)
        return nonsense("more tokens than the proof has", error);
    for (size_t i = 0; i < size; i += 2)
        outcome->tokens[outcome->n_tokens++] = (uint16_t)(data[i] | data[i + 1] << 8);
    progress_work(l->order->progress, "decode", (double)outcome->n_tokens, (double)l->order->tokens,
                  "tokens", l->begin);
    return FW_OK;
}

static fw_status its_failure(struct listening *l, const uint8_t *data, size_t size,
                             fw_error *error) {
    char why[900];
    if (size < 4) return nonsense("a failure without a status", error);
    struct byte_reader reader = {.data = data, .size = size};
    const uint32_t status = bytes_take_u32(&reader);
    keep_text(why, sizeof why, data + 4, size - 4);
    l->ended = true;
    return fw_fail(error, status > 0 && status < 100 ? (fw_status)status : FW_E_PROTOCOL, "%s",
                   why);
}

static fw_status become_warden(struct listening *l, fw_error *error) {
    if (l->came < 0 || l->warden.listener >= 0 || l->order->readable == NULL)
        return nonsense("a question that nobody can answer", error);
    l->warden.listener = l->came;
    l->came = -1;
    return FW_OK;
}

/* The jail that asks no longer does: nothing is opened for it from here on. */
static void retire_warden(struct listening *l) {
    if (l->warden.listener >= 0) (void)close(l->warden.listener);
    l->warden.listener = -1;
}

static fw_status understand(struct listening *l, uint8_t kind, const uint8_t *data, size_t size,
                            fw_error *error) {
    struct prove_outcome *outcome = l->outcome;
    switch (kind) {
    case PROVE_ASKS: return become_warden(l, error);
    case PROVE_SEALED: retire_warden(l); return FW_OK;
    case PROVE_REFUSED:
        keep_text(outcome->refused, sizeof outcome->refused, data, size);
        return FW_OK;
    case PROVE_TOKENS: return keep_tokens(l, data, size, error);
    case PROVE_TEXT:
        if (size > l->most_text - outcome->text.size)
            return nonsense("more text than its tokens can stand for", error);
        bytes_put(&outcome->text, data, size);
        return outcome->text.failed ? fw_fail(error, FW_E_MEMORY, "no memory for the text") : FW_OK;
    case PROVE_FAILED: return its_failure(l, data, size, error);
    case PROVE_DONE: l->ended = true; return FW_OK;
    default: return nonsense("a message of an unknown kind", error);
    }
}

/* All messages that are complete. */
static fw_status read_messages(struct listening *l, fw_error *error) {
    size_t at = 0;
    fw_status status = FW_OK;
    while (status == FW_OK && !l->ended && l->buffer.size - at >= 5) {
        const uint8_t *head = l->buffer.data + at;
        struct byte_reader after_kind = {.data = head + 1, .size = 4};
        const size_t size = bytes_take_u32(&after_kind);
        if (size > PROVE_MOST_MESSAGE) return nonsense("a message that is too long", error);
        if (l->buffer.size - at - 5 < size) break;
        status = understand(l, head[0], head + 5, size, error);
        at += 5 + size;
    }
    memmove(l->buffer.data, l->buffer.data + at, l->buffer.size - at);
    l->buffer.size -= at;
    return status;
}

/* Answer what the jail asks until there is a word. */
static fw_status wait_for_word(struct listening *l, int results, fw_error *error) {
    for (;;) {
        struct pollfd both[] = {{.fd = results, .events = POLLIN},
                                {.fd = l->warden.listener, .events = POLLIN}};
        const int ready = poll(both, 2, (int)(l->order->patience * 1000));
        if (ready < 0 && errno != EINTR) return failed("poll", error);
        if (ready == 0)
            return fw_fail(error, FW_E_PROTOCOL,
                           "the decoder process has said nothing for %.0f s and was ended",
                           l->order->patience);
        if (ready > 0 && both[0].revents != 0) return FW_OK;
        if (ready > 0 && (both[1].revents & POLLIN) != 0)
            FW_TRY(jail_warden_answer(&l->warden, error));
        else if (ready > 0)
            retire_warden(l);
    }
}

/* As read(), with a descriptor that comes along. */
static ssize_t receive(struct listening *l, int results, uint8_t *data, size_t size) {
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec to = {data, size};
    struct msghdr message = {
        .msg_iov = &to, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t n = recvmsg(results, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (head == NULL || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof(int)))
        return n;
    if (l->came >= 0) (void)close(l->came);
    memcpy(&l->came, CMSG_DATA(head), sizeof l->came);
    return n;
}

static fw_status listen_to(struct listening *l, int results, fw_error *error) {
    while (!l->ended) {
        uint8_t some[1 << 16];
        FW_TRY(wait_for_word(l, results, error));
        const ssize_t n = receive(l, results, some, sizeof some);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != ECONNRESET) return failed("read", error);
        if (n <= 0) return FW_OK; /* it ended */
        bytes_put(&l->buffer, some, (size_t)n);
        if (l->buffer.failed) return fw_fail(error, FW_E_MEMORY, "no memory for its messages");
        FW_TRY(read_messages(l, error));
    }
    return FW_OK;
}

/* ---- the whole ---- */

static fw_status its_end(const struct listening *l, int code, fw_error *error) {
    if (l->ended) return FW_OK;
    const unsigned long long n = l->outcome->n_tokens;
    if (l->shut)
        return fw_fail(error, FW_E_PROTOCOL,
                       "the decoder process went on after %llu tokens without a way to say more, "
                       "and was ended",
                       n);
    if (WIFSIGNALED(code))
        return fw_fail(error, FW_E_PROTOCOL,
                       "the decoder process was ended by signal %d (%s) after %llu tokens",
                       WTERMSIG(code), strsignal(WTERMSIG(code)), n);
    return fw_fail(error, FW_E_PROTOCOL,
                   "the decoder process ended with exit code %d after %llu tokens, without a word",
                   WEXITSTATUS(code), n);
}

/* Who spoke a last word, or nonsense, has nothing more to do; who cannot speak any more ends by
 * itself, or is ended. */
static void wait_for_end(struct listening *l, pid_t process, fw_status status, int *code) {
    const struct timespec moment = {.tv_nsec = 10000000};
    const bool by_itself = status == FW_OK && !l->ended;
    for (int i = 0; by_itself && i < 100; i++) {
        if (waitpid(process, code, WNOHANG) == process) return;
        (void)nanosleep(&moment, NULL);
    }
    l->shut = by_itself;
    (void)kill(process, SIGKILL);
    while (waitpid(process, code, 0) < 0 && errno == EINTR) {
    }
}

static fw_status allocate(const struct prove_order *order, struct prove_outcome *outcome,
                          fw_error *error) {
    *outcome = (struct prove_outcome){0};
    outcome->tokens = malloc(order->tokens * sizeof *outcome->tokens + 1);
    if (outcome->tokens != NULL) return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory for %" PRIu64 " tokens", order->tokens);
}

fw_status prove_decode(const struct prove_order *order, struct prove_outcome *outcome,
                       fw_error *error) {
    pid_t process = -1;
    int results = -1, code = 0;
    FW_TRY(allocate(order, outcome, error));
    FW_TRY(start(order, &process, &results, error));
    struct listening l = {
        .order = order,
        .outcome = outcome,
        .most_text = order->tokens * 256 + 65536,
        .warden = {.listener = -1, .process = process, .readable = order->readable},
        .came = -1,
        .begin = clock_seconds()};
    fw_status status = listen_to(&l, results, error);
    progress_end(order->progress);
    bytes_free(&l.buffer);
    retire_warden(&l);
    if (l.came >= 0) (void)close(l.came);
    memcpy(outcome->unread, l.warden.refused, sizeof outcome->unread);
    (void)close(results);
    wait_for_end(&l, process, status, &code);
    outcome->seconds = clock_seconds() - l.begin;
    return status == FW_OK ? its_end(&l, code, error) : status;
}

void prove_outcome_free(struct prove_outcome *outcome) {
    free(outcome->tokens);
    bytes_free(&outcome->text);
    *outcome = (struct prove_outcome){0};
}

/* ---- in the process ---- */

static void write_whole(const uint8_t *data, size_t size) {
    while (size > 0) {
        const ssize_t n = write(PROVE_RESULTS, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) _exit(125); /* nobody listens */
        data += n;
        size -= (size_t)n;
    }
}

void prove_say(enum prove_message kind, const void *data, size_t size) {
    const uint8_t *next = data;
    do { /* what is too long for one message goes in several */
        const size_t n = size < PROVE_MOST_MESSAGE ? size : PROVE_MOST_MESSAGE;
        const uint8_t head[5] = {(uint8_t)kind, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16),
                                 (uint8_t)(n >> 24)};
        write_whole(head, sizeof head);
        write_whole(next, n);
        next += n;
        size -= n;
    } while (size > 0);
}

void prove_say_asks(int listener) {
    static const uint8_t said[5] = {PROVE_ASKS};
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.head), &listener, sizeof listener);
    struct iovec from = {(void *)(uintptr_t)said, sizeof said};
    const struct msghdr message = {.msg_iov = &from,
                                   .msg_iovlen = 1,
                                   .msg_control = &control,
                                   .msg_controllen = sizeof control};
    if (sendmsg(PROVE_RESULTS, &message, 0) != (ssize_t)sizeof said) _exit(125);
    (void)close(listener);
}
