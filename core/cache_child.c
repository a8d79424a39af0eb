#include "cache_child.h"

#include <fairway/fairway.h>
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cache_opening.h"
#include "cache_process.h"
#include "host.h"
#include "jail.h"
#include "plugin_record.h"
#include "registry_load.h"
#include "seat_channel.h"
#include "seat_notes.h"

/* One process, one cache. */
struct child {
    struct channel channel;
    struct channel_say *say; /* of the request being answered */
    struct bytes inbox;      /* parts of a request that does not fit into one */
    struct bytes state;      /* a snapshot, to be fetched */
    struct cache_opening opening;
    struct host *host;
    fw_host services;
    const fw_cache *cache;
    void *self;
    fw_row row; /* shown last */
    double (*probability)(void *self, const fw_row *row, uint32_t token);
};

static struct child child;

/* ---- jail ---- */

enum { MOST_READABLE = 48 };

/* What loading a library needs: its file, and the system's libraries. */
static fw_status go_to_jail(const char *module, fw_error *error) {
    static char libraries[4096];
    const char *readable[MOST_READABLE + 1] = {
        module,       "/lib",           "/lib64",           "/usr/lib",
        "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/ld.so.preload",
        "/proc/self", "/proc/cpuinfo",  "/proc/meminfo",    "/sys/devices/system/cpu",
        "/dev/null"};
    size_t n = 0;
    while (readable[n] != NULL) n++;
    const char *path = getenv("LD_LIBRARY_PATH");
    (void)snprintf(libraries, sizeof libraries, "%s", path != NULL ? path : "");
    for (char *name = strtok(libraries, ":"); name != NULL && n < MOST_READABLE;
         name = strtok(NULL, ":"))
        readable[n++] = name;
    return jail_enter(JAIL_LOADING, readable, error);
}

/* ---- describing ---- */

static void write_all(int descriptor, const struct bytes *bytes) {
    for (size_t at = 0; at < bytes->size;) {
        const ssize_t n = write(descriptor, bytes->data + at, bytes->size - at);
        if (n <= 0) return;
        at += (size_t)n;
    }
}

static int describe(const char *path) {
    fw_error error = {.struct_size = sizeof error};
    const fw_module *module = NULL;
    struct bytes bytes = {0};
    fw_status status = go_to_jail(path, &error);
    if (status == FW_OK) status = module_load(path, &module, &error);
    bytes_put_u32(&bytes, (uint32_t)status);
    if (status == FW_OK)
        plugin_record_write(&bytes, module);
    else
        bytes_put_text(&bytes, error.message);
    write_all(CACHE_CHILD_DESCRIPTOR, &bytes);
    bytes_free(&bytes);
    return 0;
}

/* ---- services to the plugin ---- */

static void note_log(void *argument, uint32_t level, const char *message) {
    (void)argument;
    if (child.say != NULL)
        seat_note_log(child.say->notes, &child.say->note_bytes, CHANNEL_NOTE_BYTES, level, message);
}

static void note_effect(const fw_host *host, const char *name, double size) {
    (void)host;
    if (child.say != NULL)
        seat_note_effect(child.say->notes, &child.say->note_bytes, CHANNEL_NOTE_BYTES, name, size);
}

static fw_status open_services(fw_error *error) {
    const struct host_options options = {.seed = child.opening.seed, .log = note_log};
    if (child.opening.threads > 0) omp_set_num_threads((int)child.opening.threads);
    FW_TRY(host_create(&options, &child.host, error));
    child.services = *host_table(child.host);
    child.services.effect = note_effect;
    return FW_OK;
}

/* ---- answering ---- */

static const fw_plugin *find_cache(const fw_module *module, const char *id) {
    for (uint32_t i = 0; i < module->n_plugins; i++) {
        const fw_plugin *plugin = module->plugins[i];
        if (plugin->kind == FW_CACHE && strcmp(plugin->id, id) == 0) return plugin;
    }
    return NULL;
}

/* The host has checked the values against the table that it was told of; another one means that the
 * file has changed since. */
