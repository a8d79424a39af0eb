/* The kinds of recorded cases. A new kind is a line in the table of golden.c and a function pair:
 * whether a folder holds such a case, and running it.
 *
 * run() adds a line to `verdicts` for each quantity that it compares, and takes every array that
 * belongs to its kind (folder_take), since an array that no case has taken is an error. It returns
 * an error, naming what, when the case cannot be run: never quietly less than all of it. */
#ifndef GOLDEN_CASES_H
#define GOLDEN_CASES_H

#include "arguments.h"
#include "folder.h"
#include "verdict.h"

struct case_options {
    const char *device;          /* "cpu", "cuda" or a module's path */
    struct arguments *arguments; /* plugin directories and --set */
};

struct case_kind {
    const char *name, *what;
    bool (*recognise)(const struct folder *folder);
    fw_status (*run)(struct folder *folder, const struct case_options *options,
                     struct verdicts *verdicts, fw_error *error);
};

extern const struct case_kind case_model, case_quantize, case_newton_schulz, case_eval;

#endif
