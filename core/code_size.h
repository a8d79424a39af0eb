/* How many bytes the code counts: the larger of the xz'd sources (code_bundle.h) and the xz'd
 * stripped binaries of the host and of the plugins in use. A plugin without sources beside it
 * (KIND-ID.src) counts as its binary in both. System libraries do not count. */
#ifndef FAIRWAY_CODE_SIZE_H
#define FAIRWAY_CODE_SIZE_H

#include "host.h"

struct code_size {
    size_t sources, binaries; /* bytes, packed */
    size_t counted;           /* the larger */
    uint8_t hash[32];         /* SHA-256 of the packed sources */
};

/* Measure this program with the plugins that `experiment` has bound, and with those that they have
 * had `host` instantiate for them; the packed sources, a .tar.xz, are written to `path` (NULL:
 * nowhere). E_IO. */
fw_status code_size_measure(const struct experiment *experiment, const struct host *host,
                            const char *path, struct code_size *size, fw_error *error);

/* Call visit(argument, choice) for each bound plugin choice, each plugin once. */
void experiment_each_plugin(const struct experiment *experiment,
                            void (*visit)(void *argument, const struct plugin_choice *choice),
                            void *argument);

#endif
