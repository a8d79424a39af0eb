/* A module described by a process of its own, so that none of its code runs in this one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache_process.h"
#include "clock.h"
#include "plugin_record.h"
#include "registry_load.h"

enum { MOST_BYTES = 1 << 22 };

/* Time while this process was stopped or the machine asleep does not count. */
static fw_status wait_for_end(const char *path, struct cache_process *process, double seconds,
                              fw_error *error) {
    static const double MOST_AT_ONCE = 0.04; /* seconds */
    char how[128], words[400];
    double waited = 0;
    const struct timespec moment = {.tv_nsec = 500000};
    while (!cache_process_ended(process, how, sizeof how)) {
        const double begin = clock_seconds();
        if (waited > seconds)
            return fw_fail(error, FW_E_PROTOCOL,
                           "%s: loading it takes longer than %g s (eval.cache_timeout)", path,
                           seconds);
        (void)nanosleep(&moment, NULL);
        waited += fmin(clock_seconds() - begin, MOST_AT_ONCE);
    }
    if (strstr(how, "exit code 0") != NULL) return FW_OK;
    cache_process_words(process, words, sizeof words);
    return fw_fail(error, FW_E_PROTOCOL, "%s: the process that loaded it has ended: %s%s%s%s", path,
                   how, words[0] != '\0' ? "; it wrote \"" : "", words,
                   words[0] != '\0' ? "\"" : "");
}

static fw_status run_process(const char *path, int descriptor, double seconds, fw_error *error) {
    const char *const arguments[] = {"describe", path, NULL};
    struct cache_process process = {0};
    FW_TRY(cache_process_start(arguments, descriptor, &process, error));
    const fw_status status = wait_for_end(path, &process, seconds, error);
    cache_process_stop(&process, 0);
    return status;
}

/* A status, then a message or a record. */
static fw_status read_answer(const char *path, const uint8_t *data, size_t size,
                             struct plugin_record **record, fw_error *error) {
    struct byte_reader reader = {.data = data, .size = size};
    const fw_status status = (fw_status)bytes_take_u32(&reader);
    if (reader.failed) return fw_fail(error, FW_E_FORMAT, "%s: says nothing of itself", path);
    if (status == FW_OK) {
        fw_error why = {.struct_size = sizeof why};
        const fw_status read =
            plugin_record_read(data + reader.offset, size - reader.offset, record, &why);
        return read == FW_OK ? FW_OK : fw_fail(error, read, "%s: %s", path, why.message);
    }
    char *message = bytes_take_text(&reader);
    if (message != NULL) cache_process_clean(message);
    (void)fw_fail(error, status, "%s", message != NULL ? message : "no reason is given");
    free(message);
    return status;
}

static fw_status read_file(const char *path, int descriptor, struct plugin_record **record,
                           fw_error *error) {
    struct stat about;
    const bool sized = fstat(descriptor, &about) == 0 && about.st_size >= 0;
    const size_t size = sized ? (size_t)about.st_size : 0;
    if (!sized || size > MOST_BYTES)
        return fw_fail(error, FW_E_LIMIT, "%s: what it says of itself takes %zu bytes", path, size);
    uint8_t *data = malloc(size + 1);
    if (data == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    fw_status status = FW_OK;
    if (pread(descriptor, data, size, 0) != (ssize_t)size)
        status = fw_fail(error, FW_E_IO, "%s: its description cannot be read", path);
    if (status == FW_OK) status = read_answer(path, data, size, record, error);
    free(data);
    return status;
}

static fw_status check_record(const char *path, struct plugin_record *record, fw_error *error) {
    const fw_module *module = plugin_record_module(record);
    if (module->n_plugins == 0) return fw_fail(error, FW_E_NOT_FOUND, "%s has no cache", path);
    return module_check(path, module, error);
}

fw_status module_describe(const char *path, double seconds, struct plugin_record **record,
                          fw_error *error) {
    const int descriptor = memfd_create("fairway-module", MFD_CLOEXEC);
    if (descriptor < 0)
        return fw_fail(error, FW_E_MEMORY, "%s: no memory for a description: %s", path,
                       strerror(errno));
    struct plugin_record *made = NULL;
    fw_status status = run_process(path, descriptor, seconds, error);
    if (status == FW_OK) status = read_file(path, descriptor, &made, error);
    (void)close(descriptor);
    if (status == FW_OK) status = check_record(path, made, error);
    if (status == FW_OK)
        *record = made;
    else
        plugin_record_free(made);
    return status;
}
