/* Services that the host offers to a plugin instance. The table is given to create() and stays
 * valid until destroy() returns. A member beyond the host's struct_size does not exist: ask FW_HAS.
 */
#ifndef FAIRWAY_HOST_H
#define FAIRWAY_HOST_H

#include "device.h"
#include "error.h"
#include "param.h"

FW_BEGIN_DECLS

enum { FW_LOG_DEBUG = 0, FW_LOG_INFO = 1, FW_LOG_WARNING = 2, FW_LOG_ERROR = 3 };

/* One key = value pair for instantiate(), as it would stand in an INI section. */
typedef struct fw_setting {
    const char *key;
    const char *value;
} fw_setting;

/* A plugin instance inside another plugin: its vtable (by kind) and its `self`. */
typedef struct fw_instance {
    uint32_t struct_size;
    uint32_t kind;
    const void *vtable;
    void *self;
    void *reserved; /* the host's own */
} fw_instance;

struct fw_collective;

typedef struct fw_host {
    uint32_t struct_size;
    uint32_t abi_minor;
    void *context; /* the host's own; pass the table itself to every call */

    /* The device that the run uses; NULL for kinds that never touch one (tokenizer, compressor). */
    fw_device *device;

    /* The collective of a run on several ranks; NULL on one. */
    const struct fw_collective *collective;
    void *collective_self;

    /* Write one line (no newline) to the run's log. [concurrent] */
    void (*log)(const struct fw_host *host, uint32_t level, const char *message);

    /* Host memory, 64-byte aligned, uninitialised; NULL when there is none. Not inside a step. */
    void *(*allocate)(const struct fw_host *host, size_t bytes);
    void (*release)(const struct fw_host *host, void *memory);

    /* A 64-bit seed that depends on the run's seed and on `label` only. [deterministic] */
    uint64_t (*seed)(const struct fw_host *host, const char *label);

    /* Call body(argument, begin, end) on disjoint ranges that cover [0, n), possibly at once on
     * several threads, and return when all are done. `grain` is the smallest useful range. The
     * ranges depend on n, grain and the number of threads alone. */
    void (*parallel_for)(const struct fw_host *host, int64_t n, int64_t grain,
                         void (*body)(void *argument, int64_t begin, int64_t end), void *argument);

    /* Number of threads that parallel_for uses, at least 1. */
    uint32_t (*threads)(const struct fw_host *host);

    /* Report progress of long work: `done` of `total` units of `what`. Cheap; call it freely. */
    void (*progress)(const struct fw_host *host, const char *what, double done, double total);

    /* Seconds left of the phase's time limit; infinity when it has none. */
    double (*seconds_left)(const struct fw_host *host);

    /* Create an instance of another plugin, found as the INI would find it. Release it before your
     * own destroy() returns. Errors: E_NOT_FOUND, E_CONFIG, or what its create() returns. */
    fw_status (*instantiate)(const struct fw_host *host, uint32_t kind, const char *id,
                             const fw_setting *settings, uint32_t n_settings, fw_instance *instance,
                             fw_error *error);
    void (*release_instance)(const struct fw_host *host, fw_instance *instance);

    /* A further service by name ("fairway.x/1"), or NULL. */
    const void *(*service)(const struct fw_host *host, const char *id);

    /* State the size of an effect that the instance's feature had ("swa_relative_distance", 0.012):
     * it goes into the receipt, the last value of a name counts, and 0 ends the run with an error,
     * as what has no effect is a mistake. Names are [a-z0-9_], at most 63; a run notes 256. */
    void (*effect)(const struct fw_host *host, const char *name, double size);
} fw_host;

FW_END_DECLS

#endif
