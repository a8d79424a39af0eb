/* Command-line arguments that several verbs share. */
#ifndef FAIRWAY_ARGUMENTS_H
#define FAIRWAY_ARGUMENTS_H

#include <fairway/error.h>
#include <stdbool.h>
#include <stdint.h>

enum { MAX_ARGUMENTS = 256 };

struct arguments {
    const char *input; /* the one positional argument, or NULL */
    char **inputs;     /* all of them, see arguments_parse_many */
    size_t n_inputs;
    const char *overrides[MAX_ARGUMENTS]; /* --set SECTION.KEY=VALUE, and what options stand for */
    size_t n_overrides;
    const char *plugin_directories[MAX_ARGUMENTS]; /* --plugin-dir DIR */
    size_t n_plugin_directories;
    bool help;
};

/* An option of one verb: `name` takes a value, stored to `*value`; or is a flag, with value NULL.
 */
struct option {
    const char *name; /* "--out" */
    const char **value;
    bool *flag;
};

/* Parse argv[1..]. `options` ends with a NULL name. E_CONFIG: unknown option (nearest suggested),
 * missing value, two positional arguments. */
fw_status arguments_parse(int argc, char **argv, const struct option *options,
                          struct arguments *arguments, fw_error *error);

/* As arguments_parse, for verbs with any number of positional arguments: `inputs` points into argv,
 * whose front they are moved to, in order. */
fw_status arguments_parse_many(int argc, char **argv, const struct option *options,
                               struct arguments *arguments, fw_error *error);

/* A whole number in [least, most] given as `text` to the option `name`; 2K, 3M and 1G are
 * thousands, millions and billions. NULL: `otherwise`. E_CONFIG, E_RANGE. */
fw_status arguments_count(const char *name, const char *text, double least, double most,
                          uint64_t otherwise, uint64_t *value, fw_error *error);

/* Print "fairway: MESSAGE" to standard error; returns the exit code for the status: 2 for bad
 * input, 1 for failures of the machine (memory, device) and of ours. */
int report_failure(fw_status status, const fw_error *error);

#endif
