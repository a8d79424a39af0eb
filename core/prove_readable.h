/* What a decoder process may read while it loads code: libraries, plugins, what is asked about the
 * machine, the artifact and the proof. */
#ifndef FAIRWAY_PROVE_READABLE_H
#define FAIRWAY_PROVE_READABLE_H

#include "arguments.h"

struct prove_readable {
    const char *paths[160]; /* NULL-terminated, as in jail_warden.h */
    size_t n;
    char texts[16384]; /* what the paths point into where they are no constants */
    size_t used;
};

/* By --plugin-dir, --set SECTION.plugin=PATH and the environment; `model` is the tokenizer's file,
 * or NULL. What does not fit is left out. Errors: those of registry_create. */
fw_status prove_readable_list(const struct arguments *arguments, const char *model,
                              struct prove_readable *readable, fw_error *error);

#endif