static fw_status load(fw_error *error) {
    const struct cache_opening *opening = &child.opening;
    const fw_module *module = NULL;
    FW_TRY(go_to_jail(opening->path, error));
    FW_TRY(module_load(opening->path, &module, error));
    FW_TRY(jail_enter(JAIL_SEALED, NULL, error));
    const fw_plugin *plugin = find_cache(module, opening->id);
    if (plugin == NULL || plugin->n_params != opening->n_values)
        return fw_fail(error, FW_E_ABI, "%s has changed while it was in use", opening->path);
    child.cache = plugin->vtable;
    return FW_OK;
}

static fw_status create(fw_error *error) {
    if (child.inbox.failed || child.cache != NULL)
        return fw_fail(error, FW_E_INTERNAL, "created twice, or out of memory");
    FW_TRY(cache_opening_read(child.inbox.data, child.inbox.size, &child.opening, error));
    bytes_free(&child.inbox);
    FW_TRY(open_services(error));
    FW_TRY(load(error));
    return child.cache->create(&child.services, child.opening.values, &child.opening.shape,
                               &child.self, error);
}

/* Bytes of a request lie at the end of its bulk, next to the page that nobody may touch. */
static const uint8_t *bulk_of(const struct channel_slot *slot, size_t bytes) {
    return slot->bulk_ask + (CHANNEL_BULK_BYTES - bytes);
}

static fw_status predict(const struct channel_slot *slot, fw_error *error) {
    const struct channel_ask *ask = slot->ask;
    struct channel_say *say = slot->say;
    child.row = (fw_row){.struct_size = sizeof child.row,
                         .vocabulary = child.channel.vocabulary,
                         .position = ask->position,
                         .probabilities = slot->row,
                         .entropy = ask->entropy,
                         .context = slot->context + (child.channel.context - ask->n_context),
                         .n_context = ask->n_context};
    fw_prediction stated = {.struct_size = sizeof stated,
                            .tokens = slot->tokens,
                            .values = slot->values,
                            .dense = slot->dense};
    const fw_status status = child.cache->predict(child.self, &child.row, &stated, error);
    child.probability = stated.probability;
    say->form = stated.form;
    say->n = stated.n;
    say->lm_weight = stated.lm_weight;
    say->has_probability = stated.probability != NULL;
    return status;
}

/* The tokens of a request: all in its bulk, or the last of many parts. */
static fw_status with_tokens(const struct channel_slot *slot,
                             fw_status (*tell)(void *, const uint32_t *, uint64_t, fw_error *),
                             fw_error *error) {
    const uint64_t n = slot->ask->n;
    if (child.inbox.size == 0) {
        const uint8_t *tokens = bulk_of(slot, n * sizeof(uint32_t));
        return tell(child.self, (const uint32_t *)(const void *)tokens, n, error);
    }
    const uint64_t last = n - child.inbox.size / sizeof(uint32_t);
    bytes_put(&child.inbox, bulk_of(slot, last * sizeof(uint32_t)), last * sizeof(uint32_t));
    if (child.inbox.failed)
        return fw_fail(error, FW_E_MEMORY, "no memory for %zu tokens", (size_t)n);
    const void *tokens = child.inbox.data;
    const fw_status status = tell(child.self, tokens, n, error);
    bytes_free(&child.inbox);
    return status;
}

static fw_status snapshot(struct channel_say *say, fw_error *error) {
    size_t needed = 0;
    bytes_free(&child.state);
    const fw_status status = child.cache->snapshot(child.self, NULL, &needed, error);
    if (status != FW_E_BUFFER && status != FW_OK) return status;
    child.state.data = malloc(needed + 1);
    if (child.state.data == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a state of %zu bytes", needed);
    FW_TRY(child.cache->snapshot(child.self, child.state.data, &needed, error));
    child.state.size = say->bytes = needed;
    return FW_OK;
}

static fw_status fetch(const struct channel_slot *slot) {
    const size_t at = slot->ask->n < child.state.size ? slot->ask->n : child.state.size;
    const size_t left = child.state.size - at;
    const size_t n = left < CHANNEL_BULK_BYTES ? left : CHANNEL_BULK_BYTES;
    if (n > 0) memcpy(slot->bulk_say, child.state.data + at, n);
    return FW_OK;
}

static fw_status restore(fw_error *error) {
    if (child.inbox.failed) return fw_fail(error, FW_E_MEMORY, "no memory for a state");
    const fw_status status =
        child.cache->restore(child.self, child.inbox.data, child.inbox.size, error);
    bytes_free(&child.inbox);
    return status;
}

static fw_status answer(const struct channel_slot *slot, uint32_t request, fw_error *error) {
    const struct channel_ask *ask = slot->ask;
    switch (request) {
    case ASK_PART: bytes_put(&child.inbox, bulk_of(slot, ask->n), ask->n); return FW_OK;
    case ASK_CREATE: return create(error);
    case ASK_BEGIN: return child.cache->begin(child.self, error);
    case ASK_PREFILL: return with_tokens(slot, child.cache->prefill, error);
    case ASK_PREDICT: return predict(slot, error);
    case ASK_UPDATE: return with_tokens(slot, child.cache->update, error);
    case ASK_SNAPSHOT: return snapshot(slot->say, error);
    case ASK_FETCH: return fetch(slot);
    case ASK_RESTORE: return restore(error);
    case ASK_PROBABILITY:
        slot->say->probability = child.probability(child.self, &child.row, ask->token);
        return FW_OK;
    case ASK_MEMORY: slot->say->bytes = child.cache->memory_bytes(child.self); return FW_OK;
    case ASK_LEAVE: child.cache->destroy(child.self); return FW_OK;
    default: return fw_fail(error, FW_E_INTERNAL, "unknown request %u", request);
    }
}

/* ---- the process ---- */

/* Where a cache reached that it must not: into the page behind what it was handed, perhaps. */
static void note_fault(int number, siginfo_t *about, void *context) {
    (void)context;
    const uintptr_t begin = (uintptr_t)child.channel.head, at = (uintptr_t)about->si_addr;
    if (at > begin && at < begin + child.channel.bytes)
        atomic_store(&child.channel.head->fault, (uint64_t)(at - begin));
    (void)signal(number, SIG_DFL);
}

/* The keyboard's signals are the host's affair; when it dies of one, so does this process. */
static void settle(void) {
    const struct rlimit none = {0, 0};
    const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGPIPE};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        (void)signal(ignored[i], SIG_IGN);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
    const struct sigaction action = {.sa_sigaction = note_fault, .sa_flags = SA_SIGINFO};
    (void)sigaction(SIGSEGV, &action, NULL);
    (void)sigaction(SIGBUS, &action, NULL);
}

/* What was asked: once it is answered, the slot may hold another request. */
static uint32_t serve_one(uint32_t number) {
    const struct channel_slot *slot = &child.channel.slots[number % CHANNEL_SLOTS];
    fw_error error;
    error.struct_size = sizeof error;
    error.message[0] = '\0';
    const uint32_t request = slot->ask->request;
    child.say = slot->say;
    child.say->note_bytes = 0;
    child.say->status = answer(slot, request, &error);
    if (child.say->status != FW_OK)
        (void)snprintf(child.say->message, sizeof child.say->message, "%s", error.message);
    channel_advance(&child.channel.head->answered, number, true);
    return request;
}

static int serve(void) {
    fw_error error = {.struct_size = sizeof error};
    if (channel_attach(CACHE_CHILD_DESCRIPTOR, &child.channel, &error) != FW_OK) {
        (void)fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    (void)close(CACHE_CHILD_DESCRIPTOR);
    if (getppid() != child.channel.head->host) return 2; /* it died before we could notice */
    for (uint32_t number = 1;; number++) {
        (void)channel_wait(&child.channel, &child.channel.head->asked, number, INFINITY);
        if (serve_one(number) == ASK_LEAVE) return 0;
    }
}

/* A crash is a death by its signal, which the host names, whatever handler there was. */
static void die_by_signals(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        (void)signal(signals[i], SIG_DFL);
}

/* Without the exit handlers of whatever was loaded. */
int cache_child_main(int argc, char **argv) {
    die_by_signals();
    settle();
    if (argc == 2 && strcmp(argv[1], "serve") == 0) _exit(serve());
    if (argc == 3 && strcmp(argv[1], "describe") == 0) _exit(describe(argv[2]));
    (void)fprintf(stderr,
                  "fairway: %s is started by a run with eval.isolate = yes, never by hand\n",
                  argv[0]);
    return 2;
}
